//! Reads InvokeAI's list of models.

use std::sync::Arc;

use serde::{Deserialize, Deserializer};
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

/// An entry of the list of all models. What has another type than expected is missing.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ListedModel {
    #[serde(deserialize_with = "text")]
    key: Option<String>,
    #[serde(deserialize_with = "text")]
    hash: Option<String>,
    #[serde(deserialize_with = "text")]
    name: Option<String>,
    #[serde(deserialize_with = "text")]
    base: Option<String>,
    #[serde(rename = "type", deserialize_with = "text")]
    model_type: Option<String>,
    #[serde(deserialize_with = "text")]
    variant: Option<String>,
    #[serde(deserialize_with = "text")]
    format: Option<String>,
    default_settings: Value,
}

fn text<'de, D: Deserializer<'de>>(value: D) -> Result<Option<String>, D::Error> {
    let value = Value::deserialize(value)?;
    Ok(value.as_str().map(str::to_owned))
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
    pub(super) fn read(listed: &[ListedModel], catalog: &'static GraphCatalog) -> Self {
        let of_type = |model_type: &'static str| {
            listed.iter().filter(move |model| model.model_type.as_deref() == Some(model_type))
        };
        // There may be thousands of LoRAs, and no graph needs a certain one.
        let others = listed.iter().filter(|model| model.model_type.as_deref() != Some("lora"));
        let completion = Arc::new(Completion { catalog, submodels: others.filter_map(submodel).collect() });
        Self {
            main: of_type("main").filter_map(|listed| model(listed, &completion)).collect(),
            loras: of_type("lora").filter_map(lora).collect(),
        }
    }
}

/// The five fields that loader nodes require.
fn handle(model: &ListedModel) -> Option<Value> {
    let ListedModel { key, hash, name, base, model_type, .. } = model;
    Some(json!({"key": key.as_ref()?, "hash": hash.as_ref()?, "name": name.as_ref()?, "base": base.as_ref()?,
        "type": model_type.as_ref()?}))
}

fn submodel(model: &ListedModel) -> Option<Submodel> {
    Some(Submodel {
        model_type: model.model_type.clone()?,
        base: model.base.clone()?,
        variant: model.variant.clone(),
        format: model.format.clone(),
        handle: handle(model)?,
    })
}

fn lora(model: &ListedModel) -> Option<EngineLora> {
    Some(EngineLora {
        key: model.key.clone()?,
        name: model.name.clone()?,
        family: model.base.clone(),
        variant: model.variant.clone(),
        handle: handle(model)?,
    })
}

fn model(model: &ListedModel, completion: &Arc<Completion>) -> Option<EngineModel> {
    let name = model.name.clone()?;
    let mut read = EngineModel {
        key: model.key.clone()?,
        kind: kind(model.base.as_deref()?, model.variant.as_deref(), &name),
        name,
        variant: model.variant.clone(),
        format: model.format.clone(),
        handle: handle(model)?,
        runner: Runner::None,
        is_listed: true,
        settings: settings(model),
        completion: Some(completion.clone()),
    };
    read.runner = completion.runner(&read);
    Some(read)
}

fn settings(model: &ListedModel) -> ModelSettings {
    let setting = |name: &str| model.default_settings.get(name);
    let integer =
        |name: &str| setting(name).and_then(Value::as_u64).and_then(|integer| u32::try_from(integer).ok());
    // For these models guidance is an input, and their `cfg_scale` is always 1.
    let (base, variant) = (model.base.as_deref(), model.variant.as_deref());
    let is_guided = base == Some("flux") || (base == Some("flux2") && variant == Some("dev"));
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
        let listed: ListedModel = serde_json::from_value(listed.clone()).unwrap();
        InstalledModels::read(&[listed], graphs::catalog()).main.first().cloned()
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
    fn a_field_of_another_type_costs_no_other_model() {
        let listed = json!([{"key": 7, "hash": {}, "name": [], "base": null, "type": "main", "default_settings": 1},
            main("sd-1", &json!({"odd": 1}))]);
        let listed: Vec<ListedModel> = serde_json::from_value(listed).unwrap();
        let models = InstalledModels::read(&listed, graphs::catalog());
        assert_eq!(models.main.iter().map(|model| model.name.as_str()).collect::<Vec<_>>(), ["Dream"]);
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
