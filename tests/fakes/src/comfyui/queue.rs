//! The server's state, and what deleting and interrupting affect.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{
    graph,
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
    /// Removed from the queue before it ran.
    Deleted,
    /// It waited or ran when the server was restarted.
    Lost,
}

/// One accepted prompt.
#[derive(Debug, Clone)]
pub struct ComfyPrompt {
    /// The client's or the server's.
    pub prompt_id: String,
    /// Who gets the events; marks our jobs.
    pub client_id: Option<String>,
    /// How many prompts came before.
    pub number: usize,
    /// As `GET /queue` shows it.
    pub extra_data: Value,
    /// The workflow.
    pub graph: Value,
    /// The output nodes.
    pub outputs: Vec<String>,
    /// Where it is.
    pub status: PromptStatus,
    /// Names of the images that its history lists, for example `output/ada2_00001_.png`.
    pub images: Vec<String>,
}

impl ComfyPrompt {
    /// The first value of that name that the outputs depend on, for example `seed` or `steps`.
    pub fn input(&self, name: &str) -> Option<&Value> {
        graph::value(&self.graph, &self.outputs, name)
    }

    /// The value as a number, 0 if there is none.
    pub fn int(&self, name: &str) -> u64 {
        self.input(name).and_then(Value::as_u64).unwrap_or(0)
    }

    /// The seed, wherever the outputs get it from.
    pub fn seed(&self) -> u64 {
        self.int("seed").max(self.int("noise_seed"))
    }

    /// How many steps the sampler does.
    pub fn steps(&self) -> u64 {
        let sigmas = self.input("sigmas").and_then(Value::as_str);
        sigmas.map_or_else(|| self.int("steps"), |sigmas| sigmas.matches(',').count() as u64)
    }

    /// The files that the outputs load as pictures, in the graph's order; masks are none of them.
    pub fn pictures(&self) -> Vec<&str> {
        graph::pictures(&self.graph, &self.outputs)
    }

    /// The `LoRAs` that the outputs depend on, with their weights, in the order in which they are applied.
    pub fn loras(&self) -> Vec<(String, f64)> {
        graph::loras(&self.graph, &self.outputs)
    }

    /// Whether the outputs depend on a node of that class.
    pub(super) fn has(&self, class: &str) -> bool {
        graph::needed(&self.graph, &self.outputs).into_iter().any(|id| graph::class(&self.graph, id) == class)
    }

    /// The element of `GET /queue` and of a history entry.
    pub(super) fn listed(&self) -> Value {
        json!([self.number, self.prompt_id, self.graph, self.extra_data, self.outputs])
    }
}

/// The server's state.
#[derive(Debug, Default)]
pub struct ComfyState {
    pub(super) script: ComfyScript,
    /// Every prompt that was ever accepted.
    pub(super) items: Vec<ComfyPrompt>,
    /// Checked between steps and between nodes, reset when a prompt starts.
    pub(super) interrupted: bool,
    /// `POST /free` asked for an empty cache; done between prompts.
    pub(super) free_memory: bool,
    /// The node that runs.
    pub(super) node: Option<String>,
    pub(super) history: BTreeMap<String, Value>,
    /// `output/…`, `input/…` and `temp/…`.
    pub(super) files: BTreeMap<String, Bytes>,
    /// The outputs of an equal graph.
    pub(super) cache: HashMap<String, Value>,
    pub(super) sockets: BTreeMap<String, Socket>,
    pub(super) finished: HashMap<String, Instant>,
    /// Counts prompts; a refused one as well.
    pub(super) counter: usize,
    pub(super) ids: u32,
}

impl ComfyState {
    pub(super) fn uuid(&mut self) -> String {
        self.ids += 1;
        format!("{:08x}-0000-4000-8000-{:012x}", self.ids, std::process::id())
    }

    pub(super) fn next_number(&mut self) -> usize {
        self.counter += 1;
        self.counter - 1
    }

    /// The version came after this one.
    pub(super) fn is_after(&self, major: u16, minor: u16, patch: u16) -> bool {
        self.script.version > ComfyVersion(major, minor, patch)
    }

    pub(super) fn with_status(&self, status: PromptStatus) -> impl DoubleEndedIterator<Item = &ComfyPrompt> {
        self.items.iter().filter(move |item| item.status == status)
    }

    pub(super) fn running(&self) -> Option<&ComfyPrompt> {
        self.with_status(PromptStatus::Running).next()
    }

    pub(super) fn queue_remaining(&self) -> usize {
        self.with_status(PromptStatus::Pending).count() + usize::from(self.running().is_some())
    }

    pub(super) fn enqueue(&mut self, item: ComfyPrompt) {
        self.items.push(item);
        self.broadcast_status();
    }

    pub(super) fn next_pending(&self) -> Option<usize> {
        self.items.iter().position(|item| item.status == PromptStatus::Pending)
    }

    /// None if the queue was emptied meanwhile.
    pub(super) fn begin(&mut self) -> Option<ComfyPrompt> {
        if std::mem::take(&mut self.free_memory) {
            self.cache.clear();
        }
        let index = self.next_pending()?;
        self.items[index].status = PromptStatus::Running;
        self.interrupted = false;
        self.broadcast_status();
        Some(self.items[index].clone())
    }

    /// Removes waiting prompts; only the queue's new length shows it.
    pub(super) fn delete(&mut self, pick: impl Fn(&ComfyPrompt) -> bool) {
        for item in &mut self.items {
            if item.status == PromptStatus::Pending && pick(item) {
                item.status = PromptStatus::Deleted;
            }
        }
        self.broadcast_status();
    }

    /// The running prompt has ended so.
    pub(super) fn finish(&mut self, prompt_id: &str, status: PromptStatus, outputs: &Map<String, Value>) {
        let images = outputs.values().flat_map(|output| output["images"].as_array().into_iter().flatten());
        let text = |image: &Value, key: &str| image[key].as_str().unwrap_or_default().to_owned();
        let name = |image: &Value| {
            let parts = ["type", "subfolder", "filename"].map(|key| text(image, key));
            parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
        };
        let images = images.map(name).collect();
        if let Some(item) = self.items.iter_mut().find(|item| item.prompt_id == prompt_id) {
            (item.status, item.images) = (status, images);
        }
        self.node = None;
        self.broadcast_status();
    }
}

/// Unix time in milliseconds, as the real server writes it.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    u64::try_from(since.as_millis()).expect("fits for millions of years")
}
