//! The queue and the gallery: what is stored, what enqueueing refuses, what cancelling hits.

use std::{
    collections::{BTreeMap, HashMap},
    time::Instant,
};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::broadcast;

use super::{graph, recording, script::InvokeScript, validation};
use crate::engine::EngineFailure;

/// Where an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the engine's terms")]
pub enum ItemStatus {
    Pending,
    InProgress,
    Completed,
    Failed,
    Canceled,
}

impl ItemStatus {
    /// As the engine spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }
}

/// One queue item: one image.
#[derive(Debug, Clone)]
pub struct QueueItem {
    /// Ascending in the order in which items run.
    pub id: u32,
    /// The batch that it came in.
    pub batch_id: String,
    /// Its own.
    pub session_id: String,
    /// As enqueued.
    pub origin: Option<String>,
    /// As enqueued; marks our jobs.
    pub destination: Option<String>,
    /// Where it is.
    pub status: ItemStatus,
    /// With the batch's data put in.
    pub graph: Value,
    /// The image's name, once finished.
    pub image: Option<String>,
    /// Why it failed.
    pub failure: Option<EngineFailure>,
}

impl QueueItem {
    /// The first value of that name that the picture depends on, for example `seed` or `steps`.
    pub fn input(&self, name: &str) -> Option<&Value> {
        graph::value(&self.graph, name)
    }

    /// The value as a number, 0 if there is none.
    pub fn number(&self, name: &str) -> u64 {
        self.input(name).and_then(Value::as_u64).unwrap_or(0)
    }

    /// How many steps the denoiser does.
    pub fn steps(&self) -> u64 {
        let counted = self.number("steps").max(self.number("num_steps"));
        // One family has a node that raises them to its least.
        if counted == 0 { self.number("a").max(self.number("b")) } else { counted }
    }

    /// The names of the pictures that the picture depends on, in the graph's order; masks are none of them.
    pub fn pictures(&self) -> Vec<&str> {
        graph::pictures(&self.graph)
    }

    /// The names of the `LoRAs` that the picture depends on, with their weights, in the order in which they are applied.
    pub fn loras(&self) -> Vec<(String, f64)> {
        graph::loras(&self.graph)
    }

    /// The node whose picture is the item's.
    pub(super) fn last_node(&self) -> Option<String> {
        graph::last(&self.graph).map(str::to_owned)
    }
}

/// A Socket.IO event on its way to every socket.
#[derive(Debug, Clone)]
pub(super) struct SocketIoFrame {
    pub(super) text: String,
    pub(super) finishes: Option<u32>,
}

/// The server's state.
#[derive(Debug)]
pub struct InvokeState {
    pub(super) script: InvokeScript,
    pub(super) items: Vec<QueueItem>,
    /// Not paused.
    pub(super) started: bool,
    /// The worker is at work, if only on the rest of a cancelled item.
    pub(super) processing: bool,
    /// The gallery. The bytes are there as soon as the painter is done.
    pub(super) images: BTreeMap<String, Bytes>,
    /// Equal graphs give the stored image again, as the real node cache does.
    pub(super) cache: HashMap<String, String>,
    pub(super) finished: HashMap<u32, Instant>,
    /// When each preview of an item was sent.
    pub(super) previewed: HashMap<u32, Vec<Instant>>,
    pub(super) frames: broadcast::Sender<SocketIoFrame>,
    /// Those that are valid, in multi-user mode.
    pub(super) tokens: Vec<String>,
    ids: u32,
}

impl Default for InvokeState {
    fn default() -> Self {
        Self {
            script: InvokeScript::default(),
            items: Vec::new(),
            started: true,
            processing: false,
            images: BTreeMap::new(),
            cache: HashMap::new(),
            finished: HashMap::new(),
            previewed: HashMap::new(),
            frames: broadcast::Sender::new(4096),
            tokens: Vec::new(),
            ids: 0,
        }
    }
}

impl InvokeState {
    pub(super) fn uuid(&mut self) -> String {
        self.ids += 1;
        format!("{:08x}-0000-4000-8000-{:012x}", self.ids, std::process::id())
    }

    pub(super) fn item(&self, id: u32) -> Option<&QueueItem> {
        self.items.iter().find(|item| item.id == id)
    }

    pub(super) fn next_pending(&self) -> Option<u32> {
        let pending = self.items.iter().find(|item| item.status == ItemStatus::Pending)?;
        self.started.then_some(pending.id)
    }

    /// Sends an event to all sockets.
    pub(super) fn emit(&self, text: String, finishes: Option<u32>) {
        if !self.script.swallow.iter().any(|part| text.contains(part)) {
            // An error only means that there is no socket.
            self.frames.send(SocketIoFrame { text, finishes }).ok();
        }
    }

    /// Changes an item's status and sends the event.
    pub(super) fn set_status(&mut self, id: u32, status: ItemStatus) {
        if let Some(item) = self.items.iter_mut().find(|item| item.id == id) {
            item.status = status;
        }
        let item = self.item(id).expect("only known items move").clone();
        self.emit(recording::status_changed(&item, self), (status == ItemStatus::Completed).then_some(id));
    }

