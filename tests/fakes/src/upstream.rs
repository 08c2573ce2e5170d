//! A fake backend that speaks the OpenAI Images API: it follows its script and records its requests.

mod reply;
pub mod sse;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use picture::painter::ProceduralImage;
use serde_json::{Value, json};
use service::{
    lifecycle::Lifecycle,
    serve::{HttpServer, PeerAddr, accept},
};
use tokio::sync::watch;
use wire::openai::images::ImageSize;

pub use self::reply::UpstreamReply;
use crate::form::{self, UploadedPart};

/// The paths that make images.
const IMAGES: [&str; 2] = ["/v1/images/generations", "/v1/images/edits"];

/// A request that arrived.
#[derive(Debug, Clone)]
pub struct UpstreamRequest {
    /// The method and the path with its query.
    pub line: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body: JSON as it is, of a form the texts; null if it is neither.
    pub body: Value,
    /// The body's bytes.
    pub bytes: Bytes,
    /// The parts of a form.
    pub parts: Vec<UploadedPart>,
    /// The connection, as the client's address.
    pub connection: SocketAddr,
}

impl UpstreamRequest {
    /// A header as text; empty if absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// A running fake. Dropping it ends it.
#[derive(Debug)]
pub struct Upstream {
    /// `http://127.0.0.1:port`.
    pub url: String,
    script: Arc<UpstreamScript>,
    lifecycle: Lifecycle,
}

#[derive(Debug)]
struct UpstreamScript {
    paths: Mutex<Vec<(String, UpstreamReply)>>,
    once: Mutex<VecDeque<UpstreamReply>>,
    requests: Mutex<Vec<UpstreamRequest>>,
    released: watch::Sender<bool>,
    /// How many waits of each script of events are over.
    steps: watch::Sender<usize>,
    /// Image requests in flight, and those whose client disconnected before the answer.
    held: watch::Sender<(usize, usize)>,
}

impl Upstream {
    /// A ready backend that paints.
    pub async fn start() -> Self {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let url = format!("http://{}", socket.local_addr().expect("a bound socket has an address"));
        let models = json!({"object": "list", "data": [{"id": "sd-xl-base-1.0", "owned_by": "invokeai"}]});
        let paths = vec![
            ("/healthz".to_owned(), UpstreamReply::Respond(200, Vec::new(), b"ok".to_vec())),
            ("/readyz".to_owned(), UpstreamReply::Respond(200, Vec::new(), b"ready".to_vec())),
            ("/v1/models".to_owned(), UpstreamReply::json(200, models)),
            (IMAGES[0].to_owned(), UpstreamReply::Images),
            (IMAGES[1].to_owned(), UpstreamReply::Images),
        ];
        let script = Arc::new(UpstreamScript {
            paths: Mutex::new(paths),
            once: Mutex::default(),
            requests: Mutex::default(),
            released: watch::Sender::new(false),
            steps: watch::Sender::new(0),
            held: watch::Sender::new((0, 0)),
        });
        let lifecycle = Lifecycle::new();
        let router = Router::new().fallback(answer).with_state(script.clone());
        lifecycle.spawn_worker("accept", accept(socket, HttpServer::plain(router), lifecycle.clone()));
        Self { url, script, lifecycle }
    }

    /// Sets the path's response from now on.
    pub fn set(&self, path: &str, reply: UpstreamReply) {
        let mut paths = lock(&self.script.paths);
        paths.retain(|(other, _)| other != path);
        paths.push((path.to_owned(), reply));
    }

    /// Sets the response to image requests from now on.
    pub fn set_images(&self, reply: UpstreamReply) {
        self.set(IMAGES[0], reply.clone());
        self.set(IMAGES[1], reply);
    }

    /// Queues a response to the next image request.
    pub fn next_image(&self, reply: UpstreamReply) {
        lock(&self.script.once).push_back(reply);
    }

    /// Lets every held request continue.
    pub fn release(&self) {
        self.script.released.send_replace(true);
    }

    /// Lets every script of events continue past its next wait.
    pub fn step(&self) {
        self.script.steps.send_modify(|steps| *steps += 1);
    }

    /// Waits until this many image requests are held here (bounded).
    pub async fn until_held(&self, count: usize) {
        crate::eventually("image requests held", async || {
            (self.script.held.borrow().0 == count).then_some(())
        })
        .await;
    }

    /// Waits until this many clients disconnected before their answer (bounded).
    pub async fn until_disconnected(&self, count: usize) {
        crate::eventually("clients disconnected", async || {
            (self.script.held.borrow().1 == count).then_some(())
        })
        .await;
    }

    /// The requests to a path so far.
    pub fn requests(&self, path: &str) -> Vec<UpstreamRequest> {
        let ends = format!(" {path}");
        lock(&self.script.requests).iter().filter(|request| request.line.ends_with(&ends)).cloned().collect()
    }

