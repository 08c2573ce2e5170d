//! What a backend tells while it works. Events pass as they came; a finished picture is held up until its bytes were
//! seen to be a whole one.

use std::time::Duration;

use axum::http::header;
use bytes::Bytes;
use reqwest::Response;
use serde_json::Value;
use service::{slots::SharedPermit, text::one_line};
use tokio::time::{Instant, timeout_at};
use wire::openai::object::{JsonObject, ObjectLayout, with_str};

use super::{
    BackendError,
    error::MAX_MESSAGE_CHARS,
    images_response::decode_base64,
    parse_image,
    sse::{SseDecoder, SseEvent, SseItem},
};
use crate::{
    admission::Grant, blocking::run_blocking_with_permit, request::image_request::ImageTask,
    store::EncodedImage,
};

/// After the last event of meaning a backend has this long to end its stream.
const LINGER: Duration = Duration::from_secs(1);

/// Bytes of an event that is read at once.
const MAX_INLINE_EVENT: usize = 64 << 10;

/// A backend's events, and the grant that they come under. Dropping it closes the connection and frees the place.
#[derive(Debug)]
pub(crate) struct EventStream {
    grant: Grant,
    /// Where they come from; none where all have come.
    response: Option<Response>,
    decoder: SseDecoder,
    /// When waiting for the next ends.
    deadline: Instant,
    /// The picture came, or the backend's word that none will.
    is_settled: bool,
}

/// A piece of a backend's stream.
#[derive(Debug)]
pub(crate) enum StreamItem {
    /// A preview, a comment, or anything else: it passes on.
    Passthrough(Bytes),
    /// The picture is finished.
    Completed(CompletedImage),
    /// The backend's own error event, which passes on, and its words.
    Failed(Bytes, String),
}

/// A finished picture in its event.
#[derive(Debug)]
pub(crate) struct CompletedImage {
    /// The picture in it.
    pub(crate) image: EncodedImage,
    /// The event.
    pub(crate) event: CompletedEvent,
}

/// The event of a finished picture.
#[derive(Debug)]
pub(crate) struct CompletedEvent {
    name: &'static str,
    /// One JSON object.
    data: Vec<u8>,
    /// Where in that an address would be.
    layout: ObjectLayout,
}

impl CompletedEvent {
    /// The event as it came, with the picture's address.
    pub(crate) fn with_url(&self, address: &str) -> Bytes {
        let data = self.layout.apply(&self.data, &[("url", Some(Value::from(address).to_string()))]);
        let mut event = format!("event: {}", self.name).into_bytes();
        for line in data.split(|byte| *byte == b'\n') {
            event.extend_from_slice(b"\ndata: ");
            event.extend_from_slice(line);
        }
        event.extend_from_slice(b"\n\n");
        event.into()
    }
}

/// What an event means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EventKind {
    Completed(&'static str),
    Error,
    Other,
}

impl EventStream {
    /// The events of an answer that is a stream of them.
    pub(super) fn from_response(
        grant: Grant,
        answer: Response,
        deadline: Instant,
    ) -> Result<Self, BackendError> {
        let kind =
            answer.headers().get(header::CONTENT_TYPE).map(|kind| kind.as_bytes().to_ascii_lowercase());
        if !kind.is_some_and(|kind| kind.starts_with(b"text/event-stream")) {
            return Err(BackendError::Unusable("it was asked for events and sent none".to_owned()));
        }
        Ok(Self {
            grant,
            response: Some(answer),
            decoder: SseDecoder::default(),
            deadline,
            is_settled: false,
        })
    }

    /// One event that is there already.
    pub(super) fn single(grant: Grant, name: &str, data: &Value) -> Self {
        let mut frames = SseDecoder::default();
        frames.push(format!("event: {name}\ndata: {data}\n\n").as_bytes());
        Self { grant, response: None, decoder: frames, deadline: Instant::now(), is_settled: false }
    }

    /// A share in the place that they come under.
    pub(crate) fn slot(&self) -> SharedPermit {
        self.grant.slot()
    }

    /// The class that they come from.
    pub(crate) fn class(&self) -> &str {
        &self.grant.routed().backend().class
    }

    /// What happens next; none once it is over in order.
    pub(crate) async fn next(&mut self) -> Result<Option<StreamItem>, BackendError> {
        loop {
            let too_long = |_| BackendError::Unusable("one of its events is too long".to_owned());
            match self.decoder.next_item().map_err(too_long)? {
                Some(SseItem::Comment(bytes)) => return Ok(Some(StreamItem::Passthrough(bytes))),
                // One picture was asked for.
                Some(SseItem::Event(event))
                    if self.is_settled && matches!(event_kind(&event), EventKind::Completed(_)) => {}
                Some(SseItem::Event(event)) => return self.stream_item(event).await.map(Some),
                None => match self.next_chunk().await {
                    Ok(Some(bytes)) => self.decoder.push(&bytes),
                    // However it ends: all that matters was said.
                    Ok(None) | Err(_) if self.is_settled => return Ok(None),
                    Ok(None) => {
                        return Err(BackendError::Broken("the events ended without a picture".to_owned()));
                    }
                    Err(fault) => return Err(fault),
                },
            }
        }
    }

