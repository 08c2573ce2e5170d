//! Scripted server-sent events, which the test advances step by step, without a clock.

use std::io;

use axum::{
    body::Body,
    http::header,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::HeldRequest;

/// One step of the script.
#[derive(Debug, Clone)]
pub enum SseStep {
    /// These bytes.
    Send(Vec<u8>),
    /// Nothing, until [`super::Upstream::step`] was called once more than for the wait before.
    Wait,
    /// A broken connection.
    Break,
}

/// An event.
pub fn event(name: &str, data: &Value) -> SseStep {
    SseStep::Send(format!("event: {name}\ndata: {data}\n\n").into_bytes())
}

/// A preview. `family` is `image_generation` or `image_edit`.
pub fn partial(family: &str, index: u64) -> SseStep {
    let name = format!("{family}.partial_image");
    event(&name, &json!({"type": name, "b64_json": "cHJldmlldw==", "partial_image_index": index}))
}

/// The event with the finished image.
pub fn completed(family: &str, image: &[u8]) -> SseStep {
    let name = format!("{family}.completed");
    let base64 = base64_simd::STANDARD.encode_to_string(image);
    let usage = json!({"input_tokens": 0, "output_tokens": 0, "total_tokens": 0});
    event(
        &name,
        &json!({"type": name, "b64_json": base64, "created_at": 1_736_697_234, "usage": usage, "seed": 7}),
    )
}

/// An error in mid-stream, as SDKs raise it.
pub fn error(code: &str, message: &str) -> SseStep {
    let error = json!({"message": message, "type": "server_error", "param": null, "code": code});
    event("error", &json!({"type": "error", "error": error}))
}

struct SsePlayback {
    acts: std::vec::IntoIter<SseStep>,
    held: HeldRequest,
    steps: watch::Receiver<usize>,
    waits: usize,
}

pub(super) fn replay(acts: Vec<SseStep>, held: HeldRequest, steps: watch::Receiver<usize>) -> Response {
    let play = SsePlayback { acts: acts.into_iter(), held, steps, waits: 0 };
    let body = Body::from_stream(stream::unfold(play, SsePlayback::next_chunk));
    ([(header::CONTENT_TYPE, "text/event-stream; charset=utf-8")], body).into_response()
}

impl SsePlayback {
    async fn next_chunk(mut self) -> Option<(io::Result<Bytes>, Self)> {
        loop {
            match self.acts.next() {
                Some(SseStep::Send(bytes)) => return Some((Ok(bytes.into()), self)),
                Some(SseStep::Break) => {
                    // What was sent before goes out first.
                    tokio::task::yield_now().await;
                    self.held.answered = true;
                    return Some((Err(io::Error::other("broken on purpose")), self));
                }
                Some(SseStep::Wait) => {
                    self.waits += 1;
                    let waits = self.waits;
                    let _ = self.steps.wait_for(|steps| *steps >= waits).await;
                }
                None => {
                    self.held.answered = true;
                    return None;
                }
            }
        }
    }
}
