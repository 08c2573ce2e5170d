//! What became of a prompt, as its entry in the history tells it. Pure.

use serde::Deserialize;
use serde_json::Value;

use crate::engine::{EngineError, sanitize_message};

/// A prompt that has ended.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct HistoryEntry {
    /// What was ordered; second comes the prompt's id.
    #[serde(default)]
    prompt: Value,
    #[serde(default)]
    outputs: Value,
    #[serde(default)]
    status: Value,
}

/// A picture in one of the engine's folders.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct OutputFile {
    pub(super) filename: String,
    #[serde(default)]
    pub(super) subfolder: String,
    /// `output`, `temp` or `input`.
    #[serde(rename = "type")]
    pub(super) folder: String,
}

impl HistoryEntry {
    /// Whether it is of this prompt, as far as it says.
    pub(super) fn belongs_to(&self, prompt: &str) -> bool {
        self.prompt.get(1).and_then(Value::as_str).is_none_or(|own| own == prompt)
    }

    /// The picture of this node, or why there is none.
    pub(super) fn output_image(&self, node: &str) -> Result<OutputFile, EngineError> {
        if self.status["status_str"] == "error" {
            return Err(self.failure());
        }
        let file = self.outputs[node]["images"].get(0).cloned();
        file.and_then(|file| serde_json::from_value(file).ok()).ok_or_else(|| {
            EngineError::Failed(format!("the engine finished the job without a picture of its node {node:?}"))
        })
    }

    /// An interrupted prompt and a failed one differ in their messages only.
    fn failure(&self) -> EngineError {
        let messages = self.status["messages"].as_array().map_or(&[][..], Vec::as_slice);
        let told = |name: &str| messages.iter().find(|message| message[0] == name).map(|message| &message[1]);
        let text = |error: &Value, name: &str| error[name].as_str().unwrap_or_default().to_owned();
        match (told("execution_error"), told("execution_interrupted")) {
            (Some(error), _) => {
                classify_error(&text(error, "exception_type"), &text(error, "exception_message"))
            }
            (None, Some(_)) => EngineError::Interrupted("the job was interrupted in ComfyUI".to_owned()),
            (None, None) => {
                EngineError::Failed("the engine says that the job failed, and not why".to_owned())
            }
        }
    }
}

fn classify_error(kind: &str, message: &str) -> EngineError {
    let sanitized = sanitize_message(message);
    let lower = message.to_ascii_lowercase();
    // The last is what PyTorch says of host memory.
    let memory = kind.contains("OutOfMemory")
        || lower.contains("out of memory")
        || lower.contains("can't allocate memory");
    if memory { EngineError::OutOfMemory(sanitized) } else { EngineError::Failed(sanitized) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(outputs: &Value, status: &str, messages: &Value) -> HistoryEntry {
        let status = json!({"status_str": status, "completed": status == "success", "messages": messages});
        serde_json::from_value(json!({"prompt": [1], "outputs": outputs, "status": status, "meta": {}}))
            .unwrap()
    }

    #[test]
    fn an_entry_of_another_prompt_is_not_ours() {
        let entry = |prompt: Value| {
            serde_json::from_value::<HistoryEntry>(json!({"prompt": prompt})).unwrap().belongs_to("a")
        };
        assert!(entry(json!([3, "a", {}])) && entry(json!([3])) && entry(json!(null)));
        assert!(!entry(json!([3, "b", {}])));
    }

    #[test]
    fn the_picture_is_that_of_the_output_node() {
        let images =
            json!({"images": [{"filename": "t2i_00001_.png", "subfolder": "ada2", "type": "output"}]});
        let done = entry(&json!({"9": images}), "success", &json!([]));
        let file = OutputFile {
            filename: "t2i_00001_.png".into(),
            subfolder: "ada2".into(),
            folder: "output".into(),
        };
        assert_eq!(done.output_image("9"), Ok(file));
        let words = done.output_image("8").unwrap_err().to_string();
        assert_eq!(words, "the engine finished the job without a picture of its node \"8\"");
    }

    #[test]
    fn a_failure_is_told_in_the_engines_words_without_its_inputs() {
        let fail = |kind: &str, message: &str| {
            let error = json!({"prompt_id": "p", "node_id": "8", "exception_message": message, "exception_type": kind,
                "traceback": ["File \"/srv/comfyui/execution.py\""], "current_inputs": {"text": ["secret"]}});
            let messages = json!([["execution_start", {}], ["execution_error", error]]);
            entry(&json!({}), "error", &messages).output_image("9").unwrap_err()
        };
        assert_eq!(
            fail("PIL.UnidentifiedImageError", "cannot identify image file '/srv/comfyui/input/junk.png'\n"),
            EngineError::Failed("cannot identify image file [path]".into())
        );
        for (kind, message) in [
            (
                "torch.OutOfMemoryError",
                "CUDA error\nThis error means you ran out of memory on your GPU.\n\nTIPS: …",
            ),
            ("RuntimeError", "HIP out of memory. Tried to allocate 2.00 GiB."),
            (
                "RuntimeError",
                "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to \
                 allocate 1 bytes.",
            ),
        ] {
            assert!(matches!(fail(kind, message), EngineError::OutOfMemory(_)), "{message}");
        }
    }

    #[test]
    fn an_interrupted_job_is_told_from_a_failed_one() {
        let interrupted = json!([["execution_start", {}], ["execution_interrupted", {"node_id": "3"}]]);
        let words = |entry: HistoryEntry| entry.output_image("9").unwrap_err().to_string();
        assert_eq!(words(entry(&json!({}), "error", &interrupted)), "the job was interrupted in ComfyUI");
        let failure = entry(&json!({}), "error", &interrupted).output_image("9").unwrap_err();
        assert!(matches!(failure, EngineError::Interrupted(_)), "{failure:?}");
        assert!(words(entry(&json!({}), "error", &json!(null))).contains("not why"));
    }
}
