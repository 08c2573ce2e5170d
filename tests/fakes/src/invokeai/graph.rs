//! What a graph's picture is computed from, found by following edges from the node that makes it.

use serde_json::{Map, Value};

use super::nodes;

/// Fields that say nothing about the picture.
pub(super) const ASIDE: [&str; 6] = ["id", "type", "is_intermediate", "use_cache", "board", "metadata"];

pub(super) fn kind<'a>(graph: &'a Value, id: &str) -> &'a str {
    graph["nodes"][id]["type"].as_str().unwrap_or_default()
}

/// Whether a type of node loads a main model.
pub(super) fn is_loader(kind: &str) -> bool {
    kind.ends_with("model_loader")
}

/// The nodes and fields that feed an input, in the order of the edges.
pub(super) fn sources<'a>(
    graph: &'a Value,
    id: &'a str,
    field: &'a str,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    let edges = graph["edges"].as_array().into_iter().flatten();
    edges
        .filter(move |edge| edge["destination"]["node_id"] == id && edge["destination"]["field"] == field)
        .filter_map(|edge| Some((edge["source"]["node_id"].as_str()?, edge["source"]["field"].as_str()?)))
}

/// The node that makes the picture: no other takes what it makes, and it is kept if any is.
pub(super) fn last(graph: &Value) -> Option<&str> {
    let edges = graph["edges"].as_array().map(Vec::as_slice).unwrap_or_default();
    let feeds = |id: &str| edges.iter().any(|edge| edge["source"]["node_id"] == id);
    let nodes = graph["nodes"].as_object()?;
    let made = nodes.keys().filter(|id| nodes::makes_image(kind(graph, id)) && !feeds(id));
    let made: Vec<&String> = made.collect();
    let kept = made.iter().find(|id| nodes[**id]["is_intermediate"] == false);
    kept.or(made.first()).map(|id| id.as_str())
}

/// The fields of a node that have a part in the picture.
pub(super) fn fields(kind: &str) -> impl Iterator<Item = &'static str> {
    let inputs = nodes::inputs(kind).into_iter().flat_map(Map::keys).map(String::as_str);
    inputs.filter(|field| !ASIDE.contains(field))
}

/// The nodes that the picture needs, its own first, each before what it needs.
pub(super) fn needed(graph: &Value) -> Vec<&str> {
    fn visit<'a>(graph: &'a Value, id: &'a str, found: &mut Vec<&'a str>) {
        if !found.contains(&id) {
            found.push(id);
            for field in fields(kind(graph, id)) {
                for (source, _) in sources(graph, id, field) {
                    visit(graph, source, found);
                }
            }
        }
    }
    let mut found = Vec::new();
    if let Some(last) = last(graph) {
        visit(graph, last, &mut found);
    }
    found
}

/// The nodes that the picture needs, each after what it needs.
fn behind_their_sources(graph: &Value) -> Vec<&str> {
    fn visit<'a>(graph: &'a Value, id: &'a str, seen: &mut Vec<&'a str>, found: &mut Vec<&'a str>) {
        if seen.contains(&id) {
            return;
        }
        seen.push(id);
        for field in fields(kind(graph, id)) {
            for (source, _) in sources(graph, id, field) {
                visit(graph, source, seen, found);
            }
        }
        found.push(id);
    }
    let (mut seen, mut found) = (Vec::new(), Vec::new());
    if let Some(last) = last(graph) {
        visit(graph, last, &mut seen, &mut found);
    }
    found
}

/// Whether a node needs itself.
pub(super) fn has_cycle(graph: &Value) -> bool {
    let ends = |edge: &Value| {
        let of = |end: &str| edge[end]["node_id"].as_str().unwrap_or_default().to_owned();
        (of("source"), of("destination"))
    };
    let mut left: Vec<_> = graph["edges"].as_array().into_iter().flatten().map(ends).collect();
    loop {
        // What comes from a node that nothing feeds any more is done.
        let fed: Vec<String> = left.iter().map(|(_, to)| to.clone()).collect();
        let before = left.len();
        left.retain(|(from, _)| fed.contains(from));
        if left.is_empty() || left.len() == before {
            return !left.is_empty();
        }
    }
}

/// The first value of this name, fed by no edge, that the picture depends on.
pub(super) fn value<'a>(graph: &'a Value, name: &str) -> Option<&'a Value> {
    let is_free = |id: &&str| sources(graph, id, name).next().is_none();
    let values = needed(graph).into_iter().filter(is_free).filter_map(|id| graph["nodes"][id].get(name));
    values.into_iter().find(|value| !value.is_null())
}

/// The names of the pictures that the picture depends on, the first one first. Masks are none.
pub(super) fn pictures(graph: &Value) -> Vec<&str> {
    let mut found = Vec::new();
    for id in behind_their_sources(graph) {
        let kind = kind(graph, id);
        let reads_masks = matches!(kind, "tomask" | "image_mask_to_tensor");
        for field in fields(kind).filter(|field| !reads_masks && *field != "mask") {
            let name = graph["nodes"][id][field]["image_name"].as_str();
            let is_free = sources(graph, id, field).next().is_none();
            found.extend(name.filter(|name| is_free && !found.contains(name)));
        }
    }
    found
}

/// The names of the `LoRAs` that the picture depends on, with their weights, in the order in which they are applied.
pub(super) fn loras(graph: &Value) -> Vec<(String, f64)> {
    let of = |id: &str| {
        let node = &graph["nodes"][id];
        let weight = node.get("weight").map_or(Some(0.75), Value::as_f64);
        Some((node["lora"]["name"].as_str()?.to_owned(), weight?))
    };
    behind_their_sources(graph).into_iter().filter_map(of).collect()
}
