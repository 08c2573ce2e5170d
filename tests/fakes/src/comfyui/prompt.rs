//! `POST /prompt`: accepts a prompt, or refuses it as recorded.

use std::sync::{Arc, LazyLock};

use axum::{
    Extension,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    ConnectionHandle, Core, api,
    files::CLASSES,
    queue::{self, ComfyPrompt, ComfyState, PromptStatus},
};

static REFUSALS: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../fixtures/comfyui/refusals.json")).expect("a JSON fixture")
});

pub(super) async fn post(
    State(core): State<Arc<Core>>,
    Extension(connection): Extension<ConnectionHandle>,
    body: Bytes,
) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    if !body["prompt"].is_object() {
        return api::server_error();
    }
    match core.change(|state| accept(state, &body)) {
        Err(refusal) => (StatusCode::BAD_REQUEST, api::json_answer(&refusal)).into_response(),
        Ok(answer) => {
            if core.change(|state| std::mem::take(&mut state.script.lose_prompt_answer)) {
                connection.cut.cancel();
                std::future::pending::<()>().await;
            }
            api::json_answer(&answer)
        }
    }
}

fn accept(state: &mut ComfyState, body: &Value) -> Result<Value, Value> {
    let (number, graph) = (state.next_number(), &body["prompt"]);
    let prompt_id = match body.get("prompt_id") {
        None => state.uuid(),
        Some(id) => id.as_str().filter(|id| is_uuid(id)).ok_or_else(|| recorded("bad_prompt_id"))?.to_owned(),
    };
    let outputs = check(state, graph)?;
    let mut extra_data = json!({"create_time": queue::now()});
    for (key, value) in body["extra_data"].as_object().into_iter().flatten() {
        extra_data[key] = value.clone();
    }
    extra_data["client_id"] = body["client_id"].clone();
    let answer = json!({"prompt_id": prompt_id, "number": number, "node_errors": {}});
    state.enqueue(ComfyPrompt {
        prompt_id,
        client_id: body["client_id"].as_str().map(str::to_owned),
        number,
        extra_data,
        graph: graph.clone(),
        outputs,
        status: PromptStatus::Pending,
        images: Vec::new(),
    });
    Ok(answer)
}

fn recorded(name: &str) -> Value {
    REFUSALS[name]["answer"].clone()
}

/// The output nodes of a graph of known nodes that names installed files.
fn check(state: &ComfyState, graph: &Value) -> Result<Vec<String>, Value> {
    let mut outputs = Vec::new();
    for (id, node) in graph.as_object().into_iter().flatten() {
        let class = node["class_type"].as_str().unwrap_or_default();
        if CLASSES.get(class).is_none() || state.script.removed_classes.iter().any(|removed| removed == class)
        {
            return Err(unknown_class(id, class));
        }
        if CLASSES[class]["output_node"] == true {
            outputs.push(id.clone());
        }
    }
    let script = &state.script;
    let diffusion_models = script.diffusion_models.as_deref().unwrap_or_default();
    for (id, node) in graph.as_object().into_iter().flatten() {
        for (input, files) in [("ckpt_name", &script.checkpoints[..]), ("unet_name", diffusion_models)] {
            if let Some(file) =
                node["inputs"][input].as_str().filter(|file| !files.iter().any(|one| one == file))
            {
                return Err(not_in_list((id, &node["class_type"]), (input, file), files, &outputs));
            }
        }
    }
    if outputs.is_empty() { Err(recorded("no_output_node")) } else { Ok(outputs) }
}

fn unknown_class(id: &str, class: &str) -> Value {
    let mut answer = recorded("unknown_class_type");
    let error = &mut answer["error"];
    error["message"] = json!(format!("Node '{class}' not found. The custom node may not be installed."));
    error["details"] = json!(format!("Node ID '#{id}'"));
    error["extra_info"] = json!({"node_id": id, "class_type": class, "node_title": class});
    answer
}

fn not_in_list(
    (id, class): (&str, &Value),
    (input, file): (&str, &str),
    files: &[String],
    outputs: &[String],
) -> Value {
    let mut answer = recorded("unknown_ckpt");
    let mut node = answer["node_errors"]["4"].take();
    let list = files.iter().map(|file| format!("'{file}'")).collect::<Vec<_>>().join(", ");
    let error = &mut node["errors"][0];
    error["details"] = json!(format!("{input}: '{file}' not in [{list}]"));
    error["extra_info"] = json!({"input_name": input, "input_config": [files, {}], "received_value": file});
    node["class_type"] = class.clone();
    node["dependent_outputs"] = json!(outputs);
    answer["node_errors"] = json!({ id: node });
    answer
}

/// Canonical: lowercase and hyphenated.
fn is_uuid(id: &str) -> bool {
    let fits = |(at, byte): (usize, u8)| match byte {
        b'-' => matches!(at, 8 | 13 | 18 | 23),
        byte => matches!(byte, b'0'..=b'9' | b'a'..=b'f') && !matches!(at, 8 | 13 | 18 | 23),
    };
    id.len() == 36 && id.bytes().enumerate().all(fits)
}
