//! Routes on one page, and the small answers; all as recorded. Every path also exists under `/api`, jobs only there.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Path, Query, Request, State},
    http::{
        HeaderMap, Method, StatusCode, Uri,
        header::{CONTENT_TYPE, HOST, ORIGIN},
    },
    middleware::{self, Next},
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    Core, files, jobs, process, prompt,
    queue::{self, ComfyPrompt},
    script::{ComfyVersion, StatsAnswer},
    socket,
};

type Shared = State<Arc<Core>>;

pub(super) const PAGE: &str =
    "<!DOCTYPE html>\n<html lang=\"en\">\n<head><title>ComfyUI</title></head>\n</html>\n";

pub(super) fn router(core: Arc<Core>) -> Router {
    let routes = Router::new()
        .route("/ws", get(socket::upgrade))
        .route("/system_stats", get(system_stats))
        .route("/features", get(async |core: Shared| json_answer(&core.look(features))))
        .route("/prompt", get(queue_length).post(prompt::post))
        .route("/queue", get(queue_lists).post(change_queue))
        .route("/interrupt", post(interrupt))
        .route("/free", post(free))
        .route("/history", get(history).post(change_history))
        .route("/history/{id}", get(history_of))
        .route("/object_info", get(async |core: Shared| json_answer(&core.look(files::object_info))))
        .route("/object_info/{class}", get(object_info_of))
        .route("/models/{folder}", get(models))
        .route("/experiment/models/{folder}", get(model_files))
        .route("/view_metadata/{folder}", get(view_metadata))
        .route("/upload/image", post(files::upload))
        .route("/view", get(files::view));
    let jobs = Router::new()
        .route("/jobs", get(jobs::list))
        .route("/jobs/cancel", post(jobs::cancel_many))
        .route("/jobs/{id}", get(jobs::one))
        .route("/jobs/{id}/cancel", post(jobs::cancel));
    // Requests travel downwards from the last layer: written down, then refused, then answered.
    Router::new()
        .merge(routes.clone())
        .nest("/api", routes.merge(jobs))
        .fallback(unknown)
        .method_not_allowed_fallback(unknown)
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(Arc::clone(&core), guard))
        .layer(middleware::from_fn_with_state(Arc::clone(&core), process::record::<queue::ComfyState>))
        .with_state(core)
}

/// What the real server refuses before it looks at the path.
async fn guard(State(core): Shared, request: Request, next: Next) -> Response {
    let (checks_site, limit) = core.look(|state| (state.is_after(0, 18, 1), state.script.max_upload));
    let is_cross_site = request.headers().get("sec-fetch-site").is_some_and(|site| site == "cross-site");
    if (checks_site && is_cross_site) || is_foreign(request.headers()) {
        return StatusCode::FORBIDDEN.into_response();
    }
    if request.method() == Method::OPTIONS {
        return StatusCode::OK.into_response();
    }
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, limit).await else {
        let says = format!("Maximum request body size {limit} exceeded.");
        return (StatusCode::PAYLOAD_TOO_LARGE, says).into_response();
    };
    next.run(Request::from_parts(parts, body.into())).await
}

/// On a loopback host, another origin than the host itself.
fn is_foreign(headers: &HeaderMap) -> bool {
    let word =
        |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_lowercase();
    let (host, origin) = (word(HOST), word(ORIGIN));
    let is_loopback = ["127.", "localhost", "[::1]"].iter().any(|start| host.starts_with(start));
    let authority = origin.parse::<Uri>().ok().and_then(|uri| uri.authority().map(ToString::to_string));
    is_loopback && authority.is_some_and(|authority| authority != host)
}

async fn system_stats(State(core): Shared) -> Response {
    match core.look(|state| (state.script.stats.clone(), state.script.version)) {
        (StatsAnswer::Real, version) => {
            let mut stats = recorded(include_str!("../../../fixtures/comfyui/system_stats.json"), version);
            stats["system"]["comfyui_version"] = json!(version.to_string());
            json_answer(&stats)
        }
        (StatsAnswer::Html, _) => Html(PAGE).into_response(),
        (StatsAnswer::Json(value), _) => json_answer(&value),
    }
}

pub(super) fn features(state: &queue::ComfyState) -> Value {
    let mut features =
        recorded(include_str!("../../../fixtures/comfyui/features.json"), state.script.version);
    features["max_upload_size"] = json!(state.script.max_upload);
    features
}

/// The newest recorded version that is not newer than this one, or else the oldest.
fn recorded(fixture: &str, version: ComfyVersion) -> Value {
    let recordings: Value = serde_json::from_str(fixture).expect("a JSON fixture");
    let known = [ComfyVersion::V0_33_0, ComfyVersion::V0_12_1].into_iter().find(|known| *known <= version);
    recordings[known.unwrap_or(ComfyVersion::V0_3_64).to_string()].clone()
}

async fn queue_length(State(core): Shared) -> Response {
    json_answer(&core.look(queue::ComfyState::status))
}

async fn queue_lists(State(core): Shared) -> Response {
    json_answer(&core.look(|state| {
        let running: Vec<Value> = state.running().map(ComfyPrompt::listed).into_iter().collect();
        let pending: Vec<Value> = state.heap.indices().map(|index| state.items[index].listed()).collect();
        json!({"queue_running": running, "queue_pending": pending})
    }))
}

