//! What a template has to know about an engine's graphs. Each engine that runs graphs implements it.

use std::{collections::BTreeSet, fmt};

use serde_json::{Map, Value};

use super::{NodeInput, ProposeRules, TemplateError, edges::GraphEdge};

/// The syntax of an engine's graphs.
pub type GraphFormat = &'static dyn GraphSyntax;

/// A node: its id, its type, its inputs.
pub type Node<'a> = (&'a str, &'a str, &'a Map<String, Value>);

/// How an engine writes its graphs.
pub trait GraphSyntax: fmt::Debug + Sync {
    /// The engine whose graphs these are.
    fn name(&self) -> &'static str;

    /// Turns a file of the user's into the graph that the engine is sent.
    fn parse(&self, document: Value) -> Result<ParsedGraph, TemplateError>;

    /// Whether a file of the user's is meant for this engine.
    fn recognizes(&self, document: &Value) -> bool;

    /// What people call a node of a parsed graph.
    fn title<'a>(&self, _graph: &'a Value, _id: &str) -> Option<&'a str> {
        None
    }

    /// What the engine calls things, for proposals.
    fn propose_rules(&self) -> &'static ProposeRules;

    /// The nodes of a parsed graph.
    fn nodes<'a>(&self, graph: &'a Value) -> Vec<Node<'a>>;

    /// The edges of a parsed graph.
    fn edges(&self, graph: &Value) -> Vec<GraphEdge>;

    /// Where an input's value lies.
    fn input_mut<'a>(&self, graph: &'a mut Value, input: &NodeInput) -> &'a mut Value;

    /// Makes this edge the only one into its input.
    fn connect(&self, graph: &mut Value, edge: &GraphEdge);

    /// Replaces one edge by another into the same input.
    fn reconnect(&self, graph: &mut Value, old: &GraphEdge, new: &GraphEdge);

    /// Removes one edge.
    fn disconnect(&self, graph: &mut Value, edge: &GraphEdge);

    /// Copies a node under another id; its edges too, if they lie in the node.
    fn copy_node(&self, graph: &mut Value, id: &str, copy: &str);

    /// Removes a node.
    fn remove_node(&self, graph: &mut Value, id: &str);

    /// The name for clients of a scheduler whose parts these are, by input.
    fn scheduler_name(&self, parts: &[(&str, &str)]) -> String;

    /// Removes the edges into these inputs, unless setting a value already replaces the edge.
    fn remove_edges_into(&self, _graph: &mut Value, _inputs: &BTreeSet<&NodeInput>) {}

    /// Whether a member of a node is an input.
    fn is_input(&self, _field: &str) -> bool {
        true
    }

    /// Whether a file that is loaded as an image may have the mask as its transparency.
    fn reads_mask_from_transparency(&self) -> bool {
        false
    }

    /// Whether the engine rejects a cycle even where no output needs it.
    fn rejects_unused_cycles(&self) -> bool {
        false
    }

    /// Errors in an input that no binding sets. `is_used`: whether the output depends on its node.
    fn input_errors(
        &self,
        _input: &NodeInput,
        _value: &Value,
        _nodes: &BTreeSet<&str>,
        _is_used: bool,
    ) -> Vec<TemplateError> {
        Vec::new()
    }
}

/// Formats are equal if they are the same engine's.
impl PartialEq for dyn GraphSyntax {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

/// A file of the user's as a graph.
#[derive(Debug)]
pub struct ParsedGraph {
    /// What the engine is sent.
    pub graph: Value,
    /// Inputs that exist although the graph has neither value nor edge for them.
    pub inputs: BTreeSet<NodeInput>,
    /// Inputs that get a batch of values.
    pub batches: Vec<BatchInput>,
}

impl ParsedGraph {
    /// A graph whose nodes show all their inputs.
    pub fn without_batches(graph: Value) -> Self {
        Self { graph, inputs: BTreeSet::new(), batches: Vec::new() }
    }
}

/// An input that the engine's web page would fill with a batch of values, one run for each.
#[derive(Debug)]
pub struct BatchInput {
    /// The type of the node that holds the values.
    pub node_type: String,
    /// The edge from there to the input; not part of the graph.
    pub edge: GraphEdge,
}
