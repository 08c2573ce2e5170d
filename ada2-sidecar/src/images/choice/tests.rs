//! Which model a name selects.

use std::collections::BTreeMap;

use super::*;
use crate::{
    engine::comfyui,
    images::{
        models::{Evidence, Family, ModelKind, ModelVariant, family_named},
        template::Template,
        tests::model_of_kind,
    },
};

fn models() -> Vec<EngineModel> {
    vec![
        EngineModel::in_process("k1", "Juggernaut XL", &SDXL),
        EngineModel::in_process("k2", "Dreamshaper 8", &SD_1),
        EngineModel::in_process("k3", "stable-diffusion-xl-base-1-0", &SDXL),
    ]
}

#[test]
fn names_and_aliases_resolve() {
    let models = models();
    let key = |requested, default| {
        resolve(&models, &[], requested, default, Task::Generate).map(|choice| choice.model.unwrap().key)
    };
    for (requested, default, expected) in [
        (Some("k2"), None, "k2"),
        (Some("juggernaut xl"), None, "k1"),
        (Some("sd-xl-base-1.0"), None, "k3"),
        (Some("SD-V1-5"), None, "k2"),
        (Some("gpt-image-1"), None, "k1"),
        (Some("dall-e-3"), Some("k2"), "k2"),
        (Some("chatgpt-image-latest"), Some("dreamshaper 8"), "k2"),
        (None, Some("sd-v1-5"), "k2"),
        (None, None, "k1"),
    ] {
        assert_eq!(key(requested, default), Ok(expected.to_owned()), "{requested:?} {default:?}");
    }
}

#[test]
fn base_is_a_token_and_adapters_are_never_chosen() {
    let file = |name: &str| model_of_kind(name, name, crate::images::models::classify_checkpoint(None, name));
    let resolved = |names: &[&str], requested| {
        let models: Vec<_> = names.iter().map(|name| file(name)).collect();
        resolve(&models, &[], requested, None, Task::Generate).map(|choice| choice.name)
    };
    let files =
        ["a_sdxl_lora", "juggernautXL", "baseballXL", "sd_xl_base_1.0", "sd_xl_offset_example-lora_1.0"];
    assert_eq!(resolved(&files, Some("sd-xl-base-1.0")).as_deref(), Ok("sd_xl_base_1.0"));
    assert_eq!(resolved(&files[..3], Some("sd-xl-base-1.0")).as_deref(), Ok("juggernautXL"));
    assert_eq!(resolved(&files, None).as_deref(), Ok("juggernautXL"));
    assert!(
        resolved(&["control-lora-sdxl", "ip-adapter_sdxl", "SDXL-Outpaint", "sdxl-depth"], None).is_err()
    );
}

#[test]
fn an_unknown_model_is_rejected_with_the_known_ones() {
    let models = models();
    let error = resolve(&models, &[], Some("flux"), None, Task::Generate).unwrap_err();
    assert_eq!(
        error.to_string(),
        "The model \"flux\" does not exist. Available: Juggernaut XL, Dreamshaper 8, \
         stable-diffusion-xl-base-1-0, sd-xl-base-1.0, sd-v1-5."
    );
    assert!(
        resolve(&models, &[], None, Some("gone"), Task::Generate).is_err(),
        "a default that is gone is never replaced silently"
    );
    assert!(resolve(&[], &[], Some("gpt-image-1"), None, Task::Generate).is_err());
    let only_xl = &models[..1];
    assert!(
        resolve(only_xl, &[], Some("sd-v1-5"), None, Task::Generate).is_err(),
        "never another kind of model"
    );
    assert_eq!(names(only_xl, &[]), ["Juggernaut XL", "sd-xl-base-1.0"]);
}

#[test]
fn a_preset_is_a_name_for_a_model_and_its_settings() {
    let models = models();
    let preset = |name: &str, model: Option<&str>| {
        Arc::new(Preset { name: name.into(), model: model.map(str::to_owned), ..Preset::default() })
    };
    let presets = [
        preset("gpu_fast", Some("dreamshaper 8")),
        preset("gpt-image-1", Some("k3")),
        preset("lost", Some("gone")),
    ];
    let key = |requested| {
        resolve(&models, &presets, Some(requested), None, Task::Generate)
            .map(|choice| choice.model.unwrap().key)
    };
    assert_eq!(key("GPU_FAST"), Ok("k2".to_owned()));
    assert_eq!(key("gpt-image-1"), Ok("k3".to_owned()), "an OpenAI name can be a preset");
    assert_eq!(key("dall-e-3"), Ok("k1".to_owned()));
    assert!(key("lost").unwrap_err().to_string().starts_with("The model \"gone\" does not exist"));
    let names = names(&models, &presets);
    assert_eq!(names[..2], ["gpu_fast", "gpt-image-1"], "a preset without its model is not offered");
    assert_eq!(resolve(&models, &presets, None, Some("gpu_fast"), Task::Generate).unwrap().name, "gpu_fast");
}

