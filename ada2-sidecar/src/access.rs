//! Who may come in, and the one log line of every request.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, Method, StatusCode, Uri, header},
    middleware::Next,
    response::Response,
};
use service::{
    body::Holder,
    client::{Client, Doubt},
    cors::{Cors, is_preflight, preflight},
    guard::{Refusal, in_ranges},
    request_id::RequestId,
    secret::{credential, drop_credentials},
    serve::Peer,
};
use tracing::{debug, error, field::display, info, warn};

use crate::{app::App, config::Config, error::ApiError, metrics::Metrics};

/// The guards of our own routes in order: the name we are called by, the web page that sent this, the address, the
/// token. Paths are compared as they came; no other spelling of a path reaches its route.
pub(crate) async fn layer(
    State(app): State<App>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let client = client_of(&app.config, &request)?;
    to_routes(&app.config, &request, &client)?;
    if is_preflight(&request) {
        return Ok(preflight(request.headers()));
    }
    let base_url = BaseUrl(client.base_url(request.headers(), "http").unwrap_or_default());
    let holder = holder(&app.config, &request, &client);
    request.extensions_mut().insert(holder);
    request.extensions_mut().insert(base_url);
    Ok(next.run(request).await)
}

/// This server as the caller reaches it; empty where the caller named no host: then an address holds where it was asked.
#[derive(Debug, Clone)]
pub(crate) struct BaseUrl(pub(crate) String);

fn to_routes<B>(config: &Config, request: &Request<B>, client: &Client) -> Result<(), ApiError> {
    config.edge.guard.host(request, client)?;
    let path = request.uri().path();
    let guarded = path == "/v1" || path.starts_with("/v1/");
    let asked = is_preflight(request);
    let vouched = guarded && !asked && holds_our_token(config, request.headers());
    if !vouched {
        config.edge.guard.origin(request.headers(), client)?;
    }
    if !guarded {
        return Ok(());
    }
    by_address(config, client, vouched)?;
    // A browser shows no token when it asks whether a page may.
    if config.edge.token.is_some() && !vouched && !is_picture(path) && !asked {
        return Err(ApiError::NoToken);
    }
    Ok(())
}

/// Lets pages at allowed origins read every answer of ours, refusals included.
pub(crate) async fn cors(State(app): State<App>, request: Request, next: Next) -> Response {
    let cors = Cors::of(&app.config.edge.guard, request.headers());
    let mut response = next.run(request).await;
    cors.finish(response.headers_mut());
    response
}

/// The guards of the engine's own paths, where no token is asked for; gives who asks.
pub(crate) fn to_engine<B>(config: &Config, request: &Request<B>) -> Result<Client, ApiError> {
    let client = client_of(config, request)?;
    config.edge.guard.host(request, &client)?;
    config.edge.guard.origin(request.headers(), &client)?;
    from_another_site(request)?;
    // A tunnel to anywhere is no request to the engine.
    if request.method() == Method::CONNECT {
        return Err(ApiError::MethodNotAllowed);
    }
    by_address(config, &client, false)?;
    Ok(client)
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
fn holder<B>(config: &Config, request: &Request<B>, client: &Client) -> Holder {
    if holds_our_token(config, request.headers()) {
        return Holder::Token("token".to_owned());
    }
    Holder::Address(client.address)
}

fn client_of<B>(config: &Config, request: &Request<B>) -> Result<Client, ApiError> {
    let peer = request.extensions().get::<Peer>().ok_or(ApiError::AddressNotAllowed)?.0.ip();
    Ok(Client::of(peer, request.headers(), &config.edge.trusted_proxies))
}

/// Without a token the address alone guards, and one that somebody claims is none. With a token, a stranger's claim is
/// nothing; but whom a trusted proxy means must be known.
fn by_address(config: &Config, client: &Client, vouched: bool) -> Result<(), ApiError> {
    if let Some(doubt) = client.doubt.filter(|doubt| !vouched || *doubt != Doubt::Untrusted) {
        return Err(ApiError::AddressDoubtful(doubt));
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
