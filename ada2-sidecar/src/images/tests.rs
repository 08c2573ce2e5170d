//! Fields, ranges, and what is decided where they are silent.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use bytes::Bytes;
use picture::Format;
use serde_json::json;
use wire::openai::{
    fields::{FieldError, Fields},
    images::ImageSize,
};

use super::{
    parameters::{PARAMETERS, Parameter, Treatment},
    *,
};
use crate::{
    config::EngineKind,
    engine::comfyui,
    images::{
        choice::ModelChoice,
        graph_set::GraphCatalog,
        models::{Completion, EngineModel, Family, ModelKind, ModelSettings, Preset, SD_1, SDXL},
        template::Template,
    },
};

const LIMITS: Limits = Limits {
    max_n: 4,
    max_pixels: 4_194_304,
    max_seed: u32::MAX as u64,
    schedulers: EngineKind::InvokeAi.schedulers(),
};

fn read(json: &serde_json::Value) -> Result<ImageRequest, FieldError> {
    ImageRequest::read(&Fields::parse(json.to_string().as_bytes(), REQUEST_FIELDS).unwrap(), LIMITS)
}

/// ComfyUI's built-in graphs for checkpoints of SD 1.5 and SDXL alone.
fn sd_graphs() -> &'static GraphCatalog {
    static CATALOG: LazyLock<GraphCatalog> = LazyLock::new(|| {
        let files = [
            ("sd-1.json", include_str!("../engine/comfyui/graphs/sd-1.json")),
            ("sd-1.yaml", include_str!("../engine/comfyui/graphs/sd-1.yaml")),
            ("sdxl.json", include_str!("../engine/comfyui/graphs/sdxl.json")),
            ("sdxl.yaml", include_str!("../engine/comfyui/graphs/sdxl.yaml")),
        ];
        GraphCatalog::read(comfyui::GRAPH_FORMAT, &files).unwrap()
    });
    &CATALOG
}

/// A model of this kind, with what runs it in an engine that has graphs for SD 1.5 and SDXL.
pub(crate) fn model_of_kind(key: &str, name: &str, kind: ModelKind) -> EngineModel {
    let completion = Arc::new(Completion { catalog: sd_graphs(), submodels: Vec::new() });
    let model =
        EngineModel { kind, settings: ModelSettings::default(), ..EngineModel::in_process(key, name, &SD_1) };
    let runner = completion.runner(&model);
    EngineModel { runner, completion: Some(completion), ..model }
}

fn choice(family: &'static Family) -> ModelChoice {
    with(EngineModel::in_process("key", "name", family), None)
}

fn with(model: EngineModel, preset: Option<Preset>) -> ModelChoice {
    ModelChoice {
        name: model.name.clone(),
        model: Some(model),
        preset: preset.map(Arc::new),
        loras: Arc::default(),
    }
}

#[test]
fn invalid_values_name_the_field_and_the_range() {
    for (field, value, expected) in [
        ("n", json!(0), "from 1 to 4"),
        ("n", json!(5), "from 1 to 4"),
        ("n", json!("2"), "from 1 to 4"),
        ("size", json!("513x512"), "multiples of 8"),
        ("size", json!("8x8"), "at least 64"),
        ("size", json!("2048x2056"), "at most 4194304 pixels"),
        ("size", json!("big"), "WIDTHxHEIGHT"),
        ("size", json!(512), "must be a string"),
        ("seed", json!(-2), "from 0 to 4294967295, or -1 for a random one"),
        ("seed", json!(4_294_967_296_u64), "from 0 to 4294967295"),
        ("steps", json!(0), "from 1 to 150"),
        ("num_inference_steps", json!(151), "from 1 to 150"),
        ("cfg_scale", json!(0.5), "0 (none) or a number from 1 to 30"),
        ("cfg_scale", json!(-1), "from 1 to 30"),
        ("steps", json!(20.5), "from 1 to 150"),
        ("n", json!(1.5), "from 1 to 4"),
        ("guidance_scale", json!(31), "from 1 to 30"),
        ("strength", json!(1.5), "from 0 to 1"),
        ("scheduler", json!("magic"), "euler_a"),
        ("sampler", json!(1), "must be a string"),
        ("response_format", json!("file"), "b64_json, url"),
        ("quality", json!("ultra"), "low, medium"),
        ("background", json!("transparent"), "not possible"),
        ("output_format", json!("gif"), "use png"),
        ("output_format", json!("svg"), "use png"),
        ("output_format", json!("bmp"), "png, jpeg"),
        ("output_compression", json!(101), "from 0 to 100"),
        ("partial_images", json!(4), "from 0 to 3"),
        ("stream", json!("yes"), "true or false"),
        ("prompt", json!(["a"]), "must be a string"),
        ("prompt", json!(null), "is required"),
        ("prompt", json!(""), "is required"),
        ("prompt", json!(" \n"), "is required"),
        ("prompt", json!("x".repeat(32_001)), "at most 32000"),
    ] {
        let mut request = json!({"prompt": "a"});
        request[field] = value.clone();
        let error = read(&request).unwrap_err();
        assert_eq!(error.param.as_deref(), Some(field), "{field}={value}: {error}");
        assert!(error.message.contains(expected), "{field}={value}: {error}");
    }
    let error = read(&json!({"prompt": "a", "stream": true, "n": 2})).unwrap_err();
    assert_eq!(error.param.as_deref(), Some("n"));
}

