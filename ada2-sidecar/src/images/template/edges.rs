//! What feeds what in a graph, read from either form.

use std::{collections::BTreeSet, fmt};

use serde_json::Value;

use super::{GraphFormat, NodeInput, node_inputs};

/// An input that is another node's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GraphEdge {
    /// The node that it comes from.
    pub(super) source: String,
    /// Which of its outputs: a name (InvokeAI) or a number (ComfyUI).
    pub(super) output: String,
    /// The input that it feeds.
    pub(super) target: NodeInput,
}

impl fmt::Display for GraphEdge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the edge from {}.{} to {}", self.source, self.output, self.target)
    }
}

/// All of a graph's.
pub(super) fn all(format: GraphFormat, graph: &Value) -> Vec<GraphEdge> {
    match format {
        GraphFormat::InvokeAi => {
            graph["edges"].as_array().into_iter().flatten().filter_map(parse_invokeai_edge).collect()
        }
        GraphFormat::ComfyUi => {
            let nodes = graph.as_object().into_iter().flatten();
            let inputs = nodes.filter_map(|(id, node)| Some((id, node_inputs(format, node)?)));
            inputs
                .flat_map(|(id, inputs)| inputs.iter().filter_map(move |input| parse_comfyui_link(id, input)))
                .collect()
        }
    }
}

/// Where an edge of InvokeAI's ends.
pub(super) fn destination(edge: &Value) -> Option<NodeInput> {
    let text = |name: &str| edge["destination"][name].as_str().map(str::to_owned);
    Some(NodeInput { node: text("node_id")?, field: text("field")? })
}

fn parse_invokeai_edge(edge: &Value) -> Option<GraphEdge> {
    let text = |name: &str| edge["source"][name].as_str().map(str::to_owned);
    Some(GraphEdge { source: text("node_id")?, output: text("field")?, target: destination(edge)? })
}

fn parse_comfyui_link(id: &str, (field, value): (&String, &Value)) -> Option<GraphEdge> {
    let [source, slot] = value.as_array()?.as_slice() else { return None };
    let into = NodeInput { node: id.to_owned(), field: field.clone() };
    Some(GraphEdge { source: source.as_str()?.to_owned(), output: slot.as_u64()?.to_string(), target: into })
}

/// The nodes that the output depends on, itself among them. Edges into a place that is set count for nothing.
pub(super) fn upstream_nodes<'a>(
    edges: &'a [GraphEdge],
    output: &'a str,
    is_set: impl Fn(&NodeInput) -> bool,
) -> BTreeSet<&'a str> {
    let kept: Vec<_> = edges.iter().filter(|edge| !is_set(&edge.target)).collect();
    let (mut reached, mut open) = (BTreeSet::from([output]), vec![output]);
    while let Some(node) = open.pop() {
        let sources = kept.iter().filter(|edge| edge.target.node == node).map(|edge| edge.source.as_str());
        open.extend(sources.filter(|source| reached.insert(source)));
    }
    reached
}
