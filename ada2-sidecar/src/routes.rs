//! Every path and every layer, on one page. Requests travel downwards through the layers, then to the routes.

mod access;
mod health;
mod images;
mod models;

use axum::{
    Router,
    middleware::{from_fn, from_fn_with_state},
    response::IntoResponse,
    routing::{get, post},
};
use shared::service::request_id;
use tower_http::catch_panic::CatchPanicLayer;

use crate::{error::ApiError, state::App};

/// All of it.
pub(crate) fn router(app: App) -> Router {
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/readyz/{check}", get(health::check))
        .route("/v1/images/generations", post(images::generations))
        .route("/v1/images/files/{name}", get(images::file))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::one))
        .fallback(async || ApiError::NotFound)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        // The last layer added is the first that a request meets.
        .layer(from_fn_with_state(app.clone(), access::admit))
        .layer(CatchPanicLayer::custom(|_: Box<dyn std::any::Any + Send>| ApiError::Panic.into_response()))
        .layer(from_fn(access::log))
        .layer(from_fn(request_id::layer))
        .with_state(app)
}
