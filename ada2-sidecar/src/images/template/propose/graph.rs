//! A graph as a proposal reads it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Map, Value};

use super::ProposeRules;
use crate::images::template::{GraphEdge, GraphFormat, NodeInput, ParsedGraph};

pub(super) struct Workflow<'a> {
    pub(super) rules: &'static ProposeRules,
    nodes: BTreeMap<&'a str, GraphNode<'a>>,
    edges: Vec<GraphEdge>,
    known_inputs: &'a BTreeSet<NodeInput>,
}

struct GraphNode<'a> {
    class: &'a str,
    inputs: &'a Map<String, Value>,
    title: Option<&'a str>,
}

impl<'a> Workflow<'a> {
    pub(super) fn new(format: GraphFormat, parsed: &'a ParsedGraph) -> Self {
        let title = |id: &str| format.title(&parsed.graph, id);
        let nodes = format.nodes(&parsed.graph).into_iter();
        let nodes = nodes.map(|(id, class, inputs)| (id, GraphNode { class, inputs, title: title(id) }));
        let of_batches = parsed.batches.iter().map(|batch| batch.edge.clone());
        Self {
            rules: format.propose_rules(),
            nodes: nodes.collect(),
            edges: format.edges(&parsed.graph).into_iter().chain(of_batches).collect(),
            known_inputs: &parsed.inputs,
        }
    }

    /// Its ids, numbers in their order.
    pub(super) fn ids(&self) -> Vec<&'a str> {
        let mut ids: Vec<&str> = self.nodes.keys().copied().collect();
        ids.sort_by_key(|id| (id.parse::<u64>().unwrap_or(u64::MAX), *id));
        ids
    }

    pub(super) fn class(&self, node: &str) -> &'a str {
        self.nodes.get(node).map_or("", |node| node.class)
    }

    pub(super) fn title(&self, node: &str) -> Option<&'a str> {
        self.nodes.get(node)?.title
    }

    /// Whether the class of a node has one of the words.
    pub(super) fn class_has(&self, node: &str, words: &[&str]) -> bool {
        words.iter().any(|word| self.class(node).contains(word))
    }

    /// Whether a node only records how the picture was made.
    pub(super) fn is_record(&self, node: &str) -> bool {
        self.rules.record.is_some_and(|(class, _)| class == self.class(node))
    }

    /// The edges into a node.
    pub(super) fn edges_into(&self, node: &str) -> impl Iterator<Item = &GraphEdge> {
        self.edges
            .iter()
            .filter(move |edge| edge.target.node == node && self.nodes.contains_key(&*edge.source))
    }

    /// The edge into an input.
    pub(super) fn edge(&self, node: &str, field: &str) -> Option<&GraphEdge> {
        self.edges_into(node).find(|edge| edge.target.field == field)
    }

    /// The edges that leave a node.
    pub(super) fn readers(&self, node: &str) -> impl Iterator<Item = &GraphEdge> {
        self.edges.iter().filter(move |edge| edge.source == node)
    }

    /// An input's own value, if no edge decides it.
    pub(super) fn value(&self, node: &str, field: &str) -> Option<&'a Value> {
        let value = self.nodes.get(node)?.inputs.get(field)?;
        self.edge(node, field).is_none().then_some(value)
    }

    pub(super) fn number(&self, node: &str, field: &str) -> Option<f64> {
        self.value(node, field)?.as_f64()
    }

    /// The names of a node's inputs that have a value.
    pub(super) fn fields(&self, node: &str) -> impl Iterator<Item = &'a str> {
        self.nodes.get(node).into_iter().flat_map(|node| node.inputs.keys().map(String::as_str))
    }

    /// Whether an input exists: with a value, with an edge, or known to the page that exported it.
    pub(super) fn has_input(&self, node: &str, field: &str) -> bool {
        self.nodes.get(node).is_some_and(|node| node.inputs.contains_key(field))
            || self.edge(node, field).is_some()
            || self.known_inputs.contains(&input(node, field))
    }

    /// The nodes that `from` depends on, itself included, each with its distance. Edges into `cut` do not count.
    pub(super) fn upstream(&self, from: &str, cut: &BTreeSet<NodeInput>) -> BTreeMap<String, usize> {
        let mut found = BTreeMap::from([(from.to_owned(), 0)]);
        let mut open = VecDeque::from([(from.to_owned(), 0)]);
        while let Some((node, distance)) = open.pop_front() {
            for edge in self.edges_into(&node).filter(|edge| !cut.contains(&edge.target)) {
                if !found.contains_key(&edge.source) {
                    found.insert(edge.source.clone(), distance + 1);
                    open.push_back((edge.source.clone(), distance + 1));
                }
            }
        }
        found
    }

    /// The nodes that depend on `from`.
    pub(super) fn downstream(&self, from: &str) -> BTreeSet<String> {
        let (mut found, mut open) = (BTreeSet::new(), vec![from.to_owned()]);
        while let Some(node) = open.pop() {
            let targets = self.readers(&node).map(|edge| edge.target.node.clone());
            open.extend(targets.filter(|target| found.insert(target.clone())));
        }
        found
    }

    /// For people: its id, class and title, on one line.
    pub(super) fn describe(&self, node: &str) -> String {
        let class = self.class(node);
        let title = self.title(node).filter(|title| *title != class);
        let title = title.map(|title| format!(" {title:?}")).unwrap_or_default();
        one_line(&format!("{node} ({class}{title})"))
    }
}

pub(super) fn input(node: &str, field: &str) -> NodeInput {
    NodeInput { node: node.to_owned(), field: field.to_owned() }
}

/// Comments end with their line.
pub(super) fn one_line(text: &str) -> String {
    text.chars()
        .map(|char| {
            if char.is_control() || matches!(char, '\u{2028}' | '\u{2029}' | '\u{85}' | '\u{feff}') {
                ' '
            } else {
                char
            }
        })
        .collect()
}
