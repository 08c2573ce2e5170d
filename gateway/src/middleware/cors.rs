//! Cross-origin requests: pages at `GATEWAY_ALLOWED_ORIGINS` may read what our own paths answer, refusals included.

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use service::cors::Cors;

use crate::app::App;

/// Whether a path is one whose answers these rules are about. What the old gateway serves elsewhere is its own business;
/// below `/v1` it speaks for us.
pub(super) fn is_ours(path: &str) -> bool {
    let exact = matches!(path, "/v1" | "/healthz" | "/readyz" | "/metrics" | "/ui");
    exact || path.starts_with("/v1/") || path.starts_with("/ui/images/")
}

/// The layer.
pub(crate) async fn layer(State(app): State<App>, request: Request, next: Next) -> Response {
    if !is_ours(request.uri().path()) {
        return next.run(request).await;
    }
    let cors = Cors::for_request(&app.config.access.guard, request.headers());
    let mut response = next.run(request).await;
    cors.apply(response.headers_mut());
    response
}
