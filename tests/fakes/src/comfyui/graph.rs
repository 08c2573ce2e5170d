//! The workflow as a graph: which node feeds which, what a result depends on, and the order in which the real server
//! runs nodes.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::LazyLock,
};

use serde_json::{Value, json};

use super::{nodes::Output, queue::ComfyState};

/// `/object_info`, as recorded: what each class of node takes and gives.
pub(super) static CLASSES: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../fixtures/comfyui/object_info.json")).expect("a JSON fixture")
});

/// The result of a node that ran.
#[derive(Debug, Clone)]
pub(super) struct NodeResult {
    /// One per slot.
    pub(super) outputs: Vec<Output>,
    /// What history lists of it.
    pub(super) ui: Option<Value>,
}

/// An input that is another node's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) from: String,
    pub(super) slot: usize,
}

pub(super) fn link(value: &Value) -> Option<Link> {
    let [from, slot] = value.as_array()?.as_slice() else { return None };
    Some(Link { from: from.as_str()?.to_owned(), slot: usize::try_from(slot.as_u64()?).ok()? })
}

pub(super) fn class<'a>(graph: &'a Value, node: &str) -> &'a str {
    graph[node]["class_type"].as_str().unwrap_or_default()
}

pub(super) fn is_output(class: &str) -> bool {
    CLASSES[class]["output_node"] == true
}

/// Names of the class's inputs, required ones first, in the order in which it declares them.
pub(super) fn input_names(class: &str) -> impl Iterator<Item = (&'static str, bool)> {
    let order = &CLASSES[class]["input_order"];
    let names = |kind: &str| order[kind].as_array().into_iter().flatten().filter_map(Value::as_str);
    names("required").map(|name| (name, true)).chain(names("optional").map(|name| (name, false)))
}

fn links(graph: &Value, node: &str) -> Vec<Link> {
    let inputs = &graph[node]["inputs"];
    input_names(class(graph, node)).filter_map(|(name, _)| link(&inputs[name])).collect()
}

/// What each reachable node's result depends on: its class, its values, the files that it reads, and the same of the
/// nodes before it. Equal keys give equal results, so the stored one is taken.
pub(super) fn keys(state: &ComfyState, index: usize) -> BTreeMap<String, String> {
    let mut keys = BTreeMap::new();
    for node in &state.items[index].outputs {
        key(state, index, node, &mut keys);
    }
    keys
}

fn key(state: &ComfyState, index: usize, node: &str, keys: &mut BTreeMap<String, String>) -> String {
    if let Some(known) = keys.get(node) {
        return known.clone();
    }
    let graph = &state.items[index].graph;
    let (class, mut inputs) = (class(graph, node), graph[node]["inputs"].clone());
    for value in inputs.as_object_mut().into_iter().flat_map(|inputs| inputs.values_mut()) {
        if let Some(link) = link(value) {
            *value = json!([key(state, index, &link.from, keys), link.slot]);
        }
    }
    let file = inputs["image"].as_str().and_then(|name| state.files.get(&super::files::annotated(name)?));
    let content = file.map(|bytes| {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        hasher.finish()
    });
    // Never taken from the cache, as recorded.
    let always_new = (class == "SaveImageWebsocket").then_some(index);
    let key = json!([class, inputs, content, always_new]).to_string();
    keys.insert(node.to_owned(), key.clone());
    key
}

/// The nodes in the order in which they run: those that are neither cached nor needed are left out, outputs are not.
/// Where several could run, one that lets an output run soon goes first, as the real server picks them.
pub(super) fn order(graph: &Value, outputs: &[String], is_cached: impl Fn(&str) -> bool) -> Vec<String> {
    let mut waiting: Vec<String> = Vec::new();
    let mut feeds: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut to_add: Vec<String> = outputs.iter().rev().cloned().collect();
    while let Some(node) = to_add.pop() {
        if waiting.contains(&node) {
            continue;
        }
        waiting.push(node.clone());
        if is_cached(&node) {
            continue;
        }
        for link in links(graph, &node) {
            if !is_cached(&link.from) {
                feeds.entry(link.from.clone()).or_default().insert(node.clone());
                to_add.push(link.from);
            }
        }
    }
    let mut order = Vec::new();
    while !waiting.is_empty() {
        let next = pick(graph, &waiting, &feeds);
        let node = waiting.remove(next);
        feeds.remove(&node);
        order.push(node);
    }
    order
}

fn pick(graph: &Value, waiting: &[String], feeds: &BTreeMap<String, BTreeSet<String>>) -> usize {
    let is_output = |node: &String| is_output(class(graph, node));
    let fed = |node: &String| feeds.get(node).into_iter().flatten();
    let ready: Vec<usize> =
        (0..waiting.len()).filter(|at| !feeds.values().any(|fed| fed.contains(&waiting[*at]))).collect();
    let first = |wanted: &dyn Fn(&String) -> bool| ready.iter().copied().find(|at| wanted(&waiting[*at]));
    first(&is_output)
        .or_else(|| first(&|node| fed(node).any(is_output)))
        .or_else(|| first(&|node| fed(node).any(|next| fed(next).any(is_output))))
        .or_else(|| ready.first().copied())
        .expect("validation refuses cycles")
}
