//! Reads InvokeAI's list of models.

use std::sync::Arc;

use serde_json::{Value, json};
use wire::openai::images::ImageSize;

use crate::images::{
    graph_set::GraphCatalog,
    models::{
        Completion, DetectedFamily, EngineLora, EngineModel, Evidence, ModelKind, ModelSettings,
        ModelVariant, Runner, Submodel, family_named, variant_from_name,
    },
};

/// The names that its nodes take as `scheduler` (6.14.2).
pub(super) const SCHEDULERS: &[&str] = &[
    "ddim",
    "ddpm",
    "deis",
    "deis_k",
    "lms",
    "lms_k",
    "pndm",
    "heun",
    "heun_k",
    "euler",
    "euler_k",
    "euler_a",
    "kdpm_2",
    "kdpm_2_k",
    "kdpm_2_a",
    "kdpm_2_a_k",
    "dpmpp_2s",
    "dpmpp_2s_k",
    "dpmpp_2m",
    "dpmpp_2m_k",
    "dpmpp_2m_sde",
    "dpmpp_2m_sde_k",
    "dpmpp_3m",
    "dpmpp_3m_k",
    "dpmpp_sde",
    "dpmpp_sde_k",
    "er_sde",
    "unipc",
    "unipc_k",
    "lcm",
    "tcd",
];

/// Its names of variants that are not text-to-image.
const VARIANTS: [(&str, ModelVariant); 5] = [
    ("inpaint", ModelVariant::Inpaint),
    ("dev_fill", ModelVariant::Inpaint),
    ("edit", ModelVariant::Edit),
    ("depth", ModelVariant::Other),
    ("i2v_a14b", ModelVariant::Other),
];

/// A model's kind as the engine reports it. It omits the variant of some families (FLUX Kontext), which the name has.
fn kind(base: &str, variant: Option<&str>, name: &str) -> ModelKind {
    // InvokeAI's names of bases are our names of families.
    let name_of_family = if base == "sdxl-refiner" { "sdxl" } else { base };
    let family = match family_named(name_of_family).filter(|family| family.name == name_of_family) {
        Some(family) => DetectedFamily::Known(family),
        None if matches!(base, "unknown" | "any" | "") => DetectedFamily::Unknown,
        None => DetectedFamily::Unlisted(
            base.chars().filter(|character| !character.is_control()).take(80).collect(),
        ),
    };
    let reported = VARIANTS.iter().find(|(word, _)| Some(*word) == variant).map(|(_, variant)| *variant);
    let variant = match base {
        "sdxl-refiner" => ModelVariant::Refiner,
        "sd-1" | "sd-2" | "sdxl" => reported.unwrap_or(ModelVariant::Main),
        _ => reported.or_else(|| variant_from_name(name)).unwrap_or(ModelVariant::Main),
    };
    ModelKind { family, variant, evidence: Evidence::Engine }
}

/// What InvokeAI has.
#[derive(Debug, Clone)]
pub(super) struct InstalledModels {
    /// Main models.
    pub(super) main: Arc<[EngineModel]>,
    pub(super) loras: Arc<[EngineLora]>,
}

impl InstalledModels {
    /// Reads the list of all models.
    pub(super) fn read(listed: &[Value], catalog: &'static GraphCatalog) -> Self {
        let submodels = listed.iter().filter_map(submodel).collect();
        let completion = Arc::new(Completion { catalog, submodels });
        let of_type =
            |model_type: &'static str| listed.iter().filter(move |model| model["type"] == model_type);
        Self {
            main: of_type("main").filter_map(|listed| model(listed, &completion)).collect(),
            loras: of_type("lora").filter_map(lora).collect(),
        }
    }
}

/// The five fields that loader nodes require.
fn handle(model: &Value) -> Option<Value> {
    let text = |name: &str| model.get(name).and_then(Value::as_str);
    Some(json!({"key": text("key")?, "hash": text("hash")?, "name": text("name")?, "base": text("base")?,
        "type": text("type")?}))
}

fn submodel(model: &Value) -> Option<Submodel> {
    let text = |name: &str| model.get(name).and_then(Value::as_str);
    Some(Submodel {
        model_type: text("type")?.to_owned(),
        base: text("base")?.to_owned(),
        variant: text("variant").map(str::to_owned),
        format: text("format").map(str::to_owned),
        handle: handle(model)?,
    })
}

fn lora(model: &Value) -> Option<EngineLora> {
    let text = |name: &str| model.get(name).and_then(Value::as_str).map(str::to_owned);
    Some(EngineLora {
        key: text("key")?,
        name: text("name")?,
        family: text("base"),
        variant: text("variant"),
        handle: handle(model)?,
    })
}

