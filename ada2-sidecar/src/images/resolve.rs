//! Where each of a job's values comes from: the request, the preset, and for the built-in graphs what is usual. What a
//! template does not take is left out, and named.

use wire::openai::{fields::FieldError, images::ImageSize};

use super::{EditPlan, ImageRequest, Limits, Quality, Task};
use crate::images::{
    models::{DEFAULT_FAMILY, EngineModel, FamilyDefaults, Preset},
    template::{Binding, Template},
};

/// Every engine has a scheduler of this name.
pub const DEFAULT_SCHEDULER: &str = "euler";

/// Settles the values of one job.
pub(super) struct ParameterResolver<'a> {
    request: &'a ImageRequest,
    task: Task,
    preset: Option<&'a Preset>,
    /// None for the built-in graph, which takes everything.
    template: Option<&'a Template>,
    /// For the built-in graph.
    defaults: Option<BuiltinDefaults>,
    /// Parameters of the request that were left out so far, under the names that the request has for them.
    pub(super) ignored: Vec<&'static str>,
}

impl<'a> ParameterResolver<'a> {
    pub(super) fn new(
        request: &'a ImageRequest,
        task: Task,
        preset: Option<&'a Preset>,
        template: Option<&'a Template>,
        model: Option<&EngineModel>,
    ) -> Self {
        let usual = template.is_none().then(|| BuiltinDefaults::for_model(model));
        Self { request, task, preset, template, defaults: usual, ignored: Vec::new() }
    }

    /// The value that is asked for, if the graph takes it.
    fn if_supported<T>(
        &mut self,
        value: Option<T>,
        name: &'static str,
        takes: impl Fn(&Template) -> bool,
    ) -> Option<T> {
        let value = value?;
        if self.template.is_none_or(takes) {
            return Some(value);
        }
        self.ignored.push(name);
        None
    }

    /// A size that is asked for is made, or refused, or, if the template says so, left out: never another one in silence.
    pub(super) fn size(
        &mut self,
        edit_plan: Option<EditPlan>,
        limits: Limits,
    ) -> Result<Option<ImageSize>, FieldError> {
        let asked = self.request.size;
        if asked.is_some()
            && self.template.is_some_and(|template| !template.takes_size() && !template.ignores_size)
        {
            let message =
                "This template takes no size: leave size out, or set `size: ignore` in its binding file.";
            return Err(FieldError::new("size", message));
        }
        let asked = self.if_supported(asked, "size", Template::takes_size);
        if let Some(EditPlan { size, .. }) = edit_plan {
            return Ok(Some(size));
        }
        let open =
            self.preset.and_then(|preset| preset.size).or(self.defaults.as_ref().map(|usual| usual.size));
        let size = asked.or(open);
        match size.filter(|size| size.pixels() > limits.max_pixels) {
            Some(size) => {
                let prefix = "size is not given, and the model's own";
                Err(FieldError::new(
                    "size",
                    format!("{prefix}, {size}, exceeds {} pixels.", limits.max_pixels),
                ))
            }
            None => Ok(size),
        }
    }

    /// `steps` wins over `quality`, which scales the steps that are known.
    pub(super) fn steps(&mut self) -> Option<u32> {
        let takes = |template: &Template| template.binds(Binding::Steps);
        let asked = self.if_supported(self.request.steps, self.request.parameter_names.steps, takes);
        let own = self.template.and_then(Template::default_steps);
        let preset = self.preset.and_then(|preset| preset.steps);
        let usual = self.defaults.as_ref().map(|usual| usual.steps);
        let known = preset.or(own).or(usual);
        let quality = Some(self.request.quality).filter(|quality| *quality != Quality::Medium);
        if asked.is_some() {
            return asked;
        }
        match self.if_supported(quality, "quality", |template| takes(template) && known.is_some()) {
            Some(quality) => known.map(|steps| quality.scale_steps(steps)),
            None => preset.or(usual),
        }
    }

    pub(super) fn cfg_scale(&mut self) -> Option<f64> {
        let takes = |template: &Template| template.binds(Binding::CfgScale);
        let asked = self.if_supported(self.request.cfg_scale, self.request.parameter_names.cfg_scale, takes);
        let preset = self.preset.and_then(|preset| preset.cfg_scale);
        asked.or(preset).or(self.defaults.as_ref().map(|usual| usual.cfg_scale))
    }

    pub(super) fn negative_prompt(&mut self) -> Option<String> {
        let takes = |template: &Template| template.binds(Binding::NegativePrompt);
        let asked = Some(self.request.negative_prompt.clone()).filter(|text| !text.is_empty());
        let asked = self.if_supported(asked, self.request.parameter_names.negative_prompt, takes);
        asked.or_else(|| self.defaults.as_ref().map(|_| String::new()))
    }

    pub(super) fn scheduler(&mut self) -> Option<String> {
        let takes = |template: &Template| template.binds(Binding::Scheduler);
        let asked =
            self.if_supported(self.request.scheduler.clone(), self.request.parameter_names.scheduler, takes);
        let preset = self.preset.and_then(|preset| preset.scheduler.clone());
        asked.or(preset).or_else(|| Some(self.defaults.as_ref()?.scheduler.clone()))
    }

    /// Without a picture to start from it means nothing.
    pub(super) fn strength(&mut self) -> Option<f64> {
        let usual = match self.task {
            Task::Generate => {
                self.ignored.extend(self.request.strength.map(|_| "strength"));
                return None;
            }
            Task::Edit => 0.75,
            Task::Inpaint => 1.0,
        };
        let takes = |template: &Template| template.binds(Binding::Strength);
        let asked = self.if_supported(self.request.strength, "strength", takes);
        asked.or_else(|| self.defaults.as_ref().map(|_| usual))
    }
}

/// What the built-in graphs run a model with: its own settings, else those of its kind.
pub(super) struct BuiltinDefaults {
    pub(super) size: ImageSize,
    pub(super) steps: u32,
    pub(super) cfg_scale: f64,
    pub(super) scheduler: String,
}

impl BuiltinDefaults {
    pub(super) fn for_model(model: Option<&EngineModel>) -> Self {
        let family = model.and_then(EngineModel::graphs).unwrap_or(DEFAULT_FAMILY);
        let FamilyDefaults { size, steps, cfg_scale } = family.defaults.expect("it has built-in graphs");
        let scheduler = model.and_then(|model| model.scheduler.clone());
        Self {
            size: model.and_then(|model| model.size).unwrap_or(size),
            steps: model.and_then(|model| model.steps).unwrap_or(steps),
            cfg_scale: model.and_then(|model| model.cfg_scale).unwrap_or(cfg_scale),
            scheduler: scheduler.unwrap_or_else(|| DEFAULT_SCHEDULER.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests;
