//! Reading on behind an answer that came before its request was read. A connection that is closed with bytes unread is
//! reset, and a reset takes the answer with it: the caller sees a broken connection in the place of our refusal.

use std::{
    pin::Pin,
    sync::{Arc, PoisonError, atomic::Ordering},
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::http::{HeaderMap, Version, header};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, timeout_at};

use super::seats::State;

/// How long a request that was answered is read on.
pub(super) const LINGER_TIME: Duration = Duration::from_secs(30);
/// How many bytes of it.
pub(super) const LINGER_BYTES: u64 = 64 << 20;

/// The body of a request as it comes. What is left of it when it is dropped is read on by its connection.
#[derive(Debug)]
pub struct RequestBody {
    /// `None` once it has ended.
    incoming: Option<Incoming>,
    /// The connection that it comes over; `None` of a request without body.
    connection: Option<Arc<State>>,
    /// The client sends nothing before it hears that it may, which reading tells it.
    waits: bool,
}

/// A body that nobody wants.
#[derive(Debug)]
pub(super) struct Unread(Incoming);

impl RequestBody {
    pub(super) fn new(
        incoming: Incoming,
        version: Version,
        headers: &HeaderMap,
        connection: &Arc<State>,
    ) -> Self {
        if incoming.is_end_stream() {
            return Self { incoming: None, connection: None, waits: false };
        }
        let expects = headers.get(header::EXPECT);
        let expects = expects.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        Self {
            incoming: Some(incoming),
            connection: Some(connection.clone()),
            waits: expects && version == Version::HTTP_11,
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
        self.waits = false;
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        let polled = Pin::new(incoming).poll_frame(context);
        if let Some(connection) = &self.connection {
            if polled.is_pending() { connection.wait_for_body() } else { connection.body_came() }
        }
        let frame = ready!(polled);
        if !matches!(frame, Some(Ok(_))) {
            self.incoming = None;
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
            connection.body_came();
        }
        let left = self.incoming.take().filter(|incoming| !incoming.is_end_stream());
        let Some((left, connection)) = left.zip(self.connection.take()) else { return };
        if self.waits {
            connection.unmet.store(true, Ordering::Release);
        } else {
            connection.reading_on.store(true, Ordering::Release);
            *connection.unread.lock().unwrap_or_else(PoisonError::into_inner) = Some(Unread(left));
            connection.notify.notify_one();
        }
    }
}

impl State {
    /// What is to be read on, if anything is.
    pub(super) fn take_unread(&self) -> Option<Unread> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether the connection ends with the answer that is given now: its client does not send what it announced, or
    /// more than is read on.
    pub(super) fn ends_with_this_answer(&self) -> bool {
        let unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        let endless = unread.as_ref().is_some_and(|Unread(body)| body.size_hint().lower() > LINGER_BYTES);
        self.unmet.swap(false, Ordering::AcqRel) || endless
    }
}

/// Reads it to its end, within the bounds. Nothing of it is kept.
pub(super) async fn read_on(Unread(mut body): Unread) {
    let until = Instant::now() + LINGER_TIME;
    let mut left = LINGER_BYTES;
    while let Ok(Some(Ok(frame))) = timeout_at(until, body.frame()).await {
        let come = frame.data_ref().map_or(0, |data| data.len() as u64);
        let Some(rest) = left.checked_sub(come) else { return };
        left = rest;
    }
}
