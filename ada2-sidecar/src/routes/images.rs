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
use service::{
    body::{Holder, WholeBody},
    form::is_multipart,
    parsing::parse,
    request_id::RequestId,
};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use wire::openai::{
    fields::{FieldError, Fields},
    images::Size,
    inline_images::{GENERATION_MEMBERS, form_at_generations, refuse_images},
    object::{Object, before_json},
};

use self::form::Upload;
use crate::{
    access::BaseUrl,
    app::App,
    error::ApiError,
    images::choice::{self, Choice},
    images::{Canvas, FIELDS, ImageRequest, Job, Limits, Route},
    jobs::{Prepare, Work},
    pictures,
};

/// Pictures from words. The body is read whole before anything else: only then is a caller's hang-up noticed, and a
/// hang-up drops this future and with it the job's handle, which cancels the job.
pub(super) async fn generations(
    State(app): State<App>,
    Extension(id): Extension<RequestId>,
    Extension(holder): Extension<Holder>,
    Extension(base_url): Extension<BaseUrl>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let body = app.bodies.read(&holder, &headers, body).await?;
    let (limits, is_form) = (app.limits(), headers.get(header::CONTENT_TYPE).is_some_and(is_multipart));
    let (body, request) = parse(body, move |body| {
        if is_form {
            return Err(form_at_generations());
        }
        let object = Object::read(&body[before_json(body)..], &[FIELDS, GENERATION_MEMBERS].concat())?;
        refuse_images(&object)?;
        ImageRequest::read(&Fields::of_object(&object, FIELDS)?, limits)
    })
    .await;
    drop(body);
    let request = request?;
    make(&app, (&headers, base_url), &id, request, None).await
}

/// Pictures from a picture and words.
pub(super) async fn edits(
    State(app): State<App>,
    Extension(id): Extension<RequestId>,
    Extension(holder): Extension<Holder>,
    Extension(base_url): Extension<BaseUrl>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let body = app.bodies.read(&holder, &headers, body).await?;
    let (head, limits) = (headers.clone(), app.limits());
    let reader = move |body: &Bytes| {
        let upload = form::read(&head, body)?;
        let request = ImageRequest::read(&upload.fields, limits)?;
        let own = pictures::size_of("image", &upload.picture)?;
        let of_mask = upload.mask.as_ref().map(|mask| pictures::size_of("mask", mask)).transpose()?;
        let large = [Some(own), of_mask].into_iter().flatten().any(pictures::is_large);
        Ok::<_, FieldError>((request, own, large, upload))
    };
    let (body, read) = parse(body, reader).await;
    let (request, own, large, Upload { picture, mask, .. }) = read?;
    make(&app, (&headers, base_url), &id, request, Some(Start { picture, mask, own, large, body })).await
}

/// What an edit starts from, as it came. The body's budget is held until it is decoded.
struct Start {
    picture: Bytes,
    mask: Option<Bytes>,
    /// The picture's size.
    own: Size,
    large: bool,
    body: WholeBody,
}

impl Start {
    /// What is made of it.
    fn canvas(&self, request: &ImageRequest, choice: &Choice, max_pixels: u64) -> Canvas {
        let to_make = pictures::size_to_make(self.own, max_pixels);
        let own = if self.own.pixels() > max_pixels { to_make } else { self.own };
        Canvas::of(request, choice, self.mask.is_some(), own, to_make)
    }

    /// Decoding it is the job's.
    fn prepare(self, request: &ImageRequest, choice: Choice, canvas: Canvas, limits: Limits) -> Prepare {
        let Self { picture, mask, large, body, .. } = self;
        let request = request.clone();
        let work = Box::new(move |planned: Job, cancel: &CancellationToken| {
            let source = pictures::prepare(&picture, mask.as_deref(), canvas.size, cancel);
            drop(body);
            planned.from_source(source?, &request, &choice, canvas, limits)
        });
        Prepare { large, work }
    }
}

