//! `/healthz` and `/readyz`: read from what is published, never from a driver or an engine.

use axum::{
    Json,
    extract::{Path, RawQuery, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use shared::health::CheckStatus;

use crate::{error::ApiError, readiness, state::App};

/// Seconds after which a prober may come again.
const RETRY_AFTER: (HeaderName, HeaderValue) = (header::RETRY_AFTER, HeaderValue::from_static("5"));
const NO_STORE: (HeaderName, HeaderValue) = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
const JSON: (HeaderName, HeaderValue) = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));

/// Alive: 200 for as long as this process answers, whatever GPU and engine do.
pub(super) async fn healthz(State(app): State<App>) -> Response {
    let published = app.published.borrow().clone();
    ([NO_STORE], format!("ok\n{}\n", readiness::health_line(&published.report))).into_response()
}

/// Ready: 200 or 503, with every check; `?verbose` for people.
pub(super) async fn readyz(State(app): State<App>, RawQuery(query): RawQuery) -> Response {
    let published = app.published.borrow().clone();
    let body = if is_verbose(query.as_deref()) {
        readiness::verbose(&published.report).into_response()
    } else {
        ([JSON], published.json.clone()).into_response()
    };
    answer(published.report.admits(), body)
}

/// One check.
pub(super) async fn check(
    State(app): State<App>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let published = app.published.borrow().clone();
    let checks = &published.report.checks;
    let known = || checks.iter().map(|check| check.name.as_str()).collect::<Vec<_>>().join(", ");
    let check = checks
        .iter()
        .find(|check| check.name == name)
        .ok_or_else(|| ApiError::NoSuchCheck { known: known() })?;
    let body = if is_verbose(query.as_deref()) {
        readiness::line(check).into_response()
    } else {
        Json(check).into_response()
    };
    Ok(answer(check.status != CheckStatus::Fail, body))
}

fn answer(passes: bool, body: Response) -> Response {
    if passes {
        ([NO_STORE], body).into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, [NO_STORE, RETRY_AFTER], body).into_response()
    }
}

fn is_verbose(query: Option<&str>) -> bool {
    query.is_some_and(|query| query.split('&').any(|part| part.split('=').next() == Some("verbose")))
}
