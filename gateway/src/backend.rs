//! The client to the backends: a grant and a request in; pictures, events or an answer that passes out. One request, one
//! backend, one try. Pictures come over kept connections: over a young one, whose window is small, 2 MiB cost a tenth more.

mod answer;
pub(crate) mod events;
mod fault;
pub(crate) mod mock;
pub(crate) mod passage;
mod sse;
mod truncation;
mod unpack;

use std::{convert::Infallible, time::Duration};

use axum::http::{HeaderName, HeaderValue, header};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use reqwest::{Body, RequestBuilder, Response, Url};
use serde_json::{Map, Value};
use service::{body::WholeBody, request_id::X_REQUEST_ID, slots::Place};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use self::{
    events::Events,
    unpack::{Entry, Source, Unpacked, unpack},
};
pub(crate) use self::{
    fault::{BackendFault, Said, framed},
    unpack::Rest,
};
use crate::{
    admission::Grant,
    client::Clients,
    config::Backend,
    request::{Sent, demand::Task},
    store::{Picture, StoreFault, disk::Store, incoming::Whole, writable::Prepared},
};

/// What is left of a request's time, in milliseconds; the backend gives up by then.
const X_REQUEST_TIMEOUT_MS: HeaderName = HeaderName::from_static("x-request-timeout-ms");
/// Kept back from it for the way home and for storing; of a short time no more than a tenth.
const HOMEWARD: Duration = Duration::from_secs(2);

/// What is sent.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// What is to be done.
    pub(crate) task: Task,
    /// Whether it answers with events.
    pub(crate) stream: bool,
    /// Pictures that are asked for.
    pub(crate) count: u64,
    /// The request's body.
    pub(crate) sent: Sent,
    /// What its bytes count against until they are sent.
    pub(crate) counted: WholeBody,
    /// The request's id, for both programs' logs.
    pub(crate) request_id: HeaderValue,
    /// The files that the pictures will be written to.
    pub(crate) files: Prepared,
    /// When our own patience ends.
    pub(crate) deadline: Instant,
    /// When the caller's does, if it said so.
    pub(crate) caller_deadline: Option<Instant>,
}

/// What a backend answers to a request that it takes.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Pictures, all at once.
    Pictures(Pictures),
    /// Events, as they happen, and the file for the picture that they end with.
    Events(Events, Box<Prepared>),
}

/// Pictures, and the grant that they were made under: the place is free only once they are stored.
#[derive(Debug)]
pub(crate) struct Pictures {
    /// The place.
    pub(crate) grant: Grant,
    /// The pictures.
    pub(crate) made: Vec<Made>,
    /// The answer's other fields.
    pub(crate) rest: Rest,
}

/// One picture and what the backend says of it.
#[derive(Debug)]
pub(crate) struct Made {
    /// The picture, on the store's disk and without a name yet.
    pub(crate) picture: Whole,
    /// `seed` and `revised_prompt`, as they came.
    pub(crate) words: Map<String, Value>,
}

/// Why there are no pictures.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The backend's doing.
    Backend(BackendFault),
    /// They came, and the store does not take them.
    Store(StoreFault),
}

impl From<BackendFault> for Failure {
    fn from(fault: BackendFault) -> Self {
        Self::Backend(fault)
    }
}

impl From<StoreFault> for Failure {
    fn from(fault: StoreFault) -> Self {
        Self::Store(fault)
    }
}

/// Has pictures made, and takes them in as they come. Dropping the future, or the events, closes the connection, which
/// ends the job.
pub(crate) async fn send(
    clients: &Clients,
    store: &Store,
    grant: Grant,
    outgoing: Outgoing,
) -> Result<Answer, Failure> {
    let deadline = outgoing.deadline;
    let exchange = Box::pin(exchange(clients, store, grant, outgoing));
    timeout_at(deadline, exchange).await.map_err(|_| BackendFault::TimedOut)?
}

async fn exchange(
    clients: &Clients,
    store: &Store,
    grant: Grant,
    mut outgoing: Outgoing,
) -> Result<Answer, Failure> {
    let (stream, count, deadline) = (outgoing.stream, outgoing.count, outgoing.deadline);
    let mut files = std::mem::take(&mut outgoing.files);
    let backend = grant.permitted().backend();
    let (request, sending) = request_of(clients, backend, outgoing);
    let answer = tokio::select! {
        answer = backend.authorized(request).send() => answer.map_err(|error| BackendFault::of(&error))?,
        () = sending.overdue() => return Err(BackendFault::TimedOut.into()),
    };
    let answer = fault::framed(answer)?;
    if !answer.status().is_success() {
        return Err(fault::refusal(answer).await.into());
    }
    if stream {
        return Ok(Events::of(grant, answer, deadline).map(|events| Answer::Events(events, Box::new(files)))?);
    }
    let (made, rest) = pictures(clients, store, &mut files, &grant, count, answer).await?;
    Ok(Answer::Pictures(Pictures { grant, made, rest }))
}

