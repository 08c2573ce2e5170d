//! ComfyUI's graphs in API format: nodes with `class_type` and `inputs`, where a link is an input's value.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{propose_rules::RULES, samplers};
use crate::images::template::{
    Binding, GraphEdge, GraphFormat, GraphSyntax, Node, NodeInput, ParsedGraph, ProposeRules, TemplateError,
};

/// ComfyUI's.
pub(crate) const GRAPH_FORMAT: GraphFormat = &ComfyUiGraphs;

#[derive(Debug)]
struct ComfyUiGraphs;

impl GraphSyntax for ComfyUiGraphs {
    fn name(&self) -> &'static str {
        "ComfyUI"
    }

    /// The web page's own format has lists of nodes and links, and cannot be run.
    fn parse(&self, document: Value) -> Result<ParsedGraph, TemplateError> {
        let graph = unwrapped(&document).clone();
        if is_page_format(&graph) {
            return Err(TemplateError(
                "this is ComfyUI's own workflow format: export it with Export (API)".to_owned(),
            ));
        }
        let is_node = |node: &Value| node["class_type"].is_string() && node["inputs"].is_object();
        match graph.as_object().map(|nodes| nodes.iter().find(|(_, node)| !is_node(node))) {
            None => Err(TemplateError("the graph is not an object of nodes".to_owned())),
            Some(Some((id, _))) => {
                Err(TemplateError(format!("the node {id:?} has no class_type and inputs")))
            }
            Some(None) => Ok(ParsedGraph::without_batches(graph)),
        }
    }

    fn recognizes(&self, document: &Value) -> bool {
        let graph = unwrapped(document);
        is_page_format(graph) || graph.as_object().is_some_and(has_nodes)
    }

    fn title<'a>(&self, graph: &'a Value, id: &str) -> Option<&'a str> {
        graph.get(id)?.get("_meta")?.get("title")?.as_str()
    }

    fn propose_rules(&self) -> &'static ProposeRules {
        &RULES
    }

    fn nodes<'a>(&self, graph: &'a Value) -> Vec<Node<'a>> {
        let nodes = graph.as_object().into_iter().flatten();
        let node = |(id, node): (&'a String, &'a Value)| {
            Some((id.as_str(), node["class_type"].as_str()?, node["inputs"].as_object()?))
        };
        nodes.filter_map(node).collect()
    }

    fn edges(&self, graph: &Value) -> Vec<GraphEdge> {
        let nodes = graph.as_object().into_iter().flatten();
        let inputs = nodes.filter_map(|(id, node)| Some((id, node.get("inputs")?.as_object()?)));
        inputs.flat_map(|(id, inputs)| links(id, inputs)).collect()
    }

    fn input_mut<'a>(&self, graph: &'a mut Value, input: &NodeInput) -> &'a mut Value {
        &mut graph[&input.node]["inputs"][&input.field]
    }

    fn connect(&self, graph: &mut Value, edge: &GraphEdge) {
        let slot = edge.output.parse::<u64>().map_or_else(|_| json!(edge.output), Value::from);
        *self.input_mut(graph, &edge.target) = json!([edge.source, slot]);
    }

    fn reconnect(&self, graph: &mut Value, _: &GraphEdge, new: &GraphEdge) {
        self.connect(graph, new);
    }

    fn disconnect(&self, graph: &mut Value, edge: &GraphEdge) {
        if let Some(inputs) = graph[&edge.target.node]["inputs"].as_object_mut() {
            inputs.remove(&edge.target.field);
        }
    }

    fn copy_node(&self, graph: &mut Value, id: &str, copy: &str) {
        graph[copy] = graph[id].clone();
    }

    fn remove_node(&self, graph: &mut Value, id: &str) {
        if let Some(nodes) = graph.as_object_mut() {
            nodes.remove(id);
        }
    }

    fn scheduler_name(&self, parts: &[(&str, &str)]) -> String {
        samplers::name(parts)
    }

    /// `LoadImage` gives the transparency as a mask, white where the image is transparent, and the colours as they are.
    fn reads_mask_from_transparency(&self) -> bool {
        true
    }

    fn input_errors(
        &self,
        input: &NodeInput,
        value: &Value,
        nodes: &BTreeSet<&str>,
        is_used: bool,
    ) -> Vec<TemplateError> {
        let batch = batch_size(input, value).filter(|_| is_used);
        numeric_node_id(input, value, nodes).into_iter().chain(batch).collect()
    }
}

fn links(id: &str, inputs: &Map<String, Value>) -> Vec<GraphEdge> {
    let link = |(field, value): (&String, &Value)| {
        let [source, slot] = value.as_array()?.as_slice() else { return None };
        let target = NodeInput { node: id.to_owned(), field: field.clone() };
        Some(GraphEdge { source: source.as_str()?.to_owned(), output: slot.as_u64()?.to_string(), target })
    };
    inputs.iter().filter_map(link).collect()
}

/// The web page's own format.
fn is_page_format(graph: &Value) -> bool {
    graph.get("nodes").is_some_and(Value::is_array)
}

/// The graph within what is posted: to `/prompt` in `prompt`, to public workers in `workflow` or in `workflow` of `input`,
/// beside other members. A node may have any of these names as its id.
fn unwrapped(document: &Value) -> &Value {
    if document.as_object().is_some_and(has_nodes) {
        return document;
    }
    let places = [document.get("prompt"), document.get("workflow"), document["input"].get("workflow")];
    places.into_iter().flatten().find(|graph| graph.is_object()).unwrap_or(document)
}

fn has_nodes(members: &Map<String, Value>) -> bool {
    members.values().any(|member| member.get("class_type").is_some())
}

/// A list that begins with a number is a value to ComfyUI, not a link.
fn numeric_node_id(input: &NodeInput, value: &Value, nodes: &BTreeSet<&str>) -> Option<TemplateError> {
    let [id, slot] = value.as_array()?.as_slice() else { return None };
    let id = id.as_u64().filter(|id| slot.is_u64() && nodes.contains(id.to_string().as_str()))?;
    Some(TemplateError(format!(
        "{input}: [{id}, {slot}] is not a link because the node id is a number: write it as a string, [\"{id}\", {slot}]"
    )))
}

/// Several images are several runs: `n` of the request decides.
fn batch_size(input: &NodeInput, value: &Value) -> Option<TemplateError> {
    let size =
        value.as_f64().filter(|size| input.field == "batch_size" && (*size - 1.0).abs() > f64::EPSILON)?;
    Some(TemplateError(format!(
        "{input} is {size}, but a request's n decides how many images are made: set it to 1, or bind {} to it",
        Binding::N
    )))
}
