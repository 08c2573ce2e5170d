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
use service::parsing::parse;
use tokio::task::yield_now;

use super::{Visit, named_backend};
use crate::{
    admission::Grant,
    app::App,
    backend::{
        BackendFault,
        passage::{Passage, Passing, ReaderDelay, pass},
    },
    config::Capability,
    error::ApiError,
    middleware::access_log::{Account, Streamed},
    policy::catalog::text::{Asked, permit_text},
    request::text::TextBody,
};

/// What is asked for: the path behind `/v1`, with us and with the backend, and what it counts as.
#[derive(Debug, Clone, Copy)]
struct Kind {
    path: &'static str,
    capability: Capability,
}

/// Words in a conversation.
pub(crate) async fn chat(State(app): State<App>, visit: Visit, request: Request) -> Response {
    respond(Kind { path: "chat/completions", capability: Capability::Chat }, &app, &visit, request).await
}

/// Words that go on from others.
pub(crate) async fn completions(State(app): State<App>, visit: Visit, request: Request) -> Response {
    respond(Kind { path: "completions", capability: Capability::Chat }, &app, &visit, request).await
}

/// Numbers for words.
pub(crate) async fn embeddings(State(app): State<App>, visit: Visit, request: Request) -> Response {
    respond(Kind { path: "embeddings", capability: Capability::Embeddings }, &app, &visit, request).await
}

async fn respond(kind: Kind, app: &App, visit: &Visit, request: Request) -> Response {
    let route_kind = kind.capability.as_str();
    visit.account.note(|known| known.route_kind = Some(route_kind));
    let mut class = None;
    match serve(kind, app, visit, request, &mut class).await {
        Ok(response) => response,
        Err(error) => error.answer(Some(route_kind), class.as_deref()),
    }
}

async fn serve(
    kind: Kind,
    app: &App,
    visit: &Visit,
    request: Request,
    class: &mut Option<String>,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let counted =
        app.bodies.read(&visit.account.holder(), &parts.headers, body).await.map_err(ApiError::Body)?;
    let (counted, body) = parse(counted, TextBody::read).await;
    let body = body.map_err(|error| ApiError::Malformed(error.into()))?;
    let backend = named_backend(&parts.headers);
    let asked = Asked { capability: kind.capability, backend: backend.as_deref(), model: body.model() }; // what is asked
    let (config, lists) = (&app.config, app.health.last_lists());
    let permitted =
        permit_text(&config.backends, &config.routing, &lists, asked).map_err(ApiError::Denied)?; // may it
    *class = Some(visit.account.goes(&permitted));
    app.look_for_sleep(); // or the first request after it would be admitted on what was known before
    let live = app.health.route(permitted).map_err(ApiError::NotReady)?; // is it up
    let grant = app.admission.enter(live, visit.caller.name()).map_err(ApiError::Busy)?; // is there room: now or 429
    let passing = Passing {
        path: kind.path,
        sent: body.into_sent(grant.permitted().model()),
        counted,
        accept: parts.headers.get(header::ACCEPT).cloned(),
        request_id: visit.id.header(),
    };
    let passage = send(app, grant, passing).await?; // do it, once
    Ok(relay(app, &visit.account, passage)) // answer
}

async fn send(app: &App, grant: Grant, passing: Passing) -> Result<Passage, ApiError> {
    let class = grant.permitted().backend().class.clone();
    pass(&app.clients, grant, passing).await.map_err(|fault| {
        fault.report(&app.health, &class);
        ApiError::Backend(class, fault)
    })
}

/// The answer whose body is the backend's. When the caller leaves, the HTTP library drops it: the connection to the
/// backend is closed, and the place free.
fn relay(app: &App, account: &Account, mut passage: Passage) -> Response {
    let (status, headers) = (passage.status, std::mem::take(&mut passage.headers));
    let reader_delay = ReaderDelay::default();
    let relay = Relay { app: app.clone(), account: account.clone(), passage, reader_delay };
    relay.note_if_whole();
    let body = stream::unfold(Some(relay), async |relay| relay?.step().await);
    let mut response = (status, headers, Body::from_stream(body)).into_response();
    unheld(response.headers_mut());
    response.extensions_mut().insert(Streamed);
    response
}

/// Proxies between the caller and us let events pass one by one.
fn unheld(headers: &mut HeaderMap) {
    let kind = headers.get(header::CONTENT_TYPE).map(|kind| kind.as_bytes().to_ascii_lowercase());
    if kind.is_some_and(|kind| kind.starts_with(b"text/event-stream")) {
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache"));
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    }
}

struct Relay {
    app: App,
    account: Account,
    passage: Passage,
    reader_delay: ReaderDelay,
}

/// What the caller gets, and who goes on; an error cuts the connection.
type Step = (io::Result<Bytes>, Option<Relay>);

impl Relay {
    async fn step(mut self) -> Option<Step> {
        if self.reader_delay.is_over() {
            let why = "the caller takes its answer too slowly";
            self.account.ended(StatusCode::REQUEST_TIMEOUT.as_u16(), Some(why.to_owned()));
            return Some((Err(io::Error::other(why)), None));
        }
        match self.passage.next().await {
            Ok(Some(bytes)) => {
                self.note_if_whole();
                self.reader_delay.gave();
                Some((Ok(bytes), Some(self)))
            }
            Ok(None) => {
                self.account.ended(self.passage.status.as_u16(), None);
                None
            }
            Err(fault) => {
                self.broke(fault);
                // What passed before goes out first, the head above all: a library that has seen no head asks again.
                yield_now().await;
                Some((Err(io::Error::other("the backend broke off")), None))
            }
        }
    }

    /// An answer of known length ends with its last byte: the HTTP library asks for no more.
    fn note_if_whole(&self) {
        if self.passage.is_whole() {
            self.account.ended(self.passage.status.as_u16(), None);
        }
    }

    fn broke(&self, fault: BackendFault) {
        let class = self.passage.class();
        fault.report(&self.app.health, class);
        let (status, cause) = ApiError::Backend(class.to_owned(), fault).told();
        self.account.ended(status, Some(cause.0));
    }
}
