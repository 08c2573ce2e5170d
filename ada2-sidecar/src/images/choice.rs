//! Which model a request means. A model is never replaced silently: an unknown name is an error that lists the known ones,
//! and a request that names none only gets a model that is known, complete, and made for its task.

mod error;

use std::{collections::HashSet, sync::Arc};

use service::text::prefix;

pub use self::error::ModelChoiceError;
use crate::images::{
    Task,
    models::{self, EngineLora, EngineModel, Family, Preset, Runner, SD_1, SDXL},
    template::Template,
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
    /// The engine's LoRAs.
    pub loras: Arc<[EngineLora]>,
}

impl ModelChoice {
    /// The graph for a task: the preset's template, else the model's built-in one. A preset with templates replaces the
    /// built-in graphs for edits, too.
    pub fn template(&self, task: Task) -> Option<&Arc<Template>> {
        let built_in = || self.model.as_ref()?.template(task);
        match self.preset.as_deref().filter(|preset| !preset.templates.is_empty()) {
            Some(preset) => {
                preset.templates.get(&task).or_else(|| built_in().filter(|_| task == Task::Generate))
            }
            None => built_in(),
        }
    }

    /// Whether the engine runs it without a graph.
    pub fn is_in_process(&self) -> bool {
        let has_templates = self.preset.as_deref().is_some_and(|preset| !preset.templates.is_empty());
        !has_templates && self.model.as_ref().is_none_or(|model| model.runner == Runner::InProcess)
    }
}

/// Resolves a request's `model`: a preset, an engine model by key or name, an alias, an OpenAI name, or none at all. The last
/// two mean the configured default, else the engine's first model that is made for the task, else the only preset with a
/// template for it. If there are several such presets, one must be named, by the request or as `default_model`:
/// alphabetical order is not a choice.
pub fn resolve(
    models: &[EngineModel],
    presets: &[Arc<Preset>],
    requested: Option<&str>,
    default: Option<&str>,
    task: Task,
) -> Result<ModelChoice, ModelChoiceError> {
    let find = |requested: &str| match find_preset(presets, requested) {
        Some(preset) => choose_preset(models, presets, preset, task),
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
            None => default_choice(models, presets, task),
        },
    }
}

/// The model of requests that name none, for new images or, if there is none for these, for edits.
pub fn resolve_default(
    models: &[EngineModel],
    presets: &[Arc<Preset>],
    default: Option<&str>,
) -> Result<ModelChoice, ModelChoiceError> {
    let resolve = |task| resolve(models, presets, None, default, task);
    resolve(Task::Generate)
        .or_else(|error| resolve(Task::Edit).or_else(|_| resolve(Task::Inpaint)).map_err(|_| error))
}

/// The model of requests for new images that name none, if it can make them.
pub fn resolve_for_new_images(
    models: &[EngineModel],
    presets: &[Arc<Preset>],
    default: Option<&str>,
) -> Option<ModelChoice> {
    let choice = resolve(models, presets, None, default, Task::Generate).ok()?;
    (choice.is_in_process() || choice.template(Task::Generate).is_some()).then_some(choice)
}

/// The model of requests that name none: one made for new images wins over one that only edits.
fn default_choice(
    models: &[EngineModel],
    presets: &[Arc<Preset>],
    task: Task,
) -> Result<ModelChoice, ModelChoiceError> {
    if let Some(model) = default_model(models, task) {
        return Ok(choose_model(model));
    }
    let suitable = presets.iter().filter(|preset| preset.templates.contains_key(&task));
    let mut usable = suitable.filter_map(|preset| choose_preset(models, presets, preset, task).ok());
    match (usable.next(), usable.next()) {
        (Some(single), None) => Ok(single),
        _ => Err(ModelChoiceError::NoDefault { task, available: names(models, presets) }),
    }
}

/// SD 1.5 and SDXL come first: where they were the default before other families were served, they stay it.
fn default_model(models: &[EngineModel], task: Task) -> Option<&EngineModel> {
    let candidates = || models.iter().filter(|model| model.is_listed && model.is_default_candidate(task));
    let makes_new = |model: &&EngineModel| model.is_default_candidate(Task::Generate);
    let is_sd = |model: &&EngineModel| matches!(model.family_name(), Some("sd-1" | "sdxl"));
    candidates().find(is_sd).or_else(|| candidates().find(makes_new)).or_else(|| candidates().next())
}

/// The model, if a built-in graph can run it.
fn require_builtin_graphs(model: &EngineModel) -> Result<ModelChoice, ModelChoiceError> {
    let name = || model.name.clone();
    match &model.runner {
        Runner::InProcess | Runner::Graphs { .. } => Ok(choose_model(model)),
        Runner::Incomplete { lacks, is_installed, .. } => Err(ModelChoiceError::Incomplete {
            model: name(),
            lacks: lacks.clone(),
            is_installed: *is_installed,
        }),
        Runner::None if model.kind.is_unknown() => Err(ModelChoiceError::UnknownKind { model: name() }),
        Runner::None => Err(ModelChoiceError::UnsupportedKind { model: name(), kind: model.kind.clone() }),
    }
}

fn choose_model(model: &EngineModel) -> ModelChoice {
    ModelChoice { name: model.name.clone(), model: Some(model.clone()), preset: None, loras: Arc::default() }
}

