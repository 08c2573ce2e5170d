//! The routes that the sidecar uses, and the small answers; all as recorded.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Path, Query, State},
    http::{StatusCode, header::CONTENT_TYPE},
    middleware,
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    Core, declarations, files, process, prompt,
    queue::{ComfyPrompt, ComfyState, PromptStatus},
    script::ComfyVersion,
    socket,
};

use crate::engine::Identity;

type Shared = State<Arc<Core>>;

pub(super) const PAGE: &str =
    "<!DOCTYPE html>\n<html lang=\"en\">\n<head><title>ComfyUI</title></head>\n</html>\n";

pub(super) fn router(core: Arc<Core>) -> Router {
    Router::new()
        .route("/ws", get(socket::upgrade))
        .route("/system_stats", get(system_stats))
        .route("/prompt", post(prompt::post))
        .route("/queue", get(queue_lists).post(change_queue))
        .route("/interrupt", post(interrupt))
        .route("/api/jobs/{id}/cancel", post(cancel_job))
        .route("/free", post(free))
        .route("/history/{id}", get(history))
        .route("/object_info/{class}", get(object_info))
        .route("/models/{dir}", get(models))
        .route("/experiment/models/{dir}", get(model_files))
        .route("/view_metadata/{dir}", get(view_metadata))
        .route("/upload/image", post(files::upload))
        .route("/view", get(files::view))
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(Arc::clone(&core), process::record::<ComfyState>))
        .with_state(core)
}

async fn system_stats(State(core): Shared) -> Response {
    let (identity, version) = core.look(|state| (state.script.stats, state.script.version));
    let text = match identity {
        Identity::WebPage => return Html(PAGE).into_response(),
        Identity::OtherJson => return json_answer(&json!({"system": {"os": "linux"}})),
        Identity::Engine => version.to_string(),
        Identity::Version(text) => text.to_owned(),
    };
    let mut stats = recorded(include_str!("../../../fixtures/comfyui/system_stats.json"), version);
    stats["system"]["comfyui_version"] = json!(text);
    json_answer(&stats)
}

/// The answer to a client's feature flags.
pub(super) fn features(state: &ComfyState) -> Value {
    recorded(include_str!("../../../fixtures/comfyui/features.json"), state.script.version)
}

/// The newest recorded version that is not newer than this one, or else the oldest.
fn recorded(fixture: &str, version: ComfyVersion) -> Value {
    let recordings: Value = serde_json::from_str(fixture).expect("a JSON fixture");
    let recorded =
        [ComfyVersion::V0_33_0, ComfyVersion::V0_12_1].into_iter().find(|recorded| *recorded <= version);
    recordings[recorded.unwrap_or(ComfyVersion::V0_3_64).to_string()].clone()
}

async fn queue_lists(State(core): Shared) -> Response {
    json_answer(&core.look(|state| {
        let list = |status| state.with_status(status).map(ComfyPrompt::listed).collect::<Vec<_>>();
        // The real server lists a heap: in no order that a client could rely on.
        let pending: Vec<_> = list(PromptStatus::Pending).into_iter().rev().collect();
        json!({"queue_running": list(PromptStatus::Running), "queue_pending": pending})
    }))
}

async fn change_queue(State(core): Shared, body: Bytes) -> Response {
    let Some(body) = object(&body) else { return server_error() };
    let ids = body["delete"].as_array().cloned().unwrap_or_default();
    core.change(|state| state.delete(|item| body["clear"] == true || ids.contains(&json!(item.prompt_id))));
    StatusCode::OK.into_response()
}

/// Without an id it stops whatever runs; up to 0.3.56 it always does.
async fn interrupt(State(core): Shared, body: Bytes) -> Response {
    let Some(body) = object(&body) else { return server_error() };
    let id = body["prompt_id"].as_str();
    core.change(|state| {
        let runs = state.running().is_some_and(|running| id.is_none_or(|id| running.prompt_id == id));
        state.interrupted |= runs || !state.is_after(0, 3, 56);
    });
    StatusCode::OK.into_response()
}

/// Up to 0.25.0 only the web page's files are below that path.
async fn cancel_job(State(core): Shared, Path(id): Path<String>) -> Response {
    if !core.look(|state| state.is_after(0, 25, 0)) {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    if core.look(|state| state.script.broken_job_cancel) {
        return server_error();
    }
    let cancelled = core.change(|state| {
        let runs = state.running().is_some_and(|running| running.prompt_id == id);
        let waits = state.with_status(PromptStatus::Pending).any(|waiting| waiting.prompt_id == id);
        state.interrupted |= runs;
        state.delete(|item| item.prompt_id == id);
        runs || waits
    });
    json_answer(&json!({ "cancelled": cancelled }))
}

async fn free(State(core): Shared, body: Bytes) -> Response {
    let Some(body) = object(&body) else { return server_error() };
    core.change(|state| state.free_memory |= body["free_memory"] == true);
    StatusCode::OK.into_response()
}

/// Empty for a prompt that is unknown, waits or runs.
async fn history(State(core): Shared, Path(id): Path<String>) -> Response {
    let entry = core.look(|state| state.history.get(&id).cloned());
    json_answer(&entry.map_or_else(|| json!({}), |entry| json!({ id: entry })))
}

async fn object_info(State(core): Shared, Path(class): Path<String>) -> Response {
    if core.look(|state| state.script.broken_classes.contains(&class)) {
        return server_error();
    }
    let about = core.look(|state| declarations::object_info(state, &class));
    json_answer(&about.map_or_else(|| json!({}), |about| json!({ class: about })))
}

async fn models(State(core): Shared, Path(dir): Path<String>) -> Response {
    match core.look(|state| state.script.folder(&dir).map(<[String]>::to_vec)) {
        Some(files) => json_answer(&json!(files)),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Every file of the directory with its size and times.
async fn model_files(State(core): Shared, Path(dir): Path<String>) -> Response {
    let files = core.look(|state| {
        let script = &state.script;
        let files = script.folder(&dir).filter(|_| script.serves_metadata)?;
        let listed = |name: &String| {
            let touched = script.touched;
            json!({"name": name, "pathIndex": 0, "modified": touched, "created": touched, "size": 2_132_625_894_u64})
        };
        Some(files.iter().map(listed).collect::<Value>())
    });
    files.map_or_else(|| StatusCode::NOT_FOUND.into_response(), |files| json_answer(&files))
}

/// The `__metadata__` of a safetensors file's header; an empty 404 where there is none.
async fn view_metadata(
    State(core): Shared,
    Path(dir): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    core.until(|state| (!state.script.hold_metadata).then_some(())).await;
    let file = query.get("filename").filter(|file| file.ends_with(".safetensors"));
    let metadata = core.look(|state| {
        let script = &state.script;
        let is_there = |file: &&String| script.folder(&dir).is_some_and(|files| files.contains(file));
        let file = file.filter(|_| script.serves_metadata).filter(is_there)?;
        script.metadata.get(file).cloned()
    });
    match metadata {
        // What is no JSON in a header makes the handler raise.
        Some(Value::Null) => server_error(),
        Some(metadata) => json_answer(&metadata),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// A handler raised: the same text for every cause.
pub(super) fn server_error() -> Response {
    let text = "500 Internal Server Error\n\nServer got itself in trouble";
    (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
}

pub(super) fn json_answer(value: &Value) -> Response {
    ([(CONTENT_TYPE, "application/json; charset=utf-8")], value.to_string()).into_response()
}

fn object(body: &[u8]) -> Option<Value> {
    serde_json::from_slice(body).ok().filter(Value::is_object)
}
