//! A backend's events on their way to the caller. They pass as they came, but for the finished picture: it is stored
//! first, and its event then has its address. When the caller leaves, the HTTP library drops the body and with it the
//! events: the connection to the backend is closed, and the place free.

use std::io;

use axum::{
    body::Body,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use service::{expiring::Expiring, slots::SharedPermit};
use tokio::{task::yield_now, time::Instant};

use super::respond::store_image;
use crate::{
    app::App,
    backend::{
        BackendError,
        events::{CompletedImage, EventStream, StreamItem},
    },
    blocking::run_blocking_with_permit,
    config::Capability,
    error::ApiError,
    middleware::access_log::{RequestRecord, Streamed},
    routes::AuthorizedRequest,
    store::{metadata::Provenance, writable::ReservedFiles},
};

/// The answer whose body the events are. Until `deadline` they are held for a caller who takes none of them.
pub(super) fn respond(
    app: &App,
    authorized: &AuthorizedRequest,
    events: EventStream,
    file: ReservedFiles,
    deadline: Instant,
) -> Response {
    let class = events.class().to_owned();
    let events = Expiring::new(events, deadline, &app.lifecycle);
    let (account, note) = (authorized.record.clone(), authorized.provenance());
    let relay = EventRelay {
        app: app.clone(),
        record: account,
        provenance: note,
        class,
        events,
        file,
        is_settled: false,
    };
    let body = stream::unfold(Some(relay), async |relay| relay?.step().await);
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache"),
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    let mut response = (headers, Body::from_stream(body)).into_response();
    response.extensions_mut().insert(Streamed);
    response
}

struct EventRelay {
    app: App,
    record: RequestRecord,
    provenance: Provenance,
    class: String,
    events: Expiring<EventStream>,
    file: ReservedFiles,
    /// The caller has the picture, or the word that there is none.
    is_settled: bool,
}

/// What the caller gets, and who goes on; an error cuts the connection.
type EventStep = (io::Result<Bytes>, Option<EventRelay>);

impl EventRelay {
    async fn step(mut self) -> Option<EventStep> {
        let Some(mut events) = self.events.take() else {
            let late = || self.record_error(&self.fault(BackendError::TimedOut));
            return (!self.is_settled).then(|| (Ok(late()), None));
        };
        let bytes = match events.next().await {
            Ok(None) => return None,
            Ok(Some(StreamItem::Passthrough(bytes))) => bytes,
            Ok(Some(StreamItem::Failed(bytes, message))) => {
                self.record_error(&self.fault(BackendError::Failed(message))); // in its words, not in ours
                self.is_settled = true;
                bytes
            }
            Ok(Some(StreamItem::Completed(finished))) => {
                match self.store_completed(finished, events.slot()).await {
                    Ok(event) => {
                        self.record.record_outcome(StatusCode::OK.as_u16(), None);
                        self.is_settled = true;
                        event
                    }
                    Err(error) => return Some((Ok(self.record_error(&error)), None)),
                }
            }
            Err(fault) => return Some((self.failed(fault).await, None)),
        };
        self.events.put_back(events);
        Some((Ok(bytes), Some(self)))
    }

    /// The event of a picture that is stored: as it came, and with its address.
    async fn store_completed(
        &mut self,
        finished: CompletedImage,
        place: SharedPermit,
    ) -> Result<Bytes, ApiError> {
        let CompletedImage { image: picture, event } = finished;
        let address = store_image(
            &self.app,
            place.clone(),
            std::mem::take(&mut self.file),
            picture,
            self.provenance.clone(),
        )
        .await?;
        Ok(run_blocking_with_permit(place, move || event.with_url(&address)).await)
    }

    /// A backend that broke off leaves the caller a broken connection, which its library tells from an end.
    async fn failed(&self, fault: BackendError) -> io::Result<Bytes> {
        fault.report_failure(&self.app.health, &self.class);
        let broken = matches!(fault, BackendError::Broken(_));
        let event = self.record_error(&self.fault(fault));
        if !broken {
            return Ok(event);
        }
        // What passed before goes out first, the head above all: a library that has seen no head asks again.
        yield_now().await;
        Err(io::Error::other("the backend broke off"))
    }

    fn fault(&self, fault: BackendError) -> ApiError {
        ApiError::Backend(self.class.clone(), fault)
    }

    /// Notes how it went, and gives the event that says so.
    fn record_error(&self, error: &ApiError) -> Bytes {
        let stream_error = error.to_stream_error(Capability::Images.as_str(), &self.class);
        self.record.record_outcome(stream_error.status, Some(stream_error.cause.0));
        stream_error.event
    }
}