/// A preset that names a model or a family needs it; one that names none needs templates, or means the engine's first
/// suitable model. With a template, the model's kind does not matter.
fn choose_preset(
    models: &[EngineModel],
    presets: &[Arc<Preset>],
    preset: &Arc<Preset>,
    task: Task,
) -> Result<ModelChoice, ModelChoiceError> {
    let model = match named_model(models, preset) {
        Some((name, model)) => {
            let model = model.ok_or_else(|| not_found(models, presets, name))?;
            if preset.templates.is_empty() {
                require_builtin_graphs(model)?;
            }
            Some(model.clone())
        }
        None if preset.templates.is_empty() => {
            let missing = || ModelChoiceError::NoDefault { task, available: names(models, presets) };
            Some(default_model(models, task).ok_or_else(missing)?.clone())
        }
        None => None,
    };
    Ok(ModelChoice { name: preset.name.clone(), model, preset: Some(preset.clone()), loras: Arc::default() })
}

/// The name of the model or family that a preset names, and the engine's model of it.
fn named_model<'a, 'b>(
    models: &'a [EngineModel],
    preset: &'b Preset,
) -> Option<(&'b str, Option<&'a EngineModel>)> {
    match (&preset.model, &preset.family) {
        (Some(name), _) => Some((name, find_model(models, name))),
        (None, Some(family)) => Some((family, find_of_family(models, family))),
        (None, None) => None,
    }
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

/// Every name that can be used, with what it means: presets, models, and the aliases that resolve to one.
pub fn listed(models: &[EngineModel], presets: &[Arc<Preset>]) -> Vec<(String, ModelChoice)> {
    let mut seen = HashSet::new();
    let tasks = [Task::Generate, Task::Edit, Task::Inpaint];
    let of_preset = |preset: &Arc<Preset>| {
        let choice = tasks.iter().find_map(|task| choose_preset(models, presets, preset, *task).ok())?;
        Some((preset.name.clone(), choice))
    };
    let usable_presets = presets.iter().filter(|preset| is_usable_preset(models, preset)).filter_map(of_preset);
    let usable = models.iter().filter(|model| model.is_usable() && model.is_listed);
    let of_alias = |(alias, family): &(&str, &'static Family)| {
        Some(((*alias).to_owned(), choose_model(find_by_family(models, family)?)))
    };
    usable_presets
        .chain(usable.map(|model| (model.name.clone(), choose_model(model))))
        .chain(ALIASES.iter().filter_map(of_alias))
        .filter(|(name, _)| seen.insert(name.to_ascii_lowercase()))
        .collect()
}

/// Every name that can be used, for messages.
pub fn names(models: &[EngineModel], presets: &[Arc<Preset>]) -> Vec<String> {
    let mut seen = HashSet::new();
    let usable = models.iter().filter(|model| model.is_usable() && model.is_listed);
    let aliases = ALIASES.iter().filter(|(_, family)| find_by_family(models, family).is_some());
    usable_preset_names(models, presets)
        .into_iter()
        .chain(usable.map(|model| model.name.clone()))
        .chain(aliases.map(|(alias, _)| (*alias).to_owned()))
        .filter(|name| seen.insert(name.to_ascii_lowercase()))
        .collect()
}

/// The presets that can be used with these models.
pub fn usable_preset_names(models: &[EngineModel], presets: &[Arc<Preset>]) -> Vec<String> {
    let is_usable = |preset: &&Arc<Preset>| is_usable_preset(models, preset);
    presets.iter().filter(is_usable).map(|preset| preset.name.clone()).collect()
}

fn is_usable_preset(models: &[EngineModel], preset: &Preset) -> bool {
    let has_templates = !preset.templates.is_empty();
    match named_model(models, preset) {
        Some((_, model)) => model.is_some_and(|model| has_templates || model.is_usable()),
        None => has_templates || models.iter().any(EngineModel::is_usable),
    }
}

/// The first usable model of a family: by the name of its graphs, or by the family's own name if no graphs are called so. One
/// that is not complete counts last, so that the error says what it lacks.
fn find_of_family<'a>(models: &'a [EngineModel], family: &str) -> Option<&'a EngineModel> {
    let is = |name: Option<&str>| name.is_some_and(|name| name.eq_ignore_ascii_case(family));
    let has_set_name = |model: &&EngineModel| is(model.graphs_name()) || is(Some(&model.name));
    let named: Vec<_> = models.iter().filter(has_set_name).collect();
    let candidates = if named.is_empty() {
        models.iter().filter(|model| is(model.family_name())).collect()
    } else {
        named
    };
    candidates.iter().find(|model| model.is_usable()).or(candidates.first()).copied()
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
    let mut candidates = models.iter().filter(|model| {
        model.is_default_candidate(Task::Generate) && model.family_name() == Some(family.name)
    });
    let first = candidates.clone().next();
    candidates.find(|model| models::has_word(&model.name, "base")).or(first)
}

fn is_openai_name(requested: &str) -> bool {
    let requested = requested.to_ascii_lowercase();
    OPENAI_MODEL_PREFIXES.iter().any(|name| requested.starts_with(name))
}

#[cfg(test)]
mod tests;
