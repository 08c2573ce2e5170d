//! One exchange with one backend: a grant and a request in; images, events or a forwarded response out. Nothing is retried,
//! and no other backend is tried. Images come over pooled connections: on a new one, whose window is still small, 2 MiB take
//! a tenth longer.

mod error;
pub(crate) mod events;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod image_metadata;
pub(crate) mod images;
pub(crate) mod mock;
pub(crate) mod proxy;
mod sse;
mod truncation;

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use reqwest::Body;
use service::body::BufferedBody;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

pub(crate) use self::error::{BackendError, UpstreamError, check_framing};

/// Makes one body of these chunks, and gives its length. The body holds its share of the budget until it is sent.
fn stream_body(chunks: Vec<Bytes>, body_permit: BufferedBody) -> (usize, Body, BodyUpload) {
    let length = chunks.iter().map(Bytes::len).sum();
    let (sender, sent) = oneshot::channel();
    let upload = BodyUpload { deadline: body_permit.expires_at, sent };
    let held: (BufferedBody, oneshot::Sender<Infallible>) = (body_permit, sender);
    let chunks = stream::iter(chunks).map(move |chunk| {
        let _until_sent = &held;
        Ok::<_, Infallible>(chunk)
    });
    (length, Body::wrap_stream(chunks), upload)
}

/// A request body on its way to a backend.
struct BodyUpload {
    deadline: Instant,
    /// Closes when the body is sent.
    sent: oneshot::Receiver<Infallible>,
}

impl BodyUpload {
    /// Returns only if the backend does not read the body in time.
    async fn timed_out(self) {
        if timeout_at(self.deadline, self.sent).await.is_ok() {
            std::future::pending::<()>().await;
        }
    }
}

/// Decodes a `b64_json`, in which some servers put a `data:` URL.
fn decode_base64(text: &str) -> Result<Vec<u8>, &'static str> {
    let text = text.strip_prefix("data:").and_then(data_url_payload).unwrap_or(text);
    base64_simd::forgiving_decode_to_vec(text.as_bytes()).map_err(|_| "an image's base64 is damaged")
}

/// What follows `;base64,`.
fn data_url_payload(data: &str) -> Option<&str> {
    data.split_once(',').filter(|(head, _)| head.ends_with(";base64")).map(|(_, payload)| payload)
}
