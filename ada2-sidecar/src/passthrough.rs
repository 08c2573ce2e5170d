//! Everything that is not ours goes to the engine, and its answer back, both ways byte by byte as they come. Nothing is
//! held, nothing is judged by readiness: the engine's own page is how people repair things.
//!
//! Only a GET or HEAD without body may travel on a kept connection, and only such a request is ever sent again: others
//! may spend GPU time or change something, and are sent once, on a connection of their own.

mod body;
mod headers;
mod page;
mod pool;
mod tunnel;

use std::{fmt, pin::pin, sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{HeaderValue, Method, Request, Response, StatusCode, Version, header::HOST},
};
use hyper::{
    body::{Body as _, Incoming},
    client::conn::TrySendError,
    upgrade::{OnUpgrade, on},
};
use reqwest::Url;
use service::{
    client::Client,
    framing::{self, FramingFault, Reuse},
    lifecycle::Lifecycle,
    serve::{RequestBody, Seat},
};
use tokio::time::{Instant, timeout_at};

pub(crate) use self::page::{engine_down, is_person};
use self::{
    body::{Download, Upload, UploadFault, UploadState},
    pool::{ConnectFault, Pool, Sender},
};

/// The engine may take this long for the head of an answer, and for more of its body.
const ENGINE_PATIENCE: Duration = Duration::from_mins(5);
/// A caller may take this long for more of its body.
const CALLER_PATIENCE: Duration = Duration::from_mins(1);

/// Why the engine's answer could not be had.
#[derive(Debug)]
pub(crate) enum PassFault {
    /// No connection could be made, and why.
    Down(String),
    /// The connection broke before the answer's head.
    Broken(String),
    /// No head within [`ENGINE_PATIENCE`].
    TooSlow,
    /// The engine changed to another protocol, which nobody had asked for.
    Unasked,
    /// Nobody can tell where its answer ends.
    Framing(FramingFault),
    /// The caller's body is longer than this many bytes.
    TooLarge(u64),
    /// The caller's body stopped coming.
    Stalled,
    /// The caller's body broke off.
    BrokenOff,
}

impl fmt::Display for PassFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Down(why) => write!(f, "The engine cannot be reached: {why}."),
            Self::Broken(why) => write!(f, "The engine broke off without an answer: {why}."),
            Self::TooSlow => write!(f, "The engine has not answered within {} s.", ENGINE_PATIENCE.as_secs()),
            Self::Unasked => write!(f, "The engine changed to another protocol without being asked to."),
            Self::Framing(fault) => write!(f, "The engine's answer cannot be passed on: {fault}."),
            Self::TooLarge(limit) => write!(f, "The body has more than {limit} bytes (--max-upload-bytes)."),
            Self::Stalled => write!(f, "The body stopped arriving."),
            Self::BrokenOff => write!(f, "The body could not be read to its end."),
        }
    }
}

/// The way to the one engine.
#[derive(Debug)]
pub(crate) struct PassThrough {
    pool: Arc<Pool>,
    /// What the engine is called by a caller that names no host.
    authority: HeaderValue,
    lifecycle: Lifecycle,
    /// Bytes of a body; `None` for no limit.
    max_upload: Option<u64>,
}

impl PassThrough {
    pub(crate) fn new(engine: &Url, max_upload: Option<u64>, lifecycle: Lifecycle) -> Self {
        let host = engine.host_str().unwrap_or_default();
        let authority = engine.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let authority = HeaderValue::try_from(authority).expect("the host of a URL is ASCII");
        Self { pool: Pool::new(engine, lifecycle.clone()), authority, lifecycle, max_upload }
    }

    /// One request, one answer.
    pub(crate) async fn forward(
        &self,
        mut request: Request<RequestBody>,
        client: &Client,
        id: &HeaderValue,
    ) -> Result<Response<Body>, PassFault> {
        let upgrade = Upgrade::wanted(&mut request);
        let (mut parts, incoming) = request.into_parts();
        headers::to_engine(&mut parts, client, id, upgrade.is_some());
        // HTTP/1.0 had none, and the engine is spoken to in HTTP/1.1.
        parts.headers.entry(HOST).or_insert_with(|| self.authority.clone());
        let (upload, state) = Upload::new(incoming, self.max_upload)?;
        let again = upgrade.is_none() && upload.is_end_stream() && is_safe(&parts.method);
        parts.version = Version::HTTP_11;
        let request = Request::from_parts(parts, upload);
        let sent = if again { self.send_kept(request).await } else { self.send_fresh(request, state).await };
        let (sender, response) = sent?;
        self.answer(sender, response, upgrade)
    }

