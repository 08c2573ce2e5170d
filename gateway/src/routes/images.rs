//! `POST /v1/images/generations`: the spine. Each value is the proof that the next step needs.

use std::time::Duration;

use axum::{
    Extension, Json,
    extract::{Request, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};
use shared::service::request_id::RequestId;
use tokio::time::Instant;

use crate::{
    backend::{Answer, Backends, Made, Outgoing, mock},
    blocking::blocking,
    config::{Capability, Delivery, ImageEngine},
    error::ApiError,
    middleware::{access_log::Account, gate::Caller},
    policy::{
        admission::Grant,
        catalog::{Permitted, permit_images},
        demand::Demand,
    },
    state::{App, unix_now},
    store::PictureName,
};

/// The handler: what is asked, answered or refused.
pub(crate) async fn generations(
    State(app): State<App>,
    Extension(account): Extension<Account>,
    Extension(id): Extension<RequestId>,
    caller: Option<Extension<Caller>>,
    request: Request,
) -> Response {
    let kind = Capability::Images.as_str();
    account.note(|known| known.route_kind = Some(kind));
    // The gate lets nobody else come this far.
    if caller.is_none() {
        return ApiError::Unauthenticated.into_response();
    }
    let mut class = None;
    match generate(&app, &account, &id, request, &mut class).await {
        Ok(response) => response,
        Err(error) => error.answer(Some(kind), class.as_deref()),
    }
}

async fn generate(
    app: &App,
    account: &Account,
    id: &RequestId,
    request: Request,
    class: &mut Option<String>,
) -> Result<Response, ApiError> {
    let arrival = Instant::now();
    let (parts, body) = request.into_parts();
    let ask = app.bodies.read(&parts.headers, body).await.map_err(ApiError::Body)?;
    let demand = read(app, &parts.headers, &ask.bytes)?; // what is asked
    let permitted =
        permit_images(&app.config.backends, &app.config.images, &demand).map_err(ApiError::Denied)?; // may it
    *class = Some(note(account, &permitted));
    app.look_for_sleep(); // or the first request after it would be admitted on what was known before
    let live = app.health.route(permitted).map_err(ApiError::NotReady)?; // is anyone up
    let grant = app.admission.enter(live).map_err(ApiError::Busy)?; // is there room: now or 429
    let answer = match grant.permitted().engine() {
        ImageEngine::Mock => mock::paint(grant, &demand).await,
        ImageEngine::Backend => {
            let outgoing = outgoing(app, arrival, &parts.headers, id, demand, &grant);
            drop(ask);
            send(app, grant, outgoing).await? // do it, once
        }
    };
    let kept = keep(app, answer).await?; // keep it
    Ok(render(kept, app.config.public_base_url.as_deref().unwrap_or_default())) // answer
}

fn read(app: &App, headers: &HeaderMap, body: &[u8]) -> Result<Demand, ApiError> {
    let backend =
        headers.get("x-backend").map(|name| String::from_utf8_lossy(name.as_bytes()).trim().to_owned());
    let backend = backend.filter(|name| !name.is_empty());
    Demand::of_images(body, backend, app.config.images.max_pixels).map_err(ApiError::Malformed)
}

/// Notes where the request goes; gives the class.
fn note(account: &Account, permitted: &Permitted) -> String {
    account.note(|known| {
        known.backend = Some(permitted.used().to_owned());
        known.model = Some(permitted.model().unwrap_or("default").to_owned());
        known.reason = Some("backend_class");
    });
    permitted.backend().class.clone()
}

/// The caller's body, but for the model and the form of the pictures, which we store in any case.
fn outgoing(
    app: &App,
    arrival: Instant,
    headers: &HeaderMap,
    id: &RequestId,
    demand: Demand,
    grant: &Grant,
) -> Outgoing {
    let mut fields = demand.fields;
    fields.set("response_format", "b64_json");
    match grant.permitted().model() {
        Some(model) => fields.set("model", model),
        None => fields.remove("model"),
    }
    Outgoing {
        body: fields.to_bytes(),
        request_id: id.header(),
        deadline: arrival + app.config.images.timeout,
        caller_deadline: caller_patience(headers).map(|patience| arrival + patience),
    }
}

/// How long the caller's own library waits, as OpenAI's Python library says.
fn caller_patience(headers: &HeaderMap) -> Option<Duration> {
    let seconds: f64 = headers.get("x-stainless-read-timeout")?.to_str().ok()?.trim().parse().ok()?;
    (seconds > 0.0 && seconds < 86_400.0).then(|| Duration::from_secs_f64(seconds))
}

async fn send(app: &App, grant: Grant, outgoing: Outgoing) -> Result<Answer, ApiError> {
    let class = grant.permitted().backend().class.clone();
    let backends: &Backends = &app.backends;
    backends.generate(grant, outgoing).await.map_err(|fault| {
        if let Some(evidence) = fault.evidence() {
            app.health.learn(&class, evidence);
        } else if fault.is_suspicious() {
            app.health.probe_soon(&class);
        }
        ApiError::Backend(class, fault)
    })
}

/// Pictures in the store, ready to be handed out.
struct Kept {
    pictures: Vec<KeptPicture>,
    rest: Map<String, Value>,
    unix: u64,
}

struct KeptPicture {
    name: PictureName,
    base64: Option<String>,
    words: Map<String, Value>,
}

/// Stores every picture, base64 or not. The place in the backend is held until it is done.
async fn keep(app: &App, answer: Answer) -> Result<Kept, ApiError> {
    let Answer { grant, made, rest } = answer;
    let store = app.store.clone();
    let bytes = made.iter().map(|made| made.picture.bytes().len()).sum();
    let inline = grant.permitted().delivery() == Delivery::Base64;
    let unix = unix_now();
    let pictures = blocking(move || {
        let pictures: Vec<_> = made.iter().map(|made| &made.picture).collect();
        let names = store.keep(&pictures, unix)?;
        let hand_out = |(name, Made { picture, words })| KeptPicture {
            name,
            base64: inline.then(|| base64_simd::STANDARD.encode_to_string(picture.bytes())),
            words,
        };
        Ok(names.into_iter().zip(made).map(hand_out).collect())
    });
    let pictures: Vec<_> = pictures.await.map_err(ApiError::Store)?;
    app.metrics.stored(pictures.len(), bytes);
    drop(grant);
    Ok(Kept { pictures, rest, unix })
}

fn render(kept: Kept, base: &str) -> Response {
    let Kept { pictures, rest: mut answer, unix } = kept;
    let entry = |picture: KeptPicture| {
        let mut entry = picture.words;
        match picture.base64 {
            Some(base64) => entry.insert("b64_json".to_owned(), base64.into()),
            None => {
                entry.insert("url".to_owned(), format!("{base}/ui/images/{}", picture.name.as_str()).into())
            }
        };
        Value::Object(entry)
    };
    answer.insert("data".to_owned(), pictures.into_iter().map(entry).collect());
    if !answer.get("created").is_some_and(Value::is_u64) {
        answer.insert("created".to_owned(), json!(unix));
    }
    Json(Value::Object(answer)).into_response()
}
