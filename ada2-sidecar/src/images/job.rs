//! The job: what a request leaves open is decided here, from preset, model and the family's defaults.

use std::sync::Arc;

use serde_json::{Value, json};
use wire::openai::{fields::FieldError, images::ImageSize};

use super::{
    EditPlan, ImageRequest, Limits, SourceImages, Task, choice::ModelChoice, loras,
    resolve::ParameterResolver,
};
use crate::images::{
    models::{EngineModel, LoraUse},
    template::{Binding, MAX_IMAGES, Template},
};

/// Work for the engine, with everything decided. Where a value is None, the graph keeps its own.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each field says what it is by its name")]
pub struct Job {
    /// The name of model or preset, for logs.
    pub name: String,
    pub task: Task,
    /// None: the template loads its own.
    pub model: Option<EngineModel>,
    /// The graph. None: the engine runs none.
    pub template: Option<Arc<Template>>,
    pub prompt: String,
    pub negative_prompt: Option<String>,
    /// None: the graph decides it.
    pub size: Option<ImageSize>,
    pub steps: Option<u32>,
    pub cfg_scale: Option<f64>,
    pub scheduler: Option<String>,
    /// One image each, in this order.
    pub seeds: Vec<u64>,
    /// The images of an edit.
    pub source: Option<Arc<SourceImages>>,
    /// How much of the source is replaced, 0 to 1.
    pub strength: Option<f64>,
    /// In this order.
    pub loras: Vec<LoraUse>,
    /// Parameters of the request that have no effect.
    pub ignored: Vec<&'static str>,
    /// Whether the images stay out of the engine's gallery.
    pub discard: bool,
    /// Whether the client requested previews.
    pub previews: bool,
}

impl Job {
    /// The smallest job that makes the engine load this model.
    pub fn warm_up(choice: ModelChoice) -> Self {
        let template = choice.template(Task::Generate).cloned();
        let ModelChoice { name, model, .. } = choice;
        let settings = model.as_ref().filter(|_| template.is_none()).map(|model| &model.settings);
        Self {
            name,
            task: Task::Generate,
            prompt: "warm-up".to_owned(),
            negative_prompt: None,
            size: Some(ImageSize::new(64, 64)),
            steps: Some(1),
            cfg_scale: settings.and_then(|settings| settings.cfg_scale),
            scheduler: settings.and_then(|settings| settings.scheduler.clone()),
            template,
            model,
            seeds: vec![0],
            source: None,
            strength: None,
            loras: Vec::new(),
            ignored: Vec::new(),
            discard: true,
            previews: false,
        }
    }

    /// Decides what the request leaves open: the preset's settings, else the model's own for a built-in graph, else the
    /// graph's. Seeds count up from the first and wrap at the engine's largest.
    pub fn plan(
        request: &ImageRequest,
        choice: ModelChoice,
        edit_plan: Option<EditPlan>,
        fallback_seed: u32,
        limits: Limits,
    ) -> Result<Self, FieldError> {
        let task = edit_plan.map_or(Task::Generate, |plan| plan.task);
        let template = template(&choice, task)?;
        if let Some(plan) = edit_plan {
            check_image_count(&choice.name, template.as_deref(), plan)?;
        }
        let mut resolver = ParameterResolver::new(request, task, &choice, template.as_deref());
        let prompt = resolver.prompt();
        let first_seed = resolver.seed().unwrap_or(u64::from(fallback_seed));
        let seeds = (0..request.n).map(|nth| first_seed.wrapping_add(nth) & limits.max_seed).collect();
        let job = Self {
            prompt,
            size: resolver.size(edit_plan, limits)?,
            steps: resolver.steps(),
            cfg_scale: resolver.cfg_scale(),
            negative_prompt: resolver.negative_prompt(),
            scheduler: resolver.scheduler()?,
            strength: resolver.strength(),
            loras: loras::resolve(request, &choice, template.as_deref())?,
            ignored: resolver.ignored,
            seeds,
            source: None,
            discard: false,
            previews: request.partial_images.is_some_and(|partials| partials > 0),
            name: choice.name,
            task,
            template,
            model: choice.model,
        };
        Ok(job)
    }

