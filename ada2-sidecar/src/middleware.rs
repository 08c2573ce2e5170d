//! What every request passes, whatever its route.

pub(crate) mod access_log;
pub(crate) mod auth;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use service::cors::Cors;

use crate::app::App;

/// Lets pages at allowed origins read every response of ours, errors included.
pub(crate) async fn cors(State(app): State<App>, request: Request, next: Next) -> Response {
    let cors = Cors::for_request(&app.config.guard, request.headers());
    let mut response = next.run(request).await;
    cors.apply(response.headers_mut());
    response
}