async fn make(
    app: &App,
    (headers, base_url): (&HeaderMap, BaseUrl),
    id: &RequestId,
    request: ImageRequest,
    start: Option<Start>,
) -> Result<Response, ApiError> {
    let arrival = Instant::now();
    let config = &app.config;
    app.gate()?; // may work be admitted
    let survey = app.survey()?;
    let asked = request.model.as_deref();
    let choice = choice::resolve(&survey.models, &config.presets, asked, config.default_model.as_deref())?;
    let limits = app.limits();
    let canvas = start.as_ref().map(|start| start.canvas(&request, &choice, limits.max_pixels));
    let planned = Job::plan(&request, choice.clone(), canvas, any_seed(), limits)?;
    let permit = app.jobs.slots().try_enter().ok_or(ApiError::Busy { limit: config.max_inflight })?;
    if survey.others_waiting > config.max_engine_queue {
        return Err(ApiError::EngineBusy { waiting: survey.others_waiting });
    }
    let (route, prepare) = match start.zip(canvas) {
        None => (Route::Generations, None),
        Some((start, canvas)) => (Route::Edits, Some(start.prepare(&request, choice, canvas, limits))),
    };
    let job = Job { discard: config.privacy.discard_outputs, ..planned };
    if config.privacy.log_prompts {
        tracing::info!(request_id = id.as_str(), prompt = ?job.prompt, "prompt");
    }
    let time = config.request_timeout.min(time_left(headers).unwrap_or(Duration::MAX));
    let (deadline, too_slow) = (arrival + time, |_| ApiError::TooSlow(time));
    let answer = render::Answer::of(app, base_url, &request, &job);
    let id = id.as_str().to_owned();
    if let Some(partials) = request.partial_images {
        let work = Work { job, prepare, finish: stream::finish(answer.clone(), route) };
        let mut handle = app.jobs.start(work, permit, id);
        // What cannot be decoded has a status, which a stream has sent already.
        timeout_at(deadline, handle.prepared()).await.map_err(too_slow)??;
        let lifecycle = app.jobs.lifecycle();
        return Ok(stream::answer(handle, answer, route, partials, (deadline, time), lifecycle));
    }
    let finish =
        Box::new(move |pictures, job: &Job, cancel: &CancellationToken| answer.whole(pictures, job, cancel));
    let mut handle = app.jobs.start(Work { job, prepare, finish }, permit, id);
    let json = timeout_at(deadline, handle.finished()).await.map_err(too_slow)??;
    Ok(([(header::CONTENT_TYPE, "application/json")], json).into_response())
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

impl App {
    fn limits(&self) -> Limits {
        let config = &self.config;
        Limits { max_n: config.max_n, max_pixels: config.max_pixels, max_seed: config.engine.max_seed() }
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

#[cfg(test)]
mod tests {
    use picture::paint::Painting;
    use service::body::BodyBudget;

    use super::*;
    use crate::images::models::{Base, EngineModel};

    #[tokio::test]
    async fn a_body_counts_until_its_picture_is_decoded() {
        let budget = BodyBudget::new(1 << 20, 1 << 20);
        let picture: Bytes =
            Painting { painter: "test", prompt: "a", seed: 1, size: Size::new(64, 64) }.to_png().into();
        let caller = Holder::Token("me".to_owned());
        let body = budget.read(&caller, &HeaderMap::new(), Body::from(picture.clone())).await.unwrap();
        let fields = Fields::parse(br#"{"prompt":"a"}"#, FIELDS).unwrap();
        let limits = Limits { max_n: 1, max_pixels: 1 << 20, max_seed: 9 };
        let request = ImageRequest::read(&fields, limits).unwrap();
        let model = Some(EngineModel::plain("k", "n", Base::Sd1));
        let choice = Choice { name: "n".into(), model, preset: None };
        let job = Job::warm_up(choice.clone());
        let own = Size::new(64, 64);
        let start = Start { picture: picture.clone(), mask: None, own, large: false, body };
        let canvas = start.canvas(&request, &choice, limits.max_pixels);
        let prepare = start.prepare(&request, choice, canvas, limits);
        assert_eq!(budget.held(), picture.len());
        (prepare.work)(job, &CancellationToken::new()).unwrap();
        assert_eq!(budget.held(), 0);
    }
}