    /// Adds the decoded images. If the first one's transparency turned out to be a mask, the task changes and is planned
    /// again.
    pub fn with_source(
        self,
        source: SourceImages,
        request: &ImageRequest,
        choice: &ModelChoice,
        edit_plan: EditPlan,
        limits: Limits,
    ) -> Result<Self, FieldError> {
        let mut source = source;
        if !edit_plan.takes_transparency {
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

    /// The graph for this job's model, images and LoRAs.
    pub fn graph(&self) -> Option<Template> {
        let images = self.source.as_ref().map_or(0, |source| source.images.len());
        let count = |length: usize| u8::try_from(length).unwrap_or(u8::MAX);
        let template = self.template.as_ref()?;
        let expanded = template.expand(count(images), count(self.loras.len()));
        // A preset's template names its own files.
        let is_built_in = |model: &&EngineModel| {
            model.template(self.task).is_some_and(|built_in| Arc::ptr_eq(built_in, template))
        };
        Some(match self.model.as_ref().filter(is_built_in) {
            Some(model) => expanded.with_inputs(model.inputs()),
            None => expanded,
        })
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
            Binding::Lora(number) => self.lora(number).map(|lora| lora.lora.handle.clone()),
            Binding::LoraWeight(number) => self.lora(number).map(|lora| json!(lora.weight)),
            Binding::Loras => Some(self.loras.iter().map(lora_entry).collect()),
            // The engine's names of the uploaded files.
            Binding::Image(_) | Binding::Mask => None,
        }
    }

    fn lora(&self, number: u8) -> Option<&LoraUse> {
        self.loras.get(usize::from(number).checked_sub(1)?)
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

fn lora_entry(lora: &LoraUse) -> Value {
    json!({"model": lora.lora.handle, "weight": lora.weight})
}

/// The graph for the task. None: the engine runs none.
fn template(choice: &ModelChoice, task: Task) -> Result<Option<Arc<Template>>, FieldError> {
    if let Some(template) = choice.template(task) {
        return Ok(Some(template.clone()));
    }
    if choice.is_in_process() {
        return Ok(None);
    }
    let name = &choice.name;
    if let Some(preset) = choice.preset.as_deref().filter(|preset| !preset.templates.is_empty()) {
        let name = &preset.name;
        let message = format!("The preset {name:?} has no template for {}.", task.name());
        return Err(FieldError::new("model", message));
    }
    let (param, message) = match task {
        Task::Generate => (
            "model",
            format!(
                "The model {name:?} only edits images: use POST /v1/images/edits with image, or another model."
            ),
        ),
        Task::Inpaint if choice.template(Task::Edit).is_some() => (
            "mask",
            format!(
                "The model {name:?} edits by instruction and takes no mask: leave mask out, or use another model."
            ),
        ),
        Task::Edit if choice.template(Task::Inpaint).is_some() => (
            "mask",
            format!(
                "The model {name:?} only repaints a part of an image: send a mask that is transparent there."
            ),
        ),
        Task::Edit | Task::Inpaint => {
            ("model", format!("The model {name:?} only makes new images, and edits none: use another model."))
        }
    };
    Err(FieldError::new(param, message))
}

fn check_image_count(name: &str, template: Option<&Template>, plan: EditPlan) -> Result<(), FieldError> {
    let (min, max) = template.map_or((1, MAX_IMAGES), Template::image_counts);
    let count = plan.images;
    if (min..=max).contains(&count) {
        return Ok(());
    }
    let images = |count: u8| format!("{count} image{}", if count == 1 { "" } else { "s" });
    let with_mask = if plan.task == Task::Inpaint { " with a mask" } else { "" };
    let message = if count > max {
        format!("The model {name:?} takes at most {}{with_mask}, not {count}.", images(max))
    } else {
        format!("The model {name:?} needs {}{with_mask}, not {count}.", images(min))
    };
    Err(FieldError::new("image", message))
}
