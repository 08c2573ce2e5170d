//! `POST /v1/images/generations` and `/v1/images/edits`. Each step's result is what the next step needs as proof.

mod base64_body;
mod event_relay;
mod recorder;
mod respond;

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, header},
    response::Response,
};
use bytes::Bytes;
use service::{on_disconnect::OnDisconnect, parsing::parse_off_thread};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::{event_relay::EventRelay, recorder::Recorder};
use super::{AuthorizedRequest, requested_backend};
use crate::{
    admission::{Grant, require_ready},
    app::App,
    backend::{
        images::{self, BackendRequest, BackendResponse, ImageRequestError},
        mock,
    },
    config::{Capability, ImageEngine},
    error::ApiError,
    jobs::{JobGuard, NewJob},
    policy::route_images,
    request::{
        asked::AskedSettings,
        image_request::{ImageBody, ImageRequest, ImageTask, Malformed},
    },
    store::writable::ReservedFiles,
};

pub(crate) async fn generations(
    State(app): State<App>,
    authorized: AuthorizedRequest,
    request: Request,
) -> Response {
    respond(ImageTask::Generation, app, authorized, request).await
}

pub(crate) async fn edits(
    State(app): State<App>,
    authorized: AuthorizedRequest,
    request: Request,
) -> Response {
    respond(ImageTask::Edit, app, authorized, request).await
}

/// What is known of a request, for how it ends.
#[derive(Default)]
struct Known {
    on_disconnect: OnDisconnect,
    /// Cancelled by a request of its owner.
    cancel: CancellationToken,
    class: Option<String>,
    /// Once it has been read.
    job: Option<Arc<JobGuard>>,
}

async fn respond(task: ImageTask, app: App, authorized: AuthorizedRequest, request: Request) -> Response {
    let route_kind = Some(Capability::Images.as_str());
    authorized.record.record(|fields| fields.route_kind = route_kind);
    let on_disconnect = match OnDisconnect::from_headers(request.headers()) {
        Ok(on_disconnect) => on_disconnect,
        Err(error) => return ApiError::Malformed(error.into()).to_response(route_kind, None),
    };
    let (lifecycle, id) = (app.lifecycle.clone(), authorized.id.as_str().to_owned());
    let work = async move {
        let mut known = Known { on_disconnect, ..Known::default() };
        let cancel = known.cancel.clone();
        let result = tokio::select! {
            result = serve(task, &app, &authorized, request, &mut known) => result,
            () = cancel.cancelled() => Err(ApiError::Cancelled), // closes the connection to the backend
        };
        result.unwrap_or_else(|error| {
            let class = known.class.as_deref();
            if let Some(job) = known.job {
                job.fail(error.to_job_error());
            }
            error.to_response(route_kind, class)
        })
    };
    let response = on_disconnect.run(&lifecycle, &id, work).await;
    response.unwrap_or_else(|| ApiError::Internal.to_response(route_kind, None))
}

async fn serve(
    task: ImageTask,
    app: &App,
    authorized: &AuthorizedRequest,
    request: Request,
    known: &mut Known,
) -> Result<Response, ApiError> {
    let arrival = Instant::now();
    let deadline = arrival + app.config.images.timeout;
    let (parts, body) = request.into_parts();
    let owner = authorized.record.body_owner();
    let body = app.body_budget.read(&owner, &parts.headers, body).await.map_err(ApiError::Body)?;
    let parser = body_parser(task, &parts.headers, app.config.images.max_pixels);
    let (body_permit, parsed) = parse_off_thread(body, parser).await;
    let (body, image_request) = parsed.map_err(ApiError::Malformed)?; // what is requested
    let asked = body.asked();
    let job = new_job(app, authorized, &image_request, &asked, known.cancel.clone());
    let job = Arc::new(app.jobs.begin(job));
    known.job = Some(job.clone());
    let routed =
        route_images(&app.config.backends, &app.config.images, &image_request).map_err(ApiError::Denied)?; // which backend
    known.class = Some(authorized.record.record_route(&routed));
    job.set_model(routed.model());
    app.check_for_sleep(); // otherwise the first request after a sleep would be admitted by stale probes
    let ready = require_ready(&app.health, routed).map_err(ApiError::NotReady)?; // is it ready: else 503
    let grant = app.admission.admit(ready, authorized.caller.name()).map_err(ApiError::Busy)?; // is a slot free: else 429
    let files = reserve_files(app, grant.routed().engine(), &image_request).await?; // has the store room
    let recorder = Recorder::new(app, authorized, arrival, &image_request, asked, grant.routed().model());
    let response = match grant.routed().engine() {
        ImageEngine::Mock => mock::paint(&app.store, grant, &image_request).await.map_err(ApiError::Store)?,
        ImageEngine::Backend => {
            let request = BackendRequest {
                task,
                stream: image_request.stream,
                count: image_request.count,
                body: body.into_upstream(grant.routed().model()),
                body_permit,
                request_id: authorized.id.to_header_value(),
                files,
                deadline,
                client_deadline: client_read_timeout(&parts.headers)
                    .filter(|_| !image_request.stream && known.on_disconnect == OnDisconnect::Cancel)
                    .map(|timeout| arrival + timeout),
            };
            send(app, grant, request).await? // forward, once
        }
    };
    match response {
        BackendResponse::Images(images) => respond::store_images(app, images, &recorder, &job).await, // store, respond
        BackendResponse::Events(events, file) => {
            let relay = EventRelay::new(app, authorized, events, *file, recorder, deadline, job);
            Ok(relay.respond(known.on_disconnect)) // the same, event by event
        }
    }
}

