//! `POST /v1/images/generations` and `/v1/images/edits`: the spine. Each value is the proof that the next step needs.

mod base64_body;
mod event_relay;
mod respond;

use std::time::Duration;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, header},
    response::Response,
};
use bytes::Bytes;
use service::parsing::parse_off_thread;
use tokio::time::Instant;

use super::{AuthorizedRequest, requested_backend};
use crate::{
    admission::Grant,
    app::App,
    backend::{self, BackendRequest, BackendResponse, ImageRequestError, mock},
    config::{Capability, ImageEngine},
    error::ApiError,
    policy::routing::route_images,
    request::{
        ImageBody,
        image_request::{ImageRequest, ImageTask, Malformed},
    },
    store::writable::ReservedFiles,
};

/// Pictures from words.
pub(crate) async fn generations(
    State(app): State<App>,
    authorized: AuthorizedRequest,
    request: Request,
) -> Response {
    respond(ImageTask::Generation, &app, &authorized, request).await
}

/// Pictures from pictures.
pub(crate) async fn edits(
    State(app): State<App>,
    authorized: AuthorizedRequest,
    request: Request,
) -> Response {
    respond(ImageTask::Edit, &app, &authorized, request).await
}

/// What is asked, answered or refused.
async fn respond(task: ImageTask, app: &App, authorized: &AuthorizedRequest, request: Request) -> Response {
    let kind = Capability::Images.as_str();
    authorized.record.record(|fields| fields.route_kind = Some(kind));
    let mut class = None;
    match serve(task, app, authorized, request, &mut class).await {
        Ok(response) => response,
        Err(error) => error.to_response(Some(kind), class.as_deref()),
    }
}

async fn serve(
    task: ImageTask,
    app: &App,
    authorized: &AuthorizedRequest,
    request: Request,
    class: &mut Option<String>,
) -> Result<Response, ApiError> {
    let arrival = Instant::now();
    let deadline = arrival + app.config.images.timeout;
    let (parts, body) = request.into_parts();
    let holder = authorized.record.body_owner();
    let whole_body = app.body_budget.read(&holder, &parts.headers, body).await.map_err(ApiError::Body)?;
    let reader = body_parser(task, &parts.headers, app.config.images.max_pixels);
    let (whole_body, read) = parse_off_thread(whole_body, reader).await;
    let (payload, image_request) = read.map_err(ApiError::Malformed)?; // what is asked
    let routed =
        route_images(&app.config.backends, &app.config.images, &image_request).map_err(ApiError::Denied)?; // may it
    *class = Some(authorized.record.record_route(&routed));
    app.check_for_sleep(); // or the first request after it would be admitted on what was known before
    let ready = app.health.require_ready(routed).map_err(ApiError::NotReady)?; // is anyone up
    let grant = app.admission.admit(ready, authorized.caller.name()).map_err(ApiError::Busy)?; // is there room: now or 429
    let files = reserve_files(app, grant.routed().engine(), &image_request).await?; // is there room for what will be made
    let answer = match grant.routed().engine() {
        ImageEngine::Mock => mock::paint(&app.store, grant, &image_request).await.map_err(ApiError::Store)?,
        ImageEngine::Backend => {
            let outgoing = BackendRequest {
                task,
                stream: image_request.stream,
                count: image_request.count,
                body: payload.into_upstream(grant.routed().model()),
                body_permit: whole_body,
                request_id: authorized.id.to_header_value(),
                files,
                deadline,
                // With a stream, the caller waits that long for each piece and not for the whole.
                caller_deadline: client_read_timeout(&parts.headers)
                    .filter(|_| !image_request.stream)
                    .map(|patience| arrival + patience),
            };
            send(app, grant, outgoing).await? // do it, once
        }
    };
    match answer {
        BackendResponse::Images(images) => {
            let stored = respond::store_images(app, images, authorized.provenance()).await?; // keep it
            Ok(respond::respond(app, stored)) // answer
        }
        // The same, as it happens.
        BackendResponse::Events(events, file) => {
            Ok(event_relay::respond(app, authorized, events, *file, deadline))
        }
    }
}

/// What reads the body: it needs nothing of the request but this.
fn body_parser(
    task: ImageTask,
    headers: &HeaderMap,
    max_pixels: u64,
) -> impl FnOnce(&Bytes) -> Result<(ImageBody, ImageRequest), Malformed> + Send + 'static {
    let (content_type, backend) = (headers.get(header::CONTENT_TYPE).cloned(), requested_backend(headers));
    move |body| {
        let payload = ImageBody::read(task, content_type.as_ref(), body)?;
        let image_request = ImageRequest::from_fields(task, payload.fields(), backend, max_pixels)?;
        Ok((payload, image_request))
    }
}

/// Has what it takes to keep what is asked for, before anybody spends time on it. The mock's pictures cost none.
async fn reserve_files(
    app: &App,
    engine: ImageEngine,
    image_request: &ImageRequest,
) -> Result<ReservedFiles, ApiError> {
    let bytes = image_request.count.saturating_mul(max_image_bytes(image_request));
    let prepared = match engine {
        ImageEngine::Mock => app.store.reserve(0, bytes).await,
        ImageEngine::Backend if image_request.stream => app.store.reserve_for_stream(bytes).await,
        ImageEngine::Backend => app.store.reserve(image_request.count, bytes).await,
    };
    prepared.map_err(ApiError::StoreNotReady)
}

/// Bytes of one picture at most: four a pixel. Of one whose size the backend chooses nothing is known, and the room that is
/// kept free must do.
fn max_image_bytes(image_request: &ImageRequest) -> u64 {
    image_request.size.map_or(0, |size| u64::from(size.width) * u64::from(size.height) * 4)
}

/// How long the caller's own library waits, as OpenAI's Python library says.
fn client_read_timeout(headers: &HeaderMap) -> Option<Duration> {
    let seconds: f64 = headers.get("x-stainless-read-timeout")?.to_str().ok()?.trim().parse().ok()?;
    (seconds > 0.0 && seconds < 86_400.0).then(|| Duration::from_secs_f64(seconds))
}

async fn send(app: &App, grant: Grant, outgoing: BackendRequest) -> Result<BackendResponse, ApiError> {
    let class = grant.routed().backend().class.clone();
    backend::send(&app.clients, &app.store, grant, outgoing).await.map_err(|failure| match failure {
        ImageRequestError::Backend(fault) => {
            fault.report_failure(&app.health, &class);
            ApiError::Backend(class, fault)
        }
        ImageRequestError::Store(fault) => ApiError::Store(fault),
    })
}
