//! What a template is given, what it keeps of its own, and what is named as left out.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};
use wire::openai::fields::Fields;

use super::*;
use crate::{
    config::EngineKind,
    engine::comfyui,
    images::{
        Job, REQUEST_FIELDS, SourceImages,
        choice::ModelChoice,
        models::{EngineModel, Evidence, ModelKind, SD_1},
        template::{TemplateFile, TemplateTasks},
        tests::model_of_kind,
    },
};

const LIMITS: Limits = Limits {
    max_n: 4,
    max_pixels: 2_000_000,
    max_seed: u32::MAX as u64,
    schedulers: EngineKind::InvokeAi.schedulers(),
};
const EVERYTHING: &str = "negative_prompt: [a.no], width: [a.width], height: [a.height], steps: [a.steps], \
    cfg_scale: [a.cfg], scheduler: [a.sampler], model: [a.model]";

fn request(json: &Value) -> ImageRequest {
    ImageRequest::read(&Fields::parse(json.to_string().as_bytes(), REQUEST_FIELDS).unwrap(), LIMITS).unwrap()
}

/// A preset with one template, which binds this besides prompt and seed.
fn choice(task: Task, bound: &str, size: &str, preset: Preset) -> ModelChoice {
    let inputs = json!({"text": "", "seed": 0, "no": "blurry", "width": 896, "height": 1152, "steps": 8, "cfg": 1.0,
        "sampler": "euler", "model": "own", "image": "", "mask": "", "denoise": 0.5});
    let graph = json!({"a": {"class_type": "x", "inputs": inputs}}).to_string();
    let image = match task {
        Task::Generate => "",
        Task::Edit => "image: [a.image],",
        Task::Inpaint => "image: [a.image], mask: [a.mask],",
    };
    let yaml = format!("output: a\n{size}\nbindings: {{prompt: [a.text], seed: [a.seed], {image} {bound}}}");
    let template = Template::read(comfyui::GRAPH_FORMAT, &graph, &yaml).unwrap();
    template.check_task(task).unwrap();
    let templates = BTreeMap::from([(task, Arc::new(template))]);
    let model = preset.model.as_ref().map(|name| EngineModel {
        settings: ModelSettings {
            size: Some(ImageSize::new(512, 512)),
            steps: Some(20),
            cfg_scale: Some(7.0),
            scheduler: Some("ddim".into()),
        },
        ..model_of_kind(name, name, ModelKind::main(&SD_1, Evidence::Engine))
    });
    let preset = Some(Arc::new(Preset { templates, ..preset }));
    ModelChoice { name: "p".into(), model, preset, loras: Arc::default() }
}

#[test]
fn what_an_edit_has_no_input_for_is_named() {
    let graph = json!({"a": {"class_type": "x", "inputs": {"image": ""}}}).to_string();
    let yaml = "output: a\nwithout: [prompt, seed]\nbindings: {image: [a.image]}";
    let template = Template::read(comfyui::GRAPH_FORMAT, &graph, yaml).unwrap();
    template.check_task(Task::Edit).unwrap();
    let capabilities = crate::images::capabilities::TaskCapabilities::of_template(Task::Edit, &template);
    assert_eq!(capabilities.parameters, [""; 0]);
    let templates = BTreeMap::from([(Task::Edit, Arc::new(template))]);
    let preset = Some(Arc::new(Preset { templates, ..Preset::default() }));
    let choice = ModelChoice { name: "p".into(), model: None, preset, loras: Arc::default() };
    for (body, ignored) in [
        (json!({"prompt": "larger", "n": 2}), vec!["prompt"]),
        (json!({"prompt": "larger", "n": 2, "seed": 5}), vec!["prompt", "seed"]),
    ] {
        let request = request(&body);
        let plan =
            EditPlan::new(&request, &choice, (1, false), ImageSize::new(64, 64), 4096, |size, _, _| size);
        let job = Job::plan(&request, choice.clone(), Some(plan), 7, LIMITS).unwrap();
        assert_eq!((job.ignored.clone(), job.seeds.len()), (ignored, 2));
        assert_eq!(job.settings(7, None).get("seed"), None, "none had an effect");
    }
}

