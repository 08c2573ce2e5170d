//! The answers that refuse a workflow, in the recorded shapes.

use serde_json::{Value, json};

use super::queue::ComfyState;

/// The body of every refusal.
pub(super) fn refusal(error: &Value, node_errors: &Value) -> Value {
    json!({ "error": error, "node_errors": node_errors })
}

pub(super) fn error(kind: &str, message: &str, details: &str, extra: &Value) -> Value {
    json!({"type": kind, "message": message, "details": details, "extra_info": extra})
}

/// A class that is not installed, or none at all.
pub(super) fn unknown_class(state: &ComfyState, id: &str, node: &Value) -> Value {
    let (class, details) = (node["class_type"].as_str(), format!("Node ID '#{id}'"));
    if !state.is_after(0, 11, 1) {
        let message = class.map_or_else(
            || "Cannot execute because a node is missing the class_type property.".to_owned(),
            |class| format!("Cannot execute because node {class} does not exist."),
        );
        return error("invalid_prompt", &message, &details, &json!({}));
    }
    let message = class.map_or_else(
        || format!("Node 'ID #{id}' has no class_type. The workflow may be corrupted or a custom node is missing."),
        |class| format!("Node '{class}' not found. The custom node may not be installed."),
    );
    let title = node["_meta"].get("title").cloned().unwrap_or_else(|| json!(class));
    error(
        "missing_node_type",
        &message,
        &details,
        &json!({"node_id": id, "class_type": class, "node_title": title}),
    )
}
