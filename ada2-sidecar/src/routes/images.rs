//! `POST /v1/images/generations` and `/v1/images/edits`, from the body to the answer.

mod form;
mod response;
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
use service::{
    body::{BudgetOwner, BufferedBody},
    multipart::is_multipart,
    parsing::parse_off_thread,
    request_id::RequestId,
};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use wire::openai::{
    fields::{FieldError, Fields},
    images::ImageSize,
    inline_images::{GENERATION_MEMBERS, form_not_accepted, reject_images},
    object::{JsonObject, bom_len},
};

use self::form::EditForm;
use crate::{
    access::BaseUrl,
    app::App,
    error::ApiError,
    image_codec,
    images::choice::{self, ModelChoice},
    images::{EditPlan, ImageRequest, ImageRoute, Job, Limits, REQUEST_FIELDS},
    jobs::{DecodeStep, JobSpec},
};

/// Pictures from words. The body is read whole before anything else: only then is a caller's hang-up noticed, and a
/// hang-up drops this future and with it the job's handle, which cancels the job.
pub(super) async fn generations(
    State(app): State<App>,
    Extension(id): Extension<RequestId>,
    Extension(holder): Extension<BudgetOwner>,
    Extension(base_url): Extension<BaseUrl>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let body = app.body_budget.read(&holder, &headers, body).await?;
    let (limits, is_form) = (app.limits(), headers.get(header::CONTENT_TYPE).is_some_and(is_multipart));
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
    let request = request?;
    run_request(&app, (&headers, base_url), &id, request, None).await
}

/// Pictures from a picture and words.
pub(super) async fn edits(
    State(app): State<App>,
    Extension(id): Extension<RequestId>,
    Extension(holder): Extension<BudgetOwner>,
    Extension(base_url): Extension<BaseUrl>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let body = app.body_budget.read(&holder, &headers, body).await?;
    let (head, limits) = (headers.clone(), app.limits());
    let reader = move |body: &Bytes| {
        let upload = form::read(&head, body)?;
        let request = ImageRequest::read(&upload.fields, limits)?;
        let own = image_codec::upright_size("image", &upload.image)?;
        let mask_size =
            upload.mask.as_ref().map(|mask| image_codec::upright_size("mask", mask)).transpose()?;
        let large = [Some(own), mask_size].into_iter().flatten().any(image_codec::is_large);
        Ok::<_, FieldError>((request, own, large, upload))
    };
    let (body, read) = parse_off_thread(body, reader).await;
    let (request, own, large, EditForm { image: picture, mask, .. }) = read?;
    run_request(
        &app,
        (&headers, base_url),
        &id,
        request,
        Some(EditInput { image: picture, mask, original_size: own, is_large: large, body }),
    )
    .await
}

/// What an edit starts from, as it came. The body's budget is held until it is decoded.
struct EditInput {
    image: Bytes,
    mask: Option<Bytes>,
    /// The picture's size.
    original_size: ImageSize,
    is_large: bool,
    body: BufferedBody,
}

impl EditInput {
    /// What is made of it.
    fn canvas(&self, request: &ImageRequest, choice: &ModelChoice, max_pixels: u64) -> EditPlan {
        let to_make = image_codec::output_size(self.original_size, max_pixels);
        let size = if self.original_size.pixels() > max_pixels { to_make } else { self.original_size };
        EditPlan::new(request, choice, self.mask.is_some(), size, to_make)
    }

    /// Decoding it is the job's.
    fn into_decode_step(
        self,
        request: &ImageRequest,
        choice: ModelChoice,
        canvas: EditPlan,
        limits: Limits,
    ) -> DecodeStep {
        let Self { image: picture, mask, is_large: large, body, .. } = self;
        let request = request.clone();
        let work = Box::new(move |planned: Job, cancel: &CancellationToken| {
            let source = image_codec::prepare(&picture, mask.as_deref(), canvas.size, cancel);
            drop(body);
            planned.with_source(source?, &request, &choice, canvas, limits)
        });
        DecodeStep { is_large: large, decode: work }
    }
}

