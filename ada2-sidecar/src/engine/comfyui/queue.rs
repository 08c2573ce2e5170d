//! ComfyUI's queue (`/queue`).

use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "RawQueue")]
pub(super) struct Queue {
    pub(super) running: Vec<QueuedPrompt>,
    pub(super) pending: Vec<QueuedPrompt>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct QueuedPrompt {
    pub(super) prompt_id: String,
    client_id: Option<String>,
}

impl QueuedPrompt {
    /// Whether its client id begins with this.
    pub(super) fn is_from_client(&self, prefix: &str) -> bool {
        self.client_id.as_deref().is_some_and(|client| client.starts_with(prefix))
    }
}

impl Queue {
    /// Whether the prompt waits or runs.
    pub(super) fn holds(&self, prompt: &str) -> bool {
        self.running.iter().chain(&self.pending).any(|queued| queued.prompt_id == prompt)
    }
}

#[derive(Deserialize)]
struct RawQueue {
    queue_running: Vec<Value>,
    queue_pending: Vec<Value>,
}

impl From<RawQueue> for Queue {
    fn from(raw: RawQueue) -> Self {
        let prompts = |items: &[Value]| items.iter().map(queued_prompt).collect();
        Self { running: prompts(&raw.queue_running), pending: prompts(&raw.queue_pending) }
    }
}

/// `[number, prompt id, graph, {"client_id", …}, [output nodes]]`
fn queued_prompt(item: &Value) -> QueuedPrompt {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    QueuedPrompt { prompt_id: text(&item[1]).unwrap_or_default(), client_id: text(&item[3]["client_id"]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_have_ids_and_clients() {
        let queue: Queue = serde_json::from_str(
            r#"{"queue_running":[[52,"a",{},{"client_id":"ada2-sidecar-1.x","create_time":1},["9"]]],
                "queue_pending":[[-57,"b",{},{},["9"]],[53,"c",{},{"client_id":"web"},["9"]]]}"#,
        )
        .unwrap();
        assert_eq!((queue.running.len(), queue.pending.len()), (1, 2));
        assert!(queue.holds("a") && queue.holds("b") && !queue.holds("d"));
        assert!(
            queue.running[0].is_from_client("ada2-sidecar-1.")
                && !queue.running[0].is_from_client("ada2-sidecar-2.")
        );
        assert!(
            queue.pending.iter().all(|prompt| !prompt.is_from_client("ada2-sidecar-1.")),
            "without a client id it is not ours"
        );
        assert!(serde_json::from_str::<Queue>("{}").is_err(), "other JSON is no queue");
    }
}
