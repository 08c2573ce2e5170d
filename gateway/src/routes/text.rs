//! `POST /v1/chat/completions`, `/v1/completions` and `/v1/embeddings`: the spine of pictures, without a store. What the
//! backend answers passes as it comes.

use std::io;

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use service::parsing::parse_off_thread;
use tokio::task::yield_now;

use super::{AuthorizedRequest, requested_backend};
use crate::{
    admission::Grant,
    app::App,
    backend::{
        BackendError,
        proxy::{ProxiedRequest, ProxiedResponse, ReaderDelay, forward},
    },
    config::Capability,
    error::ApiError,
    middleware::access_log::{RequestRecord, Streamed},
    policy::routing::text::{RoutingQuery, route_text},
    request::text::TextBody,
};

/// What is asked for: the path behind `/v1`, with us and with the backend, and what it counts as.
#[derive(Debug, Clone, Copy)]
struct TextRoute {
    path: &'static str,
    capability: Capability,
}

/// Words in a conversation.
pub(crate) async fn chat(
    State(app): State<App>,
    authorized: AuthorizedRequest,
    request: Request,
) -> Response {
    respond(TextRoute { path: "chat/completions", capability: Capability::Chat }, &app, &authorized, request)
        .await
}

/// Words that go on from others.
pub(crate) async fn completions(
    State(app): State<App>,
    authorized: AuthorizedRequest,
    request: Request,
) -> Response {
    respond(TextRoute { path: "completions", capability: Capability::Chat }, &app, &authorized, request).await
}

/// Numbers for words.
pub(crate) async fn embeddings(
    State(app): State<App>,
    authorized: AuthorizedRequest,
    request: Request,
) -> Response {
    respond(TextRoute { path: "embeddings", capability: Capability::Embeddings }, &app, &authorized, request)
        .await
}

async fn respond(kind: TextRoute, app: &App, authorized: &AuthorizedRequest, request: Request) -> Response {
    let route_kind = kind.capability.as_str();
    authorized.record.record(|fields| fields.route_kind = Some(route_kind));
    let mut class = None;
    match serve(kind, app, authorized, request, &mut class).await {
        Ok(response) => response,
        Err(error) => error.to_response(Some(route_kind), class.as_deref()),
    }
}

async fn serve(
    kind: TextRoute,
    app: &App,
    authorized: &AuthorizedRequest,
    request: Request,
    class: &mut Option<String>,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let counted = app
        .body_budget
        .read(&authorized.record.body_owner(), &parts.headers, body)
        .await
        .map_err(ApiError::Body)?;
    let (counted, body) = parse_off_thread(counted, TextBody::read).await;
    let body = body.map_err(|error| ApiError::Malformed(error.into()))?;
    let backend = requested_backend(&parts.headers);
    let asked =
        RoutingQuery { capability: kind.capability, backend: backend.as_deref(), model: body.model() }; // what is asked
    let (config, lists) = (&app.config, app.health.known_models());
    let routed = route_text(&config.backends, &config.routing, &lists, asked).map_err(ApiError::Denied)?; // may it
    *class = Some(authorized.record.record_route(&routed));
    app.check_for_sleep(); // or the first request after it would be admitted on what was known before
    let ready = app.health.require_ready(routed).map_err(ApiError::NotReady)?; // is it up
    let grant = app.admission.admit(ready, authorized.caller.name()).map_err(ApiError::Busy)?; // is there room: now or 429
    let proxied_request = ProxiedRequest {
        path: kind.path,
        body: body.into_upstream(grant.routed().model()),
        body_permit: counted,
        accept: parts.headers.get(header::ACCEPT).cloned(),
        request_id: authorized.id.to_header_value(),
    };
    let response = send(app, grant, proxied_request).await?; // do it, once
    Ok(stream_response(app, &authorized.record, response)) // answer
}

async fn send(app: &App, grant: Grant, proxied_request: ProxiedRequest) -> Result<ProxiedResponse, ApiError> {
    let class = grant.routed().backend().class.clone();
    forward(&app.clients, grant, proxied_request).await.map_err(|fault| {
        fault.report_failure(&app.health, &class);
        ApiError::Backend(class, fault)
    })
}

/// The answer whose body is the backend's. When the caller leaves, the HTTP library drops it: the connection to the
/// backend is closed, and the place free.
fn stream_response(app: &App, account: &RequestRecord, mut proxied: ProxiedResponse) -> Response {
    let (status, headers) = (proxied.status, std::mem::take(&mut proxied.headers));
    let reader_delay = ReaderDelay::default();
    let relay = ProxyStream { app: app.clone(), record: account.clone(), response: proxied, reader_delay };
    relay.record_if_complete();
    let body = stream::unfold(Some(relay), async |relay| relay?.step().await);
    let mut response = (status, headers, Body::from_stream(body)).into_response();
    disable_proxy_buffering(response.headers_mut());
    response.extensions_mut().insert(Streamed);
    response
}

/// Proxies between the caller and us let events pass one by one.
fn disable_proxy_buffering(headers: &mut HeaderMap) {
    let kind = headers.get(header::CONTENT_TYPE).map(|kind| kind.as_bytes().to_ascii_lowercase());
    if kind.is_some_and(|kind| kind.starts_with(b"text/event-stream")) {
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache"));
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    }
}

struct ProxyStream {
    app: App,
    record: RequestRecord,
    response: ProxiedResponse,
    reader_delay: ReaderDelay,
}

/// What the caller gets, and who goes on; an error cuts the connection.
type ProxyStep = (io::Result<Bytes>, Option<ProxyStream>);

impl ProxyStream {
    async fn step(mut self) -> Option<ProxyStep> {
        if self.reader_delay.is_exceeded() {
            let why = "the caller takes its answer too slowly";
            self.record.record_outcome(StatusCode::REQUEST_TIMEOUT.as_u16(), Some(why.to_owned()));
            return Some((Err(io::Error::other(why)), None));
        }
        match self.response.next().await {
            Ok(Some(bytes)) => {
                self.record_if_complete();
                self.reader_delay.chunk_sent();
                Some((Ok(bytes), Some(self)))
            }
            Ok(None) => {
                self.record.record_outcome(self.response.status.as_u16(), None);
                None
            }
            Err(fault) => {
                self.record_failure(fault);
                // What passed before goes out first, the head above all: a library that has seen no head asks again.
                yield_now().await;
                Some((Err(io::Error::other("the backend broke off")), None))
            }
        }
    }

    /// An answer of known length ends with its last byte: the HTTP library asks for no more.
    fn record_if_complete(&self) {
        if self.response.is_complete() {
            self.record.record_outcome(self.response.status.as_u16(), None);
        }
    }

    fn record_failure(&self, fault: BackendError) {
        let class = self.response.class();
        fault.report_failure(&self.app.health, class);
        let (status, cause) = ApiError::Backend(class.to_owned(), fault).status_and_cause();
        self.record.record_outcome(status, Some(cause.0));
    }
}
