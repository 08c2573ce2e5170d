//! The HTTP side, answers as recorded.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Extension, Router,
    extract::{Path, Query, State},
    http::{HeaderMap, Method, StatusCode, header::CONTENT_TYPE},
    middleware,
    response::{Html, IntoResponse, Response},
    routing::{get, post, put},
};
use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    ConnectionHandle, Core, login, nodes, process,
    queue::{InvokeState, ItemStatus, QueueItem},
    recording,
    script::InvokeImageBytes,
    socket,
};
use crate::{
    engine::{FakeEngine, Identity},
    form,
};

type Shared = State<Arc<Core>>;

const PAGE: &str = "<!DOCTYPE html>\n<html lang=\"en\">\n<head><title>Invoke</title></head>\n</html>\n";

pub(super) fn router(core: Arc<Core>) -> Router {
    let queue = Router::new()
        .route("/status", get(status))
        .route("/enqueue_batch", post(enqueue_batch))
        .route("/counts_by_destination", get(counts_by_destination))
        .route("/b/{batch}/status", get(batch_status))
        .route("/i/{item}", get(item))
        .route("/i/{item}/cancel", put(cancel_item))
        .route("/cancel_by_batch_ids", put(cancel_by_batch_ids))
        .route("/cancel_by_destination", put(cancel_by_destination))
        .route("/processor/pause", put(async |core: Shared| started(&core, false)))
        .route("/processor/resume", put(async |core: Shared| started(&core, true)));
    Router::new()
        .nest("/api/v1/queue/default", queue)
        .route("/api/v1/app/version", get(version))
        .route("/openapi.json", get(description))
        .route("/api/v2/models/", get(models))
        .route("/api/v2/models/empty_model_cache", post(async || axum::Json(Value::Null)))
        .route("/api/v1/images/upload", post(upload))
        .route("/api/v1/images/i/{name}", get(image).delete(delete_image))
        .route("/api/v1/images/i/{name}/full", get(image_bytes))
        .route("/api/v1/auth/login", post(login::login))
        .route("/ws/socket.io/", get(socket::upgrade))
        .fallback(unknown)
        .layer(middleware::from_fn_with_state(Arc::clone(&core), login::guard))
        .layer(middleware::from_fn_with_state(Arc::clone(&core), process::record::<InvokeState>))
        .with_state(core)
}

async fn version(State(core): Shared) -> Response {
    let version = match core.look(|state| state.script.version) {
        Identity::WebPage => return Html(PAGE).into_response(),
        Identity::OtherJson => return axum::Json(json!({"name": "something", "build": 7})).into_response(),
        Identity::Engine => InvokeState::VERSION,
        Identity::Version(version) => version,
    };
    axum::Json(json!({ "version": version })).into_response()
}

/// Its types of nodes, as far as our graphs use them.
async fn description(State(core): Shared) -> Response {
    let mut description = nodes::DESCRIPTION.clone();
    let removed = core.look(|state| state.script.removed_nodes.clone());
    if let Some(schemas) = description.pointer_mut("/components/schemas").and_then(Value::as_object_mut) {
        let is_there = |schema: &Value| {
            !removed.iter().any(|kind| schema["properties"]["type"]["const"] == kind.as_str())
        };
        schemas.retain(|_, schema| is_there(schema));
    }
    axum::Json(description).into_response()
}

/// All that the query does not leave out.
async fn models(State(core): Shared, Query(query): Query<Vec<(String, String)>>) -> Response {
    let is_asked = |model: &Value, attribute: &str, name: &str| {
        let mut asked = query.iter().filter(|(key, _)| key == name).peekable();
        asked.peek().is_none() || asked.any(|(_, value)| model[attribute] == value.as_str())
    };
    let is_listed = |model: &&Value| {
        [("type", "model_type"), ("base", "base_models"), ("name", "model_name"), ("format", "model_format")]
            .into_iter()
            .all(|(attribute, name)| is_asked(model, attribute, name))
    };
    let listed = core.look(|state| state.script.models.iter().filter(is_listed).cloned().collect::<Value>());
    axum::Json(json!({ "models": listed })).into_response()
}

async fn status(State(core): Shared) -> Response {
    let (queue, processor) = core.look(|state| (recording::queue_status(state), processor(state)));
    raw(format!("{{\"queue\":{queue},\"processor\":{processor}}}"))
}

fn processor(state: &InvokeState) -> Value {
    json!({"is_started": state.started, "is_processing": state.processing})
}

