//! Where each value of a job comes from: the request, the preset, the model's own settings. What none of them gives, the
//! graph decides. What has no effect is left out and listed.

use wire::openai::{fields::FieldError, images::ImageSize};

use super::{EditPlan, ImageRequest, Limits, Quality, Task, choice::ModelChoice};
use crate::images::{
    models::{ModelSettings, Preset},
    template::{Binding, DEFAULT_MULTIPLE, Template},
};

/// Resolves the values of one job.
pub(super) struct ParameterResolver<'a> {
    request: &'a ImageRequest,
    task: Task,
    name: &'a str,
    preset: Option<&'a Preset>,
    /// None: the engine runs none, and takes everything.
    template: Option<&'a Template>,
    /// The model's own settings; a preset's template has its own.
    settings: ModelSettings,
    /// Parameters that were left out so far, by their names in the request.
    pub(super) ignored: Vec<&'static str>,
}

impl<'a> ParameterResolver<'a> {
    pub(super) fn new(
        request: &'a ImageRequest,
        task: Task,
        choice: &'a ModelChoice,
        template: Option<&'a Template>,
    ) -> Self {
        let preset = choice.preset.as_deref();
        let is_own = preset.is_some_and(|preset| preset.templates.contains_key(&task));
        let model = choice.model.as_ref().filter(|_| !is_own);
        let settings = model.map(|model| model.settings.clone()).unwrap_or_default();
        Self { request, task, name: &choice.name, preset, template, settings, ignored: Vec::new() }
    }

    fn takes(&self, binding: Binding) -> bool {
        self.template.is_none_or(|template| template.binds(binding))
    }

    /// The requested value, if it has an effect.
    fn requested<T>(&mut self, value: Option<T>, name: &'static str, has_effect: bool) -> Option<T> {
        if value.is_some() && !has_effect {
            self.ignored.push(name);
            return None;
        }
        value
    }

    /// Every request has one, and edits that only process the image take none.
    pub(super) fn prompt(&mut self) -> String {
        let takes_prompt = self.takes(Binding::Prompt);
        self.requested(Some(self.request.prompt.clone()), "prompt", takes_prompt).unwrap_or_default()
    }

    /// The requested seed, if it has an effect.
    pub(super) fn seed(&mut self) -> Option<u64> {
        let takes_seed = self.takes(Binding::Seed);
        self.requested(self.request.seed, "seed", takes_seed)
    }

    /// A requested size is made, or rejected, or left out if the template says so: it is never replaced silently.
    pub(super) fn size(
        &mut self,
        edit_plan: Option<EditPlan>,
        limits: Limits,
    ) -> Result<Option<ImageSize>, FieldError> {
        let requested = self.request.size;
        let takes_size = self.template.is_none_or(Template::takes_size);
        if requested.is_some()
            && !takes_size
            && self.template.is_some_and(|template| template.rules.size.is_none())
        {
            let message =
                "This template takes no size: leave size out, or set `size: ignore` in its binding file.";
            return Err(FieldError::new("size", message));
        }
        let requested = self.requested(requested, "size", takes_size);
        if let Some(size) = requested {
            self.check_multiple(size)?;
        }
        if let Some(EditPlan { size, .. }) = edit_plan {
            return Ok(size);
        }
        let of_preset = self.preset.and_then(|preset| preset.size);
        if let Some(size) = of_preset.filter(|_| requested.is_none()) {
            self.check_multiple(size)?;
        }
        let of_model = self.settings.size.map(|size| self.round(size));
        let default = of_preset.or(of_model);
        let size = requested.or(default).or_else(|| self.template?.default_size());
        match size.filter(|size| size.pixels() > limits.max_pixels) {
            Some(size) => {
                let limit = limits.max_pixels;
                let message =
                    format!("The model's default size {size} exceeds the limit of {limit} pixels: set size.");
                Err(FieldError::new("size", message))
            }
            // What the graph has anyway need not be set.
            None => Ok(requested.or(default)),
        }
    }

    /// To a size that the model takes.
    fn round(&self, size: ImageSize) -> ImageSize {
        let multiple = self.template.map_or(DEFAULT_MULTIPLE, |template| template.rules.multiple);
        let rounded = |length: u32| (length / multiple).max(1) * multiple;
        ImageSize::new(rounded(size.width), rounded(size.height))
    }

