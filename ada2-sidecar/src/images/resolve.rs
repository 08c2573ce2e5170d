//! Where each value of a job comes from: the request, the preset, and for built-in graphs the defaults. What a template does
//! not bind is left out and listed.

use wire::openai::{fields::FieldError, images::ImageSize};

use super::{EditPlan, ImageRequest, Limits, Quality, Task};
use crate::images::{
    models::{DEFAULT_FAMILY, EngineModel, FamilyDefaults, Preset},
    template::{Binding, Template},
};

/// Every engine has a scheduler of this name.
pub const DEFAULT_SCHEDULER: &str = "euler";

/// Resolves the values of one job.
pub(super) struct ParameterResolver<'a> {
    request: &'a ImageRequest,
    task: Task,
    preset: Option<&'a Preset>,
    /// None: the built-in graph, which takes everything.
    template: Option<&'a Template>,
    /// Only for the built-in graph.
    defaults: Option<BuiltinDefaults>,
    /// Parameters that were left out so far, by their names in the request.
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
        let defaults = template.is_none().then(|| BuiltinDefaults::for_model(model));
        Self { request, task, preset, template, defaults, ignored: Vec::new() }
    }

    /// The requested value, if the graph takes it.
    fn if_supported<T>(
        &mut self,
        value: Option<T>,
        name: &'static str,
        binds: impl Fn(&Template) -> bool,
    ) -> Option<T> {
        let value = value?;
        if self.template.is_none_or(binds) {
            return Some(value);
        }
        self.ignored.push(name);
        None
    }

    /// A requested size is made, or rejected, or left out if the template says so: it is never replaced silently.
    pub(super) fn size(
        &mut self,
        edit_plan: Option<EditPlan>,
        limits: Limits,
    ) -> Result<Option<ImageSize>, FieldError> {
        let requested = self.request.size;
        if requested.is_some()
            && self.template.is_some_and(|template| !template.takes_size() && !template.ignores_size)
        {
            let message =
                "This template takes no size: leave size out, or set `size: ignore` in its binding file.";
            return Err(FieldError::new("size", message));
        }
        let requested = self.if_supported(requested, "size", Template::takes_size);
        if let Some(EditPlan { size, .. }) = edit_plan {
            return Ok(Some(size));
        }
        let default = self
            .preset
            .and_then(|preset| preset.size)
            .or(self.defaults.as_ref().map(|defaults| defaults.size));
        let size = requested.or(default);
        match size.filter(|size| size.pixels() > limits.max_pixels) {
            Some(size) => {
                let limit = limits.max_pixels;
                let message =
                    format!("The model's default size {size} exceeds the limit of {limit} pixels: set size.");
                Err(FieldError::new("size", message))
            }
            None => Ok(size),
        }
    }

    /// `steps` wins over `quality`, which scales the default steps.
    pub(super) fn steps(&mut self) -> Option<u32> {
        let binds = |template: &Template| template.binds(Binding::Steps);
        let requested = self.if_supported(self.request.steps, self.request.parameter_names.steps, binds);
        let in_workflow = self.template.and_then(Template::default_steps);
        let preset = self.preset.and_then(|preset| preset.steps);
        let defaults = self.defaults.as_ref().map(|defaults| defaults.steps);
        let steps = preset.or(in_workflow).or(defaults);
        let quality = Some(self.request.quality).filter(|quality| *quality != Quality::Medium);
        if requested.is_some() {
            return requested;
        }
        match self.if_supported(quality, "quality", |template| binds(template) && steps.is_some()) {
            Some(quality) => steps.map(|steps| quality.scale_steps(steps)),
            None => preset.or(defaults),
        }
    }

    pub(super) fn cfg_scale(&mut self) -> Option<f64> {
        let binds = |template: &Template| template.binds(Binding::CfgScale);
        let requested =
            self.if_supported(self.request.cfg_scale, self.request.parameter_names.cfg_scale, binds);
        let preset = self.preset.and_then(|preset| preset.cfg_scale);
        requested.or(preset).or(self.defaults.as_ref().map(|defaults| defaults.cfg_scale))
    }

    pub(super) fn negative_prompt(&mut self) -> Option<String> {
        let binds = |template: &Template| template.binds(Binding::NegativePrompt);
        let requested = Some(self.request.negative_prompt.clone()).filter(|text| !text.is_empty());
        let requested = self.if_supported(requested, self.request.parameter_names.negative_prompt, binds);
        requested.or_else(|| self.defaults.as_ref().map(|_| String::new()))
    }

    pub(super) fn scheduler(&mut self) -> Option<String> {
        let binds = |template: &Template| template.binds(Binding::Scheduler);
        let requested =
            self.if_supported(self.request.scheduler.clone(), self.request.parameter_names.scheduler, binds);
        let preset = self.preset.and_then(|preset| preset.scheduler.clone());
        requested.or(preset).or_else(|| Some(self.defaults.as_ref()?.scheduler.clone()))
    }

    /// It has no meaning without a source image.
    pub(super) fn strength(&mut self) -> Option<f64> {
        let default = match self.task {
            Task::Generate => {
                self.ignored.extend(self.request.strength.map(|_| "strength"));
                return None;
            }
            Task::Edit => 0.75,
            Task::Inpaint => 1.0,
        };
        let binds = |template: &Template| template.binds(Binding::Strength);
        let requested = self.if_supported(self.request.strength, "strength", binds);
        requested.or_else(|| self.defaults.as_ref().map(|_| default))
    }
}

/// What a built-in graph runs a model with: the model's own settings, else its family's.
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
