//! Every path and every layer, on one page.

use axum::{
    Router,
    http::Response,
    middleware::{from_fn, from_fn_with_state},
    routing::{get, post},
};
use shared::service::request_id;
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    error::ApiError,
    middleware::{access_log, gate},
    routes::{files, images, models, probes, status},
    state::App,
};

/// The whole router. A request passes the layers from the last line to the first, an answer the other way.
pub(crate) fn router(app: App) -> Router {
    Router::new()
        .route("/v1/images/generations", post(images::generations))
        .route("/v1/models", get(models::list))
        .route("/v1/gateway/status", get(status::status))
        .route("/ui/images/{name}", get(files::picture))
        .route("/healthz", get(probes::healthz))
        .route("/readyz", get(probes::readyz))
        .fallback(async || ApiError::NotFound)
        .method_not_allowed_fallback(async || ApiError::WrongMethod)
        .layer(from_fn_with_state(app.clone(), gate::layer)) // Host, Origin, address, token
        .layer(CatchPanicLayer::custom(panicked)) // one request is lost, not the service
        .layer(from_fn(access_log::layer)) // the one line, and where the request went
        .layer(from_fn(request_id::layer)) // outermost: every answer has the id
        .with_state(app)
}

/// The panic itself is in the log: the standard library's hook wrote it.
fn panicked(_: Box<dyn std::any::Any + Send>) -> Response<axum::body::Body> {
    ApiError::Internal.answer(None, None)
}
