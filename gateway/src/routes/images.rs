//! `POST /v1/images/generations` and `/v1/images/edits`: the spine. Each value is the proof that the next step needs.

mod inline;
mod keep;
mod relay;

use std::time::Duration;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, header},
    response::Response,
};
use bytes::Bytes;
use service::parsing::parse;
use tokio::time::Instant;

use super::{Visit, named_backend};
use crate::{
    admission::Grant,
    app::App,
    backend::{self, Answer, Failure, Outgoing, mock},
    config::{Capability, ImageEngine},
    error::ApiError,
    policy::catalog::permit_images,
    request::{
        Payload,
        demand::{Demand, Malformed, Task},
    },
    store::writable::Prepared,
};

/// Pictures from words.
pub(crate) async fn generations(State(app): State<App>, visit: Visit, request: Request) -> Response {
    respond(Task::Generation, &app, &visit, request).await
}

/// Pictures from pictures.
pub(crate) async fn edits(State(app): State<App>, visit: Visit, request: Request) -> Response {
    respond(Task::Edit, &app, &visit, request).await
}

/// What is asked, answered or refused.
async fn respond(task: Task, app: &App, visit: &Visit, request: Request) -> Response {
    let kind = Capability::Images.as_str();
    visit.account.note(|known| known.route_kind = Some(kind));
    let mut class = None;
    match serve(task, app, visit, request, &mut class).await {
        Ok(response) => response,
        Err(error) => error.answer(Some(kind), class.as_deref()),
    }
}

async fn serve(
    task: Task,
    app: &App,
    visit: &Visit,
    request: Request,
    class: &mut Option<String>,
) -> Result<Response, ApiError> {
    let arrival = Instant::now();
    let deadline = arrival + app.config.images.timeout;
    let (parts, body) = request.into_parts();
    let holder = visit.account.holder();
    let ask = app.bodies.read(&holder, &parts.headers, body).await.map_err(ApiError::Body)?;
    let reader = reader(task, &parts.headers, app.config.images.max_pixels);
    let (ask, read) = parse(ask, reader).await;
    let (payload, demand) = read.map_err(ApiError::Malformed)?; // what is asked
    let permitted =
        permit_images(&app.config.backends, &app.config.images, &demand).map_err(ApiError::Denied)?; // may it
    *class = Some(visit.account.goes(&permitted));
    app.look_for_sleep(); // or the first request after it would be admitted on what was known before
    let live = app.health.route(permitted).map_err(ApiError::NotReady)?; // is anyone up
    let grant = app.admission.enter(live, visit.caller.name()).map_err(ApiError::Busy)?; // is there room: now or 429
    let files = prepared(app, grant.permitted().engine(), &demand).await?; // is there room for what will be made
    let answer = match grant.permitted().engine() {
        ImageEngine::Mock => mock::paint(&app.store, grant, &demand).await.map_err(ApiError::Store)?,
        ImageEngine::Backend => {
            let outgoing = Outgoing {
                task,
                stream: demand.stream,
                count: demand.count,
                sent: payload.into_sent(grant.permitted().model()),
                counted: ask,
                request_id: visit.id.header(),
                files,
                deadline,
                // With a stream, the caller waits that long for each piece and not for the whole.
                caller_deadline: caller_patience(&parts.headers)
                    .filter(|_| !demand.stream)
                    .map(|patience| arrival + patience),
            };
            send(app, grant, outgoing).await? // do it, once
        }
    };
    match answer {
        Answer::Pictures(pictures) => {
            let kept = keep::keep(app, pictures, visit.note()).await?; // keep it
            Ok(keep::render(app, kept)) // answer
        }
        // The same, as it happens.
        Answer::Events(events, file) => Ok(relay::respond(app, visit, events, *file, deadline)),
    }
}

/// What reads the body: it needs nothing of the request but this.
fn reader(
    task: Task,
    headers: &HeaderMap,
    max_pixels: u64,
) -> impl FnOnce(&Bytes) -> Result<(Payload, Demand), Malformed> + Send + 'static {
    let (content_type, backend) = (headers.get(header::CONTENT_TYPE).cloned(), named_backend(headers));
    move |body| {
        let payload = Payload::read(task, content_type.as_ref(), body)?;
        let demand = Demand::of_images(task, payload.fields(), backend, max_pixels)?;
        Ok((payload, demand))
    }
}

/// Has what it takes to keep what is asked for, before anybody spends time on it. The mock's pictures cost none.
async fn prepared(app: &App, engine: ImageEngine, demand: &Demand) -> Result<Prepared, ApiError> {
    let bytes = demand.count.saturating_mul(largest(demand));
    let prepared = match engine {
        ImageEngine::Mock => app.store.prepare(0, bytes).await,
        ImageEngine::Backend if demand.stream => app.store.provide(bytes).await,
        ImageEngine::Backend => app.store.prepare(demand.count, bytes).await,
    };
    prepared.map_err(ApiError::StoreNotReady)
}

/// Bytes of one picture at most: four a pixel. Of one whose size the backend chooses nothing is known, and the room that is
/// kept free must do.
fn largest(demand: &Demand) -> u64 {
    demand.size.map_or(0, |size| u64::from(size.width) * u64::from(size.height) * 4)
}

/// How long the caller's own library waits, as OpenAI's Python library says.
fn caller_patience(headers: &HeaderMap) -> Option<Duration> {
    let seconds: f64 = headers.get("x-stainless-read-timeout")?.to_str().ok()?.trim().parse().ok()?;
    (seconds > 0.0 && seconds < 86_400.0).then(|| Duration::from_secs_f64(seconds))
}

async fn send(app: &App, grant: Grant, outgoing: Outgoing) -> Result<Answer, ApiError> {
    let class = grant.permitted().backend().class.clone();
    backend::send(&app.clients, &app.store, grant, outgoing).await.map_err(|failure| match failure {
        Failure::Backend(fault) => {
            fault.report(&app.health, &class);
            ApiError::Backend(class, fault)
        }
        Failure::Store(fault) => ApiError::Store(fault),
    })
}
