//! What enqueueing lets pass and what fails an item when it runs: inputs without anything, models and pictures that are not
//! there or do not fit.

use serde_json::{Map, Value};

use super::{
    graph, nodes,
    queue::{InvokeState, QueueItem},
};
use crate::engine::EngineFailure;

/// The models that a loader needs beside its main one: these, or the one that brings them. A main model in diffusers
/// format brings them itself, where it says so.
struct Needs {
    loader: &'static str,
    parts: &'static [&'static str],
    source: Option<&'static str>,
    has_own: bool,
}

const NEEDS: [Needs; 6] = [
    Needs {
        loader: "flux_model_loader",
        parts: &["t5_encoder_model", "clip_embed_model", "vae_model"],
        source: None,
        has_own: false,
    },
    Needs {
        loader: "z_image_model_loader",
        parts: &["vae_model", "qwen3_encoder_model"],
        source: Some("qwen3_source_model"),
        has_own: false,
    },
    Needs {
        loader: "flux2_klein_model_loader",
        parts: &["vae_model", "qwen3_encoder_model"],
        source: Some("qwen3_source_model"),
        has_own: true,
    },
    Needs {
        loader: "flux2_dev_model_loader",
        parts: &["vae_model", "mistral_encoder_model"],
        source: Some("mistral_source_model"),
        has_own: true,
    },
    Needs {
        loader: "qwen_image_model_loader",
        parts: &["vae_model", "qwen_vl_encoder_model"],
        source: Some("component_source"),
        has_own: true,
    },
    Needs {
        loader: "krea2_model_loader",
        parts: &["vae_model", "qwen3_vl_encoder_model"],
        source: None,
        has_own: true,
    },
];

/// The first thing that fails the item.
pub(super) fn fault(state: &InvokeState, item: &QueueItem) -> Option<EngineFailure> {
    let nodes = item.graph["nodes"].as_object()?;
    nodes.iter().find_map(|(id, node)| {
        let kind = graph::kind(&item.graph, id);
        let inputs = nodes::inputs(kind)?;
        let of_fields = inputs.iter().find_map(|(field, schema)| {
            if graph::sources(&item.graph, id, field).next().is_some() {
                return None;
            }
            match &node[field] {
                Value::Null => missing(kind, field, schema),
                value => unusable(state, schema, value),
            }
        });
        of_fields.or_else(|| incomplete(state, kind, node)).or_else(|| foreign_lora(nodes, kind, node))
    })
}

fn missing(kind: &str, field: &str, schema: &Value) -> Option<EngineFailure> {
    // Values that have a default are not required, whatever the description says of them.
    if schema["orig_required"] != true || graph::ASIDE.contains(&field) {
        return None;
    }
    if schema["input"] == "connection" {
        let message = format!("Node {kind} missing connections for field {field}");
        return Some(EngineFailure::new("RequiredConnectionException", &message));
    }
    let message = format!("Node {kind} missing value or connection for field {field}");
    Some(EngineFailure::new("MissingInputException", &message))
}

/// A model or a picture that is not there, or a model of another kind than the field takes.
fn unusable(state: &InvokeState, schema: &Value, value: &Value) -> Option<EngineFailure> {
    if let Some(name) = value["image_name"].as_str() {
        let is_there = state.images.contains_key(name);
        return if is_there {
            None
        } else {
            Some(EngineFailure::new("ImageRecordNotFoundException", "Image record not found"))
        };
    }
    let key = value["key"].as_str()?;
    let Some(model) = model(state, value) else {
        return Some(EngineFailure::new("Exception", &format!("Unknown model {key}")));
    };
    let takes = |what: &str, attribute: &str| {
        schema[what].as_array().is_none_or(|allowed| allowed.contains(&model[attribute]))
    };
    let fits = takes("ui_model_base", "base") && takes("ui_model_type", "type");
    if fits {
        None
    } else {
        Some(EngineFailure::new("TypeError", "argument of type 'NoneType' is not iterable"))
    }
}

fn model<'a>(state: &'a InvokeState, value: &Value) -> Option<&'a Value> {
    state.script.models.iter().find(|model| model["key"] == value["key"])
}

/// A loader without all the models that it needs, or with an encoder of another size than the main model's.
fn incomplete(state: &InvokeState, kind: &str, node: &Value) -> Option<EngineFailure> {
    let main = model(state, &node["model"]).unwrap_or(&Value::Null);
    if let Some(needs) = NEEDS.iter().find(|needs| needs.loader == kind) {
        let has_own = needs.has_own && main["format"] == "diffusers";
        let source = needs.source.and_then(|source| model(state, &node[source]));
        let is_source = source.is_some_and(|source| source["format"] == "diffusers");
        let absent = needs.parts.iter().find(|part| node[**part].is_null());
        if let Some(part) = absent.filter(|_| !has_own && !is_source) {
            let what = part.trim_end_matches("_model");
            let what = if what == "vae" { "VAE" } else { what };
            return Some(EngineFailure::new("ValueError", &format!("No {what} source provided.")));
        }
    }
    let wanted = match (kind, main["variant"].as_str().unwrap_or_default()) {
        ("z_image_model_loader", _) => "qwen3_4b",
        ("anima_model_loader", _) => "qwen3_06b",
        ("flux2_klein_model_loader", variant) if variant.starts_with("klein_4b") => "qwen3_4b",
        ("flux2_klein_model_loader", _) => "qwen3_8b",
        _ => return None,
    };
    let encoder = model(state, &node["qwen3_encoder_model"])?;
    let message = format!("Qwen3 encoder variant mismatch: {} instead of {wanted}", encoder["variant"]);
    if encoder["variant"] == wanted { None } else { Some(EngineFailure::new("ValueError", &message)) }
}

/// A LoRA of another base than that of the graph's main model.
fn foreign_lora(nodes: &Map<String, Value>, kind: &str, node: &Value) -> Option<EngineFailure> {
    let base = node["lora"]["base"].as_str().filter(|_| kind.contains("lora"))?;
    let mains = nodes.values().filter(|node| graph::is_loader(node["type"].as_str().unwrap_or_default()));
    let mut bases = mains.filter_map(|node| node["model"]["base"].as_str()).peekable();
    bases.peek()?;
    let message = format!("LoRA base {base} does not match the model's");
    if bases.any(|main| main == base) { None } else { Some(EngineFailure::new("ValueError", &message)) }
}
