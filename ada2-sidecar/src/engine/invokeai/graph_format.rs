//! InvokeAI's graphs: `nodes` with their inputs, and `edges`; or a workflow that its web page exported.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    models::SCHEDULERS,
    propose_rules::RULES,
    workflow::{self, nested_inputs_key},
};
use crate::images::template::{
    GraphEdge, GraphFormat, GraphSyntax, Node, NodeInput, ParsedGraph, ProposeRules, TemplateError,
};

/// InvokeAI's.
pub(crate) const GRAPH_FORMAT: GraphFormat = &InvokeAiGraphs;

/// The input that takes `strength` as the point where denoising starts: late, if little of the source is replaced.
pub(super) const DENOISING_START: &str = "denoising_start";

/// Where denoising starts with this strength.
pub(super) fn start_of_strength(strength: f64, exponent: f64) -> f64 {
    1.0 - strength.powf(exponent)
}

/// The other way round, without the last digits, which come from the conversion.
fn strength_of_start(start: f64, exponent: f64) -> f64 {
    let strength = (1.0 - start).clamp(0.0, 1.0).powf(exponent.recip());
    (strength * 1e6).round() / 1e6
}

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

    fn connect(&self, graph: &mut Value, edge: &GraphEdge) {
        self.remove_edges_into(graph, &BTreeSet::from([&edge.target]));
        if let Some(edges) = graph["edges"].as_array_mut() {
            edges.push(write_edge(edge));
        }
    }

    fn reconnect(&self, graph: &mut Value, old: &GraphEdge, new: &GraphEdge) {
        let edges = graph["edges"].as_array_mut().into_iter().flatten();
        for edge in edges.filter(|edge| parse_edge(edge).as_ref() == Some(old)) {
            *edge = write_edge(new);
        }
    }

    fn disconnect(&self, graph: &mut Value, edge: &GraphEdge) {
        if let Some(edges) = graph["edges"].as_array_mut() {
            edges.retain(|other| parse_edge(other).as_ref() != Some(edge));
        }
    }

    fn copy_node(&self, graph: &mut Value, id: &str, copy: &str) {
        let mut node = graph["nodes"][id].clone();
        node["id"] = json!(copy);
        graph["nodes"][copy] = node;
    }

    fn remove_node(&self, graph: &mut Value, id: &str) {
        if let Some(nodes) = graph["nodes"].as_object_mut() {
            nodes.remove(id);
        }
        if let Some(edges) = graph["edges"].as_array_mut() {
            let touches = |edge: GraphEdge| edge.source == id || edge.target.node == id;
            edges.retain(|edge| !parse_edge(edge).is_some_and(touches));
        }
    }

    fn schedulers(&self) -> &'static [&'static str] {
        SCHEDULERS
    }

    fn strength(&self, field: &str, value: f64, exponent: f64) -> f64 {
        if field == DENOISING_START { strength_of_start(value, exponent) } else { value }
    }

    fn scheduler_name(&self, parts: &[(&str, &str)]) -> String {
        parts.first().map(|(_, name)| (*name).to_owned()).unwrap_or_default()
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

fn write_edge(edge: &GraphEdge) -> Value {
    let GraphEdge { source, output, target } = edge;
    json!({"source": {"node_id": source, "field": output},
        "destination": {"node_id": target.node, "field": target.field}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::template::Template;

    #[test]
    fn the_strength_of_a_graph_is_read_back_from_where_denoising_starts() {
        let default_strength = |field: &str, value: f64, more: &str| {
            let mut node = json!({"id": "d", "type": "denoise", "prompt": "", "seed": 0, "image": null});
            node[field] = json!(value);
            let graph = json!({"nodes": {"d": node}, "edges": []}).to_string();
            let yaml = format!(
                "output: d\nbindings: {{prompt: [d.prompt], seed: [d.seed], image: [d.image], strength: \
                 [d.{field}]}}\n{more}"
            );
            Template::read(GRAPH_FORMAT, &graph, &yaml).unwrap().default_strength()
        };
        assert_eq!(default_strength(DENOISING_START, 0.9, ""), Some(0.1));
        assert_eq!(default_strength(DENOISING_START, 0.0, ""), Some(1.0));
        assert_eq!(default_strength("strength", 0.9, ""), Some(0.9));
        for strength in [0.01, 0.3, 0.75, 1.0] {
            let start = start_of_strength(strength, 0.2);
            let read = default_strength(DENOISING_START, start, "strength_exponent: 0.2");
            assert_eq!(read, Some(strength));
        }
    }
}
