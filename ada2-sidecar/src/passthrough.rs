//! Forwards every request for a path of the engine's, and streams both bodies without buffering. Readiness does not gate
//! it, because the engine's page is where users repair it.
//!
//! Only a GET or HEAD without a body may use a pooled connection, and only such a request is ever sent again. Any other
//! may spend GPU time or change something, so it is sent once, on a new connection.

mod engine_down_page;
mod headers;
mod pool;
mod tunnel;
mod upload;

use std::{fmt, pin::pin, sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{
        HeaderValue, Method, Request, Response, StatusCode, Version,
        header::{HOST, TRANSFER_ENCODING},
    },
};
use hyper::{
    body::{Body as _, Incoming},
    client::conn::TrySendError,
    upgrade::{OnUpgrade, on},
};
use reqwest::Url;
use service::{
    client_info::ClientInfo,
    framing::{self, ConnectionReuse, FramingError},
    lifecycle::Lifecycle,
    serve::{ConnectionPermit, RequestBody},
};
use tokio::time::{Instant, timeout_at};

pub(crate) use self::engine_down_page::{engine_down_page, wants_html_page};
use self::{
    pool::{ConnectError, Pool, ResponseBody, Sender},
    upload::{Upload, UploadError, UploadState},
};

/// For the engine: until the response's head, and between two pieces of its body.
const ENGINE_TIMEOUT: Duration = Duration::from_mins(5);
/// For the client: between two pieces of its body.
const CLIENT_TIMEOUT: Duration = Duration::from_mins(1);

/// Why there is no response of the engine's.
#[derive(Debug)]
pub(crate) enum PassThroughError {
    /// No connection, and why.
    Unreachable(String),
    /// The connection ended before the response's head.
    ConnectionBroken(String),
    /// No head within [`ENGINE_TIMEOUT`].
    ResponseTimeout,
    /// The engine switched protocols without a request to.
    UnexpectedUpgrade,
    /// The end of the engine's response is ambiguous.
    Framing(FramingError),
    /// The client's body has more than this many bytes.
    UploadTooLarge(u64),
    UploadStalled,
    UploadAborted,
}

impl fmt::Display for PassThroughError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(reason) => write!(f, "The engine cannot be reached: {reason}."),
            Self::ConnectionBroken(reason) => {
                write!(f, "The engine closed the connection without a response: {reason}.")
            }
            Self::ResponseTimeout => {
                write!(f, "The engine did not respond within {} s.", ENGINE_TIMEOUT.as_secs())
            }
            Self::UnexpectedUpgrade => {
                write!(f, "The engine switched protocols unexpectedly.")
            }
            Self::Framing(error) => write!(f, "The engine's response cannot be forwarded: {error}."),
            Self::UploadTooLarge(limit) => {
                write!(f, "The body has more than {limit} bytes (--max-upload-bytes).")
            }
            Self::UploadStalled => write!(f, "The body stopped arriving."),
            Self::UploadAborted => write!(f, "The body could not be read to its end."),
        }
    }
}

#[derive(Debug)]
pub(crate) struct PassThrough {
    pool: Arc<Pool>,
    /// The `Host` for a client that sends none.
    authority: HeaderValue,
    lifecycle: Lifecycle,
    /// Bytes of a body; none for no limit.
    max_upload: Option<u64>,
}

impl PassThrough {
    pub(crate) fn new(engine: &Url, max_upload: Option<u64>, lifecycle: Lifecycle) -> Self {
        let host = engine.host_str().unwrap_or_default();
        let authority = engine.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let authority = HeaderValue::try_from(authority).expect("the host of a URL is ASCII");
        Self { pool: Pool::new(engine, lifecycle.clone()), authority, lifecycle, max_upload }
    }

