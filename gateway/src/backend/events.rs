//! The events of a backend's stream. They are passed on unchanged; only a finished image is held back until it has been
//! validated.

use std::time::Duration;

use axum::http::header;
use bytes::Bytes;
use reqwest::Response;
use serde_json::{Map, Value};
use service::{slots::SharedPermit, text::one_line};
use tokio::time::{Instant, timeout_at};
use wire::openai::object::{Duplicates, JsonObject, ObjectLayout, with_str};

use super::{
    BackendError, decode_base64,
    error::MAX_MESSAGE_CHARS,
    image_metadata::{IMAGE_FIELDS, event_metadata},
    sse::{SseDecoder, SseEvent, SseItem},
};
use crate::{
    admission::Grant, blocking::run_blocking_with_permit, request::image_request::ImageTask,
    store::EncodedImage,
};

/// How long a backend may take to end its stream after the last event that matters.
const LINGER: Duration = Duration::from_secs(1);

/// Larger events are read off the async threads.
const MAX_INLINE_EVENT: usize = 64 << 10;

/// A backend's events and their grant. Dropping it closes the connection and frees the slot.
#[derive(Debug)]
pub(crate) struct EventStream {
    grant: Grant,
    /// `None` if all have been received.
    response: Option<Response>,
    decoder: SseDecoder,
    deadline: Instant,
    /// The image, or the error event in its place, has been received.
    is_settled: bool,
}

#[derive(Debug)]
pub(crate) enum StreamItem {
    /// A preview, a comment, or anything else, to be passed on.
    Passthrough(Bytes),
    Completed(CompletedImage),
    /// The backend's own error event, to be passed on, and its message.
    Failed(Bytes, String),
}

#[derive(Debug)]
pub(crate) struct CompletedImage {
    pub(crate) image: EncodedImage,
    /// What the event says of it.
    pub(crate) metadata: Map<String, Value>,
    pub(crate) event: CompletedEvent,
}

/// The event that carries a finished image.
#[derive(Debug)]
pub(crate) struct CompletedEvent {
    name: &'static str,
    /// One JSON object.
    data: Vec<u8>,
    /// Where the URL goes in that.
    layout: ObjectLayout,
}

