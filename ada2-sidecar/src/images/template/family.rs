//! Which models built-in graphs run: the `family` section of a binding file.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::images::models::kind::ModelVariant;

/// The `family` section.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FamilyDeclaration {
    /// The name of these graphs, and of the model where the engine has files instead of models.
    pub name: String,
    /// Its name in messages.
    pub label: String,
    /// The family of the models that they run.
    pub base: String,
    /// The variant, for lists of models.
    pub variant: Option<String>,
    /// Which family comes first where the engine has no order of its own. None: after those with one, by name.
    pub rank: Option<u8>,
    /// The file of the graph, if it is not named like the binding file.
    pub graph: Option<String>,
    /// The files that the graph loads, by input (`node.input`): patterns of their names, best first.
    #[serde(default)]
    pub files: BTreeMap<String, Vec<String>>,
    /// The models that the graphs run. None: they load files.
    pub models: Option<ModelSelector>,
    /// Other models that they need: alternatives, of which the first complete one is used.
    #[serde(default)]
    pub submodels: Vec<SubmodelChoice>,
}

/// Which models.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSelector {
    /// Their variants.
    #[serde(default = "main_only")]
    pub kinds: Vec<ModelVariant>,
    /// Their variants in the engine's words. Empty: any.
    #[serde(default)]
    pub variants: Vec<String>,
    /// Words of which one must be in the name. Empty: any name.
    #[serde(default)]
    pub words: Vec<String>,
}

fn main_only() -> Vec<ModelVariant> {
    vec![ModelVariant::Main]
}

/// One way to complete a main model.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubmodelChoice {
    /// A condition on the main model.
    #[serde(default)]
    pub when: MainCondition,
    /// The model that each input takes.
    #[serde(default)]
    pub set: BTreeMap<String, SubmodelSelector>,
}

/// A condition on the main model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MainCondition {
    /// Its format is one of these. Empty: any.
    pub format: Vec<String>,
    /// Its variant, in the engine's words, is one of these. Empty: any.
    pub variant: Vec<String>,
}

/// The model that an input takes: the main one (`self`), or the first that has all of these.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum SubmodelSelector {
    /// The main model once more.
    Main(MainModel),
    /// Another.
    Other(SubmodelQuery),
}

/// The word for the main model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum MainModel {
    /// The main model.
    #[serde(rename = "self")]
    Itself,
}

/// What another model must be. Empty lists: anything.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubmodelQuery {
    /// Its type in the engine.
    #[serde(rename = "type")]
    pub model_type: String,
    /// Its base.
    #[serde(default)]
    pub base: Vec<String>,
    /// Its format.
    #[serde(default)]
    pub format: Vec<String>,
    /// Its variant; `same` is the main model's.
    #[serde(default)]
    pub variant: Vec<String>,
}
