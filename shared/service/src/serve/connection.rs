//! One HTTP connection, above TCP or TLS.

use std::{
    convert::Infallible,
    future::poll_fn,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::Request,
    http::{HeaderMap, HeaderValue, StatusCode, Version, header},
    response::{IntoResponse, Response},
};
use http_body::{Frame, SizeHint};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    ConnectionPermit, Handler, HttpServer, PeerAddr, RequestBody, ServerLimits,
    connection_limiter::ConnectionState, head_error::HeadErrorStream, lingering_close::discard,
};
use crate::{
    error_response::ErrorResponse,
    framing,
    lifecycle::Lifecycle,
    request_id::{RequestId, X_REQUEST_ID},
};

/// How long a connection without a request may still send one while the service drains.
pub(super) const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(1);

/// For the end of a request body, once all of it has arrived and the next request with it.
const BODY_END_TIMEOUT: Duration = Duration::from_secs(1);

/// An accepted connection.
pub(super) struct Connection {
    pub(super) peer: SocketAddr,
    pub(super) permit: Arc<ConnectionPermit>,
}

pub(super) async fn serve_http<H, S>(
    stream: S,
    connection: Connection,
    listener: HttpServer<H>,
    life: Lifecycle,
) where
    H: Handler,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let HttpServer { handler, limits, .. } = listener;
    let Connection { peer, permit } = connection;
    let state = permit.state().clone();
    let first_request = CancellationToken::new();
    let seen_request = first_request.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        seen_request.cancel();
        let (handler, permit) = (handler.clone(), permit.clone());
        async move { Ok::<_, Infallible>(handle_request(&handler, request, peer, permit).await) }
    });
    let stream = HeadErrorStream::new(stream, peer, state.clone());
    let builder = http_builder(&limits);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service).with_upgrades());
    let mut discarding = None;
    let mut draining = false;
    loop {
        tokio::select! {
            // The connection first, so that the other branches see its current state.
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    debug!(%peer, %error, "connection ended");
                }
                return;
            }
            () = state.notify.notified() => {
                if state.is_evicted() {
                    return debug!(%peer, "connection evicted while it waited for its client: too many connections");
                }
                // Not while the service drains: the connection ends then.
                let unread = state.take_unread_body().filter(|_| !draining);
                discarding = unread.map(|unread| Box::pin(discard(unread, state.clone())));
            }
            () = wait_optional(&mut discarding) => discarding = None,
            () = until_closing(life.draining(), &first_request), if !draining => {
                draining = true;
                discarding = None;
                state.shutting_down.store(true, Ordering::Release);
                connection.as_mut().graceful_shutdown();
            }
            // hyper would wait for the rest of a head until its timeout.
            () = until_idle(&state), if draining => return,
            () = life.aborting().cancelled() => return,
        }
    }
}

fn http_builder(limits: &ServerLimits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_headers(limits.max_headers)
        .max_header_size(limits.max_head_bytes)
        .max_buf_size(limits.max_buffer_bytes);
    builder
}

/// Ready while the connection waits for a head. Registers no waker: only the connection, which is polled before, changes
/// that.
async fn until_idle(state: &ConnectionState) {
    poll_fn(|_| if state.is_idle() { Poll::Ready(()) } else { Poll::Pending }).await;
}

/// Resolves when the connection accepts no more requests: once the service drains. A client that has just connected is about
/// to send one: if its connection were closed at once, it could not know whether the request was handled.
async fn until_closing(draining: &CancellationToken, first_request: &CancellationToken) {
    draining.cancelled().await;
    let _ = timeout(FIRST_REQUEST_TIMEOUT, first_request.cancelled()).await;
}

async fn wait_optional<F: Future<Output = ()> + Unpin>(work: &mut Option<F>) {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

/// From a complete head to the response. The request is in flight until the response body ends.
async fn handle_request<H: Handler>(
    handler: &H,
    request: Request<Incoming>,
    peer: SocketAddr,
    permit: Arc<ConnectionPermit>,
) -> Response<ResponseBody> {
    let state = permit.state().clone();
    let last_body_ended = timeout(BODY_END_TIMEOUT, state.until_body_ended()).await.is_ok();
    state.head_received();
    let (mut parts, body) = request.into_parts();
    let version = parts.version;
    let body = RequestBody::new(body, version, &parts.headers, &state);
    let mut response =
        if let Some(why) = ambiguity(&parts.headers, last_body_ended && !state.received_trailers()) {
            drop(body);
            refuse(peer, why)
        } else {
            parts.extensions.insert(PeerAddr(peer));
            parts.extensions.insert(permit.clone());
            handler.handle(Request::from_parts(parts, body)).await
        };
    state.start_response();
    let tunnel = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if !tunnel && state.closes_after_response() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    // A tunnel counts as busy for as long as it holds the permit.
    let in_flight = (!tunnel).then(|| InFlight(permit));
    let close_delimited = is_close_delimited(version, &response).then_some(state);
    response.map(|body| ResponseBody { body, close_delimited, _in_flight: in_flight })
}

/// Why the request may not be what its sender meant, although hyper accepts it.
fn ambiguity(headers: &HeaderMap, begins_clearly: bool) -> Option<&'static str> {
    if framing::has_unsupported_coding(headers) {
        return Some("The only transfer coding that a request may have is \"chunked\", once.");
    }
    (!begins_clearly)
        .then_some("A request must not follow one with trailers, or an unread body, on the same connection.")
}

fn refuse(peer: SocketAddr, why: &str) -> Response {
    let id = RequestId::from_header(None);
    warn!(request_id = id.as_str(), %peer, why, "request refused: its framing is ambiguous");
    let mut response = ErrorResponse::ambiguous_framing(why).into_response();
    response.headers_mut().insert(X_REQUEST_ID, id.to_header_value());
    response
}

/// Whether only the end of the connection tells where the response body ends.
fn is_close_delimited(request_version: Version, response: &Response) -> bool {
    let has_length = response.headers().contains_key(header::CONTENT_LENGTH)
        || response.body().size_hint().exact().is_some();
    request_version == Version::HTTP_10 && !has_length
}

/// A request in flight. When it is dropped, the connection waits for the next head.
struct InFlight(Arc<ConnectionPermit>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.wait_for_head();
    }
}

struct ResponseBody {
    body: Body,
    /// Set if the connection must be reset unless all of the body was written.
    close_delimited: Option<Arc<ConnectionState>>,
    _in_flight: Option<InFlight>,
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        // A body that is never polled, as in a response to HEAD, cannot be cut off.
        if let Some(state) = self.close_delimited.take() {
            state.response_incomplete.store(true, Ordering::Release);
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
