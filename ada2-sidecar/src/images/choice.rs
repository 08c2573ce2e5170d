//! Which model a request means. A model is never replaced silently: an unknown name is an error that lists the known ones,
//! and a request that names none only gets a known text-to-image model with built-in graphs.

mod error;

use std::sync::Arc;

use service::text::prefix;

pub use self::error::ModelChoiceError;
use crate::images::{
    Task,
    models::{self, EngineModel, Family, Preset, SD_1, SDXL},
};

/// Names that existing clients have hard-coded, and the family that they mean.
const ALIASES: &[(&str, &Family)] = &[("sd-xl-base-1.0", &SDXL), ("sd-v1-5", &SD_1)];

/// OpenAI's image models: clients hard-code these names and mean "the default".
const OPENAI_MODEL_PREFIXES: &[&str] = &["gpt-image", "chatgpt-image", "dall-e"];

/// The resolved `model` of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelChoice {
    /// Its name, for logs.
    pub name: String,
    /// None: a preset's template loads its own.
    pub model: Option<EngineModel>,
    /// The preset, if one was named.
    pub preset: Option<Arc<Preset>>,
}

/// Resolves a request's `model`: a preset, an engine model by key or name, an alias, an OpenAI name, or none at all. The last
/// two mean the configured default, else the engine's first suitable model, else the only preset with a template for new
/// images. If there are several such presets, one must be named, by the request or as `default_model`: alphabetical order is
/// not a choice.
pub fn resolve(
    models: &[EngineModel],
    presets: &[Arc<Preset>],
    requested: Option<&str>,
    default: Option<&str>,
) -> Result<ModelChoice, ModelChoiceError> {
    let find = |requested: &str| match find_preset(presets, requested) {
        Some(preset) => choose_preset(models, presets, preset),
        None => find_model(models, requested)
            .ok_or_else(|| not_found(models, presets, requested))
            .and_then(require_builtin_graphs),
    };
    let is_known = |requested: &str| {
        find_preset(presets, requested).is_some() || find_model(models, requested).is_some()
    };
    match requested.filter(|requested| is_known(requested) || !is_openai_name(requested)) {
        Some(requested) => find(requested),
        None => match default {
            Some(default) => find(default),
            None => default_choice(models, presets),
        },
    }
}

/// The model of requests that name none.
fn default_choice(models: &[EngineModel], presets: &[Arc<Preset>]) -> Result<ModelChoice, ModelChoiceError> {
    if let Some(model) = models.iter().find(|model| model.kind.is_default_candidate()) {
        return Ok(choose_model(model));
    }
    let generating = presets.iter().filter(|preset| preset.templates.contains_key(&Task::Generate));
    let mut usable = generating.filter_map(|preset| choose_preset(models, presets, preset).ok());
    match (usable.next(), usable.next()) {
        (Some(single), None) => Ok(single),
        _ => Err(ModelChoiceError::NoDefault { available: names(models, presets) }),
    }
}

/// The model, if a built-in graph can run it.
fn require_builtin_graphs(model: &EngineModel) -> Result<ModelChoice, ModelChoiceError> {
    match model.graphs() {
        Some(_) => Ok(choose_model(model)),
        None if model.kind.is_unknown() => Err(ModelChoiceError::UnknownKind { model: model.name.clone() }),
        None => {
            Err(ModelChoiceError::UnsupportedKind { model: model.name.clone(), kind: model.kind.clone() })
        }
    }
}

fn choose_model(model: &EngineModel) -> ModelChoice {
    ModelChoice { name: model.name.clone(), model: Some(model.clone()), preset: None }
}

/// A preset that names a model needs it; one that names none needs templates, or means the engine's first suitable model.
/// With a template, the model's kind does not matter.
fn choose_preset(
    models: &[EngineModel],
    presets: &[Arc<Preset>],
    preset: &Arc<Preset>,
) -> Result<ModelChoice, ModelChoiceError> {
    let model = match &preset.model {
        Some(name) => {
            let model = find_model(models, name).ok_or_else(|| not_found(models, presets, name))?;
            if preset.templates.is_empty() {
                require_builtin_graphs(model)?;
            }
            Some(model.clone())
        }
        None if preset.templates.is_empty() => {
            let suitable = models.iter().find(|model| model.kind.is_default_candidate());
            Some(
                suitable
                    .ok_or_else(|| ModelChoiceError::NoDefault { available: names(models, presets) })?
                    .clone(),
            )
        }
        None => None,
    };
    Ok(ModelChoice { name: preset.name.clone(), model, preset: Some(preset.clone()) })
}

fn not_found(models: &[EngineModel], presets: &[Arc<Preset>], requested: &str) -> ModelChoiceError {
    ModelChoiceError::NotFound {
        requested: prefix(requested, 200).to_owned(),
        alias: resolve_alias(requested).map(|family| family.label),
        available: names(models, presets),
    }
}

fn find_preset<'a>(presets: &'a [Arc<Preset>], requested: &str) -> Option<&'a Arc<Preset>> {
    presets.iter().find(|preset| preset.name.eq_ignore_ascii_case(requested))
}

/// Every name that can be used, for `/v1/models` and error messages.
pub fn names(models: &[EngineModel], presets: &[Arc<Preset>]) -> Vec<String> {
    let mut names = usable_preset_names(models, presets);
    let is_new = |names: &[String], name: &str| !names.iter().any(|other| other.eq_ignore_ascii_case(name));
    for model in models.iter().filter(|model| model.graphs().is_some()) {
        if is_new(&names, &model.name) {
            names.push(model.name.clone());
        }
    }
    for (alias, family) in ALIASES {
        if find_by_family(models, family).is_some() && is_new(&names, alias) {
            names.push((*alias).to_owned());
        }
    }
    names
}

/// The presets that can be used with these models.
pub fn usable_preset_names(models: &[EngineModel], presets: &[Arc<Preset>]) -> Vec<String> {
    let has_model = |preset: &&Arc<Preset>| match &preset.model {
        Some(name) => find_model(models, name)
            .is_some_and(|model| !preset.templates.is_empty() || model.graphs().is_some()),
        None => !preset.templates.is_empty() || models.iter().any(|model| model.kind.is_default_candidate()),
    };
    presets.iter().filter(has_model).map(|preset| preset.name.clone()).collect()
}

/// By key or name, else by alias.
fn find_model<'a>(models: &'a [EngineModel], requested: &str) -> Option<&'a EngineModel> {
    let by_key = models.iter().find(|model| model.key == requested);
    by_key
        .or_else(|| models.iter().find(|model| model.matches_name(requested)))
        .or_else(|| resolve_alias(requested).and_then(|family| find_by_family(models, family)))
}

/// Whether the engine has a model of this name.
pub fn has_model(models: &[EngineModel], name: &str) -> bool {
    find_model(models, name).is_some()
}

fn resolve_alias(requested: &str) -> Option<&'static Family> {
    ALIASES.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(requested)).map(|(_, family)| *family)
}

/// The suitable model of this family with `base` in its name, else the first.
fn find_by_family<'a>(models: &'a [EngineModel], family: &Family) -> Option<&'a EngineModel> {
    let mut candidates =
        models.iter().filter(|model| model.kind.is_default_candidate() && model.graphs() == Some(family));
    let first = candidates.clone().next();
    candidates.find(|model| models::has_word(&model.name, "base")).or(first)
}

fn is_openai_name(requested: &str) -> bool {
    let requested = requested.to_ascii_lowercase();
    OPENAI_MODEL_PREFIXES.iter().any(|name| requested.starts_with(name))
}

#[cfg(test)]
mod tests;
