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
    ConnectionHandle, Core, api, declarations,
    queue::{self, ComfyPrompt, ComfyState, PromptStatus},
    validation::Validation,
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
    let (outputs, node_errors) = check(state, graph)?;
    let mut extra_data = json!({"create_time": queue::now()});
    for (key, value) in body["extra_data"].as_object().into_iter().flatten() {
        extra_data[key] = value.clone();
    }
    extra_data["client_id"] = body["client_id"].clone();
    let answer = json!({"prompt_id": prompt_id, "number": number, "node_errors": node_errors});
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

/// The valid outputs of a graph of known nodes, and what is wrong with others. A graph without any is refused.
fn check(state: &ComfyState, graph: &Value) -> Result<(Vec<String>, Value), Value> {
    let mut outputs = Vec::new();
    for (id, node) in graph.as_object().into_iter().flatten() {
        let class = node["class_type"].as_str().unwrap_or_default();
        let Some(about) = declarations::object_info(state, class) else {
            return Err(unknown_class(id, &node["class_type"]));
        };
        if about["output_node"] == true {
            outputs.push(id.clone());
        }
    }
    if outputs.is_empty() {
        return Err(recorded("no_output_node"));
    }
    let (valid, errors) = Validation::of(state, graph, &outputs);
    if valid.is_empty() {
        let mut answer = recorded("unknown_ckpt");
        answer["node_errors"] = errors;
        return Err(answer);
    }
    Ok((valid, errors))
}

fn unknown_class(id: &str, class: &Value) -> Value {
    let mut answer = recorded("unknown_class_type");
    let error = &mut answer["error"];
    error["message"] = json!(match class.as_str() {
        Some(class) => format!("Node '{class}' not found. The custom node may not be installed."),
        None => format!(
            "Node 'ID #{id}' has no class_type. The workflow may be corrupted or a custom node is missing."
        ),
    });
    error["details"] = json!(format!("Node ID '#{id}'"));
    error["extra_info"] = json!({"node_id": id, "class_type": class, "node_title": class});
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
