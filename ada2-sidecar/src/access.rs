//! Who may come in, and the one log line of every request.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, Method, StatusCode, Uri, header},
    middleware::Next,
    response::Response,
};
use service::{
    body::BudgetOwner,
    client_info::{ClientInfo, ForwardingError},
    cors::{Cors, is_preflight, preflight},
    guard::{GuardError, is_in_ranges},
    request_id::RequestId,
    secret::{bearer_credential, strip_credentials},
    serve::PeerAddr,
};
use tracing::{debug, error, field::display, info, warn};

use crate::{app::App, config::Config, error::ApiError, metrics::Metrics};

/// The guards of our own routes in order: the name we are called by, the web page that sent this, the address, the
/// token. Paths are compared as they came; no other spelling of a path reaches its route.
pub(crate) async fn guard_layer(
    State(app): State<App>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let client = client_from(&app.config, &request)?;
    check_own_route(&app.config, &request, &client)?;
    if is_preflight(&request) {
        return Ok(preflight(request.headers()));
    }
    let base_url = BaseUrl(client.base_url(request.headers(), "http").unwrap_or_default());
    let holder = body_holder(&app.config, &request, &client);
    request.extensions_mut().insert(holder);
    request.extensions_mut().insert(base_url);
    Ok(next.run(request).await)
}

/// This server as the caller reaches it; empty where the caller named no host: then an address holds where it was asked.
#[derive(Debug, Clone)]
pub(crate) struct BaseUrl(pub(crate) String);

fn check_own_route<B>(config: &Config, request: &Request<B>, client: &ClientInfo) -> Result<(), ApiError> {
    config.guard.check_host(request, client)?;
    let path = request.uri().path();
    let guarded = path == "/v1" || path.starts_with("/v1/");
    let preflight_request = is_preflight(request);
    let has_token = guarded && !preflight_request && has_valid_token(config, request.headers());
    if !has_token {
        config.guard.check_origin(request.headers(), client)?;
    }
    if !guarded {
        return Ok(());
    }
    check_address(config, client, has_token)?;
    // A browser shows no token when it asks whether a page may.
    if config.token.is_some() && !has_token && !is_image_file(path) && !preflight_request {
        return Err(ApiError::InvalidToken);
    }
    Ok(())
}

/// Lets pages at allowed origins read every answer of ours, refusals included.
pub(crate) async fn cors(State(app): State<App>, request: Request, next: Next) -> Response {
    let cors = Cors::for_request(&app.config.guard, request.headers());
    let mut response = next.run(request).await;
    cors.apply(response.headers_mut());
    response
}

/// The guards of the engine's own paths, where no token is asked for; gives who asks.
pub(crate) fn check_passthrough<B>(config: &Config, request: &Request<B>) -> Result<ClientInfo, ApiError> {
    let client = client_from(config, request)?;
    config.guard.check_host(request, &client)?;
    config.guard.check_origin(request.headers(), &client)?;
    reject_cross_site(request)?;
    // A tunnel to anywhere is no request to the engine.
    if request.method() == Method::CONNECT {
        return Err(ApiError::MethodNotAllowed);
    }
    check_address(config, &client, false)?;
    Ok(client)
}

/// A page of another site that embeds something of the engine's sends no `Origin`; newer browsers say it otherwise. A
/// link that a person follows is no attack; a form that a page sends is one.
fn reject_cross_site<B>(request: &Request<B>) -> Result<(), ApiError> {
    let header_is =
        |name: &str, value: &str| request.headers().get(name).is_some_and(|actual| actual == value);
    let is_cross_site =
        header_is("sec-fetch-site", "cross-site") && !request.headers().contains_key(header::ORIGIN);
    let is_read = request.method() == Method::GET || request.method() == Method::HEAD;
    let is_navigation =
        is_read && header_is("sec-fetch-mode", "navigate") && header_is("sec-fetch-dest", "document");
    if is_cross_site && !is_navigation {
        Err(GuardError::OriginNotAllowed("another site".to_owned()).into())
    } else {
        Ok(())
    }
}

/// Whose bodies the request's body counts among.
fn body_holder<B>(config: &Config, request: &Request<B>, client: &ClientInfo) -> BudgetOwner {
    if has_valid_token(config, request.headers()) {
        return BudgetOwner::Token("token".to_owned());
    }
    BudgetOwner::Address(client.address)
}

fn client_from<B>(config: &Config, request: &Request<B>) -> Result<ClientInfo, ApiError> {
    let peer = request.extensions().get::<PeerAddr>().ok_or(ApiError::AddressNotAllowed)?.0.ip();
    Ok(ClientInfo::from_request(peer, request.headers(), &config.trusted_proxies))
}

/// Without a token the address alone guards, and one that somebody claims is none. With a token, a stranger's claim is
/// nothing; but whom a trusted proxy means must be known.
fn check_address(config: &Config, client: &ClientInfo, has_token: bool) -> Result<(), ApiError> {
    if let Some(reason) =
        client.forwarding_error.filter(|doubt| !has_token || *doubt != ForwardingError::UntrustedPeer)
    {
        return Err(ApiError::ClientAddressUnknown(reason));
    }
    if is_in_ranges(client.address, &config.allow_from) { Ok(()) } else { Err(ApiError::AddressNotAllowed) }
}

fn has_valid_token(config: &Config, headers: &HeaderMap) -> bool {
    config.token.as_ref().zip(bearer_credential(headers)).is_some_and(|(token, given)| token.matches(given))
}

/// Takes out what the engine must not see: our token.
pub(crate) fn strip_own_token(config: &Config, headers: &mut HeaderMap) {
    if let Some(token) = &config.token {
        strip_credentials(headers, |given| token.matches(given));
    }
}

/// Whether this is the address of a picture just made. Its name cannot be guessed, and those who are given a `url` fetch
/// it with no header: browsers, and every client library.
fn is_image_file(path: &str) -> bool {
    path.strip_prefix("/v1/images/files/").is_some_and(|name| !name.is_empty() && !name.contains('/'))
}

/// One line a request, when it is answered, or when its caller went away first.
pub(crate) async fn access_log(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
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
    /// `Unitless` as long as there is no answer.
    pub(crate) status: Option<StatusCode>,
    route: Option<MatchedPath>,
    metrics: Metrics,
}

/// What nginx writes for a caller who left.
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

    /// What comes every few seconds: probes, whose findings are logged where they change, and what the engine's page reads.
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
        // Only routes of ours become labels.
        let route = self.route.as_ref().map_or("other", MatchedPath::as_str);
        let status_label = self.status.as_ref().map_or(CLIENT_CLOSED_REQUEST, StatusCode::as_str);
        self.metrics.answered(route, status_label, self.started.elapsed());
        let id = self.id.as_ref().map_or("", RequestId::as_str);
        let peer = self.peer.map(|peer| display(peer.0));
        let method = truncate(self.method.as_str(), 16);
        let path = truncate(self.uri.path(), 200);
        let ms = self.started.elapsed().as_millis();
        match status {
            None => warn!(request_id = id, peer, method, ?path, ms, "request abandoned by its caller"),
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

fn truncate(text: &str, max_chars: usize) -> &str {
    text.char_indices().nth(max_chars).map_or(text, |(end, _)| &text[..end])
}
