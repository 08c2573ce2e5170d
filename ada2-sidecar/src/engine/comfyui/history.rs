//! The result of a prompt: its entry in the history.

use serde::Deserialize;
use serde_json::Value;

use crate::engine::{EngineError, sanitize_message};

/// A finished prompt.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct HistoryEntry {
    /// The prompt as submitted; its id is the second element.
    #[serde(default)]
    prompt: Value,
    #[serde(default)]
    outputs: Value,
    #[serde(default)]
    status: Value,
}

/// An image in one of the engine's directories.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct OutputFile {
    pub(super) filename: String,
    #[serde(default)]
    pub(super) subfolder: String,
    /// `output`, `temp` or `input`.
    #[serde(rename = "type")]
    pub(super) directory: String,
}

impl HistoryEntry {
    /// Whether it belongs to this prompt, as far as it says.
    pub(super) fn belongs_to(&self, prompt: &str) -> bool {
        self.prompt.get(1).and_then(Value::as_str).is_none_or(|actual| actual == prompt)
    }

    /// The image of this node, or why there is none.
    pub(super) fn output_image(&self, node: &str) -> Result<OutputFile, EngineError> {
        if self.status["status_str"] == "error" {
            return Err(self.failure());
        }
        let file = self.outputs[node]["images"].get(0).cloned();
        file.and_then(|file| serde_json::from_value(file).ok()).ok_or_else(|| {
            EngineError::Failed(format!("the engine finished the job without an image from node {node:?}"))
        })
    }

    /// Interrupted and failed prompts differ only in their messages.
    fn failure(&self) -> EngineError {
        let messages = self.status["messages"].as_array().map_or(&[][..], Vec::as_slice);
        let message =
            |name: &str| messages.iter().find(|message| message[0] == name).map(|message| &message[1]);
        let text = |error: &Value, name: &str| error[name].as_str().unwrap_or_default().to_owned();
        match (message("execution_error"), message("execution_interrupted")) {
            (Some(error), _) => {
                classify_error(&text(error, "exception_type"), &text(error, "exception_message"))
            }
            (None, Some(_)) => EngineError::Interrupted("the job was interrupted in ComfyUI".to_owned()),
            (None, None) => EngineError::Failed("the engine reported a failure without a reason".to_owned()),
        }
    }
}

fn classify_error(exception_type: &str, message: &str) -> EngineError {
    let sanitized = sanitize_message(message);
    let lower = message.to_ascii_lowercase();
    // The last is PyTorch's message for host memory.
    let is_out_of_memory = exception_type.contains("OutOfMemory")
        || lower.contains("out of memory")
        || lower.contains("can't allocate memory");
    if is_out_of_memory { EngineError::OutOfMemory(sanitized) } else { EngineError::Failed(sanitized) }
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
    fn the_image_comes_from_the_output_node() {
        let images =
            json!({"images": [{"filename": "t2i_00001_.png", "subfolder": "ada2", "type": "output"}]});
        let done = entry(&json!({"9": images}), "success", &json!([]));
        let file = OutputFile {
            filename: "t2i_00001_.png".into(),
            subfolder: "ada2".into(),
            directory: "output".into(),
        };
        assert_eq!(done.output_image("9"), Ok(file));
        let message = done.output_image("8").unwrap_err().to_string();
        assert_eq!(message, "the engine finished the job without an image from node \"8\"");
    }

    #[test]
    fn a_failure_has_the_engines_message_without_its_inputs() {
        let fail = |exception_type: &str, message: &str| {
            let error = json!({"prompt_id": "p", "node_id": "8", "exception_message": message, "exception_type": exception_type,
                "traceback": ["File \"/srv/comfyui/execution.py\""], "current_inputs": {"text": ["secret"]}});
            let messages = json!([["execution_start", {}], ["execution_error", error]]);
            entry(&json!({}), "error", &messages).output_image("9").unwrap_err()
        };
        assert_eq!(
            fail("PIL.UnidentifiedImageError", "cannot identify image file '/srv/comfyui/input/junk.png'\n"),
            EngineError::Failed("cannot identify image file [path]".into())
        );
        for (exception_type, message) in [
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
            assert!(matches!(fail(exception_type, message), EngineError::OutOfMemory(_)), "{message}");
        }
    }

    #[test]
    fn interrupted_jobs_differ_from_failed_ones() {
        let interrupted = json!([["execution_start", {}], ["execution_interrupted", {"node_id": "3"}]]);
        let message = |entry: HistoryEntry| entry.output_image("9").unwrap_err().to_string();
        assert_eq!(message(entry(&json!({}), "error", &interrupted)), "the job was interrupted in ComfyUI");
        let failure = entry(&json!({}), "error", &interrupted).output_image("9").unwrap_err();
        assert!(matches!(failure, EngineError::Interrupted(_)), "{failure:?}");
        assert!(message(entry(&json!({}), "error", &json!(null))).contains("without a reason"));
    }
}
