//! InvokeAI's events: Socket.IO over one raw WebSocket, five kinds of frames (recorded from 6.14.2). Pure.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use shared::picture::Format;

use crate::engine::Preview;

/// What a frame asks of us, or tells us.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Frame {
    /// The transport is open: connect to the namespace.
    Open,
    /// Connected: subscribe.
    Connected,
    /// Answer with a pong, or be closed after 45 s.
    Ping,
    /// The server refuses or ends the connection.
    Refused,
    /// Something happened.
    Event(Event),
    /// Nothing of interest.
    Other,
}

/// What the engine tells about a job.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Event {
    /// An item of a batch changed its status.
    Item {
        /// Its batch.
        batch: String,
        /// The item.
        item: u64,
        /// `in_progress`, `completed`, `failed`, `canceled`.
        status: String,
        /// With `failed`: the error's type and message.
        error: Option<(String, String)>,
    },
    /// An item took a step.
    Progress {
        /// The item's batch.
        batch: String,
        /// The item.
        item: u64,
        /// Of its steps, 0 to 1.
        fraction: f64,
        /// A small picture of how it looks.
        preview: Option<Preview>,
    },
    /// A node of an item made a picture.
    Picture {
        /// The item's batch.
        batch: String,
        /// The item.
        item: u64,
        /// The node's id in our graph.
        node: String,
        /// The picture's name.
        image: String,
    },
    /// Waiting items were cancelled together; nothing else is said of them.
    Cancelled(Vec<u64>),
    /// The connection is lost or was lost: whoever waits must look for himself.
    Interrupted,
}

/// Connects to the namespace.
pub(super) const CONNECT: &str = "40";
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
struct InvocationProgress {
    item_id: u64,
    batch_id: String,
    percentage: Option<f64>,
    image: Option<ProgressImage>,
}

#[derive(Deserialize)]
struct ProgressImage {
    #[serde(rename = "dataURL")]
    data_url: String,
}

#[derive(Deserialize)]
struct ItemsCancelled {
    canceled_item_ids: Vec<u64>,
}

impl Frame {
    /// Reads a text frame. What is not understood is [`Frame::Other`]: events of newer versions must not disturb.
    pub(super) fn read(text: &str) -> Self {
        match text.as_bytes() {
            [b'0', ..] => Self::Open,
            [b'2', ..] => Self::Ping,
            [b'4', b'0', ..] => Self::Connected,
            [b'1' | b'4', b'1' | b'4', ..] | [b'1'] => Self::Refused,
            [b'4', b'2', ..] => event(&text[2..]).map_or(Self::Other, Self::Event),
            _ => Self::Other,
        }
    }
}

fn event(json: &str) -> Option<Event> {
    // Many events are of no interest: the name is looked at before anything is parsed.
    let name = json.strip_prefix("[\"")?.split('"').next()?;
    match name {
        "queue_item_status_changed" => {
            let (_, event): (&str, ItemChanged) = serde_json::from_str(json).ok()?;
            let failed = event.status == "failed";
            let error = (event.error_type.unwrap_or_default(), event.error_message.unwrap_or_default());
            let error = failed.then_some(error);
            Some(Event::Item { batch: event.batch_id, item: event.item_id, status: event.status, error })
        }
        "invocation_complete" => {
            let (_, event): (&str, InvocationComplete) = serde_json::from_str(json).ok()?;
            let image = event.result.pointer("/image/image_name")?.as_str()?.to_owned();
            Some(Event::Picture {
                batch: event.batch_id,
                item: event.item_id,
                node: event.invocation_source_id,
                image,
            })
        }
        "invocation_progress" => {
            let (_, event): (&str, InvocationProgress) = serde_json::from_str(json).ok()?;
            Some(Event::Progress {
                batch: event.batch_id,
                item: event.item_id,
                // Other nodes tell that they are at work, and no percentage.
                fraction: event.percentage?.clamp(0.0, 1.0),
                preview: event.image.and_then(|image| preview(&image.data_url)),
            })
        }
        "queue_items_canceled" => {
            let (_, event): (&str, ItemsCancelled) = serde_json::from_str(json).ok()?;
            Some(Event::Cancelled(event.canceled_item_ids))
        }
        _ => None,
    }
}

/// `data:image/jpeg;base64,…`
fn preview(data_url: &str) -> Option<Preview> {
    let (_, base64) = data_url.split_once(";base64,")?;
    let bytes: Bytes = base64_simd::STANDARD.decode_to_vec(base64).ok()?.into();
    Some(Preview { format: Format::of_whole(&bytes).ok()?, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_five_kinds_of_frames() {
        assert_eq!(Frame::read(r#"0{"sid":"x","pingInterval":25000}"#), Frame::Open);
        assert_eq!(Frame::read(r#"40{"sid":"x"}"#), Frame::Connected);
        assert_eq!(Frame::read("2"), Frame::Ping);
        assert_eq!(Frame::read(r#"44{"message":"Connection rejected by server"}"#), Frame::Refused);
        assert_eq!(Frame::read("41"), Frame::Refused);
        assert_eq!(Frame::read("1"), Frame::Refused);
        for noise in
            ["", "3", "6", "42", "42[", "42[\"new_event\",{}]", "42[\"invocation_complete\",{}]", "431[]"]
        {
            assert_eq!(Frame::read(noise), Frame::Other, "{noise}");
        }
    }

    #[test]
    fn a_failure_carries_the_engines_words() {
        let frame = r#"42["queue_item_status_changed",{"timestamp":1,"queue_id":"default","item_id":23,"batch_id":"b",
            "status":"failed","error_type":"Exception","error_message":"Unknown model 0","error_traceback":"Traceback"}]"#;
        let error = Some(("Exception".to_owned(), "Unknown model 0".to_owned()));
        let event = Event::Item { batch: "b".into(), item: 23, status: "failed".into(), error };
        assert_eq!(Frame::read(frame), Frame::Event(event));
    }

    #[test]
    fn a_picture_is_told_by_its_node() {
        let frame = r#"42["invocation_complete",{"item_id":1,"batch_id":"b","invocation":{"id":"p"},
            "invocation_source_id":"l2i","result":{"image":{"image_name":"x.png"},"width":64,"type":"image_output"}}]"#;
        let event = Event::Picture { batch: "b".into(), item: 1, node: "l2i".into(), image: "x.png".into() };
        assert_eq!(Frame::read(frame), Frame::Event(event));
    }
}