async fn change_queue(State(core): Shared, body: Bytes) -> Response {
    let Some(asked) = object(&body) else { return server_error() };
    core.change(|state| {
        if asked["clear"] == true {
            state.clear();
        }
        for id in asked["delete"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            state.delete(id);
        }
    });
    StatusCode::OK.into_response()
}

/// Without a readable body it stops whatever runs; up to 0.3.56 it always does.
async fn interrupt(State(core): Shared, body: Bytes) -> Response {
    let asked = serde_json::from_slice(&body).unwrap_or_else(|_| json!({}));
    let Some(asked) = asked.as_object() else { return server_error() };
    let id = asked.get("prompt_id").and_then(Value::as_str).filter(|id| !id.is_empty());
    core.change(|state| {
        let hits = id.is_none_or(|id| state.runs(id) || state.script.version <= ComfyVersion::V0_3_56);
        state.interrupted |= hits;
    });
    StatusCode::OK.into_response()
}

async fn free(State(core): Shared, body: Bytes) -> Response {
    let Some(asked) = object(&body) else { return server_error() };
    core.change(|state| state.free_memory |= asked["free_memory"] == true);
    StatusCode::OK.into_response()
}

async fn history(State(core): Shared, Query(query): Query<HashMap<String, String>>) -> Response {
    let number = |name: &str| query.get(name).map(|word| word.parse::<usize>()).transpose();
    let (Ok(max_items), Ok(offset)) = (number("max_items"), number("offset")) else { return server_error() };
    raw_json(core.look(|state| state.history_text(max_items, offset)))
}

async fn history_of(State(core): Shared, Path(id): Path<String>) -> Response {
    let entry = core.look(|state| state.history.iter().find(|entry| entry.id == id).cloned());
    json_answer(&entry.map_or_else(|| json!({}), |entry| json!({ id: entry.value })))
}

async fn change_history(State(core): Shared, body: Bytes) -> Response {
    let Some(asked) = object(&body) else { return server_error() };
    core.change(|state| {
        if asked["clear"] == true {
            state.history.clear();
        }
        for id in asked["delete"].as_array().into_iter().flatten() {
            state.history.retain(|entry| json!(entry.id) != *id);
        }
    });
    StatusCode::OK.into_response()
}

async fn object_info_of(State(core): Shared, Path(class): Path<String>) -> Response {
    let info = core.look(files::object_info);
    json_answer(&info.get(&class).map_or_else(|| json!({}), |about| json!({ class: about })))
}

async fn models(State(core): Shared, Path(folder): Path<String>) -> Response {
    match folder.as_str() {
        "checkpoints" => json_answer(&json!(core.look(|state| state.script.checkpoints.clone()))),
        "diffusion_models" => match core.look(|state| state.script.diffusion_models.clone()) {
            Some(files) => json_answer(&json!(files)),
            None => StatusCode::NOT_FOUND.into_response(),
        },
        "loras" | "vae" | "controlnet" | "upscale_models" => json_answer(&json!([])),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Every file of the folder with its size and times.
async fn model_files(State(core): Shared, Path(folder): Path<String>) -> Response {
    let (tells, files, touched) = core
        .look(|state| (state.script.serves_metadata, state.script.checkpoints.clone(), state.script.touched));
    if !tells {
        return StatusCode::NOT_FOUND.into_response();
    }
    let listed = |name: String| json!({"name": name, "pathIndex": 0, "modified": touched, "created": touched, "size": 2_132_625_894_u64});
    match folder.as_str() {
        "checkpoints" => json_answer(&files.into_iter().map(listed).collect()),
        "loras" | "vae" | "controlnet" | "upscale_models" => json_answer(&json!([])),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

/// The `__metadata__` of a safetensors file's header; an empty 404 where there is none.
async fn view_metadata(
    State(core): Shared,
    Path(folder): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    core.until(|state| (!state.script.hold_metadata).then_some(())).await;
    let file = query.get("filename").filter(|file| folder == "checkpoints" && file.ends_with(".safetensors"));
    let found = core.look(|state| {
        let script = &state.script;
        let file = file.filter(|file| script.serves_metadata && script.checkpoints.contains(file))?;
        script.metadata.get(file).cloned()
    });
    match found {
        // What is no JSON in a header makes the handler raise.
        Some(Value::Null) => server_error(),
        Some(metadata) => json_answer(&metadata),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// The static files of the web page answer every GET that nothing else does; other methods are refused.
pub(super) async fn unknown(method: Method) -> Response {
    if matches!(method, Method::GET | Method::HEAD) {
        return StatusCode::NOT_FOUND.into_response();
    }
    (StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed").into_response()
}

/// A handler raised: the same words for every cause.
pub(super) fn server_error() -> Response {
    let says = "500 Internal Server Error\n\nServer got itself in trouble";
    (StatusCode::INTERNAL_SERVER_ERROR, says).into_response()
}

pub(super) fn json_answer(value: &Value) -> Response {
    raw_json(value.to_string())
}

fn raw_json(text: String) -> Response {
    ([(CONTENT_TYPE, "application/json; charset=utf-8")], text).into_response()
}

fn object(body: &[u8]) -> Option<Value> {
    serde_json::from_slice(body).ok().filter(Value::is_object)
}
