//! One log line per request, and its count in the metrics.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request, State},
    http::{Method, StatusCode, Uri},
    middleware::Next,
    response::Response,
};
use service::{request_id::RequestId, serve::PeerAddr, text::prefix};
use tracing::{debug, error, field::display, info, warn};

use crate::metrics::Metrics;

/// Logs each request when it is answered, or when its client disconnects before.
pub(crate) async fn layer(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let id = request.extensions().get::<RequestId>().cloned();
    let mut entry = AccessLogEntry::new(&request, id, metrics);
    let response = next.run(request).await;
    entry.status = Some(response.status());
    response
}

/// The line of one request, written when this is dropped.
pub(crate) struct AccessLogEntry {
    id: Option<RequestId>,
    peer: Option<PeerAddr>,
    method: Method,
    uri: Uri,
    started: Instant,
    /// `None` until there is a response.
    pub(crate) status: Option<StatusCode>,
    route: Option<MatchedPath>,
    metrics: Metrics,
}

/// nginx's status for a client that disconnected.
const CLIENT_CLOSED_REQUEST: &str = "499";

impl AccessLogEntry {
    pub(crate) fn new<B>(request: &Request<B>, id: Option<RequestId>, metrics: Metrics) -> Self {
        Self {
            id,
            peer: request.extensions().get().copied(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            started: Instant::now(),
            status: None,
            route: request.extensions().get().cloned(),
            metrics,
        }
    }

    /// Requests every few seconds: probes, whose changes are logged elsewhere, and the polling of the engine's page.
    fn is_routine(&self) -> bool {
        let path = self.uri.path();
        let is_probe = path == "/healthz" || path == "/metrics" || path.starts_with("/readyz");
        let read = self.method == Method::GET || self.method == Method::HEAD;
        is_probe || (self.route.is_none() && read && self.status != Some(StatusCode::SWITCHING_PROTOCOLS))
    }
}

impl Drop for AccessLogEntry {
    fn drop(&mut self) {
        let status = self.status.map(|status| status.as_u16());
        // Only our own routes become labels.
        let route = self.route.as_ref().map_or("other", MatchedPath::as_str);
        let status_label = self.status.as_ref().map_or(CLIENT_CLOSED_REQUEST, StatusCode::as_str);
        self.metrics.answered(route, status_label, self.started.elapsed());
        let id = self.id.as_ref().map_or("", RequestId::as_str);
        let peer = self.peer.map(|peer| display(peer.0));
        let method = prefix(self.method.as_str(), 16);
        let path = prefix(self.uri.path(), 200);
        let ms = self.started.elapsed().as_millis();
        match status {
            None => {
                warn!(request_id = id, peer, method, ?path, ms, "client disconnected before the response");
            }
            Some(status @ 500..) if !path.starts_with("/readyz") => {
                error!(request_id = id, peer, method, ?path, status, ms, "request");
            }
            Some(status @ 400..=499) => warn!(request_id = id, peer, method, ?path, status, ms, "request"),
            Some(status) if self.is_routine() => {
                debug!(request_id = id, peer, method, ?path, status, ms, "request");
            }
            Some(status) => info!(request_id = id, peer, method, ?path, status, ms, "request"),
        }
    }
}
