//! ComfyUI's queue as `/queue` tells it. Pure.

use serde::Deserialize;
use serde_json::Value;

/// Who is served and who waits.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "Raw")]
pub(super) struct Queue {
    pub(super) running: Vec<Ticket>,
    pub(super) pending: Vec<Ticket>,
}

/// A prompt in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ticket {
    /// Its id.
    pub(super) prompt: String,
    /// Whose it is.
    client: Option<String>,
}

impl Ticket {
    /// Whether it came from a client whose id begins like this.
    pub(super) fn is_of(&self, prefix: &str) -> bool {
        self.client.as_deref().is_some_and(|client| client.starts_with(prefix))
    }
}

impl Queue {
    /// Whether the prompt waits or runs.
    pub(super) fn holds(&self, prompt: &str) -> bool {
        self.running.iter().chain(&self.pending).any(|ticket| ticket.prompt == prompt)
    }
}

#[derive(Deserialize)]
struct Raw {
    queue_running: Vec<Value>,
    queue_pending: Vec<Value>,
}

impl From<Raw> for Queue {
    fn from(raw: Raw) -> Self {
        let tickets = |items: &[Value]| items.iter().map(ticket).collect();
        Self { running: tickets(&raw.queue_running), pending: tickets(&raw.queue_pending) }
    }
}

/// `[number, prompt id, graph, {"client_id", …}, [output nodes]]`
fn ticket(item: &Value) -> Ticket {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Ticket { prompt: text(&item[1]).unwrap_or_default(), client: text(&item[3]["client_id"]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_told_apart_by_id_and_owner() {
        let queue: Queue = serde_json::from_str(
            r#"{"queue_running":[[52,"a",{},{"client_id":"ada2-sidecar-1.x","create_time":1},["9"]]],
                "queue_pending":[[-57,"b",{},{},["9"]],[53,"c",{},{"client_id":"web"},["9"]]]}"#,
        )
        .unwrap();
        assert_eq!((queue.running.len(), queue.pending.len()), (1, 2));
        assert!(queue.holds("a") && queue.holds("b") && !queue.holds("d"));
        assert!(queue.running[0].is_of("ada2-sidecar-1.") && !queue.running[0].is_of("ada2-sidecar-2."));
        assert!(queue.pending.iter().all(|ticket| !ticket.is_of("ada2-sidecar-1.")), "nobody's is not ours");
        assert!(serde_json::from_str::<Queue>("{}").is_err(), "other JSON is no queue");
    }
}
