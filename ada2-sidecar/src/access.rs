//! Who may come in, and the one log line of every request.

use std::{net::IpAddr, time::Instant};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, Method, StatusCode, Uri, header},
    middleware::Next,
    response::Response,
};
use shared::service::{
    body::Holder,
    client::Client,
    guard::{Refusal, in_ranges},
    request_id::RequestId,
    secret::{credential, drop_credentials},
    serve::Peer,
};
use tracing::{debug, error, field::display, info, warn};

use crate::{config::Config, error::ApiError, metrics::Metrics, state::App};

/// The guards of our own routes in order: the name we are called by, the web page that sent this, the address, the
/// token. Paths are compared as they came; no other spelling of a path reaches its route.
pub(crate) async fn layer(
    State(app): State<App>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    to_routes(&app.config, &request)?;
    if let Ok(holder) = holder(&app.config, &request) {
        request.extensions_mut().insert(holder);
    }
    Ok(next.run(request).await)
}

fn to_routes<B>(config: &Config, request: &Request<B>) -> Result<(), ApiError> {
    config.edge.guard.host(request)?;
    let path = request.uri().path();
    let guarded = path == "/v1" || path.starts_with("/v1/");
    let vouched = guarded && holds_our_token(config, request.headers());
    if !vouched {
        config.edge.guard.origin(request.headers())?;
    }
    if !guarded {
        return Ok(());
    }
    let (_, client) = client_of(config, request)?;
    by_address(config, client, vouched)?;
    if config.edge.token.is_some() && !vouched && !is_picture(path) {
        return Err(ApiError::NoToken);
    }
    Ok(())
}

/// The guards of the engine's own paths, where no token is asked for; gives what the engine is told of who asks.
pub(crate) fn to_engine<B>(config: &Config, request: &Request<B>) -> Result<Visit, ApiError> {
    let headers = request.headers();
    config.edge.guard.host(request)?;
    config.edge.guard.origin(headers)?;
    from_another_site(request)?;
    // A tunnel to anywhere is no request to the engine.
    if request.method() == Method::CONNECT {
        return Err(ApiError::MethodNotAllowed);
    }
    let (peer, client) = client_of(config, request)?;
    by_address(config, client, false)?;
    let trusted = in_ranges(peer, &config.edge.trusted_proxies);
    Ok(Visit { peer, trusted })
}

/// What is known of one who may ask the engine.
#[derive(Debug)]
pub(crate) struct Visit {
    /// The TCP peer.
    pub(crate) peer: IpAddr,
    /// It is a proxy that is believed.
    pub(crate) trusted: bool,
}

/// A page of another site that embeds something of the engine's sends no `Origin`; newer browsers say it otherwise. A
/// link that a person follows is no attack; a form that a page sends is one.
fn from_another_site<B>(request: &Request<B>) -> Result<(), ApiError> {
    let says = |name: &str, value: &str| request.headers().get(name).is_some_and(|said| said == value);
    let foreign = says("sec-fetch-site", "cross-site") && !request.headers().contains_key(header::ORIGIN);
    let harmless = request.method() == Method::GET || request.method() == Method::HEAD;
    let followed = harmless && says("sec-fetch-mode", "navigate") && says("sec-fetch-dest", "document");
    if foreign && !followed { Err(Refusal::ForeignOrigin("another site".to_owned()).into()) } else { Ok(()) }
}

/// Whose bodies the request's body counts among.
fn holder<B>(config: &Config, request: &Request<B>) -> Result<Holder, ApiError> {
    if holds_our_token(config, request.headers()) {
        return Ok(Holder::Token("token".to_owned()));
    }
    client_of(config, request).map(|(_, client)| Holder::Address(client.address))
}

fn client_of<B>(config: &Config, request: &Request<B>) -> Result<(IpAddr, Client), ApiError> {
    let peer = request.extensions().get::<Peer>().ok_or(ApiError::AddressNotAllowed)?.0.ip();
    Ok((peer, Client::of(peer, request.headers(), &config.edge.trusted_proxies)))
}

/// Without a token the address alone guards, and one that somebody claims is none.
fn by_address(config: &Config, client: Client, vouched: bool) -> Result<(), ApiError> {
    if client.doubtful && !vouched {
        return Err(ApiError::AddressDoubtful);
    }
    if in_ranges(client.address, &config.edge.allow_from) { Ok(()) } else { Err(ApiError::AddressNotAllowed) }
}

fn holds_our_token(config: &Config, headers: &HeaderMap) -> bool {
    config.edge.token.as_ref().zip(credential(headers)).is_some_and(|(token, given)| token.matches(given))
}

/// Takes out what the engine must not see: our token.
pub(crate) fn drop_our_token(config: &Config, headers: &mut HeaderMap) {
    if let Some(token) = &config.edge.token {
        drop_credentials(headers, |given| token.matches(given));
    }
}

/// Whether this is the address of a picture just made. Its name cannot be guessed, and those who are given a `url` fetch
/// it with no header: browsers, and every client library.
fn is_picture(path: &str) -> bool {
    path.strip_prefix("/v1/images/files/").is_some_and(|name| !name.is_empty() && !name.contains('/'))
}

/// One line a request, when it is answered, or when its caller went away first.
pub(crate) async fn log(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let id = request.extensions().get::<RequestId>().cloned();
    let mut line = Line::of(&request, id, metrics);
    let response = next.run(request).await;
    line.status = Some(response.status());
    response
}

/// The line of one request, written when this is dropped.
pub(crate) struct Line {
    id: Option<RequestId>,
    peer: Option<Peer>,
    method: Method,
    uri: Uri,
    started: Instant,
    /// `None` as long as there is no answer.
    pub(crate) status: Option<StatusCode>,
    route: Option<MatchedPath>,
    metrics: Metrics,
}

/// What nginx writes for a caller who left.
const LEFT: &str = "499";

impl Line {
    pub(crate) fn of<B>(request: &Request<B>, id: Option<RequestId>, metrics: Metrics) -> Self {
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
        let probe = path == "/healthz" || path == "/metrics" || path.starts_with("/readyz");
        let read = self.method == Method::GET || self.method == Method::HEAD;
        probe || (self.route.is_none() && read && self.status != Some(StatusCode::SWITCHING_PROTOCOLS))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let status = self.status.map(|status| status.as_u16());
        // Only routes of ours become labels.
        let route = self.route.as_ref().map_or("other", MatchedPath::as_str);
        let shown = self.status.as_ref().map_or(LEFT, StatusCode::as_str);
        self.metrics.answered(route, shown, self.started.elapsed());
        let id = self.id.as_ref().map_or("", RequestId::as_str);
        let peer = self.peer.map(|peer| display(peer.0));
        let method = cut(self.method.as_str(), 16);
        let path = cut(self.uri.path(), 200);
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

fn cut(text: &str, letters: usize) -> &str {
    text.char_indices().nth(letters).map_or(text, |(end, _)| &text[..end])
}
