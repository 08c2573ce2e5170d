//! An engine's models: what each is (families are rows of a table, `families.rs`), and its own settings.

mod classify;
mod declarations;
mod families;
mod header;
mod kind;
mod tokens;

use std::{collections::BTreeMap, sync::Arc};

use wire::openai::images::ImageSize;

pub use self::{
    classify::{ModelMetadata, classify_checkpoint, has_word, lora_family, variant_from_name},
    declarations::{ModelDeclaration, apply_declarations, undeclared_model_warnings},
    families::{
        DEFAULT as DEFAULT_FAMILY, Family, FamilyDefaults, SD_1, SDXL, all as families,
        by_name as family_named,
    },
    header::{Tensors, kind_from_header},
    kind::{DetectedFamily, Evidence, ModelKind, ModelVariant},
};
use crate::{images::Task, images::template::Template};

/// A model that the engine has, whether or not we can use it.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineModel {
    /// The engine's key.
    pub key: String,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: ModelKind,
    /// How the engine's graphs refer to it.
    pub handle: serde_json::Value,
    /// Its own settings, where the engine knows them.
    pub size: Option<ImageSize>,
    /// Steps.
    pub steps: Option<u32>,
    /// Guidance.
    pub cfg_scale: Option<f64>,
    /// Scheduler.
    pub scheduler: Option<String>,
}

impl EngineModel {
    /// A text-to-image model of this family, without settings of its own.
    pub fn without_settings(key: &str, name: &str, family: &'static Family) -> Self {
        Self {
            key: key.to_owned(),
            name: name.to_owned(),
            kind: ModelKind::main(family, Evidence::Engine),
            handle: serde_json::Value::Null,
            size: None,
            steps: None,
            cfg_scale: None,
            scheduler: None,
        }
    }

    /// The family whose built-in graphs can run it.
    pub fn graphs(&self) -> Option<&'static Family> {
        self.kind.graphs()
    }

    /// Compares key and name, ignoring case.
    pub fn matches_name(&self, name: &str) -> bool {
        let name = name.to_lowercase();
        self.name.to_lowercase() == name || self.key.to_lowercase() == name
    }
}

/// A name in the configuration for a model with its settings, or for templates.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Preset {
    /// The value of `model` in requests.
    pub name: String,
    /// An engine model's key or name; None: the templates load their own.
    pub model: Option<String>,
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