async fn run_request(
    app: &App,
    (headers, base_url): (&HeaderMap, BaseUrl),
    id: &RequestId,
    request: ImageRequest,
    input: Option<EditInput>,
) -> Result<Response, ApiError> {
    let arrival = Instant::now();
    let config = &app.config;
    app.check_ready()?; // may work be admitted
    let status = app.engine_status()?;
    let requested_model = request.model.as_deref();
    let choice =
        choice::resolve(&status.models, &config.presets, requested_model, config.default_model.as_deref())?;
    let limits = app.limits();
    let canvas = input.as_ref().map(|start| start.canvas(&request, &choice, limits.max_pixels));
    let planned = Job::plan(&request, choice.clone(), canvas, random_seed(), limits)?;
    let permit = app.jobs.slots().try_acquire().ok_or(ApiError::Busy { limit: config.max_inflight })?;
    if status.others_waiting > config.max_engine_queue {
        return Err(ApiError::EngineBusy { waiting: status.others_waiting });
    }
    let (route, prepare) = match input.zip(canvas) {
        None => (ImageRoute::Generations, None),
        Some((input, canvas)) => {
            (ImageRoute::Edits, Some(input.into_decode_step(&request, choice, canvas, limits)))
        }
    };
    let job = Job { discard: config.discard_outputs, ..planned };
    if config.log_prompts {
        tracing::info!(request_id = id.as_str(), prompt = ?job.prompt, "prompt");
    }
    let time_limit = config.request_timeout.min(client_timeout(headers).unwrap_or(Duration::MAX));
    let (deadline, too_slow) = (arrival + time_limit, |_| ApiError::Timeout(time_limit));
    let responder = response::ImageResponder::new(app, base_url, &request, &job);
    let id = id.as_str().to_owned();
    if let Some(partials) = request.partial_images {
        let spec = JobSpec { job, prepare, finish: stream::final_event(responder.clone(), route) };
        let mut running_job = app.jobs.start(spec, permit, id);
        // What cannot be decoded has a status, which a stream has sent already.
        timeout_at(deadline, running_job.wait_prepared()).await.map_err(too_slow)??;
        let lifecycle = app.jobs.lifecycle();
        return Ok(stream::stream_response(
            running_job,
            responder,
            route,
            partials,
            (deadline, time_limit),
            lifecycle,
        ));
    }
    let finish = Box::new(move |images, job: &Job, cancel: &CancellationToken| {
        responder.build_json(images, job, cancel)
    });
    let mut running_job = app.jobs.start(JobSpec { job, prepare, finish }, permit, id);
    let json = timeout_at(deadline, running_job.wait()).await.map_err(too_slow)??;
    Ok(([(header::CONTENT_TYPE, "application/json")], json).into_response())
}

/// What the caller says is left of its own time limit.
fn client_timeout(headers: &HeaderMap) -> Option<Duration> {
    let ms: u64 = headers.get("x-request-timeout-ms")?.to_str().ok()?.parse().ok()?;
    (ms > 0).then(|| Duration::from_millis(ms))
}

fn random_seed() -> u32 {
    let [a, b, c, d, ..] = uuid::Uuid::new_v4().into_bytes();
    u32::from_be_bytes([a, b, c, d])
}

impl App {
    fn limits(&self) -> Limits {
        let config = &self.config;
        Limits { max_n: config.max_n, max_pixels: config.max_pixels, max_seed: config.engine.max_seed() }
    }
}

/// A picture that an answer named.
pub(super) async fn image_file(
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

#[cfg(test)]
mod tests {
    use picture::painter::ProceduralImage;
    use service::body::BodyBudget;

    use super::*;
    use crate::images::models::{BaseModel, EngineModel};

    #[tokio::test]
    async fn a_body_counts_until_its_picture_is_decoded() {
        let budget = BodyBudget::new(1 << 20, 1 << 20);
        let picture: Bytes =
            ProceduralImage { label: "test", prompt: "a", seed: 1, size: ImageSize::new(64, 64) }
                .to_png()
                .into();
        let caller = BudgetOwner::Token("me".to_owned());
        let body = budget.read(&caller, &HeaderMap::new(), Body::from(picture.clone())).await.unwrap();
        let fields = Fields::parse(br#"{"prompt":"a"}"#, REQUEST_FIELDS).unwrap();
        let limits = Limits { max_n: 1, max_pixels: 1 << 20, max_seed: 9 };
        let request = ImageRequest::read(&fields, limits).unwrap();
        let model = Some(EngineModel::without_settings("k", "n", BaseModel::Sd1));
        let choice = ModelChoice { name: "n".into(), model, preset: None };
        let job = Job::warm_up(choice.clone());
        let own = ImageSize::new(64, 64);
        let start =
            EditInput { image: picture.clone(), mask: None, original_size: own, is_large: false, body };
        let canvas = start.canvas(&request, &choice, limits.max_pixels);
        let prepare = start.into_decode_step(&request, choice, canvas, limits);
        assert_eq!(budget.held(), picture.len());
        (prepare.decode)(job, &CancellationToken::new()).unwrap();
        assert_eq!(budget.held(), 0);
    }
}
