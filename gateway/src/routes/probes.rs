//! `GET /healthz` and `/readyz`: the gateway's own state, never a backend's. What is behind a bare status is told
//! to callers with a token only.

use axum::{
    Extension, Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::{app::App, middleware::auth::Caller};

/// Alive.
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// Ready: not draining, and the store takes files.
pub(crate) async fn readyz(State(app): State<App>, caller: Option<Extension<Caller>>) -> Response {
    let draining = app.lifecycle.draining().is_cancelled();
    let writable = app.store.check_writable().await;
    let ready = !draining && writable.is_ok();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let word = if ready { "ready" } else { "not_ready" };
    if caller.is_none() {
        return (status, format!("{word}\n")).into_response();
    }
    let store = writable.map_or_else(|fault| fault, |()| "writable".to_owned());
    (status, Json(json!({"status": word, "draining": draining, "store": store}))).into_response()
}
