//! Templates: an engine's graph as JSON, with bindings that say which inputs take which of the job's values. The built-in
//! graphs are templates too. Values are set as JSON, never spliced into text, so a prompt cannot change the graph.

mod binding;
mod binding_file;
mod check;
mod edges;
mod family;
mod format;
mod parse;
mod propose;
mod repeat;
mod rules;
mod structure;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde_json::{Map, Value};
use wire::openai::images::ImageSize;

use self::{edges::upstream_nodes, repeat::Repeat};
use crate::images::Task;

pub use self::{
    binding::{Binding, MAX_IMAGES, NodeInput},
    binding_file::SizeRule,
    edges::GraphEdge,
    family::{FamilyDeclaration, ModelSelector, SubmodelChoice, SubmodelQuery, SubmodelSelector},
    format::{BatchInput, GraphFormat, GraphSyntax, Node, ParsedGraph},
    propose::{Pictures, Proposal, ProposeRules, SizeInputs, Texts, propose},
    rules::{DEFAULT_MULTIPLE, GraphRules},
};

/// A graph with its bindings.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    format: GraphFormat,
    graph: Value,
    edges: Vec<GraphEdge>,
    bindings: BTreeMap<Binding, Vec<NodeInput>>,
    /// The node whose image is the result.
    pub output: String,
    repeats: Repeats,
    /// What the model accepts.
    pub rules: GraphRules,
}

/// The parts that exist several times.
#[derive(Debug, Clone, Default, PartialEq)]
struct Repeats {
    /// Once for each source image.
    images: Option<Repeat>,
    /// Once for each LoRA.
    loras: Option<Repeat>,
}

/// A graph file with its binding file.
#[derive(Debug, Clone, PartialEq)]
pub struct TemplateFile {
    /// The models that built-in graphs run.
    pub family: Option<FamilyDeclaration>,
    /// What it makes.
    pub tasks: TemplateTasks,
}

/// The tasks that a file serves.
#[derive(Debug, Clone, PartialEq)]
pub enum TemplateTasks {
    /// One; which one, the file does not say.
    Undeclared(Box<Template>),
    /// These.
    Declared(BTreeMap<Task, Template>),
}

impl TemplateFile {
    /// Reads a graph (JSON) and its binding file (YAML). Every bound input must exist, have one binding only, and affect the
    /// output.
    pub fn read(format: GraphFormat, graph: &str, declaration: &str) -> Result<Self, Vec<TemplateError>> {
        parse::parse(format, graph, declaration)
    }

    /// The `family` section of a binding file whose graph lies elsewhere.
    pub(crate) fn read_family(declaration: &str) -> Result<Option<FamilyDeclaration>, Vec<TemplateError>> {
        Ok(parse::parse_bindings(declaration)?.family)
    }
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
    /// Reads a file that serves a single task.
    pub fn read(format: GraphFormat, graph: &str, declaration: &str) -> Result<Self, Vec<TemplateError>> {
        match TemplateFile::read(format, graph, declaration)?.tasks {
            TemplateTasks::Undeclared(template) => Ok(*template),
            TemplateTasks::Declared(_) => {
                Err(vec![TemplateError("the file serves several tasks".to_owned())])
            }
        }
    }

    /// Whether everything that this task needs is bound, and nothing else.
    pub fn check_task(&self, task: Task) -> Result<(), Vec<TemplateError>> {
        let errors = check::check_task(self, task);
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// The graph for this many source images and LoRAs.
    #[must_use]
    pub fn expand(&self, images: u8, loras: u8) -> Self {
        let mut template = self.clone();
        if let Some(repeat) = &self.repeats.images {
            repeat.apply(&mut template, images);
        }
        if let Some(repeat) = &self.repeats.loras {
            repeat.apply(&mut template, loras);
        }
        template
    }

    /// The graph with these values in inputs that exist.
    #[must_use]
    pub fn with_inputs<'a>(&self, inputs: impl IntoIterator<Item = (&'a NodeInput, &'a Value)>) -> Self {
        let mut template = self.clone();
        for (input, value) in inputs {
            if template.node(&input.node).is_some() {
                *template.format.input_mut(&mut template.graph, input) = value.clone();
            }
        }
        template
    }

    /// The graph as the engine's own last changes make it, which leave edges and bindings alone.
    #[must_use]
    pub fn rewritten(&self, change: impl Fn(&mut Value)) -> Self {
        let mut template = self.clone();
        change(&mut template.graph);
        template
    }

