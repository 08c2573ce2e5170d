//! `POST /v1/images/generations` and `/v1/images/edits`, from the body to the response.

mod edit_input;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod response;
mod stream;

use std::time::Duration;

use axum::{
    Extension,
    body::Body,
    extract::{FromRequestParts, Path, State, rejection::ExtensionRejection, rejection::PathRejection},
    http::{HeaderMap, HeaderValue, header, request::Parts},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use service::{
    body::{BudgetOwner, BufferedBody},
    multipart::is_multipart,
    on_disconnect::OnDisconnect,
    parsing::parse_off_thread,
    request_id::RequestId,
};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use wire::openai::{
    fields::Fields,
    inline_images::{GENERATION_MEMBERS, form_not_accepted, reject_images},
    object::{JsonObject, bom_len},
};

use self::edit_input::{EditForm, EditInput};
use crate::{
    app::App,
    error::ApiError,
    images::{
        ImageRequest, ImageRoute, Job, REQUEST_FIELDS, Task,
        choice::{self, ModelChoice},
    },
    jobs::JobSpec,
    middleware::auth::BaseUrl,
};

/// A request apart from its body. As an extractor it runs before the body is read, so that the time limit covers the
/// upload.
pub(crate) struct RequestHead {
    arrival: Instant,
    headers: HeaderMap,
    id: RequestId,
    body_owner: BudgetOwner,
    base_url: BaseUrl,
}

impl<S: Send + Sync> FromRequestParts<S> for RequestHead {
    type Rejection = ExtensionRejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ExtensionRejection> {
        let arrival = Instant::now();
        let Extension(id) = Extension::from_request_parts(parts, state).await?;
        let Extension(body_owner) = Extension::from_request_parts(parts, state).await?;
        let Extension(base_url) = Extension::from_request_parts(parts, state).await?;
        Ok(Self { arrival, headers: parts.headers.clone(), id, body_owner, base_url })
    }
}

impl RequestHead {
    /// Reads the whole body before any other work. Only then does the HTTP library notice a disconnect, which drops the
    /// handler's future, and with it the job's handle, unless the client wants the job to go on.
    async fn read_body(&self, app: &App, body: Body) -> Result<BufferedBody, ApiError> {
        let time_limit = self.time_limit(app.config.request_timeout);
        let body = app.body_budget.read(&self.body_owner, &self.headers, body);
        let late = |_| ApiError::UploadTimeout(time_limit);
        Ok(timeout_at(self.arrival + time_limit, body).await.map_err(late)??)
    }

    /// The configured limit, or what the client says is left of its own if that is less.
    fn time_limit(&self, configured: Duration) -> Duration {
        let client_ms =
            self.headers.get("x-request-timeout-ms").and_then(|ms| ms.to_str().ok()?.parse().ok());
        client_ms.filter(|ms| *ms > 0).map_or(configured, |ms| configured.min(Duration::from_millis(ms)))
    }
}

pub(crate) async fn generations(
    State(app): State<App>,
    head: RequestHead,
    body: Body,
) -> Result<Response, ApiError> {
    let on_disconnect = OnDisconnect::from_headers(&head.headers).map_err(ApiError::Field)?;
    let body = head.read_body(&app, body).await?;
    let is_form = head.headers.get(header::CONTENT_TYPE).is_some_and(is_multipart);
    let limits = app.limits();
    let (body, request) = parse_off_thread(body, move |body| {
        if is_form {
            return Err(form_not_accepted());
        }
        let object =
            JsonObject::parse(&body[bom_len(body)..], &[REQUEST_FIELDS, GENERATION_MEMBERS].concat())?;
        reject_images(&object)?;
        ImageRequest::read(&Fields::from_object(&object, REQUEST_FIELDS)?, limits)
    })
    .await;
    drop(body);
    respond(app, on_disconnect, head, request?, None).await
}

pub(crate) async fn edits(
    State(app): State<App>,
    head: RequestHead,
    body: Body,
) -> Result<Response, ApiError> {
    let on_disconnect = OnDisconnect::from_headers(&head.headers).map_err(ApiError::Field)?;
    let body = head.read_body(&app, body).await?;
    let (headers, limits) = (head.headers.clone(), app.limits());
    let (body, parsed) = parse_off_thread(body, move |body: &Bytes| {
        let form = EditForm::read(&headers, body)?;
        let request = ImageRequest::read(&form.fields, limits)?;
        Ok((request, form.measure()?))
    })
    .await;
    let (request, images) = parsed.map_err(ApiError::Field)?;
    respond(app, on_disconnect, head, request, Some(EditInput { images, body })).await
}

/// Runs the job, whose handle is dropped with the request or, on request, not before the response is complete.
async fn respond(
    app: App,
    on_disconnect: OnDisconnect,
    head: RequestHead,
    request: ImageRequest,
    edit: Option<EditInput>,
) -> Result<Response, ApiError> {
    let (lifecycle, id) = (app.jobs.lifecycle().clone(), head.id.clone());
    let job = async move { run_job(&app, on_disconnect, head, request, edit).await };
    on_disconnect.run(&lifecycle, id.as_str(), job).await.unwrap_or(Err(ApiError::Internal))
}

async fn run_job(
    app: &App,
    on_disconnect: OnDisconnect,
    head: RequestHead,
    request: ImageRequest,
    edit: Option<EditInput>,
) -> Result<Response, ApiError> {
    let config = &app.config;
    app.check_ready()?;
    let engine = app.engine_status()?;
    let choice = choice::resolve(
        &engine.models,
        &config.presets,
        request.model.as_deref(),
        config.default_model.as_deref(),
        edit.as_ref().map_or(Task::Generate, EditInput::task),
    )?;
    let choice = ModelChoice { loras: engine.loras.clone(), ..choice };
    let limits = app.limits();
    let edit_plan = edit.as_ref().map(|edit| edit.plan(&request, &choice, limits.max_pixels));
    let planned = Job::plan(&request, choice.clone(), edit_plan, random_seed(), limits)?;
    let time_limit = head.time_limit(config.request_timeout);
    let deadline = head.arrival + time_limit;
    let permit = app.jobs.slots().try_acquire().ok_or(ApiError::Busy { limit: config.max_inflight })?;
    if engine.others_waiting > config.max_engine_queue {
        return Err(ApiError::EngineBusy { waiting: engine.others_waiting });
    }
    let job = Job { discard: config.discard_outputs, ..planned };
    if config.log_prompts {
        tracing::info!(request_id = head.id.as_str(), prompt = ?job.prompt, "prompt");
    }
    let route = if edit.is_some() { ImageRoute::Edits } else { ImageRoute::Generations };
    let responder = response::ImageResponder::new(app, head.base_url, &request, &job);
    let partial_images = request.partial_images;
    let decode = edit.zip(edit_plan).map(|(edit, plan)| edit.into_decode_step(request, choice, plan, limits));
    let id = head.id.as_str();
    let timed_out = |_| ApiError::Timeout(time_limit);
    if let Some(partial_images) = partial_images {
        let spec = JobSpec { job, decode, finish: stream::final_event(responder.clone(), route) };
        let mut job = app.jobs.start(spec, permit, id.to_owned());
        // An undecodable image gets a status code, which a stream has already sent.
        timeout_at(deadline, job.wait_decoded()).await.map_err(timed_out)??;
        let stream = stream::JobStream::new(job, responder, route, partial_images, (deadline, time_limit));
        return Ok(stream.into_response(on_disconnect, app.jobs.lifecycle(), id));
    }
    let finish = Box::new(move |images, job: &Job, cancel: &CancellationToken| {
        responder.build_json(images, job, cancel)
    });
    let mut job = app.jobs.start(JobSpec { job, decode, finish }, permit, id.to_owned());
    let json = timeout_at(deadline, job.wait()).await.map_err(timed_out)??;
    Ok(([(header::CONTENT_TYPE, "application/json")], json).into_response())
}

fn random_seed() -> u32 {
    let [a, b, c, d, ..] = uuid::Uuid::new_v4().into_bytes();
    u32::from_be_bytes([a, b, c, d])
}

/// `GET /v1/images/files/{name}`: an image that a response with `url` named.
pub(crate) async fn image_file(
    State(app): State<App>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let Path(name) = name.map_err(|_| ApiError::ImageNotFound)?;
    let (bytes, format) = app.image_cache.get(&name).ok_or(ApiError::ImageNotFound)?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(format.mime())),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=3600, immutable")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox")),
    ];
    Ok((headers, bytes).into_response())
}