fn generate(body: &Value, bound: &str, size: &str, preset: Preset) -> Result<Job, FieldError> {
    Job::plan(&request(body), choice(Task::Generate, bound, size, preset), None, 7, LIMITS)
}

#[test]
fn missing_values_are_left_to_the_workflow() {
    for model in [None, Some("m".to_owned())] {
        let preset = Preset { model, ..Preset::default() };
        let job = generate(&json!({"prompt": "a"}), EVERYTHING, "", preset).unwrap();
        assert_eq!(
            (job.size, job.steps, job.cfg_scale),
            (None, None, None),
            "the model's own settings do not count"
        );
        assert_eq!((job.scheduler, job.negative_prompt.as_deref(), job.strength), (None, None, None));
        assert_eq!((job.seeds, job.ignored), (vec![7], vec![]));
    }
    let job = generate(&json!({"prompt": "a"}), EVERYTHING, "", Preset::default()).unwrap();
    assert_eq!(job.expected_size(), Some(ImageSize::new(896, 1152)));
}

#[test]
fn values_of_request_and_preset_are_set() {
    let preset = || Preset {
        size: Some(ImageSize::new(640, 640)),
        steps: Some(6),
        cfg_scale: Some(2.0),
        scheduler: Some("lcm".into()),
        ..Preset::default()
    };
    let job = generate(&json!({"prompt": "a"}), EVERYTHING, "", preset()).unwrap();
    assert_eq!((job.size, job.steps, job.cfg_scale), (Some(ImageSize::new(640, 640)), Some(6), Some(2.0)));
    assert_eq!((job.scheduler.as_deref(), job.negative_prompt), (Some("lcm"), None));
    let body = json!({"prompt": "a", "size": "64x128", "steps": 9, "cfg_scale": 3, "scheduler": "ddim", "negative": "dogs"});
    let job = generate(&body, EVERYTHING, "", preset()).unwrap();
    assert_eq!((job.size, job.steps, job.cfg_scale), (Some(ImageSize::new(64, 128)), Some(9), Some(3.0)));
    assert_eq!((job.scheduler.as_deref(), job.negative_prompt.as_deref()), (Some("ddim"), Some("dogs")));
    assert_eq!(job.ignored, [""; 0]);
}

#[test]
fn quality_scales_known_steps() {
    let steps = |body: Value, bound: &str, preset: Option<u32>| {
        let job = generate(&body, bound, "", Preset { steps: preset, ..Preset::default() }).unwrap();
        (job.steps, job.ignored)
    };
    let high = || json!({"prompt": "a", "quality": "high"});
    assert_eq!(steps(high(), "steps: [a.steps]", None), (Some(12), vec![]), "of the workflow's own 8");
    assert_eq!(steps(high(), "steps: [a.steps]", Some(4)), (Some(6), vec![]));
    assert_eq!(steps(json!({"prompt": "a", "quality": "low"}), "steps: [a.steps]", None), (Some(4), vec![]));
    assert_eq!(steps(high(), "steps: [a.no]", None), (None, vec!["quality"]), "no number");
    assert_eq!(steps(high(), "", None), (None, vec!["quality"]));
    assert_eq!(steps(json!({"prompt": "a", "quality": "medium"}), "", None), (None, vec![]));
    let both = json!({"prompt": "a", "quality": "high", "steps": 3});
    assert_eq!(steps(both, "steps: [a.steps]", None), (Some(3), vec![]), "steps wins");
}