    fn check_multiple(&self, size: ImageSize) -> Result<(), FieldError> {
        let multiple = self.template.map_or(DEFAULT_MULTIPLE, |template| template.rules.multiple);
        if size.width.is_multiple_of(multiple) && size.height.is_multiple_of(multiple) {
            return Ok(());
        }
        let (name, near) = (self.name, self.round(size));
        let message =
            format!("size: width and height must be multiples of {multiple} for {name:?}, such as {near}.");
        Err(FieldError::new("size", message))
    }

    /// `steps` wins over `quality`, which scales the default steps.
    pub(super) fn steps(&mut self) -> Option<u32> {
        let takes_steps = self.takes(Binding::Steps);
        let fixed = self.template.and_then(|template| template.rules.fixed_steps);
        let asked = self.request.steps.filter(|steps| Some(*steps) != fixed);
        let requested = self.requested(asked, self.request.parameter_names.steps, takes_steps);
        let default =
            self.preset.and_then(|preset| preset.steps).or(self.settings.steps).filter(|_| takes_steps);
        if requested.is_some() {
            return requested;
        }
        let usual = default.or_else(|| self.template?.default_steps());
        let scales = takes_steps
            && usual.is_some()
            && self.template.is_none_or(|template| template.rules.scales_steps);
        let quality = Some(self.request.quality).filter(|quality| *quality != Quality::Medium);
        match self.requested(quality, "quality", scales) {
            Some(quality) => usual.map(|steps| quality.scale_steps(steps)),
            None => default,
        }
    }

    pub(super) fn cfg_scale(&mut self) -> Option<f64> {
        let takes_cfg = self.takes(Binding::CfgScale);
        let fixed = self.template.and_then(|template| template.rules.fixed_cfg_scale);
        let asked = self.request.cfg_scale.filter(|scale| Some(*scale) != fixed);
        let requested = self.requested(asked, self.request.parameter_names.cfg_scale, takes_cfg);
        let default = self.preset.and_then(|preset| preset.cfg_scale).or(self.settings.cfg_scale);
        requested.or(default.filter(|_| takes_cfg))
    }

    /// Without guidance it is not computed.
    pub(super) fn negative_prompt(&mut self) -> Option<String> {
        let requested = Some(self.request.negative_prompt.clone()).filter(|text| !text.is_empty());
        let mut quiet = Self { ignored: Vec::new(), settings: self.settings.clone(), ..*self };
        let scale = quiet.cfg_scale().or_else(|| self.template?.default_cfg_scale());
        let has_effect = self.takes(Binding::NegativePrompt) && scale.is_none_or(|scale| scale > 1.0);
        self.requested(requested, self.request.parameter_names.negative_prompt, has_effect)
    }

    pub(super) fn scheduler(&mut self) -> Result<Option<String>, FieldError> {
        let takes_scheduler = self.takes(Binding::Scheduler);
        let allowed = self.template.and_then(|template| template.rules.schedulers.as_deref());
        let is_allowed = |name: &String| allowed.is_none_or(|allowed| allowed.contains(name));
        let param = self.request.parameter_names.scheduler;
        let requested = self.requested(self.request.scheduler.clone(), param, takes_scheduler);
        let of_preset = self.preset.and_then(|preset| preset.scheduler.clone()).filter(|_| takes_scheduler);
        let chosen = requested.or(of_preset);
        if let Some(name) = chosen.as_ref().filter(|name| !is_allowed(name)) {
            let allowed = allowed.unwrap_or_default().join(", ");
            let message = format!("{param} must be one of {allowed} for {:?}, not {name}.", self.name);
            return Err(FieldError::new(param, message));
        }
        let of_model = self.settings.scheduler.clone().filter(|name| takes_scheduler && is_allowed(name));
        Ok(chosen.or(of_model))
    }

    /// It has no meaning without a source image, nor where images are references.
    pub(super) fn strength(&mut self) -> Option<f64> {
        let default = match self.task {
            Task::Generate => None,
            Task::Edit => Some(0.75),
            Task::Inpaint => Some(1.0),
        };
        let has_effect = self.takes(Binding::Strength) && default.is_some();
        let requested = self.requested(self.request.strength, "strength", has_effect);
        requested.or(default.filter(|_| self.template.is_none()))
    }
}

#[cfg(test)]
mod tests;
