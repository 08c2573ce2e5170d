//! Converts workflows that InvokeAI's web page exported into the graph that the page would send (6.14).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::images::template::{BatchInput, GraphEdge, NodeInput, ParsedGraph, TemplateError};

/// Nodes that the page runs itself: their values become the batch's data, and they are not part of the graph.
const BATCH_NODE_TYPES: [&str; 8] = [
    "image_batch",
    "string_batch",
    "integer_batch",
    "float_batch",
    "image_generator",
    "string_generator",
    "integer_generator",
    "float_generator",
];
/// The only type of node that takes undeclared inputs, nulls included.
const METADATA_NODE: &str = "core_metadata";
/// A workflow within a workflow. The inputs of its inner nodes lie in one input of its own.
const CALL_WORKFLOW_NODE: &str = "call_saved_workflow";
const CALL_WORKFLOW_INPUTS: &str = "workflow_inputs";
const CALL_WORKFLOW_INPUT_PREFIX: &str = "saved_workflow_input::";

/// A graph is kept; an exported workflow is converted.
pub(super) fn convert_workflow(document: Value) -> Result<ParsedGraph, TemplateError> {
    match &document["nodes"] {
        Value::Object(_) => Ok(ParsedGraph::without_batches(document)),
        Value::Array(nodes) => {
            let edges = document["edges"].as_array().map_or(&[] as &[Value], Vec::as_slice);
            Ok(ExportedWorkflow { roles: roles(nodes)?, edges }.converted())
        }
        _ => Err(TemplateError("the graph has no nodes".to_owned())),
    }
}

/// The member of a node that holds this input, if it is not the node itself.
pub(super) fn nested_inputs_key(node_type: Option<&str>, field: &str) -> Option<&'static str> {
    (node_type == Some(CALL_WORKFLOW_NODE) && field.starts_with(CALL_WORKFLOW_INPUT_PREFIX))
        .then_some(CALL_WORKFLOW_INPUTS)
}

/// Whether a node of this type takes this input although it does not declare it.
pub(super) fn accepts_undeclared_input(node_type: &str, field: &str) -> bool {
    node_type == METADATA_NODE || nested_inputs_key(Some(node_type), field).is_some()
}

/// The role of a node of the page in the graph. Notes and the current image have none.
enum Role<'a> {
    Invocation(&'a str, &'a Value),
    Batch(&'a str),
    /// Passes an edge on.
    Connector,
}

struct ExportedWorkflow<'a> {
    roles: BTreeMap<&'a str, Role<'a>>,
    edges: &'a [Value],
}

fn roles(nodes: &[Value]) -> Result<BTreeMap<&str, Role<'_>>, TemplateError> {
    let mut roles = BTreeMap::new();
    for node in nodes {
        let data = &node["data"];
        let id = node["id"].as_str().or_else(|| data["id"].as_str());
        let role = match node["type"].as_str() {
            Some("connector") => id.map(|id| (id, Role::Connector)),
            Some("invocation") => {
                let (Some(id), Some(node_type)) = (id, data["type"].as_str()) else {
                    return Err(TemplateError("a node of the workflow has no id and type".to_owned()));
                };
                let is_batch = BATCH_NODE_TYPES.contains(&node_type);
                Some((id, if is_batch { Role::Batch(node_type) } else { Role::Invocation(node_type, data) }))
            }
            _ => None,
        };
        roles.extend(role);
    }
    Ok(roles)
}

