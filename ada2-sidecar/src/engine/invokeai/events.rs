//! InvokeAI's events: Socket.IO over a raw WebSocket, five kinds of frames (recorded from 6.14.2). Events are small, whatever
//! the size of the frame, because many may be queued.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use service::text::prefix;

use crate::engine::previews::MAX_PREVIEW;

/// Of a name or an id.
const MAX_NAME_BYTES: usize = 256;
/// Of an error's message.
const MAX_ERROR_CHARS: usize = 4096;
/// If more items are cancelled together, jobs poll instead.
const MAX_CANCELLED_ITEMS: usize = 1024;

/// What a frame means.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Frame<'a> {
    /// The transport is open: connect to the namespace.
    Open,
    /// Connected: subscribe.
    Connected,
    /// Answer with a pong, or be closed after 45 s.
    Ping,
    /// The server refuses or ends the connection.
    Rejected,
    /// An event.
    Event(InvokeAiEvent),
    /// An item took a step.
    Progress {
        event: InvokeAiEvent,
        /// A `data:` URL.
        preview: Option<Cow<'a, str>>,
    },
    /// Nothing of interest.
    Other,
}

/// Sent to jobs.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::engine) enum InvokeAiEvent {
    /// An item of a batch changed its status.
    ItemStatus {
        batch: String,
        item: u64,
        /// `in_progress`, `completed`, `failed`, `canceled`.
        status: String,
        /// With `failed`: the error's type and message.
        error: Option<(String, String)>,
    },
    /// An item took a step.
    Progress {
        batch: String,
        item: u64,
        /// Of its steps, 0 to 1.
        fraction: f64,
    },
    /// A node of an item made an image.
    Image {
        batch: String,
        item: u64,
        /// Its id in our graph.
        node: String,
        /// The image's name.
        image: String,
    },
    /// Waiting items were cancelled together, without further events.
    Cancelled(Vec<u64>),
    /// Events may have been missed: every job must poll.
    Resync,
}

/// Connects to the namespace; in multi-user mode with the token of our login.
pub(super) fn connect(token: Option<String>) -> String {
    token.map_or_else(|| "40".to_owned(), |token| format!("40{}", json!({ "token": token })))
}

/// Asks for the queue's events.
pub(super) const SUBSCRIBE: &str = r#"42["subscribe_queue",{"queue_id":"default"}]"#;
/// Answers a ping.
pub(super) const PONG: &str = "3";

#[derive(Deserialize)]
struct ItemChanged {
    item_id: u64,
    batch_id: String,
    status: String,
    error_type: Option<String>,
    error_message: Option<String>,
}

#[derive(Deserialize)]
struct InvocationComplete {
    item_id: u64,
    batch_id: String,
    invocation_source_id: String,
    result: Value,
}

#[derive(Deserialize)]
struct InvocationProgress<'a> {
    item_id: u64,
    batch_id: String,
    percentage: Option<f64>,
    #[serde(borrow)]
    image: Option<ProgressImage<'a>>,
}

#[derive(Deserialize)]
struct ProgressImage<'a> {
    #[serde(rename = "dataURL", borrow)]
    data_url: Cow<'a, str>,
}

#[derive(Deserialize)]
struct ItemsCancelled {
    canceled_item_ids: Vec<u64>,
}

impl<'a> Frame<'a> {
    /// Reads a text frame. Unknown frames of newer versions are [`Frame::Other`].
    pub(super) fn read(text: &'a str) -> Self {
        match text.as_bytes() {
            [b'0', ..] => Self::Open,
            [b'2', ..] => Self::Ping,
            [b'4', b'0', ..] => Self::Connected,
            [b'1' | b'4', b'1' | b'4', ..] | [b'1'] => Self::Rejected,
            [b'4', b'2', ..] => event(&text[2..]).unwrap_or(Self::Other),
            _ => Self::Other,
        }
    }
}

fn event(json: &str) -> Option<Frame<'_>> {
    // Most events are of no interest: check the name before parsing.
    match json.strip_prefix("[\"")?.split('"').next()? {
        "queue_item_status_changed" => {
            let (_, event): (&str, ItemChanged) = serde_json::from_str(json).ok()?;
            let failed = event.status == "failed";
            let error = (bounded(event.error_type), bounded(event.error_message));
            let error = failed.then_some(error);
            let (batch, status) = (name(event.batch_id)?, name(event.status)?);
            Some(Frame::Event(InvokeAiEvent::ItemStatus { batch, item: event.item_id, status, error }))
        }
        "invocation_complete" => {
            let (_, event): (&str, InvocationComplete) = serde_json::from_str(json).ok()?;
            let image = event.result.pointer("/image/image_name")?.as_str()?.to_owned();
            Some(Frame::Event(InvokeAiEvent::Image {
                batch: name(event.batch_id)?,
                item: event.item_id,
                node: name(event.invocation_source_id)?,
                image: name(image)?,
            }))
        }
        "invocation_progress" => {
            let (_, event): (&str, InvocationProgress) = serde_json::from_str(json).ok()?;
            // Other nodes report progress without a percentage.
            let (batch, fraction) = (name(event.batch_id)?, event.percentage?.clamp(0.0, 1.0));
            let preview = event.image.map(|image| image.data_url);
            Some(Frame::Progress {
                event: InvokeAiEvent::Progress { batch, item: event.item_id, fraction },
                preview,
            })
        }
        "queue_items_canceled" => {
            let (_, event): (&str, ItemsCancelled) = serde_json::from_str(json).ok()?;
            let items = event.canceled_item_ids;
            let few = items.len() <= MAX_CANCELLED_ITEMS;
            Some(Frame::Event(if few { InvokeAiEvent::Cancelled(items) } else { InvokeAiEvent::Resync }))
        }
        _ => None,
    }
}