    /// Over kept connections as long as there are any, then over a new one. The engine may close a kept one at the moment
    /// it is used: what it did not read is sent over the next, what it did not answer is sent again once.
    async fn send_kept(
        &self,
        mut request: Request<Upload>,
    ) -> Result<(Sender, Response<Incoming>), PassFault> {
        while let Some(mut sender) = self.pool.take() {
            let copy = head_of(&request);
            match send(&mut sender, request, None).await {
                Ok(response) => return Ok((sender, response)),
                Err(SendFault::Unsent(back)) => request = *back,
                Err(SendFault::Dead(_)) => {
                    request = copy;
                    break;
                }
                Err(SendFault::TooSlow) => return Err(PassFault::TooSlow),
                Err(SendFault::Nonsense(error)) => return Err(PassFault::Broken(error.to_string())),
            }
        }
        self.send_fresh(request, None).await
    }

    async fn send_fresh(
        &self,
        request: Request<Upload>,
        state: Option<Arc<UploadState>>,
    ) -> Result<(Sender, Response<Incoming>), PassFault> {
        let mut sender = self.pool.connect().await.map_err(|ConnectFault(why)| PassFault::Down(why))?;
        let error = match send(&mut sender, request, state.as_deref()).await {
            Ok(response) => return Ok((sender, response)),
            Err(SendFault::TooSlow) => return Err(PassFault::TooSlow),
            Err(SendFault::Unsent(_)) => "it closed the connection at once".to_owned(),
            Err(SendFault::Dead(error) | SendFault::Nonsense(error)) => error.to_string(),
        };
        // A connection that we broke because the caller's body failed is no fault of the engine's.
        Err(match state.and_then(|state| state.fault()) {
            Some(UploadFault::TooLarge) => PassFault::TooLarge(self.max_upload.unwrap_or_default()),
            Some(UploadFault::Stalled) => PassFault::Stalled,
            Some(UploadFault::BrokenOff) => PassFault::BrokenOff,
            None => PassFault::Broken(error),
        })
    }

    fn answer(
        &self,
        sender: Sender,
        mut response: Response<Incoming>,
        upgrade: Option<Upgrade>,
    ) -> Result<Response<Body>, PassFault> {
        let (version, status) = (response.version(), response.status());
        let reuse = framing::settle(version, status, response.headers_mut()).map_err(PassFault::Framing)?;
        *response.version_mut() = Version::HTTP_11;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let upgrade = upgrade.filter(|_| headers::is_websocket(response.headers()));
            let Upgrade { caller, seat } = upgrade.ok_or(PassFault::Unasked)?;
            tunnel::open(&self.lifecycle, caller, on(&mut response), seat);
            headers::to_caller(response.headers_mut(), true);
            return Ok(response.map(|_| Body::empty()));
        }
        headers::to_caller(response.headers_mut(), false);
        let pool = (reuse == Reuse::Allowed).then(|| self.pool.clone());
        Ok(response.map(|body| Body::new(Download::new(body, sender, pool))))
    }
}

/// The caller's side of a WebSocket that is asked for.
struct Upgrade {
    caller: OnUpgrade,
    /// The place among the connections that the WebSocket goes on holding.
    seat: Option<Arc<Seat>>,
}

impl Upgrade {
    fn wanted(request: &mut Request<RequestBody>) -> Option<Self> {
        let wanted = request.method() == Method::GET
            && request.version() == Version::HTTP_11
            && request.body().is_end_stream()
            && headers::is_websocket(request.headers());
        wanted.then(|| Self { caller: on(&mut *request), seat: request.extensions().get().cloned() })
    }
}

fn is_safe(method: &Method) -> bool {
    method == Method::GET || method == Method::HEAD
}

/// The same request, of one without body.
fn head_of(request: &Request<Upload>) -> Request<Upload> {
    let mut copy = Request::new(Upload::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

enum SendFault {
    /// Not a byte of it was written.
    Unsent(Box<Request<Upload>>),
    /// The connection ended without an answer.
    Dead(hyper::Error),
    /// What came is no answer.
    Nonsense(hyper::Error),
    TooSlow,
}

async fn send(
    sender: &mut Sender,
    request: Request<Upload>,
    state: Option<&UploadState>,
) -> Result<Response<Incoming>, SendFault> {
    let mut answer = pin!(sender.try_send_request(request));
    let mut deadline = Instant::now() + ENGINE_PATIENCE;
    loop {
        match timeout_at(deadline, answer.as_mut()).await {
            Ok(answer) => return answer.map_err(SendFault::of),
            // The engine waits for the caller as long as there is progress; the body itself has a shorter limit.
            Err(_) => match state.map(|state| state.last_progress() + ENGINE_PATIENCE) {
                Some(later) if later > Instant::now() => deadline = later,
                _ => return Err(SendFault::TooSlow),
            },
        }
    }
}

impl SendFault {
    fn of(mut error: TrySendError<Request<Upload>>) -> Self {
        if let Some(request) = error.take_message() {
            return Self::Unsent(Box::new(request));
        }
        let error = error.into_error();
        if error.is_parse() || error.is_parse_too_large() { Self::Nonsense(error) } else { Self::Dead(error) }
    }
}
