//! What must hold of backends' responses in any chunks; see [`crate::fuzzing`].

use super::{
    sse::{SseDecoder, SseEvent, SseItem},
    truncation::{EndMark, JsonNesting, Truncation},
};

pub use super::images::fuzzing::image_response;

/// Names and data of the events, and all bytes that were passed on.
fn decoded(data: &[u8], size: usize) -> (Vec<(String, Vec<u8>)>, Vec<u8>) {
    let (mut decoder, mut events, mut passed) = (SseDecoder::default(), Vec::new(), Vec::new());
    for chunk in data.chunks(size) {
        decoder.push(chunk);
        while let Some(item) = decoder.next_item().expect("it is short") {
            if let SseItem::Event(event) = &item {
                events.push((event.name(), event.data()));
            }
            let (SseItem::Comment(bytes) | SseItem::Event(SseEvent(bytes))) = item;
            passed.extend_from_slice(&bytes);
        }
    }
    (events, passed)
}

/// Whether it is complete as a stream of events, and as JSON.
fn is_complete(data: &[u8], size: usize) -> [bool; 2] {
    [Truncation::Events(EndMark::default()), Truncation::Json(JsonNesting::default())].map(|mut kind| {
        data.chunks(size).for_each(|chunk| kind.observe(chunk));
        kind.finish().is_none()
    })
}

/// A stream of events: the same ones in any chunks, and no byte lost or changed; the same verdict on whether it was cut off,
/// and never that of JSON which parses.
pub fn event_stream(data: &[u8]) {
    let size = usize::from(data.last().copied().unwrap_or_default()) % 61 + 1;
    let (events, passed) = decoded(data, data.len().max(1));
    assert!(data.starts_with(&passed));
    let in_chunks = decoded(data, size);
    assert_eq!(in_chunks.0, events, "in chunks of {size}");
    assert!(data.starts_with(&in_chunks.1));
    let verdict = is_complete(data, data.len().max(1));
    assert_eq!(is_complete(data, size), verdict, "in chunks of {size}");
    if serde_json::from_slice::<serde::de::IgnoredAny>(data).is_ok() {
        assert!(verdict[1], "JSON that parses is complete");
    }
}
