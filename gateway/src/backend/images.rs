//! An image request, sent once, and its response: images that are written to the store's disk as they arrive, or a stream of
//! events.

mod decode;
mod escape;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod receive;
mod response;
mod scan;

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, header};
use reqwest::{RequestBuilder, Response, Url};
use serde_json::{Map, Value};
use service::{body::BufferedBody, request_id::X_REQUEST_ID};
use tokio::time::{Instant, timeout_at};

pub(crate) use self::response::ResponseEnvelope;
use self::{
    receive::{Destination, ReceivedBody, receive_image, receive_json},
    response::{ImageEntry, ImageSource, ImagesResponse, parse_images_response},
};
use super::{
    BackendError, BodyUpload,
    error::{check_framing, read_error_response},
    events::EventStream,
    stream_body,
};
use crate::{
    admission::Grant,
    client::HttpClients,
    config::Backend,
    request::{UpstreamBody, image_request::ImageTask},
    store::{StoreError, disk::ImageStore, staging::FlushedFile, writable::ReservedFiles},
};

/// What is left of the request's time, in milliseconds. The backend gives up by then.
const X_REQUEST_TIMEOUT_MS: HeaderName = HeaderName::from_static("x-request-timeout-ms");
/// Held back from that time for the response and for storing; at most a tenth of it.
const RETURN_RESERVE: Duration = Duration::from_secs(2);

/// An image request for a backend.
#[derive(Debug)]
pub(crate) struct BackendRequest {
    pub(crate) task: ImageTask,
    /// Whether the response is a stream of events.
    pub(crate) stream: bool,
    /// How many images are requested.
    pub(crate) count: u64,
    pub(crate) body: UpstreamBody,
    /// The body's share of the budget, held until it is sent.
    pub(crate) body_permit: BufferedBody,
    /// For both programs' logs.
    pub(crate) request_id: HeaderValue,
    /// The files that the images are written to.
    pub(crate) files: ReservedFiles,
    /// When the gateway gives up.
    pub(crate) deadline: Instant,
    /// When the client gives up, from its timeout header.
    pub(crate) client_deadline: Option<Instant>,
}

/// A backend's response to an image request that it accepts.
#[derive(Debug)]
pub(crate) enum BackendResponse {
    /// All images at once.
    Images(GeneratedImages),
    /// Events as they happen, and the file for the image that they end with.
    Events(EventStream, Box<ReservedFiles>),
}

/// Generated images with the grant they were made under: its slot is free only once they are stored.
#[derive(Debug)]
pub(crate) struct GeneratedImages {
    pub(crate) grant: Grant,
    pub(crate) images: Vec<GeneratedImage>,
    /// The response's other fields.
    pub(crate) envelope: ResponseEnvelope,
}

/// One image and its metadata from the backend.
#[derive(Debug)]
pub(crate) struct GeneratedImage {
    /// On the store's disk, without a name yet.
    pub(crate) file: FlushedFile,
    /// `seed`, `revised_prompt` and `settings`, as they came.
    pub(crate) metadata: Map<String, Value>,
}

/// Why there are no images.
#[derive(Debug)]
pub(crate) enum ImageRequestError {
    /// The exchange failed.
    Backend(BackendError),
    /// The images arrived, and the store cannot take them.
    Store(StoreError),
}

impl From<BackendError> for ImageRequestError {
    fn from(error: BackendError) -> Self {
        Self::Backend(error)
    }
}

impl From<StoreError> for ImageRequestError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Sends an image request and receives the images. Dropping the future, or the events, closes the connection, which cancels
/// the job.
pub(crate) async fn send(
    clients: &HttpClients,
    store: &ImageStore,
    grant: Grant,
    request: BackendRequest,
) -> Result<BackendResponse, ImageRequestError> {
    let deadline = request.deadline;
    let exchange = Box::pin(exchange(clients, store, grant, request));
    timeout_at(deadline, exchange).await.map_err(|_| BackendError::TimedOut)?
}

