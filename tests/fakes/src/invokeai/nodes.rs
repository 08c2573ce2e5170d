//! What each type of node takes and gives, as the server's own description says.

use std::{collections::BTreeSet, sync::LazyLock};

use serde_json::{Map, Value};

/// Of `GET /openapi.json` the types of nodes that graphs of today's families use.
pub(super) static DESCRIPTION: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../fixtures/invokeai/openapi.json")).expect("a JSON fixture")
});

fn schemas() -> impl Iterator<Item = &'static Value> {
    DESCRIPTION["components"]["schemas"].as_object().into_iter().flat_map(Map::values)
}

/// All types.
pub(super) fn types() -> impl Iterator<Item = &'static str> {
    let nodes = schemas().filter(|schema| schema["class"] == "invocation");
    nodes.filter_map(|schema| schema["properties"]["type"]["const"].as_str())
}

/// The inputs of a type.
pub(super) fn inputs(kind: &str) -> Option<&'static Map<String, Value>> {
    invocation(kind)?["properties"].as_object()
}

/// The outputs of a type.
pub(super) fn outputs(kind: &str) -> Option<&'static Map<String, Value>> {
    let name = invocation(kind)?["output"]["$ref"].as_str()?.rsplit('/').next()?;
    DESCRIPTION["components"]["schemas"][name]["properties"].as_object()
}

/// Whether nodes of that type make a picture.
pub(super) fn makes_image(kind: &str) -> bool {
    outputs(kind).is_some_and(|outputs| outputs["type"]["const"] == "image_output")
}

fn invocation(kind: &str) -> Option<&'static Value> {
    schemas().find(|schema| schema["class"] == "invocation" && schema["properties"]["type"]["const"] == kind)
}

/// Whether a node that gives this can feed an input that takes that. Certain misfits only.
pub(super) fn fits(given: &Value, taken: &Value) -> bool {
    match (kinds(given), kinds(taken)) {
        (Some(given), Some(taken)) => {
            let widens = given.contains("integer") && taken.contains("number");
            widens || given.intersection(&taken).any(|kind| kind != "null")
        }
        _ => true,
    }
}

/// The names of the types that a schema allows. None if it allows anything.
fn kinds(schema: &Value) -> Option<BTreeSet<String>> {
    if let Some(reference) = schema["$ref"].as_str() {
        return Some(BTreeSet::from([reference.rsplit('/').next()?.to_owned()]));
    }
    if let Some(choices) = schema["anyOf"].as_array() {
        let kinds: Option<Vec<_>> = choices.iter().map(kinds).collect();
        return Some(kinds?.into_iter().flatten().collect());
    }
    match schema["type"].as_str()? {
        "array" => Some(kinds(&schema["items"])?.iter().map(|kind| format!("[{kind}]")).collect()),
        kind => Some(BTreeSet::from([kind.to_owned()])),
    }
}