fn started(core: &Core, started: bool) -> Response {
    let answer = core.change(|state| {
        state.started = started;
        processor(state)
    });
    axum::Json(answer).into_response()
}

async fn enqueue_batch(
    State(core): Shared,
    Extension(connection): Extension<ConnectionHandle>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let is_json =
        headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let parsed = if is_json { serde_json::from_slice(&body) } else { Ok(Value::Null) };
    let Ok(batch) = parsed else {
        let error =
            json!([{"type": "json_invalid", "loc": ["body", 1], "msg": "JSON decode error", "input": {}}]);
        return detail(StatusCode::UNPROCESSABLE_ENTITY, error);
    };
    match core.change(|state| state.enqueue(&batch)) {
        Err(error) => detail(StatusCode::UNPROCESSABLE_ENTITY, error),
        Ok(answer) => {
            if core.change(|state| std::mem::take(&mut state.script.lose_enqueue_answer)) {
                connection.cut.cancel();
                std::future::pending::<()>().await;
            }
            axum::Json(answer).into_response()
        }
    }
}

async fn counts_by_destination(
    State(core): Shared,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let Some(destination) = query.get("destination") else { return missing("query", "destination") };
    let counts = core.look(|state| state.counts(|item| item.destination.as_ref() == Some(destination)));
    raw(format!("{{\"queue_id\":\"default\",\"destination\":{},{counts}}}", json!(destination)))
}

/// An unknown batch is no error: all counts are zero.
async fn batch_status(State(core): Shared, Path(batch): Path<String>) -> Response {
    let (counts, first) = core.look(|state| {
        let of = |item: &QueueItem| item.batch_id == batch;
        (state.counts(of), state.items.iter().find(|item| of(item)).cloned())
    });
    let origin = json!(first.as_ref().and_then(|item| item.origin.as_deref()));
    let destination = json!(first.as_ref().and_then(|item| item.destination.as_deref()));
    let batch = json!(batch);
    raw(format!(
        "{{\"queue_id\":\"default\",\"batch_id\":{batch},\"origin\":{origin},\"destination\":{destination},{counts}}}"
    ))
}

async fn item(State(core): Shared, Path(id): Path<u32>) -> Response {
    match core.look(|state| state.item(id).cloned()) {
        Some(item) => axum::Json(describe(&item)).into_response(),
        None => no_item(id),
    }
}

async fn cancel_item(State(core): Shared, Path(id): Path<u32>) -> Response {
    let cancelled = core.change(|state| {
        let status = state.item(id)?.status;
        if matches!(status, ItemStatus::Pending | ItemStatus::InProgress) {
            state.set_status(id, ItemStatus::Canceled);
        }
        state.item(id).cloned()
    });
    match cancelled {
        Some(item) => axum::Json(describe(&item)).into_response(),
        None => no_item(id),
    }
}

async fn cancel_by_batch_ids(State(core): Shared, body: Bytes) -> Response {
    let ids: Value = serde_json::from_slice(&body).unwrap_or_default();
    let Some(ids) = ids["batch_ids"].as_array() else { return missing("body", "batch_ids") };
    let canceled = core.change(|state| state.cancel(|item| ids.contains(&json!(item.batch_id))));
    axum::Json(json!({ "canceled": canceled })).into_response()
}

async fn cancel_by_destination(
    State(core): Shared,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let Some(destination) = query.get("destination") else { return missing("query", "destination") };
    let canceled = core.change(|state| state.cancel(|item| item.destination.as_ref() == Some(destination)));
    axum::Json(json!({ "canceled": canceled })).into_response()
}

/// The recorded item, with this one's values. Fields without a value are left out, as the real server does.
fn describe(item: &QueueItem) -> Value {
    let mut answer: Value =
        serde_json::from_str(include_str!("../../../fixtures/invokeai/item.json")).expect("a JSON fixture");
    answer["item_id"] = json!(item.id);
    answer["status"] = json!(item.status.name());
    answer["batch_id"] = json!(item.batch_id);
    answer["session_id"] = json!(item.session_id);
    for (name, value) in [
        ("origin", item.origin.clone()),
        ("destination", item.destination.clone()),
        ("error_type", item.failure.as_ref().map(|failure| failure.error_type.clone())),
        ("error_message", item.failure.as_ref().map(|failure| failure.message.clone())),
        ("error_traceback", item.failure.as_ref().map(recording::traceback)),
    ] {
        if let Some(value) = value {
            answer[name] = json!(value);
        }
    }
    let prepared = answer["session"]["prepared_source_mapping"].as_object().expect("as recorded").clone();
    let node = item.last_node();
    let (l2i, _) = prepared.iter().find(|(_, source)| *source == "l2i").expect("as recorded");
    answer["session"]["prepared_source_mapping"][l2i] = json!(node);
    match &item.image {
        Some(image) => {
            let result = &mut answer["session"]["results"][l2i];
            result["image"]["image_name"] = json!(image);
            (result["width"], result["height"]) = (json!(item.number("width")), json!(item.number("height")));
        }
        None => answer["session"]["results"] = json!({}),
    }
    answer
}

