//! The job: what a request leaves open is decided here, from preset, model and the family's defaults.

use std::sync::Arc;

use serde_json::{Value, json};
use wire::openai::{fields::FieldError, images::ImageSize};

use super::{
    EditPlan, ImageRequest, Limits, SourceImage, Task,
    resolve::{BuiltinDefaults, ParameterResolver},
};
use crate::images::{
    choice::ModelChoice,
    models::{EngineModel, Preset},
    template::{Binding, Template},
};

/// Work for the engine, with everything decided. Where a value is None, the graph keeps its own; built-in graphs get all of
/// them.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each field says what it is by its name")]
pub struct Job {
    /// The name of model or preset, for logs.
    pub name: String,
    pub task: Task,
    /// None: the template loads its own.
    pub model: Option<EngineModel>,
    /// Replaces the built-in graph.
    pub template: Option<Arc<Template>>,
    pub prompt: String,
    pub negative_prompt: Option<String>,
    /// For an edit always that of its source.
    pub size: Option<ImageSize>,
    pub steps: Option<u32>,
    pub cfg_scale: Option<f64>,
    pub scheduler: Option<String>,
    /// One image each, in this order.
    pub seeds: Vec<u64>,
    pub source: Option<Arc<SourceImage>>,
    /// How much of the source is replaced, 0 to 1.
    pub strength: Option<f64>,
    /// Parameters of the request that the template does not bind.
    pub ignored: Vec<&'static str>,
    /// Whether the images stay out of the engine's gallery.
    pub discard: bool,
    /// Whether the client requested previews.
    pub previews: bool,
}

impl Job {
    /// The smallest job that makes the engine load this model.
    pub fn warm_up(choice: ModelChoice) -> Self {
        let ModelChoice { name, model, preset } = choice;
        let template = preset.and_then(|preset| preset.templates.get(&Task::Generate).cloned());
        let defaults = template.is_none().then(|| BuiltinDefaults::for_model(model.as_ref()));
        Self {
            name,
            task: Task::Generate,
            template,
            prompt: "warm-up".to_owned(),
            negative_prompt: defaults.as_ref().map(|_| String::new()),
            size: Some(ImageSize::new(64, 64)),
            steps: Some(1),
            cfg_scale: defaults.as_ref().map(|defaults| defaults.cfg_scale),
            scheduler: defaults.map(|defaults| defaults.scheduler),
            model,
            seeds: vec![0],
            source: None,
            strength: None,
            ignored: Vec::new(),
            discard: true,
            previews: false,
        }
    }

    /// Decides what the request leaves open. For a built-in graph: the preset's settings, else the model's, else its family's.
    /// For a template: the preset's settings, else the workflow's own. Seeds count up from the first and wrap at the engine's
    /// width.
    pub fn plan(
        request: &ImageRequest,
        choice: ModelChoice,
        edit_plan: Option<EditPlan>,
        fallback_seed: u32,
        limits: Limits,
    ) -> Result<Self, FieldError> {
        let first_seed = request.seed.unwrap_or(u64::from(fallback_seed));
        let seeds = (0..request.n).map(|nth| first_seed.wrapping_add(nth) & limits.max_seed).collect();
        let task = edit_plan.map_or(Task::Generate, |plan| plan.task);
        let template = template(&choice, task)?;
        let ModelChoice { name, model, preset } = choice;
        let mut resolver =
            ParameterResolver::new(request, task, preset.as_deref(), template.as_deref(), model.as_ref());
        Ok(Self {
            prompt: request.prompt.clone(),
            size: resolver.size(edit_plan, limits)?,
            steps: resolver.steps(),
            cfg_scale: resolver.cfg_scale(),
            negative_prompt: resolver.negative_prompt(),
            scheduler: resolver.scheduler(),
            strength: resolver.strength(),
            ignored: resolver.ignored,
            seeds,
            source: None,
            discard: false,
            previews: request.partial_images.is_some_and(|partials| partials > 0),
            name,
            task,
            template,
            model,
        })
    }

    /// Adds the decoded source image. If its transparency turned out to be a mask, the task changes and is planned again.
    pub fn with_source(
        self,
        source: SourceImage,
        request: &ImageRequest,
        choice: &ModelChoice,
        edit_plan: EditPlan,
        limits: Limits,
    ) -> Result<Self, FieldError> {
        let mut source = source;
        let can_inpaint = |preset: &Preset| preset.templates.contains_key(&Task::Inpaint);
        // The request has no mask, and the preset cannot inpaint: transparency is ignored.
        if self.task == Task::Edit
            && self.template.is_some()
            && !choice.preset.as_deref().is_some_and(can_inpaint)
        {
            source.mask = None;
        }
        let task = if source.mask.is_some() { Task::Inpaint } else { Task::Edit };
        let job = if task == self.task {
            self
        } else {
            let edit_plan = EditPlan { task, ..edit_plan };
            let replanned = Self::plan(request, choice.clone(), Some(edit_plan), 0, limits)?;
            Self { seeds: self.seeds, discard: self.discard, ..replanned }
        };
        Ok(Self { source: Some(Arc::new(source)), ..job })
    }

    /// The value that a bound input takes, unless the engine needs another form; None: the graph keeps its own.
    pub fn value(&self, binding: Binding) -> Option<Value> {
        match binding {
            Binding::Prompt => Some(json!(self.prompt)),
            Binding::NegativePrompt => self.negative_prompt.as_ref().map(|text| json!(text)),
            Binding::Width => self.size.map(|size| json!(size.width)),
            Binding::Height => self.size.map(|size| json!(size.height)),
            Binding::Seed => self.seeds.first().map(|seed| json!(seed)),
            Binding::Steps => self.steps.map(|steps| json!(steps)),
            Binding::CfgScale => self.cfg_scale.map(|scale| json!(scale)),
            Binding::Scheduler => self.scheduler.as_ref().map(|name| json!(name)),
            Binding::Model => self.model.as_ref().map(|model| model.handle.clone()),
            Binding::Strength => self.strength.map(|strength| json!(strength)),
            Binding::N => Some(json!(1)),
            // The engine's names of the uploaded files.
            Binding::Image | Binding::Mask => None,
        }
    }

    /// The size of the result, as far as it is known in advance.
    pub fn expected_size(&self) -> Option<ImageSize> {
        let template = self.template.as_deref();
        match template.filter(|template| self.task == Task::Generate && !template.takes_size()) {
            Some(_) => None,
            None => self.size.or_else(|| template?.default_size()),
        }
    }
}

/// The preset's template for the task; None means the built-in graph.
fn template(choice: &ModelChoice, task: Task) -> Result<Option<Arc<Template>>, FieldError> {
    let Some(preset) = choice.preset.as_deref().filter(|preset| !preset.templates.is_empty()) else {
        return Ok(None);
    };
    match preset.templates.get(&task) {
        Some(template) => Ok(Some(template.clone())),
        // The built-in graph can run its model.
        None if task == Task::Generate
            && choice.model.as_ref().is_some_and(|model| model.graphs().is_some()) =>
        {
            Ok(None)
        }
        None => {
            let message = format!("The preset {:?} has no template for {}.", preset.name, task.name());
            Err(FieldError::new("model", message))
        }
    }
}