#[test]
fn every_parameter_that_has_an_effect_is_read() {
    let works = |parameter: &&Parameter| parameter.treatment != Treatment::Ignored;
    let names = PARAMETERS.iter().filter(works).flat_map(|parameter| parameter.names.iter().copied());
    // Images are not fields.
    let names: Vec<_> = names.filter(|name| !["image", "image[]", "mask", "markup"].contains(name)).collect();
    for name in REQUEST_FIELDS {
        assert!(names.contains(name), "{name} is not in the table for people");
    }
    assert_eq!(names.len(), REQUEST_FIELDS.len(), "{names:?}");
}

#[test]
fn openai_fields_without_effect_are_ignored() {
    let request =
        read(&json!({"prompt": "a", "user": "u", "moderation": "low", "style": "vivid", "odd": [1],
        "stream": false, "background": "auto", "output_format": "png", "size": "auto", "partial_images": 2}))
        .unwrap();
    assert_eq!((request.n, request.size, request.response_format), (1, None, ResponseFormat::B64Json));
    assert_eq!((request.partial_images, request.output.format), (None, Format::Png));
}

#[test]
fn blank_fields_are_absent_and_whole_numbers_may_have_a_point() {
    let mut blank = json!({"prompt": "a"});
    for name in REQUEST_FIELDS.iter().filter(|name| **name != "prompt") {
        blank[*name] = json!("");
    }
    assert_eq!(read(&blank), read(&json!({"prompt": "a"})));
    let floats = json!({"prompt": "a", "n": 1.0, "steps": 20.0, "seed": 7.0, "partial_images": 2.0, "stream": true,
        "output_compression": 50.0});
    let integers = json!({"prompt": "a", "n": 1, "steps": 20, "seed": 7, "partial_images": 2, "stream": true,
        "output_compression": 50});
    assert_eq!(read(&floats), read(&integers));
    assert_eq!(read(&integers).unwrap().steps, Some(20));
}

#[test]
fn zero_guidance_is_1_and_seed_minus_1_is_none() {
    for none in [json!(0), json!(0.0), json!(1)] {
        for name in ["cfg_scale", "guidance_scale"] {
            let request = read(&json!({"prompt": "a", name: none})).unwrap();
            assert!(
                request.cfg_scale.is_some_and(|scale| (scale - 1.0).abs() < f64::EPSILON),
                "{name} {none}"
            );
        }
    }
    assert_eq!(read(&json!({"prompt": "a", "seed": -1})).unwrap().seed, None);
}

#[test]
fn a_seed_has_the_engines_width_and_wraps_there() {
    let limits = Limits { max_seed: EngineKind::ComfyUi.max_seed(), ..LIMITS };
    let body = br#"{"prompt":"a","n":3,"seed":18446744073709551614}"#;
    let request = ImageRequest::read(&Fields::parse(body, REQUEST_FIELDS).unwrap(), limits).unwrap();
    let job = Job::plan(&request, choice(&SDXL), None, 7, limits).unwrap();
    assert_eq!(job.seeds, [u64::MAX - 1, u64::MAX, 0]);
    for kind in [EngineKind::InvokeAi, EngineKind::Builtin] {
        assert_eq!(kind.max_seed(), u64::from(u32::MAX), "{kind:?}");
    }
}

#[test]
fn full_hd_is_allowed_by_default() {
    let size = |text: &str| read(&json!({"prompt": "a", "size": text})).map(|request| request.size);
    assert_eq!(size("1920x1080"), Ok(Some(ImageSize::new(1920, 1080))));
    assert_eq!(size("2048x2048"), Ok(Some(ImageSize::new(2048, 2048))));
}

#[test]
fn streams_and_formats() {
    let request = |more: serde_json::Value| {
        let mut request = json!({"prompt": "a"});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        read(&request).unwrap()
    };
    assert_eq!(request(json!({"stream": true})).partial_images, Some(0));
    assert_eq!(request(json!({"stream": true, "partial_images": 3})).partial_images, Some(3));
    let output = |format: &str, quality: u64| {
        request(json!({"output_format": format, "output_compression": quality})).output
    };
    assert_eq!(output("jpg", 0), Output { format: Format::Jpeg, quality: 0 });
    assert_eq!(output("webp", 55), Output { format: Format::Webp, quality: 55 });
    assert_eq!(request(json!({"output_format": "jpeg"})).output.quality, 90);
}