    /// The generation requests so far.
    pub fn images(&self) -> Vec<UpstreamRequest> {
        self.requests(IMAGES[0])
    }

    /// The edit requests so far.
    pub fn edits(&self) -> Vec<UpstreamRequest> {
        self.requests(IMAGES[1])
    }

    /// Stops listening; new connections are refused.
    pub async fn stop(&self) {
        self.lifecycle.begin_drain();
        self.lifecycle.aborting().cancel();
        self.lifecycle.wait_until_stopped(std::time::Duration::ZERO).await.expect("it shuts down cleanly");
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.lifecycle.begin_drain();
        self.lifecycle.aborting().cancel();
    }
}

async fn answer(State(script): State<Arc<UpstreamScript>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let bytes = to_bytes(body, 64 << 20).await.unwrap_or_default();
    let form = form::read(&parts.headers, &bytes).await;
    let body = texts(&form).unwrap_or_else(|| serde_json::from_slice(&bytes).unwrap_or_default());
    let peer = parts.extensions.get::<PeerAddr>().expect("the accept loop sets the peer's address").0;
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
    let line = format!("{} {target}", parts.method);
    lock(&script.requests).push(UpstreamRequest {
        line,
        headers: parts.headers,
        body: body.clone(),
        bytes,
        parts: form,
        connection: peer,
    });
    let once = if IMAGES.contains(&target.as_str()) { lock(&script.once).pop_front() } else { None };
    let listed =
        || lock(&script.paths).iter().find(|(path, _)| *path == target).map(|(_, reply)| reply.clone());
    match once.or_else(listed) {
        Some(UpstreamReply::Images) => images_response(&body),
        Some(UpstreamReply::Respond(status, headers, body)) => scripted_response(status, &headers, body),
        Some(UpstreamReply::Hold) => {
            let mut held = HeldRequest::new(&script);
            let _ = script.released.subscribe().wait_for(|released| *released).await;
            held.answered = true;
            images_response(&body)
        }
        Some(UpstreamReply::Break) => broken_response(),
        Some(UpstreamReply::Events(acts)) => {
            sse::replay(acts, HeldRequest::new(&script), script.steps.subscribe())
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// A held request; dropped early when its client disconnects.
struct HeldRequest {
    script: Arc<UpstreamScript>,
    answered: bool,
}

impl HeldRequest {
    fn new(script: &Arc<UpstreamScript>) -> Self {
        script.held.send_modify(|(here, _)| *here += 1);
        Self { script: script.clone(), answered: false }
    }
}

impl Drop for HeldRequest {
    fn drop(&mut self) {
        self.script.held.send_modify(|(here, left)| {
            *here -= 1;
            *left += usize::from(!self.answered);
        });
    }
}

fn scripted_response(status: u16, headers: &[(&'static str, String)], body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    for (name, value) in headers {
        response.headers_mut().append(*name, value.parse().expect("a header's value"));
    }
    response
}

fn broken_response() -> Response {
    let chunks =
        [Ok(bytes::Bytes::from_static(b"{\"data\":[")), Err(std::io::Error::other("broken on purpose"))];
    Response::new(Body::from_stream(futures_util::stream::iter(chunks)))
}

fn images_response(request: &Value) -> Response {
    let size = request["size"].as_str().and_then(ImageSize::parse).unwrap_or(ImageSize::new(64, 64));
    let first = request["seed"].as_u64().unwrap_or(0);
    let count = request["n"].as_u64().unwrap_or(1);
    let data: Vec<_> = (0..count)
        .map(|nth| {
            let bytes = fake_image(request["prompt"].as_str().unwrap_or_default(), first + nth, size);
            json!({"b64_json": base64_simd::STANDARD.encode_to_string(bytes), "seed": first + nth})
        })
        .collect();
    axum::Json(json!({"created": 1_736_697_234, "data": data, "size": size.to_string()})).into_response()
}

/// The image that the fake makes.
pub fn fake_image(prompt: &str, seed: u64, size: ImageSize) -> Vec<u8> {
    ProceduralImage { label: "fake upstream", prompt, seed, size }.to_png()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The texts of a form, as JSON would have them as far as the fake reads them.
fn texts(form: &[UploadedPart]) -> Option<Value> {
    let texts = form.iter().filter(|part| part.file.is_none()).map(|part| {
        let text = String::from_utf8_lossy(&part.bytes).into_owned();
        let number = text.parse::<u64>().ok().filter(|_| matches!(part.name.as_str(), "n" | "seed"));
        (part.name.clone(), number.map_or(Value::String(text), Value::from))
    });
    (!form.is_empty()).then(|| Value::Object(texts.collect()))
}
