//! What must hold of ComfyUI's frames; see [`crate::fuzzing`].

use super::events::{ComfyUiEvent, read_binary, read_text};
use crate::engine::previews::MAX_PREVIEW;

pub(in crate::engine) fn comfyui_frame(data: &[u8]) {
    if let Some((_, preview)) = read_binary(data) {
        assert!((1..=MAX_PREVIEW).contains(&preview.len()) && data.ends_with(preview));
    }
    let event = str::from_utf8(data).ok().and_then(read_text);
    if let Some(ComfyUiEvent::Progress { fraction, .. }) = event {
        assert!((0.0..=1.0).contains(&fraction), "{fraction}");
    }
}
