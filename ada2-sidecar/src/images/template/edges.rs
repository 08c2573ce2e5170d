//! The edges of a graph, and what depends on what.

use std::{collections::BTreeSet, fmt};

use super::NodeInput;

/// A connection from a node's output to an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphEdge {
    /// The node that it comes from.
    pub source: String,
    /// Which of its outputs, by name or number.
    pub output: String,
    /// The input that it feeds.
    pub target: NodeInput,
}

impl fmt::Display for GraphEdge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the edge from {}.{} to {}", self.source, self.output, self.target)
    }
}

/// The nodes that the output depends on, including itself. Edges into inputs that are set do not count.
pub(super) fn upstream_nodes<'a>(
    edges: &'a [GraphEdge],
    output: &'a str,
    is_set: impl Fn(&NodeInput) -> bool,
) -> BTreeSet<&'a str> {
    let active: Vec<_> = edges.iter().filter(|edge| !is_set(&edge.target)).collect();
    let (mut reached, mut open) = (BTreeSet::from([output]), vec![output]);
    while let Some(node) = open.pop() {
        let sources = active.iter().filter(|edge| edge.target.node == node).map(|edge| edge.source.as_str());
        open.extend(sources.filter(|source| reached.insert(source)));
    }
    reached
}
