//! A model that the engine has, and what runs it.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;
use wire::openai::images::ImageSize;

use super::{Completion, Evidence, Family, ModelKind, ModelVariant, SD_1};
use crate::images::{
    Task,
    graph_set::GraphSet,
    template::{NodeInput, Template},
};

/// A model that the engine has, whether or not we can use it.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineModel {
    /// The engine's key.
    pub key: String,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: ModelKind,
    /// Its variant, in the engine's words.
    pub variant: Option<String>,
    /// Its format, in the engine's words.
    pub format: Option<String>,
    /// How the engine's graphs refer to it.
    pub handle: Value,
    /// What runs it.
    pub runner: Runner,
    /// Whether lists of models contain it; if not, it can be used by its name all the same.
    pub is_listed: bool,
    /// Its own settings, where the engine knows them.
    pub settings: ModelSettings,
    /// Finds what runs it, should its kind be declared. None: nothing depends on its kind.
    pub completion: Option<Arc<Completion>>,
}

/// What runs a model.
#[derive(Debug, Clone, PartialEq)]
pub enum Runner {
    /// The engine itself, without a graph.
    InProcess,
    /// Built-in graphs, with these values in their inputs: the files or models that the model consists of.
    Graphs {
        /// The graphs.
        set: Arc<GraphSet>,
        /// Values for their inputs.
        inputs: BTreeMap<NodeInput, Value>,
    },
    /// Built-in graphs that miss something, as a clause: `a VAE (ae.safetensors)`.
    Incomplete {
        /// Their name.
        graphs: String,
        /// What is missing.
        lacks: String,
        /// Whether the engine has the model itself.
        is_installed: bool,
    },
    /// Nothing: only a preset with a graph of its own can use it.
    None,
}

/// A model's own settings, where the engine knows them.
#[derive(Debug, Clone, Default, PartialEq)]
#[expect(missing_docs, reason = "each field is the parameter of that name")]
pub struct ModelSettings {
    pub size: Option<ImageSize>,
    pub steps: Option<u32>,
    pub cfg_scale: Option<f64>,
    pub scheduler: Option<String>,
}

impl EngineModel {
    /// A text-to-image model of this family that the engine runs without a graph.
    pub fn in_process(key: &str, name: &str, family: &'static Family) -> Self {
        let (side, cfg_scale) = if *family == SD_1 { (512, 7.5) } else { (1024, 5.5) };
        Self {
            key: key.to_owned(),
            name: name.to_owned(),
            kind: ModelKind::main(family, Evidence::Engine),
            variant: None,
            format: None,
            handle: Value::Null,
            runner: Runner::InProcess,
            is_listed: true,
            settings: ModelSettings {
                size: Some(ImageSize::new(side, side)),
                steps: Some(30),
                cfg_scale: Some(cfg_scale),
                scheduler: Some("euler".to_owned()),
            },
            completion: None,
        }
    }

    /// Compares key and name, ignoring case.
    pub fn matches_name(&self, name: &str) -> bool {
        let name = name.to_lowercase();
        self.name.to_lowercase() == name || self.key.to_lowercase() == name
    }

    /// Whether it can be used without a template of the user's.
    pub fn is_usable(&self) -> bool {
        matches!(self.runner, Runner::InProcess | Runner::Graphs { .. })
    }

    /// Whether it can do this without a template of the user's.
    pub fn can(&self, task: Task) -> bool {
        match &self.runner {
            Runner::InProcess => true,
            Runner::Graphs { set, .. } => set.templates.contains_key(&task),
            Runner::Incomplete { .. } | Runner::None => false,
        }
    }

    /// The built-in graph for a task.
    pub fn template(&self, task: Task) -> Option<&Arc<Template>> {
        match &self.runner {
            Runner::Graphs { set, .. } => set.templates.get(&task),
            _ => None,
        }
    }

    /// The values that its built-in graphs have in their inputs.
    pub fn inputs(&self) -> impl Iterator<Item = (&NodeInput, &Value)> {
        let inputs = match &self.runner {
            Runner::Graphs { inputs, .. } => Some(inputs),
            _ => None,
        };
        inputs.into_iter().flatten()
    }

    /// Whether the engine has it: an incomplete family of files may have nothing at all.
    pub fn is_installed(&self) -> bool {
        !matches!(self.runner, Runner::Incomplete { is_installed: false, .. })
    }

    /// Whether a request that names no model may get it for this task: known, usable, and made for it. A model for edits that
    /// also makes new images is the default for edits only; such an inpainting variant is only used by its name.
    pub fn is_default_candidate(&self, task: Task) -> bool {
        let is_made_for = match self.kind.variant {
            ModelVariant::Main => true,
            ModelVariant::Edit => task != Task::Generate,
            _ => !self.can(Task::Generate),
        };
        self.can(task) && is_made_for
    }

    /// The name of the built-in graphs that run it, or would if it were complete.
    pub fn graphs_name(&self) -> Option<&str> {
        match &self.runner {
            Runner::Graphs { set, .. } => Some(&set.family.name),
            Runner::Incomplete { graphs, .. } => Some(graphs),
            Runner::InProcess | Runner::None => None,
        }
    }

    /// The name of its family, for people and lists.
    pub fn family_name(&self) -> Option<&str> {
        match &self.runner {
            Runner::Graphs { set, .. } => Some(&set.family.base),
            _ => self.kind.family_name(),
        }
    }
}