    pub(crate) async fn forward(
        &self,
        mut request: Request<RequestBody>,
        client: &ClientInfo,
        id: &HeaderValue,
    ) -> Result<Response<Body>, PassThroughError> {
        let upgrade = UpgradeRequest::from_request(&mut request);
        let (mut parts, incoming) = request.into_parts();
        headers::prepare_request(&mut parts, client, id, upgrade.is_some());
        // HTTP/1.0 needs no `Host`, and the engine gets HTTP/1.1.
        parts.headers.entry(HOST).or_insert_with(|| self.authority.clone());
        let (upload, state) = Upload::new(incoming, self.max_upload)?;
        if !upload.is_end_stream() && upload.size_hint().exact().is_none() {
            // Without it hyper sends no body with GET and HEAD.
            parts.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        let is_retryable = upgrade.is_none() && upload.is_end_stream() && is_safe_method(&parts.method);
        parts.version = Version::HTTP_11;
        let request = Request::from_parts(parts, upload);
        let sent = if is_retryable {
            self.send_pooled(request).await
        } else {
            self.send_on_new_connection(request, state).await
        };
        let (sender, response) = sent?;
        self.client_response(sender, response, upgrade)
    }

    /// Tries idle connections, then a new one. The engine may close an idle connection just as it is used: a request that
    /// was not written goes over the next one, a request that got no response is sent once more.
    async fn send_pooled(
        &self,
        mut request: Request<Upload>,
    ) -> Result<(Sender, Response<Incoming>), PassThroughError> {
        while let Some(mut sender) = self.pool.take() {
            let retry = clone_without_body(&request);
            match send(&mut sender, request, None).await {
                Ok(response) => return Ok((sender, response)),
                Err(SendError::NotSent(unsent)) => request = *unsent,
                Err(SendError::ConnectionClosed(_)) => {
                    request = retry;
                    break;
                }
                Err(SendError::Timeout) => return Err(PassThroughError::ResponseTimeout),
                Err(SendError::Malformed(error)) => {
                    return Err(PassThroughError::ConnectionBroken(error.to_string()));
                }
            }
        }
        self.send_on_new_connection(request, None).await
    }

    async fn send_on_new_connection(
        &self,
        request: Request<Upload>,
        state: Option<Arc<UploadState>>,
    ) -> Result<(Sender, Response<Incoming>), PassThroughError> {
        let mut sender = self
            .pool
            .connect()
            .await
            .map_err(|ConnectError(reason)| PassThroughError::Unreachable(reason))?;
        let error = match send(&mut sender, request, state.as_deref()).await {
            Ok(response) => return Ok((sender, response)),
            Err(SendError::Timeout) => return Err(PassThroughError::ResponseTimeout),
            Err(SendError::NotSent(_)) => "it closed the connection at once".to_owned(),
            Err(SendError::ConnectionClosed(error) | SendError::Malformed(error)) => error.to_string(),
        };
        // If the client's body failed, hyper closed the connection, not the engine.
        Err(match state.and_then(|state| state.error()) {
            Some(UploadError::TooLarge) => {
                PassThroughError::UploadTooLarge(self.max_upload.unwrap_or_default())
            }
            Some(UploadError::Stalled) => PassThroughError::UploadStalled,
            Some(UploadError::Aborted) => PassThroughError::UploadAborted,
            None => PassThroughError::ConnectionBroken(error),
        })
    }

    fn client_response(
        &self,
        sender: Sender,
        mut response: Response<Incoming>,
        upgrade: Option<UpgradeRequest>,
    ) -> Result<Response<Body>, PassThroughError> {
        let (version, status) = (response.version(), response.status());
        let reuse =
            framing::normalize(version, status, response.headers_mut()).map_err(PassThroughError::Framing)?;
        *response.version_mut() = Version::HTTP_11;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let upgrade = upgrade.filter(|_| headers::is_websocket(response.headers()));
            let UpgradeRequest { client, permit } = upgrade.ok_or(PassThroughError::UnexpectedUpgrade)?;
            tunnel::spawn(&self.lifecycle, client, on(&mut response), permit);
            headers::prepare_response(response.headers_mut(), true);
            return Ok(response.map(|_| Body::empty()));
        }
        headers::prepare_response(response.headers_mut(), false);
        let pool = (reuse == ConnectionReuse::Allowed).then(|| self.pool.clone());
        Ok(response.map(|body| Body::new(ResponseBody::new(body, sender, pool))))
    }
}

/// The client's side of a requested WebSocket.
struct UpgradeRequest {
    client: OnUpgrade,
    /// The client's place in the connection limit, which the WebSocket keeps.
    permit: Option<Arc<ConnectionPermit>>,
}

impl UpgradeRequest {
    fn from_request(request: &mut Request<RequestBody>) -> Option<Self> {
        let is_websocket_upgrade = request.method() == Method::GET
            && request.version() == Version::HTTP_11
            && request.body().is_end_stream()
            && headers::is_websocket(request.headers());
        is_websocket_upgrade
            .then(|| Self { client: on(&mut *request), permit: request.extensions().get().cloned() })
    }
}

fn is_safe_method(method: &Method) -> bool {
    method == Method::GET || method == Method::HEAD
}

/// For a request that has no body.
fn clone_without_body(request: &Request<Upload>) -> Request<Upload> {
    let mut copy = Request::new(Upload::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

enum SendError {
    /// No byte of it was written.
    NotSent(Box<Request<Upload>>),
    /// The connection ended without a response.
    ConnectionClosed(hyper::Error),
    /// The bytes received are not an HTTP response.
    Malformed(hyper::Error),
    Timeout,
}

async fn send(
    sender: &mut Sender,
    request: Request<Upload>,
    state: Option<&UploadState>,
) -> Result<Response<Incoming>, SendError> {
    let mut response = pin!(sender.try_send_request(request));
    let mut deadline = Instant::now() + ENGINE_TIMEOUT;
    loop {
        match timeout_at(deadline, response.as_mut()).await {
            Ok(result) => return result.map_err(SendError::from_hyper),
            // The engine cannot respond before it has the body, which has a timeout of its own.
            Err(_) => match state.map(|state| state.last_progress() + ENGINE_TIMEOUT) {
                Some(extended) if extended > Instant::now() => deadline = extended,
                _ => return Err(SendError::Timeout),
            },
        }
    }
}

impl SendError {
    fn from_hyper(mut error: TrySendError<Request<Upload>>) -> Self {
        if let Some(request) = error.take_message() {
            return Self::NotSent(Box::new(request));
        }
        let error = error.into_error();
        if error.is_parse() || error.is_parse_too_large() {
            Self::Malformed(error)
        } else {
            Self::ConnectionClosed(error)
        }
    }
}