impl<'a> ExportedWorkflow<'a> {
    fn converted(&self) -> ParsedGraph {
        let (mut nodes, mut inputs) = (Map::new(), BTreeSet::new());
        for (id, role) in &self.roles {
            let Role::Invocation(node_type, data) = role else { continue };
            let names = data["inputs"].as_object().into_iter().flat_map(Map::keys);
            inputs.extend(names.map(|field| NodeInput { node: (*id).to_owned(), field: field.clone() }));
            nodes.insert((*id).to_owned(), invocation(id, node_type, data));
        }
        let (mut edges, mut batches) = (Vec::new(), Vec::new());
        for (source, output, target) in self.edges.iter().filter_map(|edge| self.resolved(edge)) {
            if let Role::Batch(node_type) = self.roles[source] {
                let edge = GraphEdge { source: source.to_owned(), output: output.to_owned(), target };
                batches.push(BatchInput { node_type: node_type.to_owned(), edge });
                continue;
            }
            // The edge wins. A value of the wrong type would get the whole graph rejected.
            remove(&mut nodes[&target.node], &target.field);
            let edge = json!({"source": {"node_id": source, "field": output},
                "destination": {"node_id": target.node, "field": target.field}});
            if !edges.contains(&edge) {
                edges.push(edge);
            }
        }
        ParsedGraph { graph: json!({"id": "graph", "nodes": nodes, "edges": edges}), inputs, batches }
    }

    /// An edge between two nodes that run. Those between collapsed nodes only stand for others.
    fn resolved(&self, edge: &'a Value) -> Option<(&'a str, &'a str, NodeInput)> {
        let ((target, field), true) = (endpoint(edge, "target", "targetHandle")?, is_real(edge)) else {
            return None;
        };
        matches!(self.roles.get(target)?, Role::Invocation(..)).then_some(())?;
        let (source, output) = self.source(edge)?;
        Some((source, output, NodeInput { node: target.to_owned(), field: field.to_owned() }))
    }

    /// The source of an edge, behind all connectors.
    fn source(&self, edge: &'a Value) -> Option<(&'a str, &'a str)> {
        let mut edge = edge;
        // A cycle of connectors has no source.
        for _ in 0..=self.roles.len() {
            let (source, output) = endpoint(edge, "source", "sourceHandle")?;
            match self.roles.get(source)? {
                Role::Connector => {
                    let enters = |edge: &&Value| {
                        is_real(edge) && endpoint(edge, "target", "targetHandle") == Some((source, "in"))
                    };
                    edge = self.edges.iter().find(enters)?;
                }
                _ => return Some((source, output)),
            }
        }
        None
    }
}

fn is_real(edge: &Value) -> bool {
    edge["type"] != "collapsed"
}

fn endpoint<'a>(edge: &'a Value, node: &str, handle: &str) -> Option<(&'a str, &'a str)> {
    Some((edge[node].as_str()?, edge[handle].as_str().filter(|handle| !handle.is_empty())?))
}

fn invocation(id: &str, node_type: &str, data: &Value) -> Value {
    let mut node = json!({"id": id, "type": node_type});
    if node_type == CALL_WORKFLOW_NODE {
        node[CALL_WORKFLOW_INPUTS] = json!({});
    }
    for (field, input) in data["inputs"].as_object().into_iter().flatten() {
        let value = input.get("value").filter(|value| is_sent(node_type, field, value));
        match (value, nested_inputs_key(Some(node_type), field)) {
            (Some(value), Some(inner)) => node[inner][field] = value.clone(),
            // An older page left it there.
            (Some(_), None) if node_type == CALL_WORKFLOW_NODE && field == CALL_WORKFLOW_INPUTS => {}
            (Some(value), None) => node[field] = value.clone(),
            (None, _) => {}
        }
    }
    for (name, member) in [("isIntermediate", "is_intermediate"), ("useCache", "use_cache")] {
        if let Some(value) = data.get(name).filter(|value| value.is_boolean()) {
            node[member] = value.clone();
        }
    }
    node
}

/// The page treats null as no value. A board's `auto` means the board that is chosen in the page.
fn is_sent(node_type: &str, field: &str, value: &Value) -> bool {
    let is_open_board = field == "board" && matches!(value.as_str(), Some("" | "auto" | "none"));
    !is_open_board && (!value.is_null() || node_type == METADATA_NODE)
}

fn remove(node: &mut Value, field: &str) {
    let at = match nested_inputs_key(node["type"].as_str(), field) {
        Some(inner) => &mut node[inner],
        None => node,
    };
    if let Some(inputs) = at.as_object_mut() {
        inputs.remove(field);
    }
}

#[cfg(test)]
mod tests;
