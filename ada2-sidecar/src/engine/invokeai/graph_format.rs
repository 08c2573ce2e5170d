//! InvokeAI's graphs: `nodes` with their inputs, and `edges`; or a workflow that its web page exported.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    propose_rules::RULES,
    workflow::{self, nested_inputs_key},
};
use crate::images::template::{
    GraphEdge, GraphFormat, GraphSyntax, Node, NodeInput, ParsedGraph, ProposeRules, TemplateError,
};

/// InvokeAI's.
pub(crate) const GRAPH_FORMAT: GraphFormat = &InvokeAiGraphs;

#[derive(Debug)]
struct InvokeAiGraphs;

impl GraphSyntax for InvokeAiGraphs {
    fn name(&self) -> &'static str {
        "InvokeAI"
    }

    fn parse(&self, document: Value) -> Result<ParsedGraph, TemplateError> {
        workflow::convert_workflow(document)
    }

    fn recognizes(&self, document: &Value) -> bool {
        let is_graph = document["nodes"].is_object();
        is_graph || (document["nodes"].is_array() && document["edges"].is_array())
    }

    fn propose_rules(&self) -> &'static ProposeRules {
        &RULES
    }

    fn nodes<'a>(&self, graph: &'a Value) -> Vec<Node<'a>> {
        let nodes = graph["nodes"].as_object().into_iter().flatten();
        nodes
            .filter_map(|(id, node)| Some((id.as_str(), node["type"].as_str()?, node.as_object()?)))
            .collect()
    }

    fn edges(&self, graph: &Value) -> Vec<GraphEdge> {
        graph["edges"].as_array().into_iter().flatten().filter_map(parse_edge).collect()
    }

    fn input_mut<'a>(&self, graph: &'a mut Value, input: &NodeInput) -> &'a mut Value {
        let node = &mut graph["nodes"][&input.node];
        match nested_inputs_key(node["type"].as_str(), &input.field) {
            Some(inner) => &mut node[inner][&input.field],
            None => &mut node[&input.field],
        }
    }

    fn remove_edges_into(&self, graph: &mut Value, inputs: &BTreeSet<&NodeInput>) {
        if let Some(edges) = graph.get_mut("edges").and_then(Value::as_array_mut) {
            edges.retain(|edge| destination(edge).is_none_or(|target| !inputs.contains(&target)));
        }
    }

    /// A node's inputs lie beside its own name.
    fn is_input(&self, field: &str) -> bool {
        !matches!(field, "id" | "type")
    }

    fn rejects_unused_cycles(&self) -> bool {
        true
    }
}

fn destination(edge: &Value) -> Option<NodeInput> {
    let text = |name: &str| edge["destination"][name].as_str().map(str::to_owned);
    Some(NodeInput { node: text("node_id")?, field: text("field")? })
}

fn parse_edge(edge: &Value) -> Option<GraphEdge> {
    let text = |name: &str| edge["source"][name].as_str().map(str::to_owned);
    Some(GraphEdge { source: text("node_id")?, output: text("field")?, target: destination(edge)? })
}
