//! `POST /v1/chat/completions`, `/v1/completions` and `/v1/embeddings`: the same steps as for images, without a store. The
//! backend's response is passed on as it arrives.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use service::parsing::parse_off_thread;

use super::{
    AuthorizedRequest,
    relay::{self, Failure, Upstream},
    requested_backend,
};
use crate::{
    admission::{Grant, require_ready},
    app::App,
    backend::proxy::{self, ProxiedRequest, ProxiedResponse, ReaderDelay},
    config::Capability,
    error::ApiError,
    policy::text::{RoutingQuery, route_text},
    request::text::TextBody,
};

/// A route's path below `/v1`, both here and on the backend, and the capability that it needs.
#[derive(Debug, Clone, Copy)]
struct TextRoute {
    path: &'static str,
    capability: Capability,
}

pub(crate) async fn chat(
    State(app): State<App>,
    authorized: AuthorizedRequest,
    request: Request,
) -> Response {
    respond(TextRoute { path: "chat/completions", capability: Capability::Chat }, &app, &authorized, request)
        .await
}

pub(crate) async fn completions(
    State(app): State<App>,
    authorized: AuthorizedRequest,
    request: Request,
) -> Response {
    respond(TextRoute { path: "completions", capability: Capability::Chat }, &app, &authorized, request).await
}

pub(crate) async fn embeddings(
    State(app): State<App>,
    authorized: AuthorizedRequest,
    request: Request,
) -> Response {
    respond(TextRoute { path: "embeddings", capability: Capability::Embeddings }, &app, &authorized, request)
        .await
}

async fn respond(route: TextRoute, app: &App, authorized: &AuthorizedRequest, request: Request) -> Response {
    let route_kind = route.capability.as_str();
    authorized.record.record(|fields| fields.route_kind = Some(route_kind));
    let mut class = None;
    match serve(route, app, authorized, request, &mut class).await {
        Ok(response) => response,
        Err(error) => error.to_response(Some(route_kind), class.as_deref()),
    }
}

async fn serve(
    route: TextRoute,
    app: &App,
    authorized: &AuthorizedRequest,
    request: Request,
    class: &mut Option<String>,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let owner = authorized.record.body_owner();
    let body = app.body_budget.read(&owner, &parts.headers, body).await.map_err(ApiError::Body)?;
    let (body_permit, body) = parse_off_thread(body, TextBody::read).await;
    let body = body.map_err(|error| ApiError::Malformed(error.into()))?;
    let backend = requested_backend(&parts.headers);
    let query =
        RoutingQuery { capability: route.capability, backend: backend.as_deref(), model: body.model() };
    let models = app.health.all_models();
    let routed =
        route_text(&app.config.backends, &app.config.routing, &models, query).map_err(ApiError::Denied)?; // which backend
    *class = Some(authorized.record.record_route(&routed));
    app.check_for_sleep(); // otherwise the first request after a sleep would be admitted by stale probes
    let ready = require_ready(&app.health, routed).map_err(ApiError::NotReady)?; // is it ready: else 503
    let grant = app.admission.admit(ready, authorized.caller.name()).map_err(ApiError::Busy)?; // is a slot free: else 429
    let request = ProxiedRequest {
        path: route.path,
        body: body.into_upstream(grant.routed().model()),
        body_permit,
        accept: parts.headers.get(header::ACCEPT).cloned(),
        request_id: authorized.id.to_header_value(),
    };
    let response = send(app, grant, request).await?; // forward, once
    Ok(forward(app, authorized, response)) // respond
}

async fn send(app: &App, grant: Grant, request: ProxiedRequest) -> Result<ProxiedResponse, ApiError> {
    let class = grant.routed().backend().class.clone();
    proxy::send(&app.clients, grant, request).await.map_err(|error| {
        error.report_failure(&app.health, &class);
        ApiError::Backend(class, error)
    })
}

fn forward(app: &App, authorized: &AuthorizedRequest, mut response: ProxiedResponse) -> Response {
    let (status, mut headers) = (response.status, std::mem::take(&mut response.headers));
    disable_proxy_buffering(&mut headers);
    let body = TextStream { app: app.clone(), response, reader_delay: ReaderDelay::default() };
    relay::forward(status, headers, &authorized.record, body)
}

/// Makes proxies in front of the gateway pass events on one by one.
fn disable_proxy_buffering(headers: &mut HeaderMap) {
    let content_type = headers.get(header::CONTENT_TYPE).map(|value| value.as_bytes().to_ascii_lowercase());
    if content_type.is_some_and(|value| value.starts_with(b"text/event-stream")) {
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache"));
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    }
}

struct TextStream {
    app: App,
    response: ProxiedResponse,
    reader_delay: ReaderDelay,
}

impl Upstream for TextStream {
    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        if self.reader_delay.is_exceeded() {
            let why = "the client reads the response too slowly";
            return Err(Failure {
                status: StatusCode::REQUEST_TIMEOUT.as_u16(),
                cause: why.to_owned(),
                abort: why,
            });
        }
        let chunk = self.response.next().await.map_err(|error| {
            let class = self.response.class();
            error.report_failure(&self.app.health, class);
            let (status, cause) = ApiError::Backend(class.to_owned(), error).status_and_cause();
            Failure { status, cause: cause.0, abort: "the backend closed the connection early" }
        })?;
        self.reader_delay.chunk_sent();
        Ok(chunk)
    }

    fn is_complete(&self) -> bool {
        self.response.is_complete()
    }
}
