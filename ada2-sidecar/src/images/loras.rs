//! The LoRAs of a job: the request's, else the preset's.

use serde_json::Value;
use service::text::prefix;
use wire::openai::fields::{FieldError, Fields};

use super::{
    ImageRequest,
    choice::ModelChoice,
    models::{EngineLora, EngineModel, LoraChoice, LoraUse},
    template::Template,
};

/// The most LoRAs of a request.
pub(crate) const MAX_LORAS: usize = 8;
/// The range of a weight.
pub(crate) const MAX_WEIGHT: f64 = 4.0;
const PARAM: &str = "loras";
/// As many names as an error lists.
const MAX_LISTED: usize = 20;

/// Reads `loras`: a list of `{"name", "weight"}`; in a form the same as JSON text.
pub(super) fn read(fields: &Fields) -> Result<Option<Vec<LoraChoice>>, FieldError> {
    let Some(list) = fields.list(PARAM)? else { return Ok(None) };
    let expected = || FieldError::new(PARAM, format!("loras must be {}.", expected()));
    if list.len() > MAX_LORAS {
        return Err(expected());
    }
    list.iter().map(|value| parse(value).ok_or_else(expected)).collect::<Result<_, _>>().map(Some)
}

/// What is expected, for messages.
pub(crate) fn expected() -> String {
    format!(
        "a list of at most {MAX_LORAS} objects {{\"name\": …, \"weight\": …}} with weights from -{MAX_WEIGHT} to \
         {MAX_WEIGHT} (1 if there is none)"
    )
}

/// One entry.
pub(crate) fn parse(value: &Value) -> Option<LoraChoice> {
    let name = value.get("name")?.as_str()?.trim();
    let weight = match value.get("weight") {
        None | Some(Value::Null) => 1.0,
        Some(weight) => weight.as_f64()?,
    };
    let is_valid = !name.is_empty() && weight.abs() <= MAX_WEIGHT;
    is_valid.then(|| LoraChoice { name: name.to_owned(), weight })
}

/// The LoRAs that the graph gets, vetted against the engine's.
pub(super) fn resolve(
    request: &ImageRequest,
    choice: &ModelChoice,
    template: Option<&Template>,
) -> Result<Vec<LoraUse>, FieldError> {
    let of_preset = || choice.preset.as_deref().map(|preset| preset.loras.as_slice()).unwrap_or_default();
    let wanted = request.loras.as_deref().unwrap_or_else(of_preset);
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let max = template.map_or(0, |template| usize::from(template.max_loras()));
    let name = &choice.name;
    if max == 0 {
        return Err(FieldError::new(
            PARAM,
            format!("The model {name:?} takes no LoRAs here: leave loras out."),
        ));
    }
    if wanted.len() > max {
        return Err(FieldError::new(
            PARAM,
            format!("The model {name:?} takes at most {max} LoRAs, not {}.", wanted.len()),
        ));
    }
    let mut used: Vec<LoraUse> = Vec::with_capacity(wanted.len());
    for wanted in wanted {
        let found = find(wanted, choice)?;
        if used.iter().any(|other| other.lora.key == found.lora.key) {
            let message = format!("The LoRA {:?} is named twice: add up the weights.", found.lora.name);
            return Err(FieldError::new(PARAM, message));
        }
        used.push(found);
    }
    Ok(used)
}

fn find(wanted: &LoraChoice, choice: &ModelChoice) -> Result<LoraUse, FieldError> {
    let LoraChoice { name, weight } = wanted;
    let fits = |lora: &&EngineLora| choice.model.as_ref().is_none_or(|model| lora.fits(model));
    if let Some(lora) = choice.loras.iter().filter(fits).find(|lora| lora.matches_name(name)) {
        return Ok(LoraUse { lora: lora.clone(), weight: *weight });
    }
    let name = prefix(name, 200);
    let other = choice.loras.iter().find(|lora| lora.matches_name(name));
    let message = match other.zip(choice.model.as_ref()) {
        Some((lora, model)) => misfit(lora, model),
        None => format!("The engine has no LoRA {name:?}.{}", available(choice)),
    };
    Err(FieldError::new(PARAM, message))
}

/// Names what it is for and what the model is. The variant is said where it is what tells them apart.
fn misfit(lora: &EngineLora, model: &EngineModel) -> String {
    let words = |family: Option<&str>, variant: Option<&str>| {
        let variant = variant.filter(|_| lora.variant.is_some());
        [family, variant].into_iter().flatten().collect::<Vec<_>>().join(" ")
    };
    format!(
        "The LoRA {:?} is for {} models, and {:?} is {}.",
        lora.name,
        words(lora.family.as_deref(), lora.variant.as_deref()),
        model.name,
        words(model.family_name(), model.variant.as_deref())
    )
}

fn available(choice: &ModelChoice) -> String {
    let fits = |lora: &&EngineLora| choice.model.as_ref().is_none_or(|model| lora.fits(model));
    let names: Vec<_> = choice.loras.iter().filter(fits).map(|lora| lora.name.as_str()).collect();
    match names.len() {
        0 => " It has none for this model.".to_owned(),
        1..=MAX_LISTED => format!(" Available: {}.", names.join(", ")),
        more => format!(
            " Available: {} and {} more (GET /v1/models).",
            names[..MAX_LISTED].join(", "),
            more - MAX_LISTED
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::models::{Family, SD_1, SDXL};

    fn model(family: &'static Family, variant: &str) -> EngineModel {
        EngineModel { variant: Some(variant.to_owned()), ..EngineModel::in_process("m", "mine", family) }
    }

    fn lora(family: Option<&str>, variant: Option<&str>) -> EngineLora {
        let [family, variant] = [family, variant].map(|word| word.map(str::to_owned));
        EngineLora { key: "k".to_owned(), name: "paint".to_owned(), family, variant, handle: Value::Null }
    }

    #[test]
    fn a_lora_is_for_a_family_and_a_variant() {
        let table = [
            (None, None, "dev", None),
            (Some("sd-1"), None, "dev", None),
            (Some("sd-1"), Some("dev"), "dev", None),
            (Some("sd-1"), Some("klein_4b"), "klein_4b_base", None),
            (Some("sd-1"), Some("klein_4b_base"), "klein_4b", None),
            (
                Some("sd-1"),
                Some("klein_4b"),
                "dev",
                Some("for sd-1 klein_4b models, and \"mine\" is sd-1 dev."),
            ),
            (
                Some("sd-1"),
                Some("klein_4b"),
                "klein_9b",
                Some("for sd-1 klein_4b models, and \"mine\" is sd-1 klein_9b."),
            ),
            (Some("sdxl"), None, "dev", Some("for sdxl models, and \"mine\" is sd-1.")),
        ];
        for (family, variant, of_model, expected) in table {
            let (lora, model) = (lora(family, variant), model(&SD_1, of_model));
            let said = (!lora.fits(&model)).then(|| misfit(&lora, &model));
            let expected = expected.map(|expected| format!("The LoRA \"paint\" is {expected}"));
            assert_eq!(said, expected, "{family:?} {variant:?} with {of_model}");
        }
        assert!(!lora(Some("sd-1"), None).fits(&model(&SDXL, "normal")));
    }
}
