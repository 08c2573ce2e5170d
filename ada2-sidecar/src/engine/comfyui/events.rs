//! ComfyUI's events: frames of a WebSocket (recorded from 0.33.0, 0.12.1 and 0.3.64).

use serde_json::{Value, json};

use crate::engine::previews::MAX_PREVIEW;

/// The events of interest. How a job ended is read from the history, which is reliable.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::engine) enum ComfyUiEvent {
    /// A node of the prompt took a step.
    Progress {
        prompt: String,
        /// Of the node's steps, 0 to 1.
        fraction: f64,
    },
    /// The prompt finished or failed, and its entry in the history is written.
    Ended { prompt: String },
    /// Events may have been missed: every job must poll.
    Resync,
}

/// Our first message: it makes previews name their prompt.
pub(super) fn feature_flags_message() -> String {
    json!({"type": "feature_flags", "data": {"supports_preview_metadata": true}}).to_string()
}

/// Reads a text frame. Unknown events of newer versions are ignored.
pub(super) fn read_text(text: &str) -> Option<ComfyUiEvent> {
    let frame: Value = serde_json::from_str(text).ok()?;
    let data = &frame["data"];
    let prompt = || data["prompt_id"].as_str().map(str::to_owned);
    match frame["type"].as_str()? {
        "progress" => {
            let fraction = data["value"].as_f64()? / data["max"].as_f64().filter(|max| *max > 0.0)?;
            Some(ComfyUiEvent::Progress { prompt: prompt()?, fraction: fraction.clamp(0.0, 1.0) })
        }
        "executing" if data["node"].is_null() => Some(ComfyUiEvent::Ended { prompt: prompt()? }),
        _ => None,
    }
}

/// A preview that names its prompt: `4`, the length of the JSON, the JSON, the image. Others may belong to any client.
const PREVIEW_WITH_METADATA: u32 = 4;

/// Reads a binary frame: a prompt and its preview, unless it is too large; the progress of the same step follows.
pub(super) fn read_binary(frame: &[u8]) -> Option<(String, &[u8])> {
    let number = |at: usize| Some(u32::from_be_bytes(frame.get(at..at + 4)?.try_into().ok()?));
    if number(0)? != PREVIEW_WITH_METADATA {
        return None;
    }
    let image_start = usize::try_from(number(4)?).ok()?.checked_add(8)?;
    let metadata: Value = serde_json::from_slice(frame.get(8..image_start)?).ok()?;
    let prompt = metadata["prompt_id"].as_str()?.to_owned();
    let preview = &frame[image_start..];
    (!preview.is_empty() && preview.len() <= MAX_PREVIEW).then_some((prompt, preview))
}

#[cfg(test)]
mod tests {
    use picture::painter::ProceduralImage;
    use wire::openai::images::ImageSize;

    use super::*;

    const ID: &str = "c7ae6edd-c669-4a93-b355-168c509a1bd3";

    #[test]
    fn progress_and_end_are_read() {
        let step = format!(
            r#"{{"type": "progress", "data": {{"value": 1, "max": 2, "prompt_id": "{ID}", "node": "3"}}}}"#
        );
        assert_eq!(read_text(&step), Some(ComfyUiEvent::Progress { prompt: ID.into(), fraction: 0.5 }));
        let end = format!(r#"{{"type": "executing", "data": {{"node": null, "prompt_id": "{ID}"}}}}"#);
        assert_eq!(read_text(&end), Some(ComfyUiEvent::Ended { prompt: ID.into() }));
    }

    #[test]
    fn everything_else_is_ignored() {
        for noise in [
            r#"{"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 0}}, "sid": "x"}}"#,
            r#"{"type": "executing", "data": {"node": "9", "display_node": "9", "prompt_id": "p"}}"#,
            // The first frame after a reconnect.
            r#"{"type": "executing", "data": {"node": "3"}}"#,
            r#"{"type": "execution_success", "data": {"prompt_id": "p", "timestamp": 1795424698495}}"#,
            r#"{"type": "progress", "data": {"value": 1, "max": 0, "prompt_id": "p", "node": "3"}}"#,
            r#"{"type": "new_event"}"#,
            "[]",
            "{",
            "",
        ] {
            assert_eq!(read_text(noise), None, "{noise}");
        }
    }

    #[test]
    fn previews_without_a_prompt_are_ignored() {
        let png = ProceduralImage { label: "x", prompt: "x", seed: 1, size: ImageSize::new(8, 8) }.to_png();
        let metadata = json!({"node_id": "3", "prompt_id": ID, "image_type": "image/png"}).to_string();
        let length = u32::try_from(metadata.len()).unwrap();
        let frame = [&4_u32.to_be_bytes()[..], &length.to_be_bytes(), metadata.as_bytes(), &png].concat();
        assert_eq!(read_binary(&frame), Some((ID.to_owned(), &png[..])));
        let plain = [&1_u32.to_be_bytes()[..], &2_u32.to_be_bytes(), &png].concat();
        assert_eq!(read_binary(&plain), None);
        // The image itself is checked where it is used.
        for cut in 0..=frame.len() - png.len() {
            assert_eq!(read_binary(&frame[..cut]), None, "cut off at {cut}");
        }
        let liar = [&4_u32.to_be_bytes()[..], &u32::MAX.to_be_bytes(), b"{}"].concat();
        assert_eq!(read_binary(&liar), None);
        let large = [&frame[..], &vec![0; MAX_PREVIEW]].concat();
        assert_eq!(read_binary(&large), None, "too large");
    }
}