#[test]
fn unbound_values_are_ignored_and_listed_by_their_names_in_the_request() {
    let body = json!({"prompt": "a", "num_inference_steps": 9, "guidance_scale": 3, "sampler": "ddim", "negative": "dogs",
        "strength": 0.5});
    let job = generate(&body, "", "", Preset::default()).unwrap();
    assert_eq!(job.ignored, ["num_inference_steps", "guidance_scale", "negative", "sampler", "strength"]);
    assert_eq!((job.steps, job.cfg_scale, job.scheduler, job.negative_prompt), (None, None, None, None));
}

#[test]
fn an_unbound_size_is_rejected_unless_the_template_ignores_it() {
    let body = json!({"prompt": "a", "size": "768x512"});
    let error = generate(&body, "", "", Preset::default()).unwrap_err();
    assert_eq!(error.param.as_deref(), Some("size"));
    assert!(error.message.contains("takes no size") && error.message.contains("size: ignore"), "{error}");
    let job = generate(&body, "", "size: ignore", Preset::default()).unwrap();
    assert_eq!((job.size, job.expected_size(), job.ignored), (None, None, vec!["size"]));
    for open in [json!({"prompt": "a"}), json!({"prompt": "a", "size": "auto"})] {
        let job = generate(&open, "", "", Preset::default()).unwrap();
        assert_eq!((job.size, job.ignored), (None, vec![]));
    }
}

#[test]
fn an_edit_has_the_size_of_its_source_unscaled_if_the_template_takes_no_size() {
    let (source_size, to_make) = (ImageSize::new(101, 77), ImageSize::new(96, 72));
    let edit = |body: Value, bound: &str, size: &str| {
        let (request, choice) = (request(&body), choice(Task::Edit, bound, size, Preset::default()));
        let canvas = EditPlan::new(&request, &choice, (1, false), source_size, 1 << 20, |_, _, _| to_make);
        let job = Job::plan(&request, choice, Some(canvas), 7, LIMITS)?;
        Ok::<_, FieldError>((canvas.size.unwrap(), job.size, job.strength, job.ignored))
    };
    let sides = "width: [a.width], height: [a.height], strength: [a.denoise]";
    let open = json!({"prompt": "a"});
    assert_eq!(edit(open.clone(), sides, ""), Ok((to_make, Some(to_make), None, vec![])), "its own denoise");
    assert_eq!(edit(open, "", ""), Ok((source_size, Some(source_size), None, vec![])));
    let body = json!({"prompt": "a", "size": "128x64", "strength": 0.25});
    let size = ImageSize::new(128, 64);
    assert_eq!(edit(body.clone(), sides, ""), Ok((size, Some(size), Some(0.25), vec![])));
    assert_eq!(edit(body.clone(), "", "").unwrap_err().param.as_deref(), Some("size"));
    assert_eq!(
        edit(body, "", "size: ignore"),
        Ok((source_size, Some(source_size), None, vec!["size", "strength"]))
    );
}

#[test]
fn a_preset_supports_the_tasks_of_its_templates() {
    let open = request(&json!({"prompt": "a", "size": "64x64"}));
    let inpaint = |model: Option<&str>| {
        choice(
            Task::Inpaint,
            "",
            "size: ignore",
            Preset { model: model.map(str::to_owned), ..Preset::default() },
        )
    };
    let error = Job::plan(&open, inpaint(None), None, 7, LIMITS).unwrap_err();
    assert!(error.message.ends_with("has no template for generate."), "{error}");
    let built_in = Job::plan(&open, inpaint(Some("m")), None, 7, LIMITS).unwrap().template.unwrap();
    assert!(built_in.binds(Binding::CfgScale), "the model's own graph");
    let size = ImageSize::new(64, 64);
    // The image's own transparency may be a mask, which is known when it is decoded.
    let canvas = EditPlan::new(&open, &inpaint(None), (1, false), size, 1 << 20, |size, _, _| size);
    let planned = || Job::plan(&open, inpaint(None), Some(canvas), 7, LIMITS).unwrap();
    let source = |mask: bool| SourceImages { images: vec!["p".into()], mask: mask.then(|| "m".into()) };
    let decoded = |mask| planned().with_source(source(mask), &open, &inpaint(None), canvas, LIMITS);
    assert_eq!(decoded(true).unwrap().task, Task::Inpaint);
    assert!(decoded(false).unwrap_err().message.ends_with("has no template for edit."));
}