fn of_kind(name: &str, family: &'static Family, variant: ModelVariant) -> EngineModel {
    let kind = ModelKind { variant, ..ModelKind::main(family, Evidence::Name) };
    model_of_kind(&format!("{name}.safetensors"), name, kind)
}

fn unknown(name: &str) -> EngineModel {
    model_of_kind(&format!("{name}.safetensors"), name, ModelKind::unknown(ModelVariant::Main))
}

fn family(name: &str) -> &'static Family {
    family_named(name).unwrap()
}

/// A preset with a template for new images.
fn with_graph(name: &str, model: Option<&str>) -> Arc<Preset> {
    let graph = r#"{"1":{"class_type":"A","inputs":{"text":"","seed":0}},"2":{"class_type":"SaveImage","inputs":{"images":["1",0]}}}"#;
    let bindings = "output: '2'\nbindings: {prompt: ['1.text'], seed: ['1.seed']}";
    let template = Arc::new(Template::read(comfyui::GRAPH_FORMAT, graph, bindings).unwrap());
    let templates = BTreeMap::from([(Task::Generate, template)]);
    Arc::new(Preset { name: name.into(), model: model.map(str::to_owned), templates, ..Preset::default() })
}

fn name_of(
    models: &[EngineModel],
    presets: &[Arc<Preset>],
    requested: Option<&str>,
) -> Result<String, ModelChoiceError> {
    resolve(models, presets, requested, None, Task::Generate).map(|choice| choice.name)
}

#[test]
fn only_text_to_image_models_are_chosen_without_being_named() {
    let (sd, xl) = (family("sd-1"), family("sdxl"));
    let models = [
        of_kind("base-inpainting", sd, ModelVariant::Inpaint),
        of_kind("flux1-dev", family("flux"), ModelVariant::Main),
        unknown("aaa-base"),
        of_kind("sd_xl_refiner_base", xl, ModelVariant::Refiner),
        of_kind("cosxl_edit_base", xl, ModelVariant::Edit),
        of_kind("juggernautXL", xl, ModelVariant::Main),
        of_kind("dreamshaper", sd, ModelVariant::Main),
    ];
    for (requested, expected) in [
        (None, "juggernautXL"),
        (Some("gpt-image-1"), "juggernautXL"),
        (Some("sd-xl-base-1.0"), "juggernautXL"),
        (Some("sd-v1-5"), "dreamshaper"),
        (Some("base-inpainting"), "base-inpainting"),
    ] {
        assert_eq!(name_of(&models, &[], requested), Ok(expected.to_owned()), "{requested:?}");
    }
    let plain = Arc::new(Preset { name: "plain".into(), ..Preset::default() });
    let choice = resolve(&models, &[plain], Some("plain"), None, Task::Generate).unwrap();
    assert_eq!(choice.model.unwrap().name, "juggernautXL");
    assert_eq!(
        names(&models, &[]),
        ["base-inpainting", "juggernautXL", "dreamshaper", "sd-xl-base-1.0", "sd-v1-5"],
        "all usable names, and no others"
    );
    let error = name_of(&models[..1], &[], Some("sd-v1-5")).unwrap_err();
    assert!(error.is_not_found());
    assert_eq!(
        error.to_string(),
        "The model \"sd-v1-5\" does not exist: the name stands for the engine's SD 1.5 text-to-image model, and it has none. \
         Available: base-inpainting."
    );
}

