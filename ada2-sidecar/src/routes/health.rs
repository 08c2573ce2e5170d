//! `/healthz`, `/readyz`, `/gpu` and `/metrics`: read from what is published, never from a driver or an engine.

use std::{collections::BTreeMap, time::Instant};

use axum::{
    Json,
    extract::{
        Path, Query, RawQuery, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use wire::{health::CheckStatus, openai::fields::FieldError};

use crate::{
    app::App,
    error::ApiError,
    readiness::ReadinessSnapshot,
    routes::metrics,
    smi::{self, readiness_text},
};

const RETRY_AFTER: (HeaderName, HeaderValue) = (header::RETRY_AFTER, HeaderValue::from_static("5"));
const NO_STORE: (HeaderName, HeaderValue) = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
const PROMETHEUS: (HeaderName, HeaderValue) =
    (header::CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4"));
const JSON: (HeaderName, HeaderValue) = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));

/// Liveness: 200 while this process answers, whatever the state of GPU and engine.
pub(crate) async fn healthz(State(app): State<App>) -> Response {
    let published = app.readiness.borrow().clone();
    ([NO_STORE], format!("ok\n{}\n", readiness_text::healthz_line(&published.report))).into_response()
}

/// Readiness: 200 or 503, with every check; `?verbose` as text.
pub(crate) async fn readyz(State(app): State<App>, RawQuery(query): RawQuery) -> Response {
    let published = app.readiness.borrow().clone();
    let body = if is_verbose(query.as_deref()) {
        readiness_text::verbose_text(&view(&published)).into_response()
    } else {
        ([JSON], published.json.clone()).into_response()
    };
    respond(published.report.admits(), body)
}

/// The card as `nvidia-smi` shows it: a table, JSON, or CSV of the requested fields.
pub(crate) async fn gpu(
    State(app): State<App>,
    parameters: Result<Query<BTreeMap<String, String>>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Query(parameters) = parameters.map_err(|_| FieldError::new("query", "The query cannot be read."))?;
    let published = app.readiness.borrow().clone();
    let view = view(&published);
    if let Some(fields) = parameters.get("query") {
        let format = parameters.get("format").map_or("csv", String::as_str);
        let query = smi::SmiQuery::parse(fields, format)?;
        let (reading, wall) = view.fresh_reading().map_err(ApiError::NoGpuReading)?;
        return Ok(([NO_STORE], query.to_csv(&reading.report, wall)).into_response());
    }
    let accepts = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accepts.contains("application/json") {
        return Ok(([NO_STORE], Json(view.json())).into_response());
    }
    Ok(([NO_STORE], smi::table(&view)).into_response())
}

/// In Prometheus' text format.
pub(crate) async fn metrics(State(app): State<App>) -> Response {
    let published = app.readiness.borrow().clone();
    ([NO_STORE, PROMETHEUS], metrics::render(&app.metrics, &published, &app.jobs)).into_response()
}

fn view(published: &ReadinessSnapshot) -> smi::GpuView<'_> {
    smi::GpuView { sample: published.gpu_sample.as_deref(), report: &published.report, now: Instant::now() }
}

pub(crate) async fn check(
    State(app): State<App>,
    name: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let published = app.readiness.borrow().clone();
    let checks = &published.report.checks;
    let names = || checks.iter().map(|check| check.name.as_str()).collect::<Vec<_>>().join(", ");
    let check = checks
        .iter()
        .find(|check| name.as_ref().is_ok_and(|Path(name)| check.name == *name))
        .ok_or_else(|| ApiError::CheckNotFound { known_checks: names() })?;
    let body = if is_verbose(query.as_deref()) {
        readiness_text::check_line(check).into_response()
    } else {
        Json(check).into_response()
    };
    Ok(respond(check.status != CheckStatus::Fail, body))
}

fn respond(passes: bool, body: Response) -> Response {
    if passes {
        ([NO_STORE], body).into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, [NO_STORE, RETRY_AFTER], body).into_response()
    }
}

fn is_verbose(query: Option<&str>) -> bool {
    query.is_some_and(|query| query.split('&').any(|part| part.split('=').next() == Some("verbose")))
}
