//! `GET /healthz` and `/readyz`: the gateway's own state, never a backend's. Only clients with a token get more than the bare
//! status.

use axum::{
    Extension, Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::{app::App, middleware::auth::Caller};

pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// Ready unless draining or unable to write to the store.
pub(crate) async fn readyz(State(app): State<App>, caller: Option<Extension<Caller>>) -> Response {
    let draining = app.lifecycle.draining().is_cancelled();
    let writable = app.store.check_writable().await;
    let ready = !draining && writable.is_ok();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let text = if ready { "ready" } else { "not_ready" };
    if caller.is_none() {
        return (status, format!("{text}\n")).into_response();
    }
    let store = writable.map_or_else(|error| error, |()| "writable".to_owned());
    (status, Json(json!({"status": text, "draining": draining, "store": store}))).into_response()
}
