//! The binding file of a graph, as written.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{Binding, family::FamilyDeclaration};
use crate::images::Task;

/// A binding file (YAML).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BindingFile {
    /// Of built-in graphs: which models they run.
    pub(super) family: Option<FamilyDeclaration>,
    pub(super) output: String,
    pub(super) bindings: BTreeMap<Binding, Vec<String>>,
    /// None: the graph serves one task, as whoever uses it says.
    pub(super) tasks: Option<BTreeMap<Task, TaskChanges>>,
    #[serde(default)]
    pub(super) repeat: RepeatSection,
    pub(super) size: Option<SizeRule>,
    /// What the graph has no input for.
    #[serde(default)]
    pub(super) without: Vec<Omission>,
    #[serde(default)]
    pub(super) fixed: FixedValues,
    pub(super) quality: Option<QualityRule>,
    pub(super) schedulers: Option<Vec<String>>,
    pub(super) multiple: Option<u32>,
    pub(super) image_pixels: Option<u64>,
    pub(super) strength_exponent: Option<f64>,
}

/// How the graph differs for one task.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TaskChanges {
    pub(super) output: Option<String>,
    /// New edges: `node.input: node.output`.
    pub(super) connect: BTreeMap<String, String>,
    /// Other values: `node.input: value`.
    pub(super) values: BTreeMap<String, Value>,
    pub(super) size: Option<SizeRule>,
}

/// What happens to a requested size that the graph does not take itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SizeRule {
    /// It is ignored.
    Ignore,
    /// The first image is scaled to it: the result has the size of that image.
    Image,
}

/// A value that every request has, and that a graph that only processes an image may have no input for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Omission {
    /// The prompt.
    Prompt,
    /// The seed.
    Seed,
}

impl Omission {
    pub(super) const fn binding(self) -> Binding {
        match self {
            Self::Prompt => Binding::Prompt,
            Self::Seed => Binding::Seed,
        }
    }
}

/// What `quality` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum QualityRule {
    /// Nothing: the model works with its own number of steps only.
    Ignore,
}

/// Values that the graph has and no request changes.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FixedValues {
    pub(super) cfg_scale: Option<f64>,
    pub(super) steps: Option<u32>,
}

/// The parts of the graph that exist several times.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RepeatSection {
    pub(super) images: Option<RepeatDeclaration>,
    pub(super) loras: Option<RepeatDeclaration>,
}

/// See [`super::repeat::Repeat`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RepeatDeclaration {
    pub(super) nodes: Vec<String>,
    #[serde(default)]
    pub(super) chain: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) inputs: Vec<String>,
    pub(super) max: Option<u8>,
}
