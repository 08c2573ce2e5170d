//! What a workflow's outputs are computed from, found by following links from them.

use serde_json::Value;

use super::declarations;

/// The node that a link points at, and its slot.
pub(super) fn link(value: &Value) -> Option<(&str, usize)> {
    match value.as_array()?.as_slice() {
        [node, slot] => Some((node.as_str()?, usize::try_from(slot.as_u64()?).ok()?)),
        _ => None,
    }
}

/// The nodes that these need, themselves included, each before what it needs, in the order of its declared inputs.
pub(super) fn needed<'a>(graph: &'a Value, outputs: &'a [String]) -> Vec<&'a str> {
    let mut found = Vec::new();
    for output in outputs {
        visit(graph, output, &mut found);
    }
    found
}

fn visit<'a>(graph: &'a Value, id: &'a str, found: &mut Vec<&'a str>) {
    if found.contains(&id) || graph.get(id).is_none() {
        return;
    }
    found.push(id);
    for (_, value) in inputs(graph, id) {
        if let Some((source, _)) = link(value) {
            visit(graph, source, found);
        }
    }
}

/// The node's inputs that its class declares, in that order, with their values.
pub(super) fn inputs<'a>(graph: &'a Value, id: &str) -> Vec<(String, &'a Value)> {
    let values = &graph[id]["inputs"];
    let Some(class) = declarations::class(class(graph, id)) else { return Vec::new() };
    let declared = declarations::inputs(class, values).into_iter();
    declared
        .filter_map(|input| Some((values.get(&input.name)?, input.name)))
        .map(|(value, name)| (name, value))
        .collect()
}

pub(super) fn class<'a>(graph: &'a Value, id: &str) -> &'a str {
    graph[id]["class_type"].as_str().unwrap_or_default()
}

/// The first value of this name, no link, that the outputs depend on.
pub(super) fn value<'a>(graph: &'a Value, outputs: &'a [String], name: &str) -> Option<&'a Value> {
    let values = needed(graph, outputs).into_iter().filter_map(|id| graph[id]["inputs"].get(name));
    values.into_iter().find(|value| !value.is_array())
}

/// The files that the outputs load as pictures, first the one that the graph puts first. Masks are none.
pub(super) fn pictures<'a>(graph: &'a Value, outputs: &'a [String]) -> Vec<&'a str> {
    behind_their_sources(graph, outputs)
        .into_iter()
        .filter(|id| class(graph, id) == "LoadImage")
        .filter_map(|id| graph[id]["inputs"]["image"].as_str())
        .collect()
}

/// The LoRAs that the outputs depend on, with their weights, in the order in which the graph applies them.
pub(super) fn loras(graph: &Value, outputs: &[String]) -> Vec<(String, f64)> {
    let of = |id: &str| {
        let inputs = &graph[id]["inputs"];
        Some((inputs["lora_name"].as_str()?.to_owned(), inputs["strength_model"].as_f64()?))
    };
    behind_their_sources(graph, outputs).into_iter().filter_map(of).collect()
}

/// Whether a node puts the picture of its last input before that of its first.
pub(super) fn puts_second_first(graph: &Value, id: &str) -> bool {
    class(graph, id) == "ImageStitch"
        && matches!(graph[id]["inputs"]["direction"].as_str(), Some("left" | "up"))
}

/// The nodes that the outputs need, each after what it needs.
fn behind_their_sources<'a>(graph: &'a Value, outputs: &'a [String]) -> Vec<&'a str> {
    fn visit<'a>(graph: &'a Value, id: &'a str, seen: &mut Vec<&'a str>, found: &mut Vec<&'a str>) {
        if seen.contains(&id) || graph.get(id).is_none() {
            return;
        }
        seen.push(id);
        let mut values = inputs(graph, id);
        if puts_second_first(graph, id) {
            values.reverse();
        }
        for (_, value) in values {
            if let Some((source, _)) = link(value) {
                visit(graph, source, seen, found);
            }
        }
        found.push(id);
    }
    let (mut seen, mut found) = (Vec::new(), Vec::new());
    for output in outputs {
        visit(graph, output, &mut seen, &mut found);
    }
    found
}