fn model(model: &Value, completion: &Arc<Completion>) -> Option<EngineModel> {
    let text = |name: &str| model.get(name).and_then(Value::as_str);
    let mut read = EngineModel {
        key: text("key")?.to_owned(),
        name: text("name")?.to_owned(),
        kind: kind(text("base")?, text("variant"), text("name")?),
        variant: text("variant").map(str::to_owned),
        format: text("format").map(str::to_owned),
        handle: handle(model)?,
        runner: Runner::None,
        is_listed: true,
        settings: settings(model),
        completion: Some(completion.clone()),
    };
    read.runner = completion.runner(&read);
    Some(read)
}

fn settings(model: &Value) -> ModelSettings {
    let setting = |name: &str| model.get("default_settings").and_then(|settings| settings.get(name));
    let integer =
        |name: &str| setting(name).and_then(Value::as_u64).and_then(|integer| u32::try_from(integer).ok());
    // For these models guidance is an input, and their `cfg_scale` is always 1.
    let is_guided = model["base"] == "flux" || (model["base"] == "flux2" && model["variant"] == "dev");
    let cfg_scale = if is_guided { "guidance" } else { "cfg_scale" };
    ModelSettings {
        size: integer("width")
            .zip(integer("height"))
            .map(|(width, height)| ImageSize::new(width / 8 * 8, height / 8 * 8)),
        steps: integer("steps").filter(|steps| *steps > 0),
        cfg_scale: setting(cfg_scale).and_then(Value::as_f64).filter(|scale| *scale >= 1.0),
        scheduler: setting("scheduler").and_then(Value::as_str).map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::invokeai::graphs;

    fn read(listed: &Value) -> Option<EngineModel> {
        InstalledModels::read(std::slice::from_ref(listed), graphs::catalog()).main.first().cloned()
    }

    fn main(base: &str, variant: &Value) -> Value {
        json!({"key": "k", "hash": "h", "name": "Dream", "base": base, "type": "main", "variant": variant,
            "default_settings": {"width": 515, "height": 512, "steps": 12, "cfg_scale": null, "scheduler": "ddim"}})
    }

    #[test]
    fn models_have_their_own_settings() {
        let model = read(&main("sd-1", &Value::Null)).unwrap();
        let settings = &model.settings;
        assert_eq!(settings.size, Some(ImageSize::new(512, 512)));
        assert_eq!(
            (settings.steps, settings.cfg_scale, settings.scheduler.as_deref()),
            (Some(12), None, Some("ddim"))
        );
        assert_eq!(
            model.handle,
            json!({"key": "k", "hash": "h", "name": "Dream", "base": "sd-1", "type": "main"})
        );
        assert_eq!(
            read(&json!({"key": "k", "base": "sd-1", "type": "main"})),
            None,
            "no loader could take it"
        );
    }

    #[test]
    fn guidance_is_where_the_model_has_it() {
        for (base, variant, expected) in [
            ("flux2", "dev", 3.5),
            ("flux", "dev", 3.5),
            ("flux2", "klein_4b", 1.0),
            ("z-image", "turbo", 1.0),
        ] {
            let mut listed = main(base, &json!(variant));
            listed["default_settings"] = json!({"cfg_scale": 1.0, "guidance": 3.5});
            assert_eq!(read(&listed).unwrap().settings.cfg_scale, Some(expected), "{base} {variant}");
        }
    }

    #[test]
    fn a_models_kind_comes_from_the_engine() {
        for (base, variant, expected) in [
            ("sd-1", json!("normal"), "SD 1.5"),
            ("sd-1", json!("inpaint"), "SD 1.5 inpainting"),
            ("sdxl", Value::Null, "SDXL"),
            ("sdxl", json!("depth"), "SDXL, not a text-to-image model"),
            ("sdxl-refiner", Value::Null, "SDXL refiner"),
            ("sd-2", json!("normal"), "SD 2"),
            ("flux", json!("schnell"), "FLUX.1"),
            ("flux", json!("dev_fill"), "FLUX.1 inpainting"),
            ("flux2", json!("klein_4b"), "FLUX.2"),
            ("z-image", json!("turbo"), "Z-Image"),
            ("qwen-image", json!("edit"), "Qwen-Image edit"),
            ("qwen-image", json!("generate"), "Qwen-Image"),
            ("krea-2", json!("krea2_turbo"), "Krea 2"),
            ("sd-3", Value::Null, "SD 3"),
            ("external", Value::Null, "\"external\""),
            ("unknown", Value::Null, "of unknown kind"),
        ] {
            let kind = read(&main(base, &variant)).unwrap().kind;
            assert_eq!(kind.to_string(), expected, "{base} {variant}");
        }
        assert_eq!(kind("flux", Some("dev"), "FLUX.1 Kontext dev").to_string(), "FLUX.1 edit");
        assert_eq!(kind("sd-1", Some("normal"), "my edit").to_string(), "SD 1.5", "the engine tells these");
    }
}