impl CompletedEvent {
    /// The event as received, with the image's URL added.
    pub(crate) fn with_url(&self, url: &str) -> Bytes {
        let data = self.layout.apply(&self.data, &[("url", Some(Value::from(url).to_string()))]);
        let mut event = format!("event: {}", self.name).into_bytes();
        for line in data.split(|byte| *byte == b'\n') {
            event.extend_from_slice(b"\ndata: ");
            event.extend_from_slice(line);
        }
        event.extend_from_slice(b"\n\n");
        event.into()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EventKind {
    Completed(&'static str),
    Error,
    Other,
}

impl EventStream {
    /// The events of a response, which must be `text/event-stream`.
    pub(super) fn from_response(
        grant: Grant,
        response: Response,
        deadline: Instant,
    ) -> Result<Self, BackendError> {
        let content_type =
            response.headers().get(header::CONTENT_TYPE).map(|value| value.as_bytes().to_ascii_lowercase());
        if !content_type.is_some_and(|value| value.starts_with(b"text/event-stream")) {
            return Err(BackendError::Unusable(
                "an event stream was requested, but the response has another content type".to_owned(),
            ));
        }
        Ok(Self {
            grant,
            response: Some(response),
            decoder: SseDecoder::default(),
            deadline,
            is_settled: false,
        })
    }

    /// A stream of this one event.
    pub(super) fn single(grant: Grant, name: &str, data: &Value) -> Self {
        let mut decoder = SseDecoder::default();
        decoder.push(format!("event: {name}\ndata: {data}\n\n").as_bytes());
        Self { grant, response: None, decoder, deadline: Instant::now(), is_settled: false }
    }

    /// A share in the slot.
    pub(crate) fn slot(&self) -> SharedPermit {
        self.grant.slot()
    }

    pub(crate) fn class(&self) -> &str {
        &self.grant.routed().backend().class
    }

    /// The next item; `None` once the stream has ended properly.
    pub(crate) async fn next(&mut self) -> Result<Option<StreamItem>, BackendError> {
        loop {
            let too_long = |_| BackendError::Unusable("one of its events is too large".to_owned());
            match self.decoder.next_item().map_err(too_long)? {
                Some(SseItem::Comment(bytes)) => return Ok(Some(StreamItem::Passthrough(bytes))),
                // Only one image was requested.
                Some(SseItem::Event(event))
                    if self.is_settled && matches!(event_kind(&event), EventKind::Completed(_)) => {}
                Some(SseItem::Event(event)) => return self.stream_item(event).await.map(Some),
                None => match self.next_chunk().await {
                    Ok(Some(bytes)) => self.decoder.push(&bytes),
                    // How the stream ends no longer matters.
                    Ok(None) | Err(_) if self.is_settled => return Ok(None),
                    Ok(None) => {
                        return Err(BackendError::Broken(
                            "the event stream ended without an image".to_owned(),
                        ));
                    }
                    Err(error) => return Err(error),
                },
            }
        }
    }

    async fn next_chunk(&mut self) -> Result<Option<Bytes>, BackendError> {
        let Some(response) = &mut self.response else { return Ok(None) };
        let chunk = timeout_at(self.deadline, response.chunk()).await.map_err(|_| BackendError::TimedOut)?;
        chunk.map_err(|error| BackendError::from_reqwest(&error))
    }

    async fn stream_item(&mut self, event: SseEvent) -> Result<StreamItem, BackendError> {
        // The name is in the event's first bytes; without one, all of the event must be read.
        let (event, kind) = if event.0.len() > MAX_INLINE_EVENT && event.name().is_empty() {
            run_blocking_with_permit(self.grant.slot(), move || (event.clone(), event_kind(&event))).await
        } else {
            let kind = event_kind(&event);
            (event, kind)
        };
        let item = match kind {
            EventKind::Other => return Ok(StreamItem::Passthrough(event.0)),
            EventKind::Error => {
                let message = error_message(&event);
                StreamItem::Failed(event.0, message)
            }
            EventKind::Completed(name) => {
                let completed =
                    run_blocking_with_permit(self.grant.slot(), move || parse_completed(name, &event));
                StreamItem::Completed(completed.await?)
            }
        };
        self.is_settled = true;
        self.deadline = self.deadline.min(Instant::now() + LINGER);
        Ok(item)
    }
}

/// Decided by the event's name, else by the `type` in its data.
fn event_kind(event: &SseEvent) -> EventKind {
    let name = Some(event.name()).filter(|name| !name.is_empty());
    let kind = || JsonObject::parse(&event.data(), &["type"]).ok()?.text("type");
    let name = name.or_else(kind).unwrap_or_default();
    let completed = [ImageTask::Generation, ImageTask::Edit].map(ImageTask::completed_event);
    match completed.into_iter().find(|completed| *completed == name) {
        Some(completed) => EventKind::Completed(completed),
        None if name == "error" => EventKind::Error,
        None => EventKind::Other,
    }
}

fn error_message(event: &SseEvent) -> String {
    let (data, names) = (event.data(), &["error", "message"]);
    let object = JsonObject::parse(&data, names).ok();
    let inner = object.as_ref().and_then(|object| JsonObject::from_value(object.get("error")?, names));
    let message = [inner, object].into_iter().flatten().find_map(|object| object.text("message"));
    one_line(message.as_deref().unwrap_or("no reason given"), MAX_MESSAGE_CHARS)
}

fn parse_completed(name: &'static str, event: &SseEvent) -> Result<CompletedImage, BackendError> {
    let unusable = |why: &str| BackendError::Unusable(why.to_owned());
    let data = event.data();
    let names = [&["b64_json", "url"], IMAGE_FIELDS].concat();
    let object = str::from_utf8(&data)
        .ok()
        .and_then(|text| JsonObject::parse_with(text, &names, Duplicates::RejectBut(IMAGE_FIELDS)).ok())
        .ok_or_else(|| unusable("its last event is not a JSON object"))?;
    let bytes = object.get("b64_json").and_then(|text| with_str(text, decode_base64));
    let bytes = bytes.ok_or_else(|| unusable("its last event has no `b64_json`"))?;
    let image = EncodedImage::from_bytes(bytes.map_err(unusable)?)
        .map_err(|error| BackendError::Unusable(format!("it sent no image: {error}")))?;
    let (metadata, layout) = (event_metadata(&object), object.layout());
    Ok(CompletedImage { image, metadata, event: CompletedEvent { name, data, layout } })
}

#[cfg(test)]
mod tests {
    use picture::painter::ProceduralImage;
    use serde_json::json;
    use wire::openai::images::ImageSize;

    use super::*;

    fn event(text: &str) -> SseEvent {
        SseEvent(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn the_name_decides_what_an_event_is_else_its_type() {
        let completed = ImageTask::Generation.completed_event();
        for (text, expected) in [
            ("event: image_generation.completed\ndata: {}\n\n", EventKind::Completed(completed)),
            ("data: {\"type\":\"image_generation.completed\"}\n\n", EventKind::Completed(completed)),
            ("data: {\"type\":\"image_edit.completed\"}\n\n", EventKind::Completed("image_edit.completed")),
            ("event: image_generation.partial_image\ndata: {\"type\":\"error\"}\n\n", EventKind::Other),
            ("event: error\ndata: {}\n\n", EventKind::Error),
            ("data: {\"type\":\"error\"}\n\n", EventKind::Error),
            ("data: [DONE]\n\n", EventKind::Other),
            ("event: response.completed\ndata: {}\n\n", EventKind::Other),
            ("retry: 1\n\n", EventKind::Other),
        ] {
            assert_eq!(event_kind(&event(text)), expected, "{text:?}");
        }
    }

    #[test]
    fn a_completed_event_without_a_complete_image_is_unusable() {
        for data in ["", "[]", "{}", "{\"b64_json\":7}", "{\"b64_json\":\"%\"}", "{\"b64_json\":\"aGk=\"}"] {
            let result = parse_completed("image_edit.completed", &event(&format!("data: {data}\n\n")));
            assert!(matches!(result, Err(BackendError::Unusable(_))), "{data}");
        }
    }

    #[test]
    fn a_completed_event_passes_unchanged_but_for_the_url() {
        let bytes =
            ProceduralImage { label: "test", prompt: "p", seed: 1, size: ImageSize::new(64, 64) }.to_png();
        let base64 = base64_simd::STANDARD.encode_to_string(bytes).replace('/', "\\/");
        let with = |before: &str, after: &str| {
            format!("event: x\ndata: {{{before}\"b64_json\":\"{base64}\"{after}}}\n\n")
        };
        for (before, after, expected_before, expected_after) in [
            ("\"n\":1.0,", ",\"a\":[]", "\"url\":\"/u\",\"n\":1.0,", ",\"a\":[]"),
            ("\"url\":null, \ndata: ", "", "\"url\":\"/u\", \ndata: ", ""),
        ] {
            let completed = parse_completed("x", &event(&with(before, after))).unwrap();
            assert_eq!(completed.event.with_url("/u"), with(expected_before, expected_after));
        }
    }

    #[test]
    fn what_an_event_says_of_its_image_is_read() {
        let bytes =
            ProceduralImage { label: "test", prompt: "p", seed: 1, size: ImageSize::new(64, 64) }.to_png();
        let base64 = base64_simd::STANDARD.encode_to_string(bytes);
        let of = |more: &str| {
            let data = format!("data: {{\"b64_json\":\"{base64}\"{more}}}\n\n");
            Value::Object(parse_completed("x", &event(&data)).unwrap().metadata)
        };
        assert_eq!(of(""), json!({}));
        let expected = json!({"seed": 7, "size": "64x64", "settings": {"steps": 9}, "ignored": ["strength"]});
        let said = r#","size":"64x64","seed":7,"settings":{"steps":9},"ignored":["strength"],"usage":{}"#;
        assert_eq!(of(said), expected);
        assert_eq!(of(r#","seed":1,"seed":2,"settings":[]"#), json!({"seed": 2}), "nothing here is refused");
    }

    #[test]
    fn a_backends_message_is_short_and_one_line() {
        let error = format!("data: {{\"error\":{{\"message\":\"a\\n{}\"}}}}\n\n", "x".repeat(999));
        assert_eq!(error_message(&event(&error)).len(), 300);
        assert_eq!(error_message(&event("data: no json\n\n")), "no reason given");
    }
}