async fn image(State(core): Shared, Path(name): Path<String>) -> Response {
    let Some(item) = core.look(|state| {
        let item = state.items.iter().find(|item| item.image.as_ref() == Some(&name)).cloned();
        item.filter(|_| state.images.contains_key(&name))
    }) else {
        return detail(StatusCode::NOT_FOUND, "Not Found");
    };
    let mut answer: Value =
        serde_json::from_str(include_str!("../../../fixtures/invokeai/image.json")).expect("a JSON fixture");
    answer["image_url"] = json!(format!("api/v1/images/i/{name}/full"));
    answer["image_name"] = json!(name);
    answer["session_id"] = json!(item.session_id);
    (answer["width"], answer["height"]) = (json!(item.number("width")), json!(item.number("height")));
    axum::Json(answer).into_response()
}

async fn image_bytes(State(core): Shared, Path(name): Path<String>) -> Response {
    let (bytes, how) = core.look(|state| (state.images.get(&name).cloned(), state.script.image_bytes));
    let Some(bytes) = bytes else { return detail(StatusCode::NOT_FOUND, "Not Found") };
    let bytes = match how {
        InvokeImageBytes::WithGraph => with_graph(&bytes),
        InvokeImageBytes::Plain(how) => match how.of(&bytes) {
            Some(bytes) => bytes,
            None => return Html(PAGE).into_response(),
        },
    };
    ([(CONTENT_TYPE, "image/png")], bytes).into_response()
}

/// A `tEXt` chunk behind the header. Nobody checks its sum.
fn with_graph(png: &[u8]) -> Bytes {
    let text = b"tEXtinvokeai_graph\0{}";
    let length = u32::try_from(text.len() - 4).expect("short").to_be_bytes();
    [&png[..33], &length, text, &[0; 4], &png[33..]].concat().into()
}

/// Stored as it is, under a new name.
async fn upload(State(core): Shared, headers: HeaderMap, body: Bytes) -> Response {
    let parts = form::read(&headers, &body).await;
    let Some(file) = parts.into_iter().find(|part| part.name == "file") else {
        return missing("body", "file");
    };
    let name = core.change(|state| {
        let name = format!("{}.png", state.uuid());
        state.images.insert(name.clone(), file.bytes);
        name
    });
    let mut answer: Value =
        serde_json::from_str(include_str!("../../../fixtures/invokeai/image.json")).expect("a JSON fixture");
    answer["image_name"] = json!(name);
    (StatusCode::CREATED, axum::Json(answer)).into_response()
}

async fn delete_image(State(core): Shared, Path(name): Path<String>) -> Response {
    if core.change(|state| state.images.remove(&name)).is_none() {
        return detail(StatusCode::NOT_FOUND, "Image not found");
    }
    axum::Json(json!({"affected_boards": ["none"], "deleted_images": [name], "failed_images": []}))
        .into_response()
}

/// The web page answers every path that nothing else does; only other methods are refused.
async fn unknown(method: Method) -> Response {
    if method == Method::GET {
        return Html(PAGE).into_response();
    }
    detail(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
}

fn no_item(id: u32) -> Response {
    detail(StatusCode::NOT_FOUND, format!("Queue item with id {id} not found in queue default"))
}

fn missing(location: &str, field: &str) -> Response {
    let error =
        json!([{"type": "missing", "loc": [location, field], "msg": "Field required", "input": null}]);
    detail(StatusCode::UNPROCESSABLE_ENTITY, error)
}

pub(super) fn detail(status: StatusCode, detail: impl Into<Value>) -> Response {
    (status, axum::Json(json!({ "detail": detail.into() }))).into_response()
}

fn raw(json: String) -> Response {
    ([(CONTENT_TYPE, "application/json")], json).into_response()
}
