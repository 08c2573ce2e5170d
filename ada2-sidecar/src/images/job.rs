//! The job: everything that a request leaves open is decided here, by the preset, the model, and what is usual.

use std::sync::Arc;

use wire::openai::{fields::FieldError, images::ImageSize};

use super::{
    EditPlan, ImageRequest, Limits, SourceImage, Task,
    resolve::{BuiltinDefaults, ParameterResolver},
};
use crate::images::{
    choice::ModelChoice,
    models::{EngineModel, Preset},
    template::Template,
};

/// Work for the engine: everything decided. The graph keeps its own value where there is none here; a built-in graph is
/// given them all.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each field says what it is by its name")]
pub struct Job {
    /// What it is asked for as, for logs.
    pub name: String,
    pub task: Task,
    /// None where the template loads its own.
    pub model: Option<EngineModel>,
    /// A user's graph in place of the built-in one.
    pub template: Option<Arc<Template>>,
    pub prompt: String,
    pub negative_prompt: Option<String>,
    /// Of an edit always that of its source.
    pub size: Option<ImageSize>,
    pub steps: Option<u32>,
    pub cfg_scale: Option<f64>,
    pub scheduler: Option<String>,
    /// One picture each, in this order.
    pub seeds: Vec<u64>,
    pub source: Option<Arc<SourceImage>>,
    /// How much of the source is given up, 0 to 1.
    pub strength: Option<f64>,
    /// Parameters of the request that the graph does not take.
    pub ignored: Vec<&'static str>,
    /// Whether the pictures stay out of the engine's own gallery.
    pub discard: bool,
    /// Whether anybody looks at previews.
    pub previews: bool,
}

impl Job {
    /// The smallest that has the engine load this model.
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
            cfg_scale: defaults.as_ref().map(|usual| usual.cfg_scale),
            scheduler: defaults.map(|usual| usual.scheduler),
            model,
            seeds: vec![0],
            source: None,
            strength: None,
            ignored: Vec::new(),
            discard: true,
            previews: false,
        }
    }

    /// Decides what the request leaves open. For a built-in graph: the preset's settings, the model's own, else those usual
    /// for its kind. For a template: the preset's settings, else the workflow keeps its own.
    /// `any_seed` is used if none is given. Seeds count up from the first and wrap at the engine's width.
    pub fn plan(
        request: &ImageRequest,
        choice: ModelChoice,
        edit_plan: Option<EditPlan>,
        fallback_seed: u32,
        limits: Limits,
    ) -> Result<Self, FieldError> {
        let first = request.seed.unwrap_or(u64::from(fallback_seed));
        let seeds = (0..request.n).map(|nth| first.wrapping_add(nth) & limits.max_seed).collect();
        let task = edit_plan.map_or(Task::Generate, |canvas| canvas.task);
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

    /// The same with the picture that it starts from, now that it is decoded. Its own transparency may have made another
    /// task of it, which is planned anew.
    pub fn with_source(
        self,
        source: SourceImage,
        request: &ImageRequest,
        choice: &ModelChoice,
        edit_plan: EditPlan,
        limits: Limits,
    ) -> Result<Self, FieldError> {
        let mut source = source;
        let repaints = |preset: &Preset| preset.templates.contains_key(&Task::Inpaint);
        // Nobody sent a mask, and the preset has graphs for whole pictures only: its transparency is not asked about.
        if self.task == Task::Edit
            && self.template.is_some()
            && !choice.preset.as_deref().is_some_and(repaints)
        {
            source.mask = None;
        }
        let task = if source.mask.is_some() { Task::Inpaint } else { Task::Edit };
        let job = if task == self.task {
            self
        } else {
            let canvas = EditPlan { task, ..edit_plan };
            let anew = Self::plan(request, choice.clone(), Some(canvas), 0, limits)?;
            Self { seeds: self.seeds, discard: self.discard, ..anew }
        };
        Ok(Self { source: Some(Arc::new(source)), ..job })
    }

    /// The size that it will have, as far as that is known before it is made.
    pub fn expected_size(&self) -> Option<ImageSize> {
        let template = self.template.as_deref();
        match template.filter(|template| self.task == Task::Generate && !template.takes_size()) {
            Some(_) => None,
            None => self.size.or_else(|| template?.default_size()),
        }
    }
}

/// The preset's graph for a task; none means the built-in one.
fn template(choice: &ModelChoice, task: Task) -> Result<Option<Arc<Template>>, FieldError> {
    let Some(preset) = choice.preset.as_deref().filter(|preset| !preset.templates.is_empty()) else {
        return Ok(None);
    };
    match preset.templates.get(&task) {
        Some(template) => Ok(Some(template.clone())),
        // It names a model that the built-in graph can run.
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