fn name(text: String) -> Option<String> {
    (text.len() <= MAX_NAME_BYTES).then_some(text)
}

fn bounded(text: Option<String>) -> String {
    prefix(&text.unwrap_or_default(), MAX_ERROR_CHARS).to_owned()
}

/// Decodes `data:image/jpeg;base64,…`, unless it is too large.
pub(super) fn preview(data_url: &str) -> Option<Bytes> {
    let (_, base64) = data_url.split_once(";base64,")?;
    let small = base64.len() / 4 * 3 <= MAX_PREVIEW;
    small.then(|| base64_simd::STANDARD.decode_to_vec(base64).ok())?.map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_five_kinds_of_frames() {
        assert_eq!(Frame::read(r#"0{"sid":"x","pingInterval":25000}"#), Frame::Open);
        assert_eq!(Frame::read(r#"40{"sid":"x"}"#), Frame::Connected);
        assert_eq!(Frame::read("2"), Frame::Ping);
        assert_eq!(Frame::read(r#"44{"message":"Connection rejected by server"}"#), Frame::Rejected);
        assert_eq!(Frame::read("41"), Frame::Rejected);
        assert_eq!(Frame::read("1"), Frame::Rejected);
        for noise in
            ["", "3", "6", "42", "42[", "42[\"new_event\",{}]", "42[\"invocation_complete\",{}]", "431[]"]
        {
            assert_eq!(Frame::read(noise), Frame::Other, "{noise}");
        }
    }

    #[test]
    fn a_failure_carries_the_engines_message() {
        let frame = r#"42["queue_item_status_changed",{"timestamp":1,"queue_id":"default","item_id":23,"batch_id":"b",
            "status":"failed","error_type":"Exception","error_message":"Unknown model 0","error_traceback":"Traceback"}]"#;
        let error = Some(("Exception".to_owned(), "Unknown model 0".to_owned()));
        let event = InvokeAiEvent::ItemStatus { batch: "b".into(), item: 23, status: "failed".into(), error };
        assert_eq!(Frame::read(frame), Frame::Event(event));
    }

    #[test]
    fn events_are_small_whatever_the_frame() {
        let long = "x".repeat(1 << 20);
        for field in ["batch_id", "status"] {
            let mut item = serde_json::json!({"item_id": 1, "batch_id": "b", "status": "failed"});
            item[field] = long.clone().into();
            let frame = format!("42[\"queue_item_status_changed\",{item}]");
            assert_eq!(Frame::read(&frame), Frame::Other, "{field}");
        }
        let item =
            serde_json::json!({"item_id": 1, "batch_id": "b", "status": "failed", "error_message": long});
        let frame = format!("42[\"queue_item_status_changed\",{item}]");
        let Frame::Event(InvokeAiEvent::ItemStatus { error: Some((_, message)), .. }) = Frame::read(&frame)
        else {
            panic!("no failure");
        };
        assert_eq!(message.len(), MAX_ERROR_CHARS);
        let many: Vec<u64> = (0..5000).collect();
        let frame =
            format!("42[\"queue_items_canceled\",{}]", serde_json::json!({"canceled_item_ids": many}));
        assert_eq!(Frame::read(&frame), Frame::Event(InvokeAiEvent::Resync));
    }

    #[test]
    fn progress_events_hold_no_preview_and_large_ones_are_not_decoded() {
        let url = "data:image/jpeg;base64,UElY";
        let frame = format!(
            r#"42["invocation_progress",{{"item_id":1,"batch_id":"b","percentage":0.5,"image":{{"dataURL":"{url}"}}}}]"#
        );
        let event = InvokeAiEvent::Progress { batch: "b".into(), item: 1, fraction: 0.5 };
        assert_eq!(Frame::read(&frame), Frame::Progress { event, preview: Some(url.into()) });
        assert_eq!(preview(url).unwrap(), "PIX");
        assert_eq!(preview(&format!("data:;base64,{}", "A".repeat(MAX_PREVIEW / 3 * 4 + 8))), None);
        assert_eq!(preview("data:image/jpeg,PIX"), None);
    }

    #[test]
    fn an_image_event_names_its_node() {
        let frame = r#"42["invocation_complete",{"item_id":1,"batch_id":"b","invocation":{"id":"p"},
            "invocation_source_id":"l2i","result":{"image":{"image_name":"x.png"},"width":64,"type":"image_output"}}]"#;
        let event =
            InvokeAiEvent::Image { batch: "b".into(), item: 1, node: "l2i".into(), image: "x.png".into() };
        assert_eq!(Frame::read(frame), Frame::Event(event));
    }
}
