//! `POST /v1/images/generations`, from the body to the answer.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::{
    Extension, Json,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use shared::{
    openai::{
        fields::Fields,
        images::{ImageObject, ImagesResponse, Usage},
    },
    service::request_id::RequestId,
};

use crate::{
    engine::{Picture, catalog},
    error::ApiError,
    images::{Delivery, GenerationRequest, Job, Limits},
    state::App,
};

/// Makes pictures. The body is read whole before anything else: only then is a caller's hang-up noticed, and a
/// hang-up drops this future and with it the job's handle, which cancels the job.
pub(super) async fn generations(
    State(app): State<App>,
    Extension(id): Extension<RequestId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let config = &app.config;
    let limits = Limits { max_n: config.max_n, max_pixels: config.max_pixels };
    let body = app.bodies.read(&headers, body).await?;
    let request = GenerationRequest::read(&Fields::parse(&body.bytes)?, limits)?;
    drop(body);

    app.gate()?;
    let survey = app.survey()?;
    let model =
        catalog::resolve(&survey.models, request.model.as_deref(), config.default_model.as_deref())?.clone();
    let job = Job::plan(&request, model, any_seed(), limits)?;
    let permit = app.jobs.slots().try_enter().ok_or(ApiError::Busy { limit: config.max_inflight })?;
    if survey.others_waiting > config.max_engine_queue {
        return Err(ApiError::EngineBusy { waiting: survey.others_waiting });
    }

    let time = config.request_timeout.min(time_left(&headers).unwrap_or(Duration::MAX));
    let mut handle = app.jobs.start(job.clone(), permit, id.as_str().to_owned());
    let pictures =
        tokio::time::timeout(time, handle.finished()).await.map_err(|_| ApiError::TooSlow(time))??;
    render(&app, &headers, &request, &job, pictures).await
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

async fn render(
    app: &App,
    headers: &HeaderMap,
    request: &GenerationRequest,
    job: &Job,
    pictures: Vec<Picture>,
) -> Result<Response, ApiError> {
    let format = pictures.first().map(|picture| picture.format.name().to_owned());
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let (recent, delivery, base) = (app.recent.clone(), request.delivery, format!("http://{host}"));
    let object = move |picture: &Picture| {
        let seed = Some(u64::from(picture.seed));
        match delivery {
            Delivery::Base64 => ImageObject {
                b64_json: Some(base64_simd::STANDARD.encode_to_string(&picture.bytes)),
                seed,
                ..ImageObject::default()
            },
            Delivery::Address => {
                let url = format!("{base}/v1/images/files/{}", recent.keep(picture));
                ImageObject { url: Some(url), seed, ..ImageObject::default() }
            }
        }
    };
    let answer = ImagesResponse {
        created: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        data: Vec::new(),
        background: Some("opaque".to_owned()),
        output_format: format,
        quality: Some(request.quality.name().to_owned()),
        size: Some(job.size.to_string()),
        usage: Some(Usage::default()),
    };
    // Megabytes of base64 and JSON: not on the threads that accept connections.
    let rendered = tokio::task::spawn_blocking(move || {
        let data = pictures.iter().map(object).collect();
        Json(ImagesResponse { data, ..answer }).into_response()
    });
    rendered.await.map_err(|_| ApiError::Panic)
}

/// A picture that an answer named.
pub(super) async fn file(State(app): State<App>, Path(name): Path<String>) -> Result<Response, ApiError> {
    let (bytes, format) = app.recent.find(&name).ok_or(ApiError::NoSuchPicture)?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(format.mime())),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=3600, immutable")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox")),
    ];
    Ok((headers, bytes).into_response())
}
