//! What a backend tells while it works. Events pass as they came; a finished picture is held up until its bytes were
//! seen to be a whole one.

use std::time::Duration;

use axum::http::header;
use bytes::Bytes;
use reqwest::Response;
use serde_json::Value;
use service::{slots::Place, text::one_line};
use tokio::time::{Instant, timeout_at};
use wire::openai::object::{Layout, Object, with_text};

use super::{
    BackendFault,
    fault::LONGEST_MESSAGE,
    picture,
    sse::{Event, Frames, Piece},
    unpack::bytes_of,
};
use crate::{admission::Grant, blocking::blocking_under, request::demand::Task, store::Picture};

/// After the last event of meaning a backend has this long to end its stream.
const LINGER: Duration = Duration::from_secs(1);

/// Bytes of an event that is read at once.
const AT_ONCE: usize = 64 << 10;

/// A backend's events, and the grant that they come under. Dropping it closes the connection and frees the place.
#[derive(Debug)]
pub(crate) struct Events {
    grant: Grant,
    /// Where they come from; none where all have come.
    source: Option<Response>,
    frames: Frames,
    /// When waiting for the next ends.
    deadline: Instant,
    /// The picture came, or the backend's word that none will.
    settled: bool,
}

/// A piece of a backend's stream.
#[derive(Debug)]
pub(crate) enum Happening {
    /// A preview, a comment, or anything else: it passes on.
    Passing(Bytes),
    /// The picture is finished.
    Completed(Finished),
    /// The backend's own error event, which passes on, and its words.
    Failed(Bytes, String),
}

/// A finished picture in its event.
#[derive(Debug)]
pub(crate) struct Finished {
    /// The picture in it.
    pub(crate) picture: Picture,
    /// The event.
    pub(crate) event: FinishedEvent,
}

/// The event of a finished picture.
#[derive(Debug)]
pub(crate) struct FinishedEvent {
    name: &'static str,
    /// One JSON object.
    data: Vec<u8>,
    /// Where in that an address would be.
    layout: Layout,
}

