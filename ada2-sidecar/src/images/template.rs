//! Templates: an engine's graph as JSON, with bindings that say which inputs take which of the job's values. The built-in
//! graphs are templates too. Values are set as JSON, never spliced into text, so a prompt cannot change the graph.

mod check;
mod edges;
mod format;
mod parse;
mod propose;
mod structure;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::Deserialize;
use serde_json::{Map, Value};
use wire::openai::images::ImageSize;

use crate::images::Task;

pub use self::{
    edges::GraphEdge,
    format::{BatchInput, GraphFormat, GraphSyntax, Node, ParsedGraph},
    propose::{Pictures, Proposal, ProposeRules, SizeInputs, Texts, propose},
};

/// A value of the job that a graph can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each is the job's value of that name")]
pub enum Binding {
    Prompt,
    NegativePrompt,
    Width,
    Height,
    Seed,
    Steps,
    CfgScale,
    Scheduler,
    Model,
    Image,
    Mask,
    Strength,
    /// Always 1: several images are several runs, each with its own seed.
    N,
}

impl Binding {
    /// Its key in a binding file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::NegativePrompt => "negative_prompt",
            Self::Width => "width",
            Self::Height => "height",
            Self::Seed => "seed",
            Self::Steps => "steps",
            Self::CfgScale => "cfg_scale",
            Self::Scheduler => "scheduler",
            Self::Model => "model",
            Self::Image => "image",
            Self::Mask => "mask",
            Self::Strength => "strength",
            Self::N => "n",
        }
    }

    /// Whether every job has a value for it. Without one, the graph keeps its own.
    pub const fn is_always_set(self) -> bool {
        matches!(self, Self::Prompt | Self::Seed | Self::Image | Self::Mask | Self::N)
    }

    /// Whether a job of this task can have a value for it.
    const fn applies_to(self, task: Task) -> bool {
        match self {
            Self::Image | Self::Strength => !matches!(task, Task::Generate),
            Self::Mask => matches!(task, Task::Inpaint),
            _ => true,
        }
    }
}

impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An input of a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeInput {
    /// The node's id.
    pub node: String,
    /// Its input.
    pub field: String,
}

impl fmt::Display for NodeInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.node, self.field)
    }
}

/// A graph with its bindings.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    format: GraphFormat,
    graph: Value,
    edges: Vec<GraphEdge>,
    bindings: BTreeMap<Binding, Vec<NodeInput>>,
    /// The node whose image is the result.
    pub output: String,
    /// Whether a requested size is ignored where the graph takes none, instead of rejected.
    pub ignores_size: bool,
}

/// What is wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateError(pub String);

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Template {
    /// Reads a graph (JSON) and its binding file (YAML: `output`, `bindings`, optionally `size: ignore`). Every bound input
    /// must exist, have one binding only, and affect the output.
    pub fn read(format: GraphFormat, graph: &str, declaration: &str) -> Result<Self, Vec<TemplateError>> {
        parse::parse(format, graph, declaration)
    }

    /// Whether everything that this task needs is bound, and nothing else.
    pub fn check_task(&self, task: Task) -> Result<(), Vec<TemplateError>> {
        let errors = check::check_task(self, task);
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// The graph with the values set. A value replaces the edge into its input; without one, the graph keeps its own.
    pub fn render(&self, value: impl Fn(Binding, &NodeInput) -> Option<Value>) -> Value {
        let mut graph = self.graph.clone();
        let mut set = BTreeSet::new();
        for (binding, inputs) in &self.bindings {
            for input in inputs {
                if let Some(value) = value(*binding, input) {
                    *self.format.input_mut(&mut graph, input) = value;
                    set.insert(input);
                }
            }
        }
        self.format.remove_edges_into(&mut graph, &set);
        graph
    }

    /// The inputs that take this value.
    pub fn inputs_bound_to(&self, binding: Binding) -> &[NodeInput] {
        self.bindings.get(&binding).map_or(&[], Vec::as_slice)
    }

    /// Whether any input takes this value.
    pub fn binds(&self, binding: Binding) -> bool {
        !self.inputs_bound_to(binding).is_empty()
    }

    /// Whether the graph takes a size.
    pub fn takes_size(&self) -> bool {
        self.binds(Binding::Width) && self.binds(Binding::Height)
    }

    /// The workflow's own steps, if they are bound and a number.
    pub fn default_steps(&self) -> Option<u32> {
        self.default_value(Binding::Steps).filter(|steps| *steps > 0)
    }

    /// The workflow's own size, if it is bound and no edge decides it.
    pub fn default_size(&self) -> Option<ImageSize> {
        Some(ImageSize::new(self.default_value(Binding::Width)?, self.default_value(Binding::Height)?))
    }

    fn default_value(&self, binding: Binding) -> Option<u32> {
        let input =
            self.inputs_bound_to(binding).first().filter(|input| self.incoming_edge(input).is_none())?;
        self.node(&input.node)?.get(&input.field)?.as_u64()?.try_into().ok()
    }

    /// The edge into an input.
    fn incoming_edge(&self, input: &NodeInput) -> Option<&GraphEdge> {
        self.edges.iter().find(|edge| edge.target == *input)
    }

    /// All bound inputs.
    pub fn bound_inputs(&self) -> impl Iterator<Item = &NodeInput> {
        self.bindings.values().flatten()
    }

    /// The bindings, in one line.
    pub fn summary(&self) -> String {
        let bound = self.bindings.iter().filter(|(_, inputs)| !inputs.is_empty()).map(|(binding, inputs)| {
            let inputs: Vec<_> = inputs.iter().map(NodeInput::to_string).collect();
            format!("{binding} ({})", inputs.join(", "))
        });
        bound.collect::<Vec<_>>().join(", ")
    }

    /// The edges that a binding replaces, each as a line for its author.
    pub fn dropped_edges(&self) -> Vec<String> {
        let inputs =
            self.bindings.iter().flat_map(|(binding, inputs)| inputs.iter().map(move |at| (binding, at)));
        let dropped = inputs.filter_map(|(binding, input)| {
            let edge = self.incoming_edge(input)?;
            let when = if binding.is_always_set() {
                "is dropped".to_owned()
            } else {
                format!("is dropped whenever a request or the preset gives {binding}")
            };
            Some(format!("{edge} {when}: the binding {binding} sets that input"))
        });
        dropped.collect()
    }

    /// Its nodes.
    pub fn nodes(&self) -> impl Iterator<Item = Node<'_>> {
        self.format.nodes(&self.graph).into_iter()
    }

    fn node(&self, id: &str) -> Option<&Map<String, Value>> {
        self.nodes().find(|(node, _, _)| *node == id).map(|(_, _, inputs)| inputs)
    }
}

#[cfg(test)]
mod tests;