    /// Accepts or refuses `POST enqueue_batch`, as recorded.
    pub(super) fn enqueue(&mut self, body: &Value) -> Result<Value, Value> {
        let batch = &body["batch"];
        let graphs = graphs(batch, &self.script.removed_nodes)?;
        let (requested, batch_id) = (graphs.len(), self.uuid());
        let waiting = self.items.iter().filter(|item| item.status == ItemStatus::Pending).count();
        let text = |name: &str| batch[name].as_str().map(str::to_owned);
        let mut ids = Vec::new();
        for graph in graphs.into_iter().take(self.script.max_queue.saturating_sub(waiting)) {
            let id = u32::try_from(self.items.len() + 1).expect("few items");
            let session_id = self.uuid();
            self.items.push(QueueItem {
                id,
                batch_id: batch_id.clone(),
                session_id,
                origin: text("origin"),
                destination: text("destination"),
                status: ItemStatus::Pending,
                graph,
                image: None,
                failure: None,
            });
            // The real server lists them newest first.
            ids.insert(0, id);
        }
        self.emit(
            recording::batch_enqueued(&batch_id, text("origin").as_deref(), ids.len(), requested),
            None,
        );
        let ids = self.script.reported_items.clone().unwrap_or(ids);
        let mut echo = batch.clone();
        echo["batch_id"] = json!(batch_id);
        Ok(json!({"queue_id": "default", "enqueued": ids.len(), "requested": requested, "batch": echo,
            "priority": 0, "item_ids": ids}))
    }

    /// Cancels the picked items that are not over, and reports it as the real server does: waiting items only in one
    /// event for all.
    pub(super) fn cancel(&mut self, pick: impl Fn(&QueueItem) -> bool) -> usize {
        let ids = |state: &Self, status: ItemStatus| -> Vec<u32> {
            state
                .items
                .iter()
                .filter(|item| item.status == status && pick(item))
                .map(|item| item.id)
                .collect()
        };
        let (running, pending) = (ids(self, ItemStatus::InProgress), ids(self, ItemStatus::Pending));
        for item in self.items.iter_mut().filter(|item| pending.contains(&item.id)) {
            item.status = ItemStatus::Canceled;
        }
        for &id in &running {
            self.set_status(id, ItemStatus::Canceled);
        }
        if !pending.is_empty() {
            self.emit(recording::items_canceled(&pending), None);
        }
        running.len() + pending.len()
    }

    /// The fields that all counting answers have, in the recorded order.
    pub(super) fn counts(&self, pick: impl Fn(&QueueItem) -> bool) -> String {
        let picked: Vec<ItemStatus> =
            self.items.iter().filter(|item| pick(item)).map(|item| item.status).collect();
        let count = |status| picked.iter().filter(|one| **one == status).count();
        format!(
            "\"pending\":{},\"in_progress\":{},\"waiting\":0,\"completed\":{},\"failed\":{},\"canceled\":{},\"total\":{}",
            count(ItemStatus::Pending),
            count(ItemStatus::InProgress),
            count(ItemStatus::Completed),
            count(ItemStatus::Failed),
            count(ItemStatus::Canceled),
            picked.len(),
        )
    }
}

/// One graph per item, with the batch's data put in; the refusals are the recorded ones.
fn graphs(batch: &Value, removed: &[String]) -> Result<Vec<Value>, Value> {
    let graph = &batch["graph"];
    let missing =
        |loc: &[&str]| json!([{"type": "missing", "loc": loc, "msg": "Field required", "input": null}]);
    let nodes = match (batch.as_object(), graph["nodes"].as_object()) {
        (None, _) => return Err(missing(&["body", "batch"])),
        (_, None) => return Err(missing(&["body", "batch", "graph"])),
        (_, Some(nodes)) => nodes,
    };
    let wrong = |message: String| {
        Err(
            json!([{"type": "value_error", "loc": ["body", "batch"], "msg": format!("Value error, {message}"),
            "input": "the whole graph", "ctx": {"error": {}}}]),
        )
    };
    validation::check(graph, removed)?;
    let zipped = batch["data"][0].as_array().map(Vec::as_slice).unwrap_or_default();
    let length = |entry: &Value| entry["items"].as_array().map_or(0, Vec::len);
    let times = zipped.first().map_or(1, length);
    if zipped.iter().any(|entry| length(entry) != times) {
        return wrong("Zipped batch items must all have the same length".to_owned());
    }
    let mut graphs = vec![graph.clone(); times];
    for entry in zipped {
        let (node, field) = (entry["node_path"].as_str().unwrap_or_default(), entry["field_name"].as_str());
        if !nodes.contains_key(node) {
            return wrong(format!("Node {node} not found in graph"));
        }
        for (graph, value) in graphs.iter_mut().zip(entry["items"].as_array().into_iter().flatten()) {
            graph["nodes"][node][field.unwrap_or_default()] = value.clone();
        }
    }
    let runs = usize::try_from(batch["runs"].as_u64().unwrap_or(1)).expect("few runs");
    Ok(std::iter::repeat_n(graphs, runs).flatten().collect())
}
