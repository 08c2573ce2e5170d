//! The client to the backends: a grant and a request in; pictures, events or an answer that passes out. One request, one
//! backend, one try. Pictures come over kept connections: over a young one, whose window is small, 2 MiB cost a tenth more.

mod error;
pub(crate) mod events;
mod images_response;
pub(crate) mod mock;
pub(crate) mod proxy;
mod receive;
mod sse;
mod truncation;

use std::{convert::Infallible, time::Duration};

use axum::http::{HeaderName, HeaderValue, header};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use reqwest::{Body, RequestBuilder, Response, Url};
use serde_json::{Map, Value};
use service::{body::BufferedBody, request_id::X_REQUEST_ID, slots::SharedPermit};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

pub(crate) use self::{
    error::{BackendError, UpstreamError, check_framing},
    images_response::ResponseEnvelope,
};
use self::{
    events::EventStream,
    images_response::{ImageEntry, ImageSource, ImagesResponse, parse_images_response},
};
use crate::{
    admission::Grant,
    client::HttpClients,
    config::Backend,
    request::{UpstreamBody, image_request::ImageTask},
    store::{EncodedImage, StoreError, disk::ImageStore, staging::FlushedFile, writable::ReservedFiles},
};

/// What is left of a request's time, in milliseconds; the backend gives up by then.
const X_REQUEST_TIMEOUT_MS: HeaderName = HeaderName::from_static("x-request-timeout-ms");
/// Kept back from it for the way home and for storing; of a short time no more than a tenth.
const RETURN_RESERVE: Duration = Duration::from_secs(2);

/// What is sent.
#[derive(Debug)]
pub(crate) struct BackendRequest {
    /// What is to be done.
    pub(crate) task: ImageTask,
    /// Whether it answers with events.
    pub(crate) stream: bool,
    /// Pictures that are asked for.
    pub(crate) count: u64,
    /// The request's body.
    pub(crate) body: UpstreamBody,
    /// What its bytes count against until they are sent.
    pub(crate) body_permit: BufferedBody,
    /// The request's id, for both programs' logs.
    pub(crate) request_id: HeaderValue,
    /// The files that the pictures will be written to.
    pub(crate) files: ReservedFiles,
    /// When our own patience ends.
    pub(crate) deadline: Instant,
    /// When the caller's does, if it said so.
    pub(crate) caller_deadline: Option<Instant>,
}

/// What a backend answers to a request that it takes.
#[derive(Debug)]
pub(crate) enum BackendResponse {
    /// Pictures, all at once.
    Images(GeneratedImages),
    /// Events, as they happen, and the file for the picture that they end with.
    Events(EventStream, Box<ReservedFiles>),
}

/// Pictures, and the grant that they were made under: the place is free only once they are stored.
#[derive(Debug)]
pub(crate) struct GeneratedImages {
    /// The place.
    pub(crate) grant: Grant,
    /// The pictures.
    pub(crate) images: Vec<GeneratedImage>,
    /// The answer's other fields.
    pub(crate) envelope: ResponseEnvelope,
}

/// One picture and what the backend says of it.
#[derive(Debug)]
pub(crate) struct GeneratedImage {
    /// The picture, on the store's disk and without a name yet.
    pub(crate) image: FlushedFile,
    /// `seed` and `revised_prompt`, as they came.
    pub(crate) metadata: Map<String, Value>,
}

/// Why there are no pictures.
#[derive(Debug)]
pub(crate) enum ImageRequestError {
    /// The backend's doing.
    Backend(BackendError),
    /// They came, and the store does not take them.
    Store(StoreError),
}

impl From<BackendError> for ImageRequestError {
    fn from(fault: BackendError) -> Self {
        Self::Backend(fault)
    }
}

impl From<StoreError> for ImageRequestError {
    fn from(fault: StoreError) -> Self {
        Self::Store(fault)
    }
}

/// Has pictures made, and takes them in as they come. Dropping the future, or the events, closes the connection, which
/// ends the job.
pub(crate) async fn send(
    clients: &HttpClients,
    store: &ImageStore,
    grant: Grant,
    outgoing: BackendRequest,
) -> Result<BackendResponse, ImageRequestError> {
    let deadline = outgoing.deadline;
    let exchange = Box::pin(exchange(clients, store, grant, outgoing));
    timeout_at(deadline, exchange).await.map_err(|_| BackendError::TimedOut)?
}

async fn exchange(
    clients: &HttpClients,
    store: &ImageStore,
    grant: Grant,
    mut outgoing: BackendRequest,
) -> Result<BackendResponse, ImageRequestError> {
    let (stream, count, deadline) = (outgoing.stream, outgoing.count, outgoing.deadline);
    let mut files = std::mem::take(&mut outgoing.files);
    let backend = grant.routed().backend();
    let (request, sending) = build_request(clients, backend, outgoing);
    let answer = tokio::select! {
        answer = backend.authorized(request).send() => answer.map_err(|error| BackendError::from_reqwest(&error))?,
        () = sending.timed_out() => return Err(BackendError::TimedOut.into()),
    };
    let answer = error::check_framing(answer)?;
    if !answer.status().is_success() {
        return Err(error::read_error_response(answer).await.into());
    }
    if stream {
        return Ok(EventStream::from_response(grant, answer, deadline)
            .map(|events| BackendResponse::Events(events, Box::new(files)))?);
    }
    let (made, rest) = receive_images(clients, store, &mut files, &grant, count, answer).await?;
    Ok(BackendResponse::Images(GeneratedImages { grant, images: made, envelope: rest }))
}