async fn exchange(
    clients: &HttpClients,
    store: &ImageStore,
    grant: Grant,
    mut request: BackendRequest,
) -> Result<BackendResponse, ImageRequestError> {
    let (stream, count, deadline) = (request.stream, request.count, request.deadline);
    let mut files = std::mem::take(&mut request.files);
    let backend = grant.routed().backend();
    let (http_request, upload) = build_request(clients, backend, request);
    let response = tokio::select! {
        response = send_authorized(backend, http_request) => response?,
        () = upload.timed_out() => return Err(BackendError::TimedOut.into()),
    };
    if !response.status().is_success() {
        return Err(read_error_response(response).await.into());
    }
    if stream {
        return Ok(EventStream::from_response(grant, response, deadline)
            .map(|events| BackendResponse::Events(events, Box::new(files)))?);
    }
    let destination = Destination { store, files: &mut files, slot: grant.slot() };
    let (images, envelope) = receive_images(clients, backend, destination, count, response).await?;
    Ok(BackendResponse::Images(GeneratedImages { grant, images, envelope }))
}

fn build_request(
    clients: &HttpClients,
    backend: &Backend,
    request: BackendRequest,
) -> (RequestBuilder, BodyUpload) {
    let BackendRequest { task, stream, body, body_permit, request_id, deadline, client_deadline, .. } =
        request;
    let earliest = client_deadline.map_or(deadline, |client| client.min(deadline));
    let timeout = backend_timeout(earliest.saturating_duration_since(Instant::now()));
    let (length, chunks, upload) = stream_body(body.chunks, body_permit);
    let http_request = clients
        .pooled()
        .post(backend.api_url(task.path()))
        .header(header::CONTENT_TYPE, body.content_type)
        .header(header::CONTENT_LENGTH, length)
        .header(header::ACCEPT, if stream { "text/event-stream" } else { "application/json" })
        .header(X_REQUEST_ID, request_id)
        .header(X_REQUEST_TIMEOUT_MS, timeout.as_millis().max(1).to_string())
        .body(chunks);
    (http_request, upload)
}

async fn send_authorized(backend: &Backend, request: RequestBuilder) -> Result<Response, BackendError> {
    let response = backend.authorized(request).send().await;
    check_framing(response.map_err(|error| BackendError::from_reqwest(&error))?)
}

async fn receive_images(
    clients: &HttpClients,
    backend: &Backend,
    mut destination: Destination<'_>,
    count: u64,
    response: Response,
) -> Result<(Vec<GeneratedImage>, ResponseEnvelope), ImageRequestError> {
    let ReceivedBody { json, images } = receive_json(response, &mut destination).await?;
    let ImagesResponse { entries, envelope } = parse_images_response(json, &backend.base_url)?;
    if entries.len() as u64 != count {
        let why = format!("{count} images were requested, but the response has {}", entries.len());
        return Err(BackendError::Unusable(why).into());
    }
    let mut images: Vec<_> = images.into_iter().map(Some).collect();
    let mut generated = Vec::with_capacity(entries.len());
    for ImageEntry { source, metadata } in entries {
        let file = match source {
            ImageSource::Inline(index) => images
                .get_mut(index)
                .and_then(Option::take)
                .unwrap_or_else(|| Err("an image is missing from the response".to_owned()))
                .map_err(BackendError::Unusable)?,
            ImageSource::Url(url) => fetch_image(clients, backend, &mut destination, url).await?,
        };
        generated.push(GeneratedImage { file, metadata });
    }
    Ok((generated, envelope))
}

/// Fetches an image from the backend's own origin.
async fn fetch_image(
    clients: &HttpClients,
    backend: &Backend,
    destination: &mut Destination<'_>,
    url: Url,
) -> Result<FlushedFile, ImageRequestError> {
    let response = send_authorized(backend, clients.pooled().get(url)).await?;
    if !response.status().is_success() {
        let why = format!("its own image URL returned {}", response.status().as_u16());
        return Err(BackendError::Unusable(why).into());
    }
    receive_image(response, destination).await
}

/// What the backend may use of the time left.
fn backend_timeout(left: Duration) -> Duration {
    left.saturating_sub(RETURN_RESERVE.min(left / 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_gets_nine_tenths_of_a_short_time_and_all_but_two_seconds_of_a_long_one() {
        for (left, expected) in [(0, 0), (10, 9), (2_000, 1_800), (20_000, 18_000), (300_000, 298_000)] {
            assert_eq!(
                backend_timeout(Duration::from_millis(left)),
                Duration::from_millis(expected),
                "{left}"
            );
        }
    }
}