fn request_of(clients: &Clients, backend: &Backend, outgoing: Outgoing) -> (RequestBuilder, Sending) {
    let Outgoing { task, stream, sent, counted, request_id, deadline, caller_deadline, .. } = outgoing;
    let patience = caller_deadline.map_or(deadline, |theirs| theirs.min(deadline));
    let left = for_the_backend(patience.saturating_duration_since(Instant::now()));
    let (length, body, sending) = body_of(sent.pieces, counted);
    let request = clients
        .pooled()
        .post(backend.api(task.path()))
        .header(header::CONTENT_TYPE, sent.content_type)
        .header(header::CONTENT_LENGTH, length)
        .header(header::ACCEPT, if stream { "text/event-stream" } else { "application/json" })
        .header(X_REQUEST_ID, request_id)
        .header(X_REQUEST_TIMEOUT_MS, left.as_millis().max(1).to_string())
        .body(body);
    (request, sending)
}

async fn pictures(
    clients: &Clients,
    store: &Store,
    files: &mut Prepared,
    grant: &Grant,
    count: u64,
    answer: Response,
) -> Result<(Vec<Made>, Rest), Failure> {
    let (backend, place) = (grant.permitted().backend(), grant.place());
    let answer::Received { rest, pictures } = answer::receive(answer, store, files, &place).await?;
    let Unpacked { entries, rest } = unpack(rest, &backend.base_url)?;
    if entries.len() as u64 != count {
        let made = entries.len();
        let why = format!("{count} pictures were asked for, and its answer has {made}");
        return Err(BackendFault::Unusable(why).into());
    }
    let mut pictures: Vec<_> = pictures.into_iter().map(Some).collect();
    let mut made = Vec::with_capacity(entries.len());
    for Entry { source, words } in entries {
        let picture = match source {
            Source::Here(mark) => pictures
                .get_mut(mark)
                .and_then(Option::take)
                .unwrap_or_else(|| Err("a picture is missing in it".to_owned()))
                .map_err(BackendFault::Unusable)?,
            Source::At(url) => fetch(clients, store, files, backend, &place, url).await?,
        };
        made.push(Made { picture, words });
    }
    Ok((made, rest))
}

/// A picture on the backend's own origin.
async fn fetch(
    clients: &Clients,
    store: &Store,
    files: &mut Prepared,
    backend: &Backend,
    place: &Place,
    url: Url,
) -> Result<Whole, Failure> {
    let request = backend.authorized(clients.pooled().get(url));
    let answer = request.send().await.map_err(|error| BackendFault::of(&error))?;
    let answer = fault::framed(answer)?;
    if !answer.status().is_success() {
        let status = answer.status().as_u16();
        let why = format!("its own picture address answered {status}");
        return Err(BackendFault::Unusable(why).into());
    }
    answer::receive_one(answer, store, files, place).await
}

/// Pieces as one body, and their length; what they count against is held until they are sent.
fn body_of(pieces: Vec<Bytes>, counted: WholeBody) -> (usize, Body, Sending) {
    let length = pieces.iter().map(Bytes::len).sum();
    let (held, sent) = oneshot::channel();
    let sending = Sending { until: counted.until, sent };
    let counted: (WholeBody, oneshot::Sender<Infallible>) = (counted, held);
    let pieces = stream::iter(pieces).map(move |piece| {
        let _until_sent = &counted;
        Ok::<_, Infallible>(piece)
    });
    (length, Body::wrap_stream(pieces), sending)
}

/// A body on its way to a backend.
struct Sending {
    /// When it must be sent, or given up.
    until: Instant,
    /// Closes when it is.
    sent: oneshot::Receiver<Infallible>,
}

impl Sending {
    /// Returns if the backend does not take it in time.
    async fn overdue(self) {
        if timeout_at(self.until, self.sent).await.is_ok() {
            std::future::pending::<()>().await;
        }
    }
}

/// What the backend may use of the time left.
fn for_the_backend(left: Duration) -> Duration {
    left.saturating_sub(HOMEWARD.min(left / 10))
}

fn picture(bytes: Vec<u8>) -> Result<Picture, BackendFault> {
    Picture::of(bytes).map_err(|why| BackendFault::Unusable(format!("it sent no picture: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_is_left_nine_tenths_of_a_short_time_and_all_but_two_seconds_of_a_long_one() {
        for (left, theirs) in [(0, 0), (10, 9), (2_000, 1_800), (20_000, 18_000), (300_000, 298_000)] {
            assert_eq!(for_the_backend(Duration::from_millis(left)), Duration::from_millis(theirs), "{left}");
        }
    }
}
