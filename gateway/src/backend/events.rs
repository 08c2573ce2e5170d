//! What a backend tells while it works. Events pass as they came; a finished picture is held up until its bytes were
//! seen to be a whole one.

use std::time::Duration;

use axum::http::header;
use bytes::Bytes;
use reqwest::Response;
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};

use super::{
    BackendFault,
    fault::cut,
    picture,
    sse::{Event, Frames, Piece},
    unpack::bytes_of,
};
use crate::{
    blocking::blocking,
    policy::{admission::Grant, demand::Task},
    store::Picture,
};

/// After the last event of meaning a backend has this long to end its stream.
const LINGER: Duration = Duration::from_secs(1);

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
    /// The event's name.
    pub(crate) name: &'static str,
    /// Its data.
    pub(crate) fields: Map<String, Value>,
    /// The picture in them.
    pub(crate) picture: Picture,
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
                Some(Piece::Event(event)) => return self.happening(event).await.map(Some),
                None => {}
            }
            match self.more().await {
                Ok(Some(bytes)) => self.frames.push(&bytes),
                // However it ends: all that matters was said.
                Ok(None) | Err(_) if self.settled => return Ok(None),
                Ok(None) => {
                    return Err(BackendFault::Broken("the events ended without a picture".to_owned()));
                }
                Err(fault) => return Err(fault),
            }
        }
    }

    async fn more(&mut self) -> Result<Option<Bytes>, BackendFault> {
        let Some(source) = &mut self.source else { return Ok(None) };
        let chunk = timeout_at(self.deadline, source.chunk()).await.map_err(|_| BackendFault::TimedOut)?;
        chunk.map_err(|error| BackendFault::of(&error))
    }

    async fn happening(&mut self, event: Event) -> Result<Happening, BackendFault> {
        let happening = match meaning(&event) {
            Meaning::Other => return Ok(Happening::Passing(event.0)),
            Meaning::Error => {
                let words = words(&event);
                Happening::Failed(event.0, words)
            }
            Meaning::Completed(name) => Happening::Completed(blocking(move || finished(name, &event)).await?),
        };
        self.settled = true;
        self.deadline = self.deadline.min(Instant::now() + LINGER);
        Ok(happening)
    }
}

/// By the event's name, else by the `type` in its data.
fn meaning(event: &Event) -> Meaning {
    let name = Some(event.name()).filter(|name| !name.is_empty());
    let name = name.unwrap_or_else(|| json(event)["type"].as_str().unwrap_or_default().to_owned());
    let completed = [Task::Generation, Task::Edit].map(Task::completed_event);
    match completed.into_iter().find(|known| *known == name) {
        Some(completed) => Meaning::Completed(completed),
        None if name == "error" => Meaning::Error,
        None => Meaning::Other,
    }
}

fn json(event: &Event) -> Value {
    serde_json::from_slice(&event.data()).unwrap_or_default()
}

fn words(event: &Event) -> String {
    let data = json(event);
    let words = [&data["error"]["message"], &data["message"]].into_iter().find_map(Value::as_str);
    cut(words.unwrap_or("it gives no reason"))
}

fn finished(name: &'static str, event: &Event) -> Result<Finished, BackendFault> {
    let unusable = |why: &str| BackendFault::Unusable(why.to_owned());
    let Value::Object(fields) = json(event) else {
        return Err(unusable("its last event is no JSON object"));
    };
    let text = fields.get("b64_json").and_then(Value::as_str);
    let bytes = bytes_of(text.ok_or_else(|| unusable("its last event has no `b64_json`"))?);
    let picture = picture(bytes.map_err(unusable)?)?;
    Ok(Finished { name, fields, picture })
}

#[cfg(test)]
mod tests {
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
    fn a_backends_words_are_short_and_in_one_line() {
        let error = format!("data: {{\"error\":{{\"message\":\"a\\n{}\"}}}}\n\n", "x".repeat(999));
        assert_eq!(words(&event(&error)).len(), 300);
        assert_eq!(words(&event("data: no json\n\n")), "it gives no reason");
    }
}
