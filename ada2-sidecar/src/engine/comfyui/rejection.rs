//! Why ComfyUI rejected a graph: node and input, never the graph, lists of files or tracebacks.

use serde_json::Value;

use crate::engine::sanitize_message;

/// The error of the first invalid node, else of the whole graph.
pub(super) fn rejection_message(body: &Value) -> String {
    let node_message = body["node_errors"]
        .as_object()
        .and_then(|nodes| nodes.iter().find_map(|(id, node)| node_error_message(id, node)));
    let text = node_message.unwrap_or_else(|| {
        let text = |name: &str| body["error"][name].as_str().unwrap_or_default();
        match (text("message"), text("details")) {
            ("", _) => "no reason given".to_owned(),
            (message, details) if details.is_empty() || details == message => message.to_owned(),
            (message, details) => format!("{message} ({details})"),
        }
    });
    sanitize_message(&format!("ComfyUI rejects the graph: {text}"))
}

fn node_error_message(id: &str, node: &Value) -> Option<String> {
    let error = node["errors"].get(0)?;
    let class = node["class_type"].as_str().unwrap_or("?");
    let input = error["extra_info"]["input_name"].as_str();
    let input = input.map(|name| format!(", input {name:?}")).unwrap_or_default();
    let message = error["message"].as_str().unwrap_or("no reason given");
    let detail = match error["type"].as_str() {
        Some("value_not_in_list") => {
            error["extra_info"]["received_value"].as_str().map(|value| format!(": {value:?}"))
        }
        Some("custom_validation_failed") => error["details"].as_str().map(|details| format!(": {details}")),
        _ => None,
    };
    Some(format!("node {id:?} ({class}){input}: {message}{}", detail.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn node_and_input_are_named() {
        let rejected = |class: &str, error: Value| {
            rejection_message(
                &json!({"error": {"type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed validation",
                "details": "", "extra_info": {}},
                "node_errors": {"4": {"errors": [error], "dependent_outputs": ["9"], "class_type": class}}}),
            )
        };
        assert_eq!(
            rejected(
                "CheckpointLoaderSimple",
                json!({"type": "value_not_in_list", "message": "Value not in list",
                    "details": "ckpt_name: 'missing.safetensors' not in ['a.safetensors', 'b.safetensors']",
                    "extra_info": {"input_name": "ckpt_name", "received_value": "missing.safetensors"}})
            ),
            "ComfyUI rejects the graph: node \"4\" (CheckpointLoaderSimple), input \"ckpt_name\": Value not in list: \
             \"missing.safetensors\""
        );
        assert_eq!(
            rejected(
                "KSampler",
                json!({"type": "required_input_missing", "message": "Required input is missing", "details": "steps",
                    "extra_info": {"input_name": "steps"}})
            ),
            "ComfyUI rejects the graph: node \"4\" (KSampler), input \"steps\": Required input is missing"
        );
        assert_eq!(
            rejected(
                "LoadImage",
                json!({"type": "custom_validation_failed", "message": "Custom validation failed for node",
                    "details": "image - Invalid image file: nope.png", "extra_info": {}})
            ),
            "ComfyUI rejects the graph: node \"4\" (LoadImage): Custom validation failed for node: image - Invalid \
             image file: nope.png"
        );
    }

    #[test]
    fn a_node_that_is_not_installed_is_named() {
        let body = json!({"error": {"type": "missing_node_type",
            "message": "Node 'NoSuchNode' not found. The custom node may not be installed.", "details": "Node ID '#3'",
            "extra_info": {}}, "node_errors": {}});
        assert_eq!(
            rejection_message(&body),
            "ComfyUI rejects the graph: Node 'NoSuchNode' not found. The custom node may not be installed. (Node ID \
             '#3')"
        );
        assert_eq!(rejection_message(&json!(null)), "ComfyUI rejects the graph: no reason given");
    }
}