#[test]
fn transparency_is_no_mask_if_the_preset_cannot_inpaint() {
    let open = request(&json!({"prompt": "a"}));
    let edit = choice(Task::Edit, "", "size: ignore", Preset::default());
    let size = ImageSize::new(64, 64);
    let canvas = |masked| EditPlan::new(&open, &edit, (1, masked), size, 1 << 20, |size, _, _| size);
    let planned = Job::plan(&open, edit.clone(), Some(canvas(false)), 7, LIMITS).unwrap();
    let source = SourceImages { images: vec!["p".into()], mask: Some("m".into()) };
    let job = planned.with_source(source, &open, &edit, canvas(false), LIMITS).unwrap();
    assert_eq!((job.task, &job.source.unwrap().mask), (Task::Edit, &None));
    let sent = Job::plan(&open, edit.clone(), Some(canvas(true)), 7, LIMITS).unwrap_err();
    assert!(sent.message.ends_with("has no template for inpaint."), "{sent}");
}

#[test]
fn strength_without_a_source_is_listed_as_ignored_for_built_in_graphs_too() {
    let model = Some(EngineModel::in_process("k", "n", &SD_1));
    let built_in = ModelChoice { name: "n".into(), model, preset: None, loras: Arc::default() };
    let job =
        Job::plan(&request(&json!({"prompt": "a", "strength": 0.5})), built_in, None, 7, LIMITS).unwrap();
    assert_eq!(job.ignored, ["strength"]);
}

#[test]
fn a_presets_size_is_a_multiple_of_what_the_family_takes() {
    let preset = |side| Preset { size: Some(ImageSize::new(side, side)), ..Preset::default() };
    let open = json!({"prompt": "a"});
    assert!(generate(&open, EVERYTHING, "multiple: 16", preset(640)).is_ok());
    let error = generate(&open, EVERYTHING, "multiple: 16", preset(648)).unwrap_err();
    assert!(error.message.contains("must be multiples of 16 for \"p\", such as 640x640"), "{error}");
}

#[test]
fn the_transparency_of_a_reference_is_no_mask() {
    let graph = r#"{
        "source": {"class_type": "LoadImage", "inputs": {"image": ""}},
        "kept": {"class_type": "LoadImageMask", "inputs": {"image": ""}},
        "a": {"class_type": "x", "inputs": {"text": "", "seed": 0, "image_1": ["source", 0], "mask": ["kept", 0]}}}"#;
    let plan = |edit: &str| {
        let yaml = format!(
            "output: a\nbindings: {{prompt: [a.text], seed: [a.seed], image: [source.image], mask: [kept.image]}}\n\
             repeat: {{images: {{nodes: [source], inputs: ['a.image_{{1..4}}']}}}}\n\
             tasks: {{edit: {edit}, inpaint: {{size: image}}}}"
        );
        let file = TemplateFile::read(comfyui::GRAPH_FORMAT, graph, &yaml).unwrap();
        let TemplateTasks::Declared(templates) = file.tasks else { unreachable!("tasks are declared") };
        let templates = templates.into_iter().map(|(task, template)| (task, Arc::new(template))).collect();
        let preset = Some(Arc::new(Preset { templates, ..Preset::default() }));
        let choice = ModelChoice { name: "p".into(), model: None, preset, loras: Arc::default() };
        let request = request(&json!({"prompt": "a"}));
        EditPlan::new(&request, &choice, (1, false), ImageSize::new(64, 64), 1 << 20, |size, _, _| size)
    };
    assert!(!plan("{}").takes_transparency, "it is a reference");
    assert!(plan("{size: image}").takes_transparency, "the result starts from it");
}