#[test]
fn missing_values_come_from_the_model() {
    let open = read(&json!({"prompt": "a", "quality": "hd", "n": 3, "seed": 4_294_967_295_u64})).unwrap();
    let job = Job::plan(&open, choice(&SDXL), None, 7, LIMITS).unwrap();
    assert_eq!((job.size, job.steps), (Some(ImageSize::new(1024, 1024)), Some(45)));
    assert_eq!((job.scheduler.as_deref(), job.negative_prompt.as_deref()), (Some("euler"), None));
    assert_eq!(job.seeds, [u32::MAX.into(), 0, 1], "seeds wrap as the engine's do");
    let model = EngineModel::in_process("key", "name", &SD_1);
    let settings =
        ModelSettings { size: Some(ImageSize::new(640, 512)), steps: Some(8), ..model.settings.clone() };
    let own = EngineModel { settings, ..model };
    let job = Job::plan(
        &read(&json!({"prompt": "a", "quality": "low"})).unwrap(),
        with(own, None),
        None,
        7,
        LIMITS,
    );
    let job = job.unwrap();
    assert_eq!((job.size, job.steps, job.seeds), (Some(ImageSize::new(640, 512)), Some(4), vec![7]));
}

#[test]
fn the_request_wins_over_the_preset_over_the_model() {
    let model = EngineModel::in_process("key", "name", &SD_1);
    let settings =
        ModelSettings { size: None, steps: Some(8), cfg_scale: Some(2.0), scheduler: Some("ddim".into()) };
    let own = EngineModel { settings, ..model };
    let preset = Preset {
        steps: Some(4),
        cfg_scale: Some(1.5),
        size: Some(ImageSize::new(768, 512)),
        ..Preset::default()
    };
    let open = read(&json!({"prompt": "a"})).unwrap();
    let job = Job::plan(&open, with(own.clone(), Some(preset.clone())), None, 7, LIMITS).unwrap();
    assert_eq!((job.steps, job.cfg_scale, job.scheduler.as_deref()), (Some(4), Some(1.5), Some("ddim")));
    assert_eq!(job.size, Some(ImageSize::new(768, 512)));
    let request =
        read(&json!({"prompt": "a", "negative": "b", "num_inference_steps": 9, "guidance_scale": 3,
        "sampler": "lcm", "size": "512x768", "quality": "hd", "seed": 5}))
        .unwrap();
    let job = Job::plan(&request, with(own, Some(preset)), None, 7, LIMITS).unwrap();
    assert_eq!((job.steps, job.scheduler.as_deref()), (Some(9), Some("lcm")));
    assert_eq!(job.negative_prompt.as_deref(), Some("b"));
    assert_eq!((job.size, job.seeds), (Some(ImageSize::new(512, 768)), vec![5]));
}

#[test]
fn the_models_own_size_is_bounded_too() {
    let request = read(&json!({"prompt": "a"})).unwrap();
    let limits = Limits { max_n: 1, max_pixels: 512 * 512, ..LIMITS };
    let error = Job::plan(&request, choice(&SDXL), None, 7, limits).unwrap_err();
    assert_eq!(error.param.as_deref(), Some("size"));
}

#[test]
fn an_edit_depends_on_its_image_and_a_preset_needs_a_template_for_it() {
    let request = read(&json!({"prompt": "a"})).unwrap();
    let source = |mask: Option<&'static [u8]>| SourceImages {
        images: vec![Bytes::from_static(b"p")],
        mask: mask.map(Bytes::from_static),
    };
    let planned = |choice: &ModelChoice, masked: bool| {
        let size = ImageSize::new(64, 64);
        let canvas = EditPlan::new(&request, choice, (1, masked), size, 1 << 20, |size, _, _| size);
        (Job::plan(&request, choice.clone(), Some(canvas), 7, LIMITS), canvas)
    };
    let plain = choice(&SD_1);
    let made = |masked: bool, mask| {
        let (job, canvas) = planned(&plain, masked);
        let job = job.unwrap().with_source(source(mask), &request, &plain, canvas, LIMITS).unwrap();
        (job.task, job.strength, job.seeds)
    };
    assert_eq!(made(false, None), (Task::Edit, Some(0.75), vec![7]));
    assert_eq!(made(true, Some(b"m")), (Task::Inpaint, Some(1.0), vec![7]));
    assert_eq!(made(false, Some(b"m")), (Task::Inpaint, Some(1.0), vec![7]), "the image's own transparency");

    let graph = r#"{"a":{"class_type":"x","inputs":{"text":"","seed":0}}}"#;
    let yaml = "output: a\nbindings: {prompt: [a.text], seed: [a.seed]}";
    let template = Arc::new(Template::read(comfyui::GRAPH_FORMAT, graph, yaml).unwrap());
    let templates = BTreeMap::from([(Task::Generate, template.clone())]);
    let preset = Preset { name: "mine".into(), templates, ..Preset::default() };
    let own = with(EngineModel::in_process("key", "name", &SD_1), Some(preset));
    let job = Job::plan(&request, own.clone(), None, 7, LIMITS).unwrap();
    assert_eq!((job.task, job.template), (Task::Generate, Some(template)));
    let error = planned(&own, false).0.unwrap_err();
    assert_eq!(error.message, "The preset \"mine\" has no template for edit.");
}
