//! The queue: what is stored, in which order it runs, what deleting and interrupting hit.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use serde_json::{Number, Value, json};

use super::{
    graph::NodeResult,
    heap::Heap,
    history::Entry,
    script::{ComfyScript, ComfyVersion},
    socket::Socket,
};

/// Where a prompt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromptStatus {
    /// It waits.
    Pending,
    /// It runs, or its history entry is being written.
    Running,
    /// `execution_success`.
    Completed,
    /// `execution_error`.
    Failed,
    /// `execution_interrupted`.
    Interrupted,
    /// Taken out of the queue before it ran.
    Deleted,
    /// It waited or ran when the server was restarted.
    Lost,
}

/// One accepted prompt.
#[derive(Debug, Clone)]
pub struct ComfyPrompt {
    /// The client's or the server's.
    pub prompt_id: String,
    /// Who gets the events; ours is told from others' by it.
    pub client_id: Option<String>,
    /// Lower runs first.
    pub number: Number,
    /// As `GET /queue` shows it.
    pub extra_data: Value,
    /// The workflow, numbers coerced.
    pub graph: Value,
    /// The output nodes that run.
    pub outputs: Vec<String>,
    /// Where it is.
    pub status: PromptStatus,
    /// Names of the pictures that its history lists, for example `output/ada2_00001_.png`.
    pub images: Vec<String>,
}

impl ComfyPrompt {
    /// The first value of that name in any node's inputs, for example `seed` or `steps`.
    pub fn input(&self, name: &str) -> Option<&Value> {
        self.graph.as_object()?.values().find_map(|node| node["inputs"].get(name))
    }

    /// The value as a number, 0 if there is none.
    pub fn int(&self, name: &str) -> u64 {
        self.input(name).and_then(Value::as_u64).unwrap_or(0)
    }

    /// The inputs of the first node of that class.
    pub fn node(&self, class: &str) -> Option<&Value> {
        self.graph.as_object()?.values().find(|node| node["class_type"] == class).map(|node| &node["inputs"])
    }

    /// The element of `GET /queue` and of a history entry.
    pub(super) fn listed(&self) -> Value {
        json!([self.number, self.prompt_id, self.graph, self.extra_data, self.outputs])
    }
}

/// Everything that the server knows.
#[derive(Debug, Default)]
pub struct ComfyState {
    pub(super) script: ComfyScript,
    /// Every prompt that was ever accepted.
    pub(super) items: Vec<ComfyPrompt>,
    pub(super) heap: Heap,
    pub(super) running: Option<usize>,
    /// Looked at between steps and between nodes, forgotten when a prompt starts.
    pub(super) interrupted: bool,
    /// `POST /free` asked for an empty cache; done between prompts.
    pub(super) free_memory: bool,
    /// Who gets the events of what runs or ran last.
    pub(super) client: Option<String>,
    /// The node that runs.
    pub(super) node: Option<String>,
    pub(super) history: Vec<Entry>,
    /// `output/…`, `input/…` and `temp/…`.
    pub(super) files: BTreeMap<String, Bytes>,
    /// Results by what they depend on.
    pub(super) cache: HashMap<String, NodeResult>,
    pub(super) sockets: BTreeMap<String, Socket>,
    pub(super) finished: HashMap<String, Instant>,
    pub(super) counter: i64,
    pub(super) ids: u32,
}

impl ComfyState {
    pub(super) fn uuid(&mut self) -> String {
        self.ids += 1;
        format!("{:08x}-0000-4000-8000-{:012x}", self.ids, std::process::id())
    }

    /// The number of a prompt that does not bring its own. A refused one uses it up too.
    pub(super) fn next_number(&mut self, front: bool) -> i64 {
        self.counter += 1;
        if front { 1 - self.counter } else { self.counter - 1 }
    }

    /// The version came after this one.
    pub(super) fn is_after(&self, major: u16, minor: u16, patch: u16) -> bool {
        self.script.version > ComfyVersion(major, minor, patch)
    }

    pub(super) fn running(&self) -> Option<&ComfyPrompt> {
        self.running.map(|index| &self.items[index])
    }

    pub(super) fn queue_remaining(&self) -> usize {
        self.heap.len() + usize::from(self.running.is_some())
    }

    pub(super) fn enqueue(&mut self, item: ComfyPrompt) {
        self.heap.push(self.items.len(), &item);
        self.items.push(item);
        self.broadcast_status();
    }

    /// Starts the lowest; gives its index.
    pub(super) fn take_next(&mut self) -> Option<usize> {
        if std::mem::take(&mut self.free_memory) {
            self.cache.clear();
        }
        let index = self.heap.pop()?;
        self.running = Some(index);
        self.items[index].status = PromptStatus::Running;
        self.client = self.items[index].client_id.clone();
        self.broadcast_status();
        self.interrupted = false;
        Some(index)
    }

    /// Takes waiting prompts out; nothing tells of it but the queue's new length. Gives whether there was one.
    pub(super) fn delete(&mut self, prompt_id: &str) -> bool {
        let found = self.heap.indices().find(|index| self.items[*index].prompt_id == prompt_id);
        if let Some(index) = found {
            self.heap.remove(index);
            self.items[index].status = PromptStatus::Deleted;
            self.broadcast_status();
        }
        found.is_some()
    }

    pub(super) fn clear(&mut self) {
        for index in self.heap.indices() {
            self.items[index].status = PromptStatus::Deleted;
        }
        self.heap.clear();
        self.broadcast_status();
    }

    pub(super) fn runs(&self, prompt_id: &str) -> bool {
        self.running().is_some_and(|item| item.prompt_id == prompt_id)
    }
}

/// Milliseconds, as the real server tells time.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    u64::try_from(since.as_millis()).expect("fits for millions of years")
}
