//! What feeds what in a graph, read from either form.

use std::{collections::BTreeSet, fmt};

use serde_json::Value;

use super::{Form, Place, inputs_of};

/// An input that is another node's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Edge {
    /// The node that it comes from.
    pub(super) source: String,
    /// Which of its outputs: a name (InvokeAI) or a number (ComfyUI).
    pub(super) output: String,
    /// The input that it feeds.
    pub(super) into: Place,
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the edge from {}.{} to {}", self.source, self.output, self.into)
    }
}

/// All of a graph's.
pub(super) fn all(form: Form, graph: &Value) -> Vec<Edge> {
    match form {
        Form::InvokeAi => graph["edges"].as_array().into_iter().flatten().filter_map(of_invokeai).collect(),
        Form::ComfyUi => {
            let nodes = graph.as_object().into_iter().flatten();
            let inputs = nodes.filter_map(|(id, node)| Some((id, inputs_of(form, node)?)));
            inputs.flat_map(|(id, inputs)| inputs.iter().filter_map(move |input| linked(id, input))).collect()
        }
    }
}

/// Where an edge of InvokeAI's ends.
pub(super) fn destination(edge: &Value) -> Option<Place> {
    let text = |name: &str| edge["destination"][name].as_str().map(str::to_owned);
    Some(Place { node: text("node_id")?, field: text("field")? })
}

fn of_invokeai(edge: &Value) -> Option<Edge> {
    let text = |name: &str| edge["source"][name].as_str().map(str::to_owned);
    Some(Edge { source: text("node_id")?, output: text("field")?, into: destination(edge)? })
}

fn linked(id: &str, (field, value): (&String, &Value)) -> Option<Edge> {
    let [source, slot] = value.as_array()?.as_slice() else { return None };
    let into = Place { node: id.to_owned(), field: field.clone() };
    Some(Edge { source: source.as_str()?.to_owned(), output: slot.as_u64()?.to_string(), into })
}

/// The nodes that the output depends on, itself among them. Edges into a place that is set count for nothing.
pub(super) fn reaching<'a>(
    edges: &'a [Edge],
    output: &'a str,
    is_set: impl Fn(&Place) -> bool,
) -> BTreeSet<&'a str> {
    let kept: Vec<_> = edges.iter().filter(|edge| !is_set(&edge.into)).collect();
    let (mut reached, mut open) = (BTreeSet::from([output]), vec![output]);
    while let Some(node) = open.pop() {
        let sources = kept.iter().filter(|edge| edge.into.node == node).map(|edge| edge.source.as_str());
        open.extend(sources.filter(|source| reached.insert(source)));
    }
    reached
}
