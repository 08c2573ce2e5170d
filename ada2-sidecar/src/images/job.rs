//! The job: everything that a request leaves open is decided here, by the preset, the model, and what is usual.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use shared::openai::{fields::FieldError, images::Size};

use super::{ImageRequest, Limits, narrow};
use crate::{
    engine::{catalog::Choice, graph::Template},
    models::{Base, EngineModel},
};

const USUAL_SCHEDULER: &str = "euler";

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// A picture from words.
    Generate,
    /// A picture from a picture and words.
    Edit,
    /// The masked part of a picture anew.
    Inpaint,
}

impl Task {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Generate => "generate",
            Self::Edit => "edit",
            Self::Inpaint => "inpaint",
        }
    }
}

/// The picture that an edit starts from, in the size that is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// PNG without transparency.
    pub picture: Bytes,
    /// PNG, grey: black is repainted, white is kept. None where all of it is.
    pub mask: Option<Bytes>,
}

/// Work for the engine: everything decided.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each field says what it is by its name")]
pub struct Job {
    /// What it is asked for as, for logs.
    pub name: String,
    /// None where the template loads its own.
    pub model: Option<EngineModel>,
    /// A user's graph in place of the built-in one.
    pub template: Option<Arc<Template>>,
    pub prompt: String,
    pub negative_prompt: String,
    pub size: Size,
    pub steps: u32,
    pub cfg_scale: f64,
    pub scheduler: String,
    /// One picture each, in this order.
    pub seeds: Vec<u32>,
    pub source: Option<Arc<Source>>,
    /// How much of the source is given up, 0 to 1.
    pub strength: f64,
    /// Whether the pictures stay out of the engine's own gallery.
    pub discard: bool,
    /// Whether anybody looks at previews.
    pub previews: bool,
}

impl Job {
    /// The smallest that has the engine load this model.
    pub fn warm_up(choice: Choice) -> Self {
        let Choice { name, model, preset } = choice;
        let scheduler = model.as_ref().and_then(|model| model.scheduler.clone());
        Self {
            name,
            template: preset.and_then(|preset| preset.templates.get(&Task::Generate).cloned()),
            prompt: "warm-up".to_owned(),
            negative_prompt: String::new(),
            size: Size::new(64, 64),
            steps: 1,
            cfg_scale: Usual::of(model.as_ref()).cfg_scale,
            scheduler: scheduler.unwrap_or_else(|| USUAL_SCHEDULER.to_owned()),
            model,
            seeds: vec![0],
            source: None,
            strength: 1.0,
            discard: true,
            previews: false,
        }
    }

    /// Decides what the request leaves open: the preset's settings, the model's own, else those usual for its kind.
    /// `any_seed` is used if none is given. Seeds count up from the first and wrap at 32 bits, as the engines' do.
    pub fn plan(
        request: &ImageRequest,
        choice: Choice,
        any_seed: u32,
        limits: Limits,
    ) -> Result<Self, FieldError> {
        let usual = Usual::of(choice.model.as_ref());
        let Choice { name, model, preset } = choice;
        let own = model.as_ref();
        let preset = preset.as_deref();
        let size = request.size.or_else(|| preset?.size).or_else(|| own?.size).unwrap_or(usual.size);
        if size.pixels() > limits.max_pixels {
            let message = format!(
                "size is not given, and the model's own, {size}, exceeds {} pixels.",
                limits.max_pixels
            );
            return Err(FieldError::new("size", message));
        }
        let steps = preset.and_then(|preset| preset.steps).or_else(|| own?.steps).unwrap_or(usual.steps);
        let first = request.seed.map_or(any_seed, narrow);
        Ok(Self {
            prompt: request.prompt.clone(),
            negative_prompt: request.negative_prompt.clone(),
            size,
            steps: request.steps.unwrap_or_else(|| request.quality.of(steps)),
            cfg_scale: request
                .cfg_scale
                .or_else(|| preset?.cfg_scale)
                .or_else(|| own?.cfg_scale)
                .unwrap_or(usual.cfg_scale),
            scheduler: request
                .scheduler
                .clone()
                .or_else(|| preset?.scheduler.clone())
                .or_else(|| own?.scheduler.clone())
                .unwrap_or_else(|| USUAL_SCHEDULER.to_owned()),
            seeds: (0..narrow(request.n)).map(|nth| first.wrapping_add(nth)).collect(),
            template: preset.and_then(|preset| preset.templates.get(&Task::Generate)).cloned(),
            source: None,
            strength: 1.0,
            discard: false,
            previews: request.partial_images.is_some_and(|partials| partials > 0),
            name,
            model,
        })
    }

    /// The same, starting from a picture. A preset with a graph of its own needs one for this task.
    pub fn from_source(
        self,
        source: Source,
        request: &ImageRequest,
        choice: &Choice,
    ) -> Result<Self, FieldError> {
        let task = if source.mask.is_some() { Task::Inpaint } else { Task::Edit };
        let template = match choice.preset.as_deref().filter(|preset| !preset.templates.is_empty()) {
            None => None,
            Some(preset) => Some(preset.templates.get(&task).cloned().ok_or_else(|| {
                let message = format!("The preset {:?} has no template for {}.", preset.name, task.name());
                FieldError::new("model", message)
            })?),
        };
        let usual = if task == Task::Inpaint { 1.0 } else { 0.75 };
        let strength = request.strength.unwrap_or(usual);
        Ok(Self { source: Some(Arc::new(source)), strength, template, ..self })
    }

    /// What is done.
    pub fn task(&self) -> Task {
        match self.source.as_deref() {
            None => Task::Generate,
            Some(Source { mask: None, .. }) => Task::Edit,
            Some(_) => Task::Inpaint,
        }
    }
}

/// What a kind of model is usually run with.
struct Usual {
    size: Size,
    steps: u32,
    cfg_scale: f64,
}

impl Usual {
    fn of(model: Option<&EngineModel>) -> Self {
        match model.and_then(EngineModel::graphs).unwrap_or(Base::Sdxl) {
            Base::Sd1 => Self { size: Size::new(512, 512), steps: 30, cfg_scale: 7.5 },
            Base::Sdxl => Self { size: Size::new(1024, 1024), steps: 30, cfg_scale: 5.5 },
        }
    }
}
