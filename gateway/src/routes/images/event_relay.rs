//! A backend's events on their way to the client. They pass unchanged but for the finished image: it is stored first, and its
//! event then has its URL.

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use service::{expiring::Expiring, slots::SharedPermit};
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
    middleware::access_log::RequestRecord,
    routes::{
        AuthorizedRequest,
        relay::{self, Source, Step},
    },
    store::writable::ReservedFiles,
};

/// A response whose body is the events. They expire at `deadline`, even if the client reads none of them until then.
pub(super) fn respond(
    app: &App,
    authorized: &AuthorizedRequest,
    events: EventStream,
    file: ReservedFiles,
    recorder: Recorder,
    deadline: Instant,
) -> Response {
    let relay = EventRelay {
        app: app.clone(),
        record: authorized.record.clone(),
        recorder,
        class: events.class().to_owned(),
        events: Expiring::new(events, deadline, &app.lifecycle),
        file,
        is_settled: false,
    };
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache"),
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    let headers: HeaderMap =
        headers.into_iter().map(|(name, value)| (name, HeaderValue::from_static(value))).collect();
    relay::respond(StatusCode::OK, headers, relay)
}

struct EventRelay {
    app: App,
    record: RequestRecord,
    recorder: Recorder,
    class: String,
    events: Expiring<EventStream>,
    file: ReservedFiles,
    /// The client has the image, or the error event in its place.
    is_settled: bool,
}

impl Source for EventRelay {
    async fn step(&mut self) -> Step {
        let Some(mut events) = self.events.take() else {
            if self.is_settled {
                return Step::End;
            }
            return Step::Last(self.record_error(&self.backend_error(BackendError::TimedOut)));
        };
        let bytes = match events.next().await {
            Ok(None) => return Step::End,
            Ok(Some(StreamItem::Passthrough(bytes))) => bytes,
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
        let url = store_image(&self.app, slot.clone(), file, image, provenance).await?;
        Ok(run_blocking_with_permit(slot, move || event.with_url(&url)).await)
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
        let stream_error = error.to_stream_error(Capability::Images.as_str(), &self.class);
        self.record.record_outcome(stream_error.status, Some(stream_error.cause.0));
        stream_error.event
    }
}
