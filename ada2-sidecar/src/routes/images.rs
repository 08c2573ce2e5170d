//! `POST /v1/images/generations` and `/v1/images/edits`, from the body to the answer.

mod form;
mod render;
mod stream;

use std::time::Duration;

use axum::{
    Extension,
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use shared::{
    openai::fields::{FieldError, Fields},
    service::{body::Holder, parsing::parse, request_id::RequestId},
};
use tokio::time::Instant;

use self::form::Upload;
use crate::{
    engine::catalog,
    error::ApiError,
    images::{FIELDS, ImageRequest, Job, Limits, Route},
    pictures,
    state::App,
};

/// Pictures from words. The body is read whole before anything else: only then is a caller's hang-up noticed, and a
/// hang-up drops this future and with it the job's handle, which cancels the job.
pub(super) async fn generations(
    State(app): State<App>,
    Extension(id): Extension<RequestId>,
    Extension(holder): Extension<Holder>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let body = app.bodies.read(&holder, &headers, body).await?;
    let limits = app.limits();
    let (body, request) =
        parse(body, move |body| ImageRequest::read(&Fields::parse(body, FIELDS)?, limits)).await;
    drop(body);
    let request = request?;
    make(&app, &headers, &id, request, None).await
}

/// Pictures from a picture and words.
pub(super) async fn edits(
    State(app): State<App>,
    Extension(id): Extension<RequestId>,
    Extension(holder): Extension<Holder>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let body = app.bodies.read(&holder, &headers, body).await?;
    let (head, limits) = (headers.clone(), app.limits());
    let reader = move |body: &Bytes| {
        let upload = form::read(&head, body)?;
        let request = ImageRequest::read(&upload.fields, limits)?;
        let own = pictures::size_of("image", &upload.picture)?;
        if let Some(mask) = &upload.mask {
            pictures::size_of("mask", mask)?;
        }
        Ok::<_, FieldError>((request, own, upload))
    };
    let (body, read) = parse(body, reader).await;
    let (request, own, Upload { picture, mask, .. }) = read?;
    let size = request.size.unwrap_or_else(|| pictures::size_to_make(own, app.config.max_pixels));
    let request = ImageRequest { size: Some(size), ..request };
    // The body's budget is held until the pictures are decoded.
    make(&app, &headers, &id, request, Some(Start { picture, mask, _body: body })).await
}

/// What an edit starts from, as it came.
struct Start {
    picture: Bytes,
    mask: Option<Bytes>,
    _body: shared::service::body::WholeBody,
}

async fn make(
    app: &App,
    headers: &HeaderMap,
    id: &RequestId,
    request: ImageRequest,
    start: Option<Start>,
) -> Result<Response, ApiError> {
    let arrival = Instant::now();
    let config = &app.config;
    app.gate()?; // may work be admitted
    let survey = app.survey()?;
    let asked = request.model.as_deref();
    let choice = catalog::resolve(&survey.models, &config.presets, asked, config.default_model.as_deref())?;
    let planned = Job::plan(&request, choice.clone(), any_seed(), app.limits())?;
    let permit = app.jobs.slots().try_enter().ok_or(ApiError::Busy { limit: config.max_inflight })?;
    if survey.others_waiting > config.max_engine_queue {
        return Err(ApiError::EngineBusy { waiting: survey.others_waiting });
    }
    let (route, job) = match start {
        None => (Route::Generations, planned),
        Some(start) => {
            let size = planned.size;
            let prepared = blocking(move || pictures::prepare(&start.picture, start.mask.as_deref(), size));
            (Route::Edits, planned.from_source(prepared.await??, &request, &choice)?)
        }
    };
    let job = Job { discard: config.privacy.discard_outputs, ..job };
    if config.privacy.log_prompts {
        tracing::info!(request_id = id.as_str(), prompt = ?job.prompt, "prompt");
    }
    let time = config.request_timeout.min(time_left(headers).unwrap_or(Duration::MAX));
    let mut handle = app.jobs.start(job.clone(), permit, id.as_str().to_owned());
    let answer = render::Answer::of(app, headers, &request, &job);
    if let Some(partials) = request.partial_images {
        let lifecycle = app.jobs.lifecycle();
        return Ok(stream::answer(handle, answer, route, partials, (arrival + time, time), lifecycle));
    }
    let pictures = tokio::time::timeout_at(arrival + time, handle.finished());
    let pictures = pictures.await.map_err(|_| ApiError::TooSlow(time))??;
    answer.whole(pictures).await
}

/// What the caller says is left of its own time limit.
fn time_left(headers: &HeaderMap) -> Option<Duration> {
    let ms: u64 = headers.get("x-request-timeout-ms")?.to_str().ok()?.parse().ok()?;
    (ms > 0).then(|| Duration::from_millis(ms))
}

fn any_seed() -> u32 {
    let [a, b, c, d, ..] = uuid::Uuid::new_v4().into_bytes();
    u32::from_be_bytes([a, b, c, d])
}

/// Megabytes of pixels, base64 and JSON: not on the threads that accept connections.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ApiError::Panic)
}

impl App {
    fn limits(&self) -> Limits {
        Limits { max_n: self.config.max_n, max_pixels: self.config.max_pixels }
    }
}

/// A picture that an answer named.
pub(super) async fn file(
    State(app): State<App>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let Path(name) = name.map_err(|_| ApiError::NoSuchPicture)?;
    let (bytes, format) = app.recent.find(&name).ok_or(ApiError::NoSuchPicture)?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(format.mime())),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=3600, immutable")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox")),
    ];
    Ok((headers, bytes).into_response())
}
