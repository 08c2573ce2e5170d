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
use service::{limited::Limited, slots::Place};
use tokio::{task::yield_now, time::Instant};

use super::keep::keep_one;
use crate::{
    app::App,
    backend::{
        BackendFault,
        events::{Events, Finished, Happening},
    },
    blocking::blocking_under,
    config::Capability,
    error::ApiError,
    middleware::access_log::{Account, Streamed},
    routes::Visit,
    store::{records::Note, writable::Prepared},
};

/// The answer whose body the events are. Until `deadline` they are held for a caller who takes none of them.
pub(super) fn respond(
    app: &App,
    visit: &Visit,
    events: Events,
    file: Prepared,
    deadline: Instant,
) -> Response {
    let class = events.class().to_owned();
    let events = Limited::new(events, deadline, &app.lifecycle);
    let (account, note) = (visit.account.clone(), visit.note());
    let relay = Relay { app: app.clone(), account, note, class, events, file, settled: false };
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

struct Relay {
    app: App,
    account: Account,
    note: Note,
    class: String,
    events: Limited<Events>,
    file: Prepared,
    /// The caller has the picture, or the word that there is none.
    settled: bool,
}

/// What the caller gets, and who goes on; an error cuts the connection.
type Step = (io::Result<Bytes>, Option<Relay>);

impl Relay {
    async fn step(mut self) -> Option<Step> {
        let Some(mut events) = self.events.take() else {
            let late = || self.refused(&self.fault(BackendFault::TimedOut));
            return (!self.settled).then(|| (Ok(late()), None));
        };
        let bytes = match events.next().await {
            Ok(None) => return None,
            Ok(Some(Happening::Passing(bytes))) => bytes,
            Ok(Some(Happening::Failed(bytes, words))) => {
                self.refused(&self.fault(BackendFault::Failed(words))); // in its words, not in ours
                self.settled = true;
                bytes
            }
            Ok(Some(Happening::Completed(finished))) => {
                match self.completed(finished, events.place()).await {
                    Ok(event) => {
                        self.account.ended(StatusCode::OK.as_u16(), None);
                        self.settled = true;
                        event
                    }
                    Err(error) => return Some((Ok(self.refused(&error)), None)),
                }
            }
            Err(fault) => return Some((self.failed(fault).await, None)),
        };
        self.events.put(events);
        Some((Ok(bytes), Some(self)))
    }

    /// The event of a picture that is stored: as it came, and with its address.
    async fn completed(&mut self, finished: Finished, place: Place) -> Result<Bytes, ApiError> {
        let Finished { picture, event } = finished;
        let address =
            keep_one(&self.app, place.clone(), std::mem::take(&mut self.file), picture, self.note.clone())
                .await?;
        Ok(blocking_under(place, move || event.with_address(&address)).await)
    }

    /// A backend that broke off leaves the caller a broken connection, which its library tells from an end.
    async fn failed(&self, fault: BackendFault) -> io::Result<Bytes> {
        fault.report(&self.app.health, &self.class);
        let broken = matches!(fault, BackendFault::Broken(_));
        let event = self.refused(&self.fault(fault));
        if !broken {
            return Ok(event);
        }
        // What passed before goes out first, the head above all: a library that has seen no head asks again.
        yield_now().await;
        Err(io::Error::other("the backend broke off"))
    }

    fn fault(&self, fault: BackendFault) -> ApiError {
        ApiError::Backend(self.class.clone(), fault)
    }

    /// Notes how it went, and gives the event that says so.
    fn refused(&self, error: &ApiError) -> Bytes {
        let told = error.in_stream(Capability::Images.as_str(), &self.class);
        self.account.ended(told.status, Some(told.cause.0));
        told.event
    }
}