fn build_request(
    clients: &HttpClients,
    backend: &Backend,
    outgoing: BackendRequest,
) -> (RequestBuilder, BodyUpload) {
    let BackendRequest {
        task,
        stream,
        body: sent,
        body_permit: counted,
        request_id,
        deadline,
        caller_deadline,
        ..
    } = outgoing;
    let patience = caller_deadline.map_or(deadline, |theirs| theirs.min(deadline));
    let left = backend_timeout(patience.saturating_duration_since(Instant::now()));
    let (length, body, sending) = stream_body(sent.chunks, counted);
    let request = clients
        .pooled()
        .post(backend.api_url(task.path()))
        .header(header::CONTENT_TYPE, sent.content_type)
        .header(header::CONTENT_LENGTH, length)
        .header(header::ACCEPT, if stream { "text/event-stream" } else { "application/json" })
        .header(X_REQUEST_ID, request_id)
        .header(X_REQUEST_TIMEOUT_MS, left.as_millis().max(1).to_string())
        .body(body);
    (request, sending)
}

async fn receive_images(
    clients: &HttpClients,
    store: &ImageStore,
    files: &mut ReservedFiles,
    grant: &Grant,
    count: u64,
    answer: Response,
) -> Result<(Vec<GeneratedImage>, ResponseEnvelope), ImageRequestError> {
    let (backend, place) = (grant.routed().backend(), grant.slot());
    let receive::ReceivedBody { json: rest, images: pictures } =
        receive::receive(answer, store, files, &place).await?;
    let ImagesResponse { entries, envelope: rest } = parse_images_response(rest, &backend.base_url)?;
    if entries.len() as u64 != count {
        let received_count = entries.len();
        let why = format!("{count} pictures were asked for, and its answer has {received_count}");
        return Err(BackendError::Unusable(why).into());
    }
    let mut pictures: Vec<_> = pictures.into_iter().map(Some).collect();
    let mut generated = Vec::with_capacity(entries.len());
    for ImageEntry { source, metadata: words } in entries {
        let picture = match source {
            ImageSource::Inline(mark) => pictures
                .get_mut(mark)
                .and_then(Option::take)
                .unwrap_or_else(|| Err("a picture is missing in it".to_owned()))
                .map_err(BackendError::Unusable)?,
            ImageSource::Url(url) => fetch_image(clients, store, files, backend, &place, url).await?,
        };
        generated.push(GeneratedImage { image: picture, metadata: words });
    }
    Ok((generated, rest))
}

/// A picture on the backend's own origin.
async fn fetch_image(
    clients: &HttpClients,
    store: &ImageStore,
    files: &mut ReservedFiles,
    backend: &Backend,
    place: &SharedPermit,
    url: Url,
) -> Result<FlushedFile, ImageRequestError> {
    let request = backend.authorized(clients.pooled().get(url));
    let answer = request.send().await.map_err(|error| BackendError::from_reqwest(&error))?;
    let answer = error::check_framing(answer)?;
    if !answer.status().is_success() {
        let status = answer.status().as_u16();
        let why = format!("its own picture address answered {status}");
        return Err(BackendError::Unusable(why).into());
    }
    receive::receive_image(answer, store, files, place).await
}

/// Pieces as one body, and their length; what they count against is held until they are sent.
fn stream_body(pieces: Vec<Bytes>, counted: BufferedBody) -> (usize, Body, BodyUpload) {
    let length = pieces.iter().map(Bytes::len).sum();
    let (held, sent) = oneshot::channel();
    let sending = BodyUpload { deadline: counted.expires_at, sent };
    let counted: (BufferedBody, oneshot::Sender<Infallible>) = (counted, held);
    let pieces = stream::iter(pieces).map(move |piece| {
        let _until_sent = &counted;
        Ok::<_, Infallible>(piece)
    });
    (length, Body::wrap_stream(pieces), sending)
}

/// A body on its way to a backend.
struct BodyUpload {
    /// When it must be sent, or given up.
    deadline: Instant,
    /// Closes when it is.
    sent: oneshot::Receiver<Infallible>,
}

impl BodyUpload {
    /// Returns if the backend does not take it in time.
    async fn timed_out(self) {
        if timeout_at(self.deadline, self.sent).await.is_ok() {
            std::future::pending::<()>().await;
        }
    }
}

/// What the backend may use of the time left.
fn backend_timeout(left: Duration) -> Duration {
    left.saturating_sub(RETURN_RESERVE.min(left / 10))
}

fn parse_image(bytes: Vec<u8>) -> Result<EncodedImage, BackendError> {
    EncodedImage::from_bytes(bytes)
        .map_err(|why| BackendError::Unusable(format!("it sent no picture: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_is_left_nine_tenths_of_a_short_time_and_all_but_two_seconds_of_a_long_one() {
        for (left, theirs) in [(0, 0), (10, 9), (2_000, 1_800), (20_000, 18_000), (300_000, 298_000)] {
            assert_eq!(backend_timeout(Duration::from_millis(left)), Duration::from_millis(theirs), "{left}");
        }
    }
}