    /// Drops the bindings and nodes that a task does not need.
    fn restrict_to(&mut self, task: Task) {
        if task == Task::Generate
            && let Some(repeat) = self.repeats.images.take()
        {
            repeat.apply(self, 0);
        }
        let needed = upstream_nodes(&self.edges, &self.output, |_| false);
        let unneeded: Vec<_> =
            self.nodes().map(|(id, ..)| id).filter(|id| !needed.contains(id)).map(str::to_owned).collect();
        for node in &unneeded {
            self.format.remove_node(&mut self.graph, node);
        }
        for inputs in self.bindings.values_mut() {
            inputs.retain(|input| !unneeded.contains(&input.node));
        }
        self.bindings.retain(|_, inputs| !inputs.is_empty());
        self.edges = self.format.edges(&self.graph);
        let within = |repeat: Option<Repeat>| repeat.and_then(|repeat| repeat.within(self));
        let Repeats { images, loras } = self.repeats.clone();
        self.repeats = Repeats { images: within(images), loras: within(loras) };
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

    /// Whether an input takes the first image with the mask as its transparency, in one file.
    pub fn takes_masked_image(&self, input: &NodeInput) -> bool {
        let takes = |binding| self.inputs_bound_to(binding).contains(input);
        self.format.reads_mask_from_transparency() && takes(Binding::Image(1)) && takes(Binding::Mask)
    }

    /// Whether the result can have a requested size.
    pub fn takes_size(&self) -> bool {
        self.rules.size == Some(SizeRule::Image) || self.binds_size()
    }

    fn binds_size(&self) -> bool {
        self.binds(Binding::Width) && self.binds(Binding::Height)
    }

    /// The fewest and the most source images.
    pub fn image_counts(&self) -> (u8, u8) {
        let numbered = (1..=MAX_IMAGES).rev().find(|number| self.binds(Binding::Image(*number))).unwrap_or(0);
        match &self.repeats.images {
            Some(repeat) => (numbered.min(1), repeat.max),
            None => (numbered, numbered),
        }
    }

    /// The most LoRAs.
    pub fn max_loras(&self) -> u8 {
        self.repeats.loras.as_ref().map_or(0, |repeat| repeat.max)
    }

    /// Whether images are references: they guide the result, which need not have their size.
    pub fn takes_references(&self) -> bool {
        self.rules.size != Some(SizeRule::Image)
            && (self.repeats.images.is_some() || self.binds(Binding::Image(2)))
    }

    /// The workflow's own steps, if they are a number.
    pub fn default_steps(&self) -> Option<u32> {
        self.rules.fixed_steps.or_else(|| self.default_value(Binding::Steps)).filter(|steps| *steps > 0)
    }

    /// The workflow's own guidance.
    pub fn default_cfg_scale(&self) -> Option<f64> {
        self.rules.fixed_cfg_scale.or_else(|| self.own_value(Binding::CfgScale)?.as_f64())
    }

    /// The name of the workflow's own scheduler.
    pub fn default_scheduler(&self) -> Option<String> {
        let inputs = self.inputs_bound_to(Binding::Scheduler).iter();
        let parts: Vec<_> = inputs
            .filter_map(|input| {
                Some((input.field.as_str(), self.node(&input.node)?.get(&input.field)?.as_str()?))
            })
            .collect();
        (!parts.is_empty()).then(|| self.format.scheduler_name(&parts))
    }

    /// The workflow's own strength.
    pub fn default_strength(&self) -> Option<f64> {
        self.own_value(Binding::Strength)?.as_f64()
    }

    /// The workflow's own size, if it is bound and no edge decides it.
    pub fn default_size(&self) -> Option<ImageSize> {
        Some(ImageSize::new(self.default_value(Binding::Width)?, self.default_value(Binding::Height)?))
    }

    fn default_value(&self, binding: Binding) -> Option<u32> {
        self.own_value(binding)?.as_u64()?.try_into().ok()
    }

    /// What the graph itself has in the first bound input.
    fn own_value(&self, binding: Binding) -> Option<&Value> {
        let input =
            self.inputs_bound_to(binding).first().filter(|input| self.incoming_edge(input).is_none())?;
        self.node(&input.node)?.get(&input.field)
    }

    fn has_nodes<const N: usize>(&self, nodes: [&String; N]) -> bool {
        nodes.into_iter().all(|node| self.node(node).is_some())
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