impl FinishedEvent {
    /// The event as it came, with the picture's address.
    pub(crate) fn with_address(&self, address: &str) -> Bytes {
        let data = self.layout.edited(&self.data, &[("url", Some(Value::from(address).to_string()))]);
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
enum Meaning {
    Completed(&'static str),
    Error,
    Other,
}

impl Events {
    /// The events of an answer that is a stream of them.
    pub(super) fn of(grant: Grant, answer: Response, deadline: Instant) -> Result<Self, BackendFault> {
        let kind =
            answer.headers().get(header::CONTENT_TYPE).map(|kind| kind.as_bytes().to_ascii_lowercase());
        if !kind.is_some_and(|kind| kind.starts_with(b"text/event-stream")) {
            return Err(BackendFault::Unusable("it was asked for events and sent none".to_owned()));
        }
        Ok(Self { grant, source: Some(answer), frames: Frames::default(), deadline, settled: false })
    }

    /// One event that is there already.
    pub(super) fn one(grant: Grant, name: &str, data: &Value) -> Self {
        let mut frames = Frames::default();
        frames.push(format!("event: {name}\ndata: {data}\n\n").as_bytes());
        Self { grant, source: None, frames, deadline: Instant::now(), settled: false }
    }

    /// A share in the place that they come under.
    pub(crate) fn place(&self) -> Place {
        self.grant.place()
    }

    /// The class that they come from.
    pub(crate) fn class(&self) -> &str {
        &self.grant.permitted().backend().class
    }

    /// What happens next; none once it is over in order.
    pub(crate) async fn next(&mut self) -> Result<Option<Happening>, BackendFault> {
        loop {
            let too_long = |_| BackendFault::Unusable("one of its events is too long".to_owned());
            match self.frames.take().map_err(too_long)? {
                Some(Piece::Between(bytes)) => return Ok(Some(Happening::Passing(bytes))),
                // One picture was asked for.
                Some(Piece::Event(event))
                    if self.settled && matches!(meaning(&event), Meaning::Completed(_)) => {}
                Some(Piece::Event(event)) => return self.happening(event).await.map(Some),
                None => match self.more().await {
                    Ok(Some(bytes)) => self.frames.push(&bytes),
                    // However it ends: all that matters was said.
                    Ok(None) | Err(_) if self.settled => return Ok(None),
                    Ok(None) => {
                        return Err(BackendFault::Broken("the events ended without a picture".to_owned()));
                    }
                    Err(fault) => return Err(fault),
                },
            }
        }
    }

    async fn more(&mut self) -> Result<Option<Bytes>, BackendFault> {
        let Some(source) = &mut self.source else { return Ok(None) };
        let chunk = timeout_at(self.deadline, source.chunk()).await.map_err(|_| BackendFault::TimedOut)?;
        chunk.map_err(|error| BackendFault::of(&error))
    }

    async fn happening(&mut self, event: Event) -> Result<Happening, BackendFault> {
        // A name is in the event's first bytes; without one all of it is read.
        let (event, meaning) = if event.0.len() > AT_ONCE && event.name().is_empty() {
            blocking_under(self.grant.place(), move || (event.clone(), meaning(&event))).await
        } else {
            let meaning = meaning(&event);
            (event, meaning)
        };
        let happening = match meaning {
            Meaning::Other => return Ok(Happening::Passing(event.0)),
            Meaning::Error => {
                let words = words(&event);
                Happening::Failed(event.0, words)
            }
            Meaning::Completed(name) => {
                let finished = blocking_under(self.grant.place(), move || finished(name, &event));
                Happening::Completed(finished.await?)
            }
        };
        self.settled = true;
        self.deadline = self.deadline.min(Instant::now() + LINGER);
        Ok(happening)
    }
}

/// By the event's name, else by the `type` in its data.
fn meaning(event: &Event) -> Meaning {
    let name = Some(event.name()).filter(|name| !name.is_empty());
    let kind = || Object::read(&event.data(), &["type"]).ok()?.text("type");
    let name = name.or_else(kind).unwrap_or_default();
    let completed = [Task::Generation, Task::Edit].map(Task::completed_event);
    match completed.into_iter().find(|known| *known == name) {
        Some(completed) => Meaning::Completed(completed),
        None if name == "error" => Meaning::Error,
        None => Meaning::Other,
    }
}

fn words(event: &Event) -> String {
    let (data, names) = (event.data(), &["error", "message"]);
    let object = Object::read(&data, names).ok();
    let inner = object.as_ref().and_then(|object| Object::within(object.get("error")?, names));
    let words = [inner, object].into_iter().flatten().find_map(|object| object.text("message"));
    one_line(words.as_deref().unwrap_or("it gives no reason"), LONGEST_MESSAGE)
}

fn finished(name: &'static str, event: &Event) -> Result<Finished, BackendFault> {
    let unusable = |why: &str| BackendFault::Unusable(why.to_owned());
    let data = event.data();
    let object = Object::read(&data, &["b64_json", "url"])
        .map_err(|_| unusable("its last event is no JSON object"))?;
    let bytes = object.get("b64_json").and_then(|text| with_text(text, bytes_of));
    let bytes = bytes.ok_or_else(|| unusable("its last event has no `b64_json`"))?;
    let (picture, layout) = (picture(bytes.map_err(unusable)?)?, object.layout());
    Ok(Finished { picture, event: FinishedEvent { name, data, layout } })
}

#[cfg(test)]
mod tests {
    use picture::paint::Painting;
    use wire::openai::images::Size;

    use super::*;

    fn event(text: &str) -> Event {
        Event(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn an_event_means_what_its_name_says_else_its_type() {
        let completed = Task::Generation.completed_event();
        for (text, means) in [
            ("event: image_generation.completed\ndata: {}\n\n", Meaning::Completed(completed)),
            ("data: {\"type\":\"image_generation.completed\"}\n\n", Meaning::Completed(completed)),
            ("data: {\"type\":\"image_edit.completed\"}\n\n", Meaning::Completed("image_edit.completed")),
            ("event: image_generation.partial_image\ndata: {\"type\":\"error\"}\n\n", Meaning::Other),
            ("event: error\ndata: {}\n\n", Meaning::Error),
            ("data: {\"type\":\"error\"}\n\n", Meaning::Error),
            ("data: [DONE]\n\n", Meaning::Other),
            ("event: response.completed\ndata: {}\n\n", Meaning::Other),
            ("retry: 1\n\n", Meaning::Other),
        ] {
            assert_eq!(meaning(&event(text)), means, "{text:?}");
        }
    }

    #[test]
    fn a_finished_event_without_a_whole_picture_is_unusable() {
        for data in ["", "[]", "{}", "{\"b64_json\":7}", "{\"b64_json\":\"%\"}", "{\"b64_json\":\"aGk=\"}"] {
            let read = finished("image_edit.completed", &event(&format!("data: {data}\n\n")));
            assert!(matches!(read, Err(BackendFault::Unusable(_))), "{data}");
        }
    }

    #[test]
    fn a_finished_event_passes_as_it_came_but_for_the_address() {
        let bytes = Painting { painter: "test", prompt: "p", seed: 1, size: Size::new(64, 64) }.to_png();
        let base64 = base64_simd::STANDARD.encode_to_string(bytes).replace('/', "\\/");
        let with = |before: &str, behind: &str| {
            format!("event: x\ndata: {{{before}\"b64_json\":\"{base64}\"{behind}}}\n\n")
        };
        for (before, behind, expected_before, expected_behind) in [
            ("\"n\":1.0,", ",\"a\":[]", "\"url\":\"/u\",\"n\":1.0,", ",\"a\":[]"),
            ("\"url\":null, \ndata: ", "", "\"url\":\"/u\", \ndata: ", ""),
        ] {
            let finished = finished("x", &event(&with(before, behind))).unwrap();
            assert_eq!(finished.event.with_address("/u"), with(expected_before, expected_behind));
        }
    }

    #[test]
    fn a_backends_words_are_short_and_in_one_line() {
        let error = format!("data: {{\"error\":{{\"message\":\"a\\n{}\"}}}}\n\n", "x".repeat(999));
        assert_eq!(words(&event(&error)).len(), 300);
        assert_eq!(words(&event("data: no json\n\n")), "it gives no reason");
    }
}
