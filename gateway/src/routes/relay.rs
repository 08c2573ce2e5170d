//! A backend's body on its way to the client, chunk by chunk. When the client disconnects, hyper drops the body and with it the
//! source: the connection to the backend is closed, and the slot is free.

use std::io;

use axum::{
    body::Body,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use tokio::task::yield_now;

use crate::middleware::access_log::{RequestRecord, Streamed};

/// What a source does next.
pub(super) enum Step {
    /// Sends these bytes and goes on.
    Chunk(Bytes),
    /// Sends these bytes and ends.
    Last(Bytes),
    /// Ends properly.
    End,
    /// Breaks the client's connection, so that it cannot take what it got for a complete response.
    Abort(&'static str),
}

/// Where a relayed body comes from.
pub(super) trait Source: Send + Sized + 'static {
    fn step(&mut self) -> impl Future<Output = Step> + Send;
}

/// A response whose body is relayed from `source`, which records the outcome for the access log.
pub(super) fn respond(status: StatusCode, headers: HeaderMap, source: impl Source) -> Response {
    streamed(status, headers, Body::from_stream(chunks(source)))
}

/// The bytes of a source.
pub(super) fn chunks(source: impl Source) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::unfold(Some(source), async |source| {
        let mut source = source?;
        match source.step().await {
            Step::Chunk(bytes) => Some((Ok(bytes), Some(source))),
            Step::Last(bytes) => Some((Ok(bytes), None)),
            Step::End => None,
            Step::Abort(why) => {
                // Lets hyper send what came before, above all the head: a library that has seen no head retries.
                yield_now().await;
                Some((Err(io::Error::other(why)), None))
            }
        }
    })
}

/// A response whose access log waits for the end of its body.
pub(super) fn streamed(status: StatusCode, headers: HeaderMap, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response.extensions_mut().insert(Streamed);
    response
}

/// The body of a response that is forwarded unchanged.
pub(super) trait Upstream: Send + 'static {
    /// The next chunk; `None` at the end of a complete body.
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>, Failure>> + Send;

    /// Whether all announced bytes have arrived: hyper does not poll for more then.
    fn is_complete(&self) -> bool;
}

/// How forwarding failed.
pub(super) struct Failure {
    /// The status and cause for the access log.
    pub(super) status: u16,
    pub(super) cause: String,
    /// The error that breaks the client's connection.
    pub(super) abort: &'static str,
}

struct Forwarded<U> {
    upstream: U,
    status: StatusCode,
    record: RequestRecord,
}

/// A response that is forwarded unchanged; its outcome is recorded once the body has ended.
pub(super) fn forward(
    status: StatusCode,
    headers: HeaderMap,
    record: &RequestRecord,
    upstream: impl Upstream,
) -> Response {
    let forwarded = Forwarded { upstream, status, record: record.clone() };
    forwarded.record_if_complete();
    respond(status, headers, forwarded)
}

impl<U: Upstream> Source for Forwarded<U> {
    async fn step(&mut self) -> Step {
        match self.upstream.next().await {
            Ok(Some(bytes)) => {
                self.record_if_complete();
                Step::Chunk(bytes)
            }
            Ok(None) => {
                self.record.record_outcome(self.status.as_u16(), None);
                Step::End
            }
            Err(Failure { status, cause, abort }) => {
                self.record.record_outcome(status, Some(cause));
                Step::Abort(abort)
            }
        }
    }
}

impl<U: Upstream> Forwarded<U> {
    fn record_if_complete(&self) {
        if self.upstream.is_complete() {
            self.record.record_outcome(self.status.as_u16(), None);
        }
    }
}
