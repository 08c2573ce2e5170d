//! Which model a request means. Pure. Never a silent swap: what is not known is refused with a list of what is, and nothing
//! but a model that is told, served and made for pictures from words is ever meant by a request that does not name it.

mod error;

use std::sync::Arc;

pub use self::error::ModelChoiceError;
use crate::images::{
    Task,
    models::{self, EngineModel, Family, Preset, SD_1, SDXL},
};

/// Names that today's clients have wired in, and the kind of model that they mean.
const ALIASES: &[(&str, &Family)] = &[("sd-xl-base-1.0", &SDXL), ("sd-v1-5", &SD_1)];

/// OpenAI's image models: clients hard-code these names and mean "the default".
const OPENAI_MODEL_PREFIXES: &[&str] = &["gpt-image", "chatgpt-image", "dall-e"];

/// What a request's `model` came to.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelChoice {
    /// What it is called, for logs.
    pub name: String,
    /// The engine's model; none where a preset's template loads its own.
    pub model: Option<EngineModel>,
    /// The preset that was named.
    pub preset: Option<Arc<Preset>>,
}

/// Resolves a request's `model`: a preset, an engine model by key or name, a wired-in alias, an OpenAI name, or none at
/// all. The last two mean the configured default, else the engine's first suitable model, else the one preset that makes
/// pictures from words with a graph of its own. Where there are several of those, one must be named, by the request or as
/// `default_model`: which comes first in the alphabet is nobody's choice.
pub fn resolve(
    models: &[EngineModel],
    presets: &[Arc<Preset>],
    asked: Option<&str>,
    default: Option<&str>,
) -> Result<ModelChoice, ModelChoiceError> {
    let find = |asked: &str| match find_preset(presets, asked) {
        Some(preset) => choose_preset(models, presets, preset),
        None => find_model(models, asked)
            .ok_or_else(|| not_found(models, presets, asked))
            .and_then(require_builtin_graphs),
    };
    let is_known = |asked: &str| find_preset(presets, asked).is_some() || find_model(models, asked).is_some();
    match asked.filter(|asked| is_known(asked) || !is_openai_name(asked)) {
        Some(asked) => find(asked),
        None => match default {
            Some(default) => find(default),
            None => default_choice(models, presets),
        },
    }
}

/// What requests mean that name nothing.
fn default_choice(models: &[EngineModel], presets: &[Arc<Preset>]) -> Result<ModelChoice, ModelChoiceError> {
    if let Some(model) = models.iter().find(|model| model.kind.is_default_candidate()) {
        return Ok(choose_model(model));
    }
    let of_words = presets.iter().filter(|preset| preset.templates.contains_key(&Task::Generate));
    let mut usable = of_words.filter_map(|preset| choose_preset(models, presets, preset).ok());
    match (usable.next(), usable.next()) {
        (Some(only), None) => Ok(only),
        _ => Err(ModelChoiceError::NoDefault { available: names(models, presets) }),
    }
}

/// The model, if a built-in graph serves it.
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

/// A preset that names a model needs it, and one that names none needs templates, or means the engine's first suitable
/// model. What kind a model is does not matter to a graph of the preset's own.
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

fn not_found(models: &[EngineModel], presets: &[Arc<Preset>], asked: &str) -> ModelChoiceError {
    ModelChoiceError::NotFound {
        requested: asked.chars().take(200).collect(),
        alias: resolve_alias(asked).map(|family| family.label),
        available: names(models, presets),
    }
}

fn find_preset<'a>(presets: &'a [Arc<Preset>], asked: &str) -> Option<&'a Arc<Preset>> {
    presets.iter().find(|preset| preset.name.eq_ignore_ascii_case(asked))
}

/// Every name that resolves, for `/v1/models` and for error messages.
pub fn names(models: &[EngineModel], presets: &[Arc<Preset>]) -> Vec<String> {
    let mut names = usable_preset_names(models, presets);
    let is_new = |names: &[String], name: &str| !names.iter().any(|known| known.eq_ignore_ascii_case(name));
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
fn find_model<'a>(models: &'a [EngineModel], asked: &str) -> Option<&'a EngineModel> {
    let by_key = models.iter().find(|model| model.key == asked);
    by_key
        .or_else(|| models.iter().find(|model| model.matches_name(asked)))
        .or_else(|| resolve_alias(asked).and_then(|family| find_by_family(models, family)))
}

/// Whether the engine has a model of this name.
pub fn has_model(models: &[EngineModel], name: &str) -> bool {
    find_model(models, name).is_some()
}

fn resolve_alias(asked: &str) -> Option<&'static Family> {
    ALIASES.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(asked)).map(|(_, family)| *family)
}

/// The suitable model of this kind whose name says base, else the first.
fn find_by_family<'a>(models: &'a [EngineModel], family: &Family) -> Option<&'a EngineModel> {
    let mut of_kind =
        models.iter().filter(|model| model.kind.is_default_candidate() && model.graphs() == Some(family));
    let first = of_kind.clone().next();
    of_kind.find(|model| models::has_word(&model.name, "base")).or(first)
}

fn is_openai_name(asked: &str) -> bool {
    let asked = asked.to_ascii_lowercase();
    OPENAI_MODEL_PREFIXES.iter().any(|name| asked.starts_with(name))
}

#[cfg(test)]
mod tests;
