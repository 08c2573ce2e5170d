//! What must hold of the engines' events; see [`crate::fuzzing`].

use super::{comfyui::fuzzing::comfyui_frame, invokeai::fuzzing::invokeai_frame};

/// A frame of an engine's socket, read as each engine's.
pub fn engine_frames(data: &[u8]) {
    comfyui_frame(data);
    invokeai_frame(data);
}
