//! What must hold of InvokeAI's frames; see [`crate::fuzzing`].

use super::events::{Frame, InvokeAiEvent};

/// Events are short, whatever the frame: many may be queued.
pub(in crate::engine) fn invokeai_frame(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let (Frame::Event(event) | Frame::Progress { event, .. }) = Frame::read(text) else { return };
    let length = match event {
        InvokeAiEvent::ItemStatus { batch, status, error, .. } => {
            let (kind, message) = error.unwrap_or_default();
            batch.len() + status.len() + kind.len() + message.len()
        }
        InvokeAiEvent::Progress { batch, fraction, .. } => {
            assert!((0.0..=1.0).contains(&fraction), "{fraction}");
            batch.len()
        }
        InvokeAiEvent::Image { batch, node, image, .. } => batch.len() + node.len() + image.len(),
        InvokeAiEvent::Cancelled(items) => items.len() * size_of::<u64>(),
        InvokeAiEvent::Resync => 0,
    };
    assert!(length <= 40 << 10, "{length}");
}
