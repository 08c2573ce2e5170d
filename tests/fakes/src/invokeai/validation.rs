//! What enqueueing finds wrong with a graph, in the words of the real server. Missing connections, models and pictures
//! are not among it: they fail the item when it runs.

use serde_json::{Map, Value, json};

use super::{graph, nodes};

/// The graph of nodes that exist, with values in their ranges and edges between things that fit.
pub(super) fn check(graph: &Value, removed: &[String]) -> Result<(), Value> {
    let nodes = graph["nodes"].as_object().expect("the caller has seen it");
    for (id, node) in nodes {
        check_node(id, node, removed)?;
    }
    for (id, node) in nodes {
        if node["id"] != json!(id) {
            return wrong(&format!("Node ids must match, got {id} and {}", text(&node["id"])));
        }
    }
    for edge in graph["edges"].as_array().into_iter().flatten() {
        check_edge(nodes, edge)?;
    }
    if graph::has_cycle(graph) { wrong("Graph contains cycles") } else { Ok(()) }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn wrong(message: &str) -> Result<(), Value> {
    let detail = json!({"type": "value_error", "loc": ["body", "batch", "graph"],
        "msg": format!("Value error, {message}"), "input": "the whole graph", "ctx": {"error": {}}});
    Err(json!([detail]))
}

fn check_node(id: &str, node: &Value, removed: &[String]) -> Result<(), Value> {
    let kind = text(&node["type"]);
    let inputs = nodes::inputs(kind).filter(|_| !removed.iter().any(|removed| removed == kind));
    let Some(inputs) = inputs else {
        let expected: Vec<String> = nodes::types().map(|kind| format!("'{kind}'")).collect();
        let expected = expected.join(", ");
        let message = format!(
            "Input tag '{kind}' found using 'type' does not match any of the expected tags: {expected}"
        );
        return Err(json!([{"type": "union_tag_invalid", "loc": ["body", "batch", "graph", "nodes", id],
            "msg": message, "input": node,
            "ctx": {"discriminator": "'type'", "tag": kind, "expected_tags": expected}}]));
    };
    for (name, schema) in inputs {
        let value = node.get(name).filter(|value| !value.is_null());
        if let Some((kind_of_error, message, context)) = value.and_then(|value| misfit(schema, value)) {
            return Err(json!([{"type": kind_of_error,
                "loc": ["body", "batch", "graph", "nodes", id, kind, name],
                "msg": message, "input": value, "ctx": context}]));
        }
    }
    Ok(())
}

type Misfit = (&'static str, String, Value);

/// Why a value is none of what the schema allows.
fn misfit(schema: &Value, value: &Value) -> Option<Misfit> {
    if let Some(choices) = schema["anyOf"].as_array() {
        let misfits: Option<Vec<Misfit>> = choices.iter().map(|choice| misfit(choice, value)).collect();
        return misfits?.into_iter().find(|(kind, ..)| *kind != "none_required");
    }
    if let Some(allowed) = schema["enum"].as_array() {
        return (!allowed.contains(value)).then(|| {
            let quoted: Vec<String> = allowed.iter().map(|value| format!("'{}'", text(value))).collect();
            let (last, others) = quoted.split_last().expect("a choice has values");
            let or =
                if others.is_empty() { last.clone() } else { format!("{} or {last}", others.join(", ")) };
            ("literal_error", format!("Input should be {or}"), json!({ "expected": or }))
        });
    }
    let plain = |kind: &'static str, message: &str| Some((kind, message.to_owned(), json!({})));
    if let Some(reference) = schema["$ref"].as_str() {
        return missing_field(reference, value)
            .map(|field| ("missing", "Field required".to_owned(), json!({ "field": field })));
    }
    match schema["type"].as_str() {
        Some("integer") if value.as_f64().is_none_or(|number| number.fract() != 0.0) => {
            plain("int_type", "Input should be a valid integer")
        }
        Some("number") if !value.is_number() => plain("float_type", "Input should be a valid number"),
        Some("integer" | "number") => out_of_range(schema, value),
        Some("string") if !value.is_string() => plain("string_type", "Input should be a valid string"),
        Some("boolean") if !value.is_boolean() => plain("bool_type", "Input should be a valid boolean"),
        Some("array") if !value.is_array() => plain("list_type", "Input should be a valid list"),
        Some("null") => plain("none_required", "Input should be None"),
        _ => None,
    }
}

/// The fields that a model, a picture and a board must have.
fn missing_field(reference: &str, value: &Value) -> Option<&'static str> {
    let fields: &[&str] = match reference.rsplit('/').next()? {
        "ModelIdentifierField" => &["key", "hash", "name", "base", "type"],
        "ImageField" => &["image_name"],
        "BoardField" => &["board_id"],
        "LoRAMetadataField" => &["model", "weight"],
        _ => &[],
    };
    fields.iter().find(|field| value.get(field).is_none()).copied()
}

fn out_of_range(schema: &Value, value: &Value) -> Option<Misfit> {
    let number = value.as_f64()?;
    let limit = |key: &str| schema[key].as_f64();
    let error = |kind, what: &str, key: &str, short: &str| {
        let limit = &schema[key];
        Some((kind, format!("Input should be {what} {limit}"), json!({ short: limit })))
    };
    if limit("multipleOf").is_some_and(|multiple| number % multiple != 0.0) {
        return error("multiple_of", "a multiple of", "multipleOf", "multiple_of");
    }
    if limit("exclusiveMinimum").is_some_and(|limit| number <= limit) {
        return error("greater_than", "greater than", "exclusiveMinimum", "gt");
    }
    if limit("minimum").is_some_and(|limit| number < limit) {
        return error("greater_than_equal", "greater than or equal to", "minimum", "ge");
    }
    if limit("maximum").is_some_and(|limit| number > limit) {
        return error("less_than_equal", "less than or equal to", "maximum", "le");
    }
    None
}

fn check_edge(nodes: &Map<String, Value>, edge: &Value) -> Result<(), Value> {
    let end = |name: &str| (text(&edge[name]["node_id"]), text(&edge[name]["field"]));
    let ((from, output), (to, input)) = (end("source"), end("destination"));
    for (name, node) in [("source", from), ("target", to)] {
        if !nodes.contains_key(node) {
            return wrong(&format!("Edge {name} node {node} does not exist in the graph"));
        }
    }
    let kind = |node: &str| text(&nodes[node]["type"]);
    let given = nodes::outputs(kind(from)).and_then(|outputs| outputs.get(output));
    let Some(given) = given.filter(|_| output != "type") else {
        return wrong(&format!("Edge source field {output} does not exist in node {from}"));
    };
    let Some(taken) = nodes::inputs(kind(to)).and_then(|inputs| inputs.get(input)) else {
        return wrong(&format!("Edge destination field {input} does not exist in node {to}"));
    };
    if !nodes::fits(given, taken) {
        let ends = format!("{from}.{output} -> {to}.{input}");
        return wrong(&format!("Edge source and target types do not match ({ends})"));
    }
    Ok(())
}
