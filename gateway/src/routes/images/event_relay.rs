//! A backend's events on their way to the client. They pass unchanged but for the finished image: it is stored first, and its
//! event then has its URL.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use service::{expiring::Expiring, on_disconnect::OnDisconnect, request_id::RequestId, slots::SharedPermit};
use tokio::time::Instant;

use super::{recorder::Recorder, respond::store_image};
use crate::{
    app::App,
    backend::{
        BackendError,
        events::{CompletedImage, EventStream, StreamItem},
    },
    blocking::run_blocking_with_permit,
    config::Capability,
    error::ApiError,
    jobs::JobGuard,
    middleware::access_log::RequestRecord,
    routes::{
        AuthorizedRequest,
        relay::{self, Source, Step},
    },
    store::writable::ReservedFiles,
};

/// The events of one response, and what they need on their way.
pub(super) struct EventRelay {
    app: App,
    record: RequestRecord,
    request_id: RequestId,
    recorder: Recorder,
    class: String,
    events: Expiring<EventStream>,
    file: ReservedFiles,
    job: Arc<JobGuard>,
    /// The client has the image, or the error event in its place.
    is_settled: bool,
}

impl EventRelay {
    /// The events expire at `deadline` and when the job is cancelled, even if the client reads none of them until then.
    pub(super) fn new(
        app: &App,
        authorized: &AuthorizedRequest,
        events: EventStream,
        file: ReservedFiles,
        recorder: Recorder,
        deadline: Instant,
        job: Arc<JobGuard>,
    ) -> Self {
        let cancelled = job.cancelled().clone();
        Self {
            app: app.clone(),
            record: authorized.record.clone(),
            request_id: authorized.id.clone(),
            recorder,
            class: events.class().to_owned(),
            events: Expiring::or_cancelled(events, deadline, cancelled, &app.lifecycle),
            file,
            job,
            is_settled: false,
        }
    }

    /// A response whose body is the events.
    pub(super) fn respond(self, on_disconnect: OnDisconnect) -> Response {
        let headers = [
            (header::CONTENT_TYPE, "text/event-stream"),
            (header::CACHE_CONTROL, "no-cache"),
            (HeaderName::from_static("x-accel-buffering"), "no"),
        ];
        let headers: HeaderMap =
            headers.into_iter().map(|(name, value)| (name, HeaderValue::from_static(value))).collect();
        let (lifecycle, id) = (self.app.lifecycle.clone(), self.request_id.clone());
        let events = on_disconnect.stream(&lifecycle, id.as_str(), relay::chunks(self));
        relay::streamed(StatusCode::OK, headers, Body::from_stream(events))
    }
}

impl Source for EventRelay {
    async fn step(&mut self) -> Step {
        let Some(mut events) = self.events.take() else {
            return self.expired();
        };
        let cancelled = self.job.cancelled().clone();
        let next = tokio::select! {
            next = events.next() => next,
            () = cancelled.cancelled() => return self.expired(),
        };
        let bytes = match next {
            Ok(None) => return Step::End,
            Ok(Some(StreamItem::Passthrough(bytes))) => {
                if let Some(fraction) = reported_progress(&bytes) {
                    self.job.set_progress(fraction);
                }
                bytes
            }
            Ok(Some(StreamItem::Failed(bytes, message))) => {
                // The client gets the backend's own event.
                self.record_error(&self.backend_error(BackendError::Failed(message)));
                self.is_settled = true;
                bytes
            }
            Ok(Some(StreamItem::Completed(completed))) => match self.store(completed, events.slot()).await {
                Ok(event) => {
                    self.record.record_outcome(StatusCode::OK.as_u16(), None);
                    self.is_settled = true;
                    event
                }
                Err(error) => return Step::Last(self.record_error(&error)),
            },
            Err(error) => return self.fail(error),
        };
        self.events.put_back(events);
        Step::Chunk(bytes)
    }
}

impl EventRelay {
    /// Stores a finished image; returns its event with the URL.
    async fn store(&mut self, completed: CompletedImage, slot: SharedPermit) -> Result<Bytes, ApiError> {
        let CompletedImage { image, metadata, event } = completed;
        let file = std::mem::take(&mut self.file);
        let provenance = self.recorder.provenance(&[&metadata]);
        let url = store_image(&self.app, slot.clone(), file, image, provenance, &self.job).await?;
        Ok(run_blocking_with_permit(slot, move || event.with_url(&url)).await)
    }

    /// Past the deadline, or cancelled.
    fn expired(&self) -> Step {
        if self.is_settled {
            return Step::End;
        }
        let is_cancelled = self.job.cancelled().is_cancelled();
        let error =
            if is_cancelled { ApiError::Cancelled } else { self.backend_error(BackendError::TimedOut) };
        Step::Last(self.record_error(&error))
    }

    /// If the backend's connection broke, the client's is broken, too: its library can tell that from an end.
    fn fail(&self, error: BackendError) -> Step {
        error.report_failure(&self.app.health, &self.class);
        let broken = matches!(error, BackendError::Broken(_));
        let event = self.record_error(&self.backend_error(error));
        if broken { Step::Abort("the backend closed the connection early") } else { Step::Last(event) }
    }

    fn backend_error(&self, error: BackendError) -> ApiError {
        ApiError::Backend(self.class.clone(), error)
    }

    /// Records the outcome; returns the event for the client.
    fn record_error(&self, error: &ApiError) -> Bytes {
        self.job.fail(error.to_job_error());
        let stream_error = error.to_stream_error(Capability::Images.as_str(), &self.class);
        self.record.record_outcome(stream_error.status, Some(stream_error.cause.0));
        stream_error.event
    }
}

/// The fraction in a comment `: progress 0.42`.
fn reported_progress(comment: &[u8]) -> Option<f64> {
    let text = str::from_utf8(comment).ok()?.strip_prefix(": progress ")?;
    text.trim_end().parse().ok().filter(|fraction| (0.0..=1.0).contains(fraction))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_a_comment_with_a_fraction() {
        for (comment, expected) in [
            (": progress 0.42\n", Some(0.42)),
            (": progress 1.00\r\n", Some(1.0)),
            (": progress 1.01\n", None),
            (": progress -0.1\n", None),
            (": progress NaN\n", None),
            (": progress\n", None),
            (": at work\n", None),
            ("data: progress 0.5\n", None),
        ] {
            assert_eq!(reported_progress(comment.as_bytes()), expected, "{comment:?}");
        }
        assert_eq!(reported_progress(b": progress \xff"), None);
    }
}
