//! Who may come in, and the one log line of every request.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request, State},
    http::{StatusCode, header},
    middleware::Next,
    response::Response,
};
use shared::service::{guard::in_ranges, request_id::RequestId, secret::bearer, serve::Peer};
use tracing::{debug, error, info, warn};

use crate::{error::ApiError, metrics::Metrics, state::App};

/// The guards in order: the name we are called by, the web page that sent this, the address, the token. Paths are
/// compared as they came; no other spelling of a path reaches its route.
pub(super) async fn admit(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let config = &app.config;
    let headers = request.headers();
    config.guard.host(request.uri(), headers)?;
    let path = request.uri().path();
    let guarded = path == "/v1" || path.starts_with("/v1/");
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(bearer);
    let token = config.token.as_ref().filter(|_| guarded);
    let vouched = token.zip(given).is_some_and(|(token, given)| token.matches(given));
    if !vouched {
        config.guard.origin(headers)?;
    }
    if guarded {
        let peer = request.extensions().get::<Peer>().map(|peer| peer.0.ip());
        if !peer.is_some_and(|peer| in_ranges(peer, &config.allow_from)) {
            return Err(ApiError::AddressNotAllowed);
        }
        if token.is_some() && !vouched && !is_picture(path) {
            return Err(ApiError::NoToken);
        }
    }
    Ok(next.run(request).await)
}

/// Whether this is the address of a picture just made. Its name cannot be guessed, and those who are given a `url` fetch
/// it with no header: browsers, and every client library.
fn is_picture(path: &str) -> bool {
    path.strip_prefix("/v1/images/files/").is_some_and(|name| !name.is_empty() && !name.contains('/'))
}

/// One line a request, when it is answered, or when its caller went away first.
pub(super) async fn log(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let mut line = Line::of(&request, metrics);
    let response = next.run(request).await;
    line.status = Some(response.status());
    response
}

struct Line {
    id: String,
    peer: String,
    method: String,
    path: String,
    started: Instant,
    status: Option<StatusCode>,
    route: String,
    metrics: Metrics,
}

/// What nginx writes for a caller who left.
const LEFT: u16 = 499;

impl Line {
    fn of(request: &Request, metrics: Metrics) -> Self {
        // Only routes of ours become labels.
        let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str);
        let path = request.uri().path();
        Self {
            id: request.extensions().get::<RequestId>().map(|id| id.as_str().to_owned()).unwrap_or_default(),
            peer: request.extensions().get::<Peer>().map(|peer| peer.0.to_string()).unwrap_or_default(),
            method: request.method().as_str().chars().take(16).collect(),
            path: path.chars().take(200).collect(),
            started: Instant::now(),
            status: None,
            route: route.to_owned(),
            metrics,
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let Self { id, peer, method, path, started, status, route, metrics } = self;
        metrics.answered(route, status.map_or(LEFT, |status| status.as_u16()), started.elapsed());
        let ms = started.elapsed().as_millis();
        match status.map(|status| status.as_u16()) {
            None => warn!(request_id = id, peer, method, ?path, ms, "request abandoned by its caller"),
            Some(status @ 500..) if !path.starts_with("/readyz") => {
                error!(request_id = id, peer, method, ?path, status, ms, "request");
            }
            Some(status @ 400..=499) => warn!(request_id = id, peer, method, ?path, status, ms, "request"),
            // Probes come every few seconds, and what they find is logged where it changes.
            Some(status) if path == "/healthz" || path == "/metrics" || path.starts_with("/readyz") => {
                debug!(request_id = id, peer, method, ?path, status, ms, "request");
            }
            Some(status) => info!(request_id = id, peer, method, ?path, status, ms, "request"),
        }
    }
}
