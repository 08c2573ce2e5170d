//! Reads and discards what a handler left of a request body (a lingering close). A connection that is closed with bytes
//! unread is reset, and the client would see the reset instead of our error response.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
};

use axum::http::{HeaderMap, Version, header};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, timeout_at};

use super::{LINGER_TIMEOUT, MAX_LINGER_BYTES, connection_limiter::ConnectionState};

/// A request body as it arrives, without trailers: no handler needs them, and some engines take them for headers. If it is
/// dropped before its end, its connection discards the rest.
#[derive(Debug)]
pub struct RequestBody {
    /// `None` once it has ended.
    incoming: Option<Incoming>,
    /// `None` for a request without a body.
    connection: Option<Arc<ConnectionState>>,
    /// The client waits for `100 Continue`, which the first read sends.
    awaits_continue: bool,
}

impl RequestBody {
    pub(super) fn new(
        incoming: Incoming,
        version: Version,
        headers: &HeaderMap,
        connection: &Arc<ConnectionState>,
    ) -> Self {
        if incoming.is_end_stream() {
            return Self { incoming: None, connection: None, awaits_continue: false };
        }
        connection.body_began();
        let expects = headers.get(header::EXPECT);
        let expects = expects.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        Self {
            incoming: Some(incoming),
            connection: Some(connection.clone()),
            awaits_continue: expects && version == Version::HTTP_11,
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        this.awaits_continue = false;
        let Some((incoming, connection)) = this.incoming.as_mut().zip(this.connection.as_ref()) else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(&mut *incoming).poll_frame(context);
        if polled.is_pending() {
            connection.wait_for_body();
        } else {
            connection.body_received();
        }
        let mut frame = ready!(polled);
        if matches!(&frame, Some(Ok(frame)) if frame.is_trailers()) {
            connection.trailers_received();
            frame = None;
        }
        if !matches!(frame, Some(Ok(_))) || incoming.is_end_stream() {
            connection.body_ended();
            this.incoming = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(connection) = &self.connection {
            connection.body_received();
        }
        let Some((incoming, connection)) = self.incoming.take().zip(self.connection.take()) else { return };
        if incoming.is_end_stream() {
            connection.body_ended();
        } else if self.awaits_continue {
            connection.body_withheld.store(true, Ordering::Release);
            connection.body_ended();
        } else {
            connection.set_unread_body(incoming);
        }
    }
}

/// Reads a body to its end, within the limits.
pub(super) async fn discard(mut body: Incoming, connection: Arc<ConnectionState>) {
    let deadline = Instant::now() + LINGER_TIMEOUT;
    let mut remaining = MAX_LINGER_BYTES;
    while let Ok(Some(Ok(frame))) = timeout_at(deadline, body.frame()).await {
        if frame.is_trailers() {
            connection.trailers_received();
        }
        let received = frame.data_ref().map_or(0, |data| data.len() as u64);
        let Some(rest) = remaining.checked_sub(received) else { break };
        remaining = rest;
    }
    connection.body_ended();
}
