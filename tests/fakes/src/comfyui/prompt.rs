//! `POST /prompt`: what makes a prompt of a body.

use std::sync::Arc;

use axum::{
    Extension,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde_json::{Map, Number, Value, json};

use super::{
    ConnectionHandle, Core, api,
    queue::{self, ComfyPrompt, PromptStatus},
    refusal::{error, refusal},
    validate::{self, Valid},
};

/// Keys that `/queue` and `/history` do not show.
const SENSITIVE: [&str; 2] = ["api_key_comfy_org", "auth_token_comfy_org"];

/// What happens to a body.
enum Verdict {
    Accepted(Value),
    Refused(Value),
    /// The handler raised.
    Trouble,
}

pub(super) async fn post(
    State(core): State<Arc<Core>>,
    Extension(line): Extension<ConnectionHandle>,
    body: Bytes,
) -> Response {
    let Ok(body) = serde_json::from_slice::<Value>(&body) else { return api::server_error() };
    match core.change(|state| accept(state, &body)) {
        Verdict::Trouble => api::server_error(),
        Verdict::Refused(answer) => (StatusCode::BAD_REQUEST, api::json_answer(&answer)).into_response(),
        Verdict::Accepted(answer) => {
            if core.change(|state| std::mem::take(&mut state.script.lose_prompt_answer)) {
                line.cut.cancel();
                std::future::pending::<()>().await;
            }
            api::json_answer(&answer)
        }
    }
}

fn accept(state: &mut queue::ComfyState, body: &Value) -> Verdict {
    let Some(number) = number(state, body) else { return Verdict::Trouble };
    let Some(graph) = body.get("prompt") else {
        let nothing = error("no_prompt", "No prompt provided", "No prompt provided", &json!({}));
        return Verdict::Refused(refusal(&nothing, &json!({})));
    };
    if !graph.is_object() {
        return Verdict::Trouble;
    }
    let Some(prompt_id) = prompt_id(state, body) else {
        let details = "prompt_id must be a UUID string in canonical lowercase hyphenated form; omit it to let the \
            server generate one";
        let wrong = error("invalid_prompt_id", "prompt_id must be a valid UUID", details, &json!({}));
        return Verdict::Refused(refusal(&wrong, &json!({})));
    };
    match validate::validate(state, graph.clone(), body.get("partial_execution_targets")) {
        Err(answer) => Verdict::Refused(answer),
        Ok(Valid { graph, outputs, node_errors }) => {
            let answer = json!({"prompt_id": prompt_id, "number": number, "node_errors": node_errors});
            let client_id = body["client_id"].as_str().map(str::to_owned);
            let extra_data = extra_data(state, body);
            let status = PromptStatus::Pending;
            let pictures = Vec::new();
            state.enqueue(ComfyPrompt {
                prompt_id,
                client_id,
                number,
                extra_data,
                graph,
                outputs,
                status,
                images: pictures,
            });
            Verdict::Accepted(answer)
        }
    }
}

/// None if Python cannot make a number of it.
fn number(state: &mut queue::ComfyState, body: &Value) -> Option<Number> {
    match body.get("number") {
        Some(Value::String(text)) => Number::from_f64(text.trim().parse().ok()?),
        Some(given) => Number::from_f64(given.as_f64()?),
        None => Some(state.next_number(body["front"] == true).into()),
    }
}

/// None if it is refused.
fn prompt_id(state: &mut queue::ComfyState, body: &Value) -> Option<String> {
    match body.get("prompt_id") {
        None => Some(state.uuid()),
        Some(given) if state.is_after(0, 24, 0) => given.as_str().filter(|id| is_uuid(id)).map(str::to_owned),
        Some(Value::Null) => Some("None".to_owned()),
        Some(Value::String(id)) => Some(id.clone()),
        Some(other) => Some(other.to_string()),
    }
}

pub(super) fn is_uuid(id: &str) -> bool {
    let is_dash = |at: usize| matches!(at, 8 | 13 | 18 | 23);
    let fits = |(at, byte): (usize, u8)| match byte {
        b'-' => is_dash(at),
        b'0'..=b'9' | b'a'..=b'f' => !is_dash(at),
        _ => false,
    };
    id.len() == 36 && id.bytes().enumerate().all(fits)
}

fn extra_data(state: &queue::ComfyState, body: &Value) -> Value {
    let mut extra: Map<String, Value> = body["extra_data"].as_object().cloned().unwrap_or_default();
    if let Some(client) = body.get("client_id") {
        extra.insert("client_id".to_owned(), client.clone());
    }
    if state.is_after(0, 5, 1) {
        extra.retain(|key, _| !SENSITIVE.contains(&key.as_str()));
    }
    if state.is_after(0, 3, 68) {
        extra.insert("create_time".to_owned(), json!(queue::now()));
    }
    Value::Object(extra)
}
