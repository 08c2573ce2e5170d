//! `GET /metrics`, for Prometheus: with the token on the main port, and without on a listener of its own.

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};

use crate::{metrics::seen::Seen, state::App};

/// The handler.
pub(crate) async fn scrape(State(app): State<App>) -> Response {
    ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], app.metrics.text(&Seen::now(&app))).into_response()
}
