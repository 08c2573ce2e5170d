//! `/api/jobs`: one view of queue and history. Servers up to 0.5.1 have none of it, up to 0.25.0 they cannot cancel.

use std::{collections::HashMap, sync::Arc};

use axum::{
    extract::{Path, Query, State},
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde_json::{Value, json};

use super::{Core, api, history::JobLookup, prompt, queue};

type Shared = State<Arc<Core>>;

const STATUSES: [&str; 5] = ["pending", "in_progress", "completed", "failed", "cancelled"];

pub(super) async fn list(State(core): Shared, Query(query): Query<HashMap<String, String>>) -> Response {
    if !core.look(|state| state.is_after(0, 5, 1)) {
        return api::unknown(Method::GET).await;
    }
    let wanted: Option<Vec<&str>> = query.get("status").map(|list| list.split(',').collect());
    let bogus: Vec<&str> =
        wanted.iter().flatten().copied().filter(|status| !STATUSES.contains(status)).collect();
    if !bogus.is_empty() {
        let (bogus, valid) = (bogus.join(", "), STATUSES.join(", "));
        return refuse(&json!({"error": format!("Invalid status value(s): {bogus}. Valid values: {valid}")}));
    }
    let number = |name: &str| query.get(name).map(|word| word.parse::<usize>());
    let (offset, limit) = (number("offset").and_then(Result::ok).unwrap_or(0), number("limit"));
    let limit = match limit {
        None => None,
        Some(Ok(limit)) if limit > 0 => Some(limit),
        Some(_) => return refuse(&json!({"error": "limit must be a positive integer"})),
    };
    let Some(mut jobs) = core.look(queue::ComfyState::jobs) else { return api::server_error() };
    jobs.retain(|job| {
        wanted.as_ref().is_none_or(|wanted| wanted.contains(&job["status"].as_str().unwrap_or("")))
    });
    if query.get("sort_order").is_some_and(|order| order == "asc") {
        jobs.reverse();
    }
    let total = jobs.len();
    let page: Vec<Value> = jobs.into_iter().skip(offset).take(limit.unwrap_or(total)).collect();
    let has_more = offset + page.len() < total;
    let pagination = json!({"offset": offset, "limit": limit, "total": total, "has_more": has_more});
    api::json_answer(&json!({"jobs": page, "pagination": pagination}))
}

pub(super) async fn one(State(core): Shared, Path(id): Path<String>) -> Response {
    if !core.look(|state| state.is_after(0, 5, 1)) {
        return api::unknown(Method::GET).await;
    }
    match core.look(|state| state.job(&id)) {
        JobLookup::Found(job) => api::json_answer(&job),
        JobLookup::Unreadable => api::server_error(),
        JobLookup::Unknown => {
            (StatusCode::NOT_FOUND, api::json_answer(&json!({"error": "Job not found"}))).into_response()
        }
    }
}

pub(super) async fn cancel(State(core): Shared, Path(id): Path<String>) -> Response {
    if !core.look(|state| state.is_after(0, 25, 0)) {
        return api::unknown(Method::POST).await;
    }
    let cancelled = core.change(|state| cancel_one(state, &id));
    api::json_answer(&json!({ "cancelled": cancelled }))
}

pub(super) async fn cancel_many(State(core): Shared, body: Bytes) -> Response {
    if !core.look(|state| state.is_after(0, 25, 0)) {
        return api::unknown(Method::POST).await;
    }
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    let Some(ids) = asked["job_ids"].as_array() else {
        return refuse(&json!({"error": "job_ids must be a list"}));
    };
    let invalid: Vec<&Value> = ids.iter().filter(|id| !id.as_str().is_some_and(prompt::is_uuid)).collect();
    if !invalid.is_empty() {
        return refuse(&json!({"error": "job_ids contains invalid id(s)", "invalid_ids": invalid}));
    }
    let hit =
        core.change(|state| ids.iter().filter_map(Value::as_str).filter(|id| cancel_one(state, id)).count());
    api::json_answer(&json!({"cancelled": hit > 0}))
}

fn cancel_one(state: &mut queue::ComfyState, id: &str) -> bool {
    if state.runs(id) {
        state.interrupted = true;
        return true;
    }
    state.delete(id)
}

fn refuse(says: &Value) -> Response {
    (StatusCode::BAD_REQUEST, api::json_answer(says)).into_response()
}