#[test]
fn an_unusable_model_is_not_reported_as_missing() {
    let models = [
        of_kind("flux1-dev", family("flux"), ModelVariant::Main),
        of_kind("sd_xl_refiner", family("sdxl"), ModelVariant::Refiner),
        unknown("dreamshaper_8"),
    ];
    for (requested, expected) in [
        (
            "flux1-dev",
            "exists, but its kind (FLUX.1) has no built-in graph: it needs a graph of its own, named by a preset",
        ),
        ("FLUX1-dev.safetensors", "(presets: {NAME: {model: \"flux1-dev\", template: FILE}})"),
        ("flux1-dev", "The kind was guessed from its name; if it is wrong, declare it"),
        ("sd_xl_refiner", "(SDXL refiner)"),
        ("dreamshaper_8", "its kind could not be detected from its file or name: declare it"),
        ("dreamshaper_8.safetensors", "(models: {\"dreamshaper_8\": {base: sd-1}}"),
    ] {
        let refused = name_of(&models, &[], Some(requested)).unwrap_err();
        assert!(!refused.is_not_found() && refused.to_string().contains(expected), "{requested}: {refused}");
    }
    assert!(name_of(&models, &[], Some("gone")).unwrap_err().is_not_found());
    let of_engine = model_of_kind("k", "flux1-dev", ModelKind::main(family("flux"), Evidence::Engine));
    let refused = name_of(&[of_engine], &[], Some("flux1-dev")).unwrap_err().to_string();
    assert!(!refused.contains("declare"), "{refused}");
}

#[test]
fn a_preset_with_a_template_runs_any_model_and_one_without_only_supported_ones() {
    let models = [of_kind("flux1-dev", family("flux"), ModelVariant::Main), unknown("odd")];
    let plain = |name: &str, model: &str| {
        Arc::new(Preset { name: name.into(), model: Some(model.into()), ..Preset::default() })
    };
    let presets = [
        with_graph("flux", Some("flux1-dev")),
        with_graph("odd-one", Some("odd")),
        with_graph("own", None),
        plain("bare", "flux1-dev"),
        plain("unsure", "odd"),
        with_graph("lost", Some("gone")),
    ];
    for name in ["flux", "odd-one", "own"] {
        assert_eq!(name_of(&models, &presets, Some(name)), Ok(name.to_owned()));
    }
    assert!(matches!(
        name_of(&models, &presets, Some("bare")),
        Err(ModelChoiceError::UnsupportedKind { .. })
    ));
    assert!(matches!(name_of(&models, &presets, Some("unsure")), Err(ModelChoiceError::UnknownKind { .. })));
    assert!(matches!(name_of(&models, &presets, Some("lost")), Err(ModelChoiceError::NotFound { .. })));
    assert_eq!(names(&models, &presets), ["flux", "odd-one", "own"]);
}

#[test]
fn a_single_preset_with_a_template_is_the_default_without_models_and_of_several_one_must_be_named() {
    let (one, two) = (with_graph("one", None), with_graph("two", None));
    let flux = [of_kind("flux1-dev", family("flux"), ModelVariant::Main)];
    for requested in [None, Some("dall-e-3")] {
        assert_eq!(name_of(&flux, std::slice::from_ref(&one), requested), Ok("one".to_owned()));
        let refused = name_of(&flux, &[one.clone(), two.clone()], requested).unwrap_err();
        assert!(!refused.is_not_found());
        assert!(refused.to_string().contains("Available: one, two."), "{refused}");
    }
    let presets = [one.clone(), two];
    assert_eq!(resolve(&flux, &presets, None, Some("two"), Task::Generate).unwrap().name, "two");
    let suitable = [of_kind("sdxl", family("sdxl"), ModelVariant::Main)];
    assert_eq!(name_of(&suitable, &[one], None), Ok("sdxl".to_owned()), "a model comes first");
    assert!(name_of(&flux, &[], None).unwrap_err().is_not_found());
}

#[test]
fn a_presets_family_is_never_replaced_by_a_relative() {
    let complete = of_kind("juggernaut", family("sdxl"), ModelVariant::Main);
    let runner =
        Runner::Incomplete { graphs: "sdxl-base".into(), lacks: "a VAE".into(), is_installed: false };
    let lacking = EngineModel { runner, ..of_kind("sdxl-base", family("sdxl"), ModelVariant::Main) };
    let models = [lacking, complete];
    let preset = |family: &str| {
        Arc::new(Preset { name: "p".into(), family: Some(family.into()), ..Preset::default() })
    };
    let chosen = |family: &str| {
        resolve(&models, &[preset(family)], Some("p"), None, Task::Generate)
            .map(|choice| choice.model.unwrap().name)
    };
    assert_eq!(chosen("sdxl"), Ok("juggernaut".to_owned()));
    assert!(matches!(chosen("SDXL-base"), Err(ModelChoiceError::Incomplete { .. })));
    assert!(matches!(chosen("flux"), Err(ModelChoiceError::NotFound { .. })));
}