/// Takes from the headers what parsing needs, since it runs on another thread.
fn body_parser(
    task: ImageTask,
    headers: &HeaderMap,
    max_pixels: u64,
) -> impl FnOnce(&Bytes) -> Result<(ImageBody, ImageRequest), Malformed> + Send + 'static {
    let (content_type, backend) = (headers.get(header::CONTENT_TYPE).cloned(), requested_backend(headers));
    move |bytes| {
        let body = ImageBody::read(task, content_type.as_ref(), bytes)?;
        let image_request = ImageRequest::from_fields(task, body.fields(), backend, max_pixels)?;
        Ok((body, image_request))
    }
}

/// Reserves what storing the images takes, before anyone spends time on them. The mock writes its own files.
async fn reserve_files(
    app: &App,
    engine: ImageEngine,
    image_request: &ImageRequest,
) -> Result<ReservedFiles, ApiError> {
    let bytes = image_request.count.saturating_mul(max_image_bytes(image_request));
    let files = match engine {
        ImageEngine::Mock => app.store.reserve(0, bytes).await,
        ImageEngine::Backend if image_request.stream => app.store.reserve_for_stream(bytes).await,
        ImageEngine::Backend => app.store.reserve(image_request.count, bytes).await,
    };
    files.map_err(ApiError::StoreNotReady)
}

/// At most four bytes a pixel. If the backend chooses the size, the space that the store keeps free must do.
fn max_image_bytes(image_request: &ImageRequest) -> u64 {
    image_request.size.map_or(0, |size| u64::from(size.width) * u64::from(size.height) * 4)
}

fn new_job<'a>(
    app: &App,
    authorized: &AuthorizedRequest,
    request: &'a ImageRequest,
    asked: &AskedSettings,
    cancel: CancellationToken,
) -> NewJob<'a> {
    NewJob {
        request_id: authorized.id.as_str().to_owned(),
        owner: authorized.caller.owner().map(str::to_owned),
        token: authorized.caller.name().map(str::to_owned),
        task: request.task.name(asked.has_mask),
        model: request.model.clone(),
        prompt: app.config.record_settings.then_some(request.prompt.as_str()),
        n: request.count,
        size: request.size.map(|size| size.to_string()),
        cancel,
    }
}

/// The client's own timeout, which OpenAI's Python library sends. With a stream it is for each chunk and not for all, and a client
/// whose request outlives it wants the images all the same.
fn client_read_timeout(headers: &HeaderMap) -> Option<Duration> {
    let seconds: f64 = headers.get("x-stainless-read-timeout")?.to_str().ok()?.trim().parse().ok()?;
    (seconds > 0.0 && seconds < 86_400.0).then(|| Duration::from_secs_f64(seconds))
}

async fn send(app: &App, grant: Grant, request: BackendRequest) -> Result<BackendResponse, ApiError> {
    let class = grant.routed().backend().class.clone();
    images::send(&app.clients, &app.store, grant, request).await.map_err(|error| match error {
        ImageRequestError::Backend(error) => {
            error.report_failure(&app.health, &class);
            ApiError::Backend(class, error)
        }
        ImageRequestError::Store(error) => ApiError::Store(error),
    })
}
