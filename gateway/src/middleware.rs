//! The layers that every request passes.

pub(crate) mod access_log;
pub(crate) mod auth;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use service::cors::Cors;

use crate::app::App;

/// Whether the CORS rules cover a path. Other paths may be the legacy gateway's, which has its own rules; below `/v1` ours
/// apply to it, too.
fn is_covered_by_cors(path: &str) -> bool {
    let exact = matches!(path, "/v1" | "/healthz" | "/readyz" | "/metrics" | "/ui");
    exact
        || ["/v1/", "/ui/page/", "/ui/images/", "/ui/thumbnails/"]
            .iter()
            .any(|prefix| path.starts_with(prefix))
}

/// Lets pages of `GATEWAY_ALLOWED_ORIGINS` read the responses of these paths, errors included.
pub(crate) async fn cors(State(app): State<App>, request: Request, next: Next) -> Response {
    if !is_covered_by_cors(request.uri().path()) {
        return next.run(request).await;
    }
    let cors = Cors::for_request(&app.config.access.guard, request.headers());
    let mut response = next.run(request).await;
    cors.apply(response.headers_mut());
    response
}
