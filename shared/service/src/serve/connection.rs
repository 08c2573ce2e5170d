//! One connection, from its handshake to its end.

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
    http::{HeaderValue, StatusCode, Version, header},
    response::Response,
};
use http_body::{Frame, SizeHint};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::https_only;
use super::{
    Handler, Listener, Peer, RequestBody, Seat, lingering::read_on, prepare, refusal::InWords, seats::State,
    socket::ClientStream,
};
use crate::lifecycle::Lifecycle;

/// While the service drains, for the first request of a connection to come.
pub(super) const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// Who is connected.
pub(super) struct Visit {
    pub(super) peer: SocketAddr,
    pub(super) seat: Arc<Seat>,
}

pub(super) async fn connection<H: Handler>(
    stream: TcpStream,
    visit: Visit,
    listener: Listener<H>,
    life: Lifecycle,
) {
    prepare(&stream);
    let state = visit.seat.state().clone();
    speak(stream, visit, listener, life).await;
    // Whoever still holds the seat, as a WebSocket does, waits for no head.
    state.work();
}

async fn speak<H: Handler>(stream: TcpStream, visit: Visit, listener: Listener<H>, life: Lifecycle) {
    if let Some(tls) = listener.tls.clone() {
        return https_only::speak(stream, visit, (tls, listener), life).await;
    }
    let stream = ClientStream::new(stream, listener.bounds.stall, visit.seat.state().clone());
    http(stream, visit, listener, life).await;
}

pub(super) async fn http<H, S>(stream: S, visit: Visit, listener: Listener<H>, life: Lifecycle)
where
    H: Handler,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Listener { handler, bounds, .. } = listener;
    let Visit { peer, seat } = visit;
    let state = seat.state().clone();
    let asked = CancellationToken::new();
    let first = asked.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        first.cancel();
        let (handler, seat) = (handler.clone(), seat.clone());
        async move { Ok::<_, Infallible>(answer(&handler, request, peer, seat).await) }
    });
    let stream = InWords::new(stream, peer, state.clone());
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head_time)
        .max_headers(bounds.headers)
        .max_buf_size(bounds.head_bytes);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service).with_upgrades());
    let mut reading_on = None;
    let mut draining = false;
    loop {
        tokio::select! {
            // The connection first, so that the rest sees how it stands now.
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    debug!(%peer, %error, "connection ended");
                }
                return;
            }
            () = state.notify.notified() => {
                if state.is_evicted() {
                    return debug!(%peer, "connection whose request did not come closed: too many");
                }
                // Let go at once where the service drains: the connection ends then.
                reading_on = state.take_unread().filter(|_| !draining).map(|unread| Box::pin(read_on(unread)));
            }
            () = wait_for(&mut reading_on) => reading_on = None,
            () = closing(life.draining(), &asked), if !draining => {
                draining = true;
                reading_on = None;
                state.shutting_down.store(true, Ordering::Release);
                connection.as_mut().graceful_shutdown();
            }
            // hyper would wait for the rest of a head until its time is over.
            () = idle(&state), if draining => return,
            () = life.aborting().cancelled() => return,
        }
    }
}

/// Ready while the connection waits for a head. It wakes nobody: what changes that is the connection's own doing, which is
/// polled before.
async fn idle(state: &State) {
    poll_fn(|_| if state.is_idle() { Poll::Ready(()) } else { Poll::Pending }).await;
}

/// When a connection takes no more requests: once the service drains. Whoever has just connected is about to ask, and is
/// answered first: closed at once, they could not know whether they were heard.
async fn closing(draining: &CancellationToken, asked: &CancellationToken) {
    draining.cancelled().await;
    let _ = tokio::time::timeout(FIRST_REQUEST, asked.cancelled()).await;
}

async fn wait_for<F: Future<Output = ()> + Unpin>(work: &mut Option<F>) {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

/// From a whole head to the answer, which counts as work until its body has ended.
async fn answer<H: Handler>(
    handler: &H,
    request: Request<Incoming>,
    peer: SocketAddr,
    seat: Arc<Seat>,
) -> Response<AnswerBody> {
    let state = seat.state().clone();
    state.work();
    let (mut parts, body) = request.into_parts();
    let version = parts.version;
    let body = RequestBody::new(body, version, &parts.headers, &state);
    parts.extensions.insert(Peer(peer));
    parts.extensions.insert(seat.clone());
    let mut response = handler.handle(Request::from_parts(parts, body)).await;
    state.answer();
    let tunnel = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if !tunnel && state.ends_with_this_answer() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    // A tunnel is at work for as long as its seat is held.
    let in_flight = (!tunnel).then(|| InFlight(seat));
    let until_close = is_until_close(version, &response).then_some(state);
    response.map(|body| AnswerBody { body, until_close, _in_flight: in_flight })
}

/// Whether nothing but the end of the connection says where the answer's body ends.
fn is_until_close(asked: Version, response: &Response) -> bool {
    let has_length = response.headers().contains_key(header::CONTENT_LENGTH)
        || response.body().size_hint().exact().is_some();
    asked == Version::HTTP_10 && !has_length
}

/// A request at work. When it is dropped, the connection waits for the next head.
struct InFlight(Arc<Seat>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.wait();
    }
}

/// An answer's body.
struct AnswerBody {
    body: Body,
    /// The connection that must not be closed in good order before all of it was written.
    until_close: Option<Arc<State>>,
    _in_flight: Option<InFlight>,
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        // A body that is never asked for, as of an answer to HEAD, cannot break off.
        if let Some(state) = self.until_close.take() {
            state.unfinished.store(true, Ordering::Release);
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