    async fn next_chunk(&mut self) -> Result<Option<Bytes>, BackendError> {
        let Some(source) = &mut self.response else { return Ok(None) };
        let chunk = timeout_at(self.deadline, source.chunk()).await.map_err(|_| BackendError::TimedOut)?;
        chunk.map_err(|error| BackendError::from_reqwest(&error))
    }

    async fn stream_item(&mut self, event: SseEvent) -> Result<StreamItem, BackendError> {
        // A name is in the event's first bytes; without one all of it is read.
        let (event, meaning) = if event.0.len() > MAX_INLINE_EVENT && event.name().is_empty() {
            run_blocking_with_permit(self.grant.slot(), move || (event.clone(), event_kind(&event))).await
        } else {
            let meaning = event_kind(&event);
            (event, meaning)
        };
        let happening = match meaning {
            EventKind::Other => return Ok(StreamItem::Passthrough(event.0)),
            EventKind::Error => {
                let message = error_message(&event);
                StreamItem::Failed(event.0, message)
            }
            EventKind::Completed(name) => {
                let finished =
                    run_blocking_with_permit(self.grant.slot(), move || parse_completed(name, &event));
                StreamItem::Completed(finished.await?)
            }
        };
        self.is_settled = true;
        self.deadline = self.deadline.min(Instant::now() + LINGER);
        Ok(happening)
    }
}

/// By the event's name, else by the `type` in its data.
fn event_kind(event: &SseEvent) -> EventKind {
    let name = Some(event.name()).filter(|name| !name.is_empty());
    let kind = || JsonObject::parse(&event.data(), &["type"]).ok()?.text("type");
    let name = name.or_else(kind).unwrap_or_default();
    let completed = [ImageTask::Generation, ImageTask::Edit].map(ImageTask::completed_event);
    match completed.into_iter().find(|known| *known == name) {
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
    one_line(message.as_deref().unwrap_or("it gives no reason"), MAX_MESSAGE_CHARS)
}

fn parse_completed(name: &'static str, event: &SseEvent) -> Result<CompletedImage, BackendError> {
    let unusable = |why: &str| BackendError::Unusable(why.to_owned());
    let data = event.data();
    let object = JsonObject::parse(&data, &["b64_json", "url"])
        .map_err(|_| unusable("its last event is no JSON object"))?;
    let bytes = object.get("b64_json").and_then(|text| with_str(text, decode_base64));
    let bytes = bytes.ok_or_else(|| unusable("its last event has no `b64_json`"))?;
    let (picture, layout) = (parse_image(bytes.map_err(unusable)?)?, object.layout());
    Ok(CompletedImage { image: picture, event: CompletedEvent { name, data, layout } })
}

#[cfg(test)]
mod tests {
    use picture::painter::ProceduralImage;
    use wire::openai::images::ImageSize;

    use super::*;

    fn event(text: &str) -> SseEvent {
        SseEvent(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn an_event_means_what_its_name_says_else_its_type() {
        let completed = ImageTask::Generation.completed_event();
        for (text, means) in [
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
            assert_eq!(event_kind(&event(text)), means, "{text:?}");
        }
    }

    #[test]
    fn a_finished_event_without_a_whole_picture_is_unusable() {
        for data in ["", "[]", "{}", "{\"b64_json\":7}", "{\"b64_json\":\"%\"}", "{\"b64_json\":\"aGk=\"}"] {
            let read = parse_completed("image_edit.completed", &event(&format!("data: {data}\n\n")));
            assert!(matches!(read, Err(BackendError::Unusable(_))), "{data}");
        }
    }

    #[test]
    fn a_finished_event_passes_as_it_came_but_for_the_address() {
        let bytes =
            ProceduralImage { label: "test", prompt: "p", seed: 1, size: ImageSize::new(64, 64) }.to_png();
        let base64 = base64_simd::STANDARD.encode_to_string(bytes).replace('/', "\\/");
        let with = |before: &str, behind: &str| {
            format!("event: x\ndata: {{{before}\"b64_json\":\"{base64}\"{behind}}}\n\n")
        };
        for (before, behind, expected_before, expected_behind) in [
            ("\"n\":1.0,", ",\"a\":[]", "\"url\":\"/u\",\"n\":1.0,", ",\"a\":[]"),
            ("\"url\":null, \ndata: ", "", "\"url\":\"/u\", \ndata: ", ""),
        ] {
            let finished = parse_completed("x", &event(&with(before, behind))).unwrap();
            assert_eq!(finished.event.with_url("/u"), with(expected_before, expected_behind));
        }
    }

    #[test]
    fn a_backends_words_are_short_and_in_one_line() {
        let error = format!("data: {{\"error\":{{\"message\":\"a\\n{}\"}}}}\n\n", "x".repeat(999));
        assert_eq!(error_message(&event(&error)).len(), 300);
        assert_eq!(error_message(&event("data: no json\n\n")), "it gives no reason");
    }
}
