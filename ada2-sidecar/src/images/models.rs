//! An engine's models: what each is (families are rows of a table, `families.rs`), what runs it, and its own settings.

pub(super) mod classify;
mod completion;
mod declarations;
mod families;
mod header;
pub(super) mod kind;
mod lora;
mod model;
mod tokens;

use std::{collections::BTreeMap, sync::Arc};

use wire::openai::images::ImageSize;

pub use self::{
    classify::{ModelMetadata, classify_checkpoint, has_word, lora_family, variant_from_name},
    completion::{Completion, Submodel},
    declarations::{ModelDeclaration, apply_declarations, undeclared_model_warnings},
    families::{Family, SD_1, SDXL, all as families, by_name as family_named},
    header::{Tensors, kind_from_header},
    kind::{DetectedFamily, Evidence, ModelKind, ModelVariant},
    lora::{EngineLora, LoraChoice, LoraUse},
    model::{EngineModel, ModelSettings, Runner},
};
use crate::{images::Task, images::template::Template};

/// A name in the configuration for a model with its settings, or for templates.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Preset {
    /// The value of `model` in requests.
    pub name: String,
    /// An engine model's key or name; None: the templates load their own.
    pub model: Option<String>,
    /// A family: the engine's first model of it.
    pub family: Option<String>,
    /// LoRAs, unless a request names its own.
    pub loras: Vec<LoraChoice>,
    /// Size.
    pub size: Option<ImageSize>,
    /// Steps.
    pub steps: Option<u32>,
    /// Guidance.
    pub cfg_scale: Option<f64>,
    /// Scheduler.
    pub scheduler: Option<String>,
    /// They replace the built-in graphs.
    pub templates: BTreeMap<Task, Arc<Template>>,
}
