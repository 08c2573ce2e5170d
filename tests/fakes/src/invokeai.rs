//! A fake InvokeAI 6.14: one worker, one queue, HTTP and Socket.IO, playing recordings of the real one. It
//! checks a graph as the real one does and follows its edges, but no model runs: a denoiser paints from prompt, seed, size
//! and a digest of all that it is given.

mod api;
mod evaluation;
mod faults;
mod graph;
mod login;
mod nodes;
mod queue;
mod recording;
mod script;
mod socket;
#[cfg(test)]
mod tests;
mod validation;
mod worker;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::Router;
use bytes::Bytes;
use picture::Format;
use serde_json::{Value, json};

use crate::{
    engine::{
        EngineFailure, EngineJob, Fake, FakeEngine, Identity, ImageBytes, JobState, RequestKind, next_seed,
    },
    process::{self, ConnectionHandle, EngineRequest},
};
pub use login::{PASSWORD, USER};
pub use queue::{InvokeState, ItemStatus, QueueItem};
pub use script::{InvokeImageBytes, InvokeScript, Users};

type Core = process::Core<InvokeState>;

/// A running fake InvokeAI, with one SD 1.5 and one SDXL model.
pub type FakeInvoke = Fake<InvokeState>;

impl FakeInvoke {
    /// Names of the images in the gallery.
    pub fn gallery(&self) -> Vec<String> {
        self.look(|state| state.images.keys().cloned().collect())
    }

    /// The graph of the item that was accepted last.
    pub fn last_graph(&self) -> Value {
        self.look(|state| state.items.last().map(|item| item.graph.clone()).unwrap_or_default())
    }

    /// The bytes of the pictures that an item's picture depends on, in the graph's order, as far as they are still stored.
    /// Masks are none of them.
    pub fn pictures_of(&self, item: &QueueItem) -> Vec<Bytes> {
        self.look(|state| {
            item.pictures().into_iter().filter_map(|name| state.images.get(name).cloned()).collect()
        })
    }

    /// Sends this frame to every socket.
    pub fn broadcast_raw(&self, frame: &str) {
        self.change(|state| state.emit(frame.to_owned(), None));
    }

    /// Makes every token invalid that it gave out.
    pub fn expire_tokens(&self) {
        self.change(|state| state.tokens.clear());
    }

    /// Every token that is valid now, oldest first.
    pub fn tokens(&self) -> Vec<String> {
        self.look(|state| state.tokens.clone())
    }

    /// The logins that were tried.
    pub fn logins(&self) -> usize {
        self.requests().iter().filter(|request| request.path == "/api/v1/auth/login").count()
    }

    /// Pauses or resumes the queue, as the web page does.
    pub fn pause(&self, paused: bool) {
        self.change(|state| state.started = !paused);
    }

    /// When the item's completion was first written to a socket.
    pub fn finished_event_at(&self, item: u32) -> Option<Instant> {
        self.look(|state| state.finished.get(&item).copied())
    }

    /// When each preview of the item was sent, the one before the first step included.
    pub fn previews_at(&self, item: u32) -> Vec<Instant> {
        self.look(|state| state.previewed.get(&item).cloned().unwrap_or_default())
    }
}

impl FakeEngine for InvokeState {
    const NAME: &'static str = "invokeai";
    const VERSION: &'static str = "6.14.2";
    const UNTESTED_VERSION: &'static str = "7.0.0";
    const PREVIEW: Format = Format::Jpeg;
    const REPEATABLE: &'static [&'static str] = &[];
    const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

    type Script = InvokeScript;
    type Item = QueueItem;
    type ItemId = u32;

    fn router(core: Arc<Core>) -> Router {
        api::router(core)
    }

    async fn work(core: Arc<Core>) {
        worker::work(core).await;
    }

    /// The item that ran is cancelled, those that wait run again by themselves, a pause is forgotten.
    fn restart(&mut self) {
        for item in self.items.iter_mut().filter(|item| item.status == ItemStatus::InProgress) {
            item.status = ItemStatus::Canceled;
        }
        (self.started, self.processing) = (true, false);
        self.cache.clear();
    }

    fn script(&mut self) -> &mut InvokeScript {
        &mut self.script
    }

    fn is_hung(&self) -> bool {
        self.script.hang
    }

    fn is_idle(&self) -> bool {
        !self.processing && self.next_pending().is_none()
    }

    fn followers(&self) -> usize {
        self.frames.receiver_count()
    }

    fn items(&self) -> &[QueueItem] {
        &self.items
    }

    fn job(&self, item: &QueueItem) -> EngineJob {
        let state = match item.status {
            ItemStatus::Pending => JobState::Pending,
            ItemStatus::InProgress => JobState::Running,
            ItemStatus::Completed => JobState::Completed,
            ItemStatus::Failed => JobState::Failed,
            ItemStatus::Canceled => JobState::Cancelled,
        };
        EngineJob {
            id: item.id.to_string(),
            cancelled_by: item.batch_id.clone(),
            owner: item.destination.clone(),
            state,
            seed: item.number("seed"),
            denoise: 1.0 - item.input("denoising_start").and_then(Value::as_f64).unwrap_or(0.0),
            finished: self.finished.get(&item.id).copied(),
        }
    }

    fn kind(request: &EngineRequest) -> RequestKind {
        let path = request.path.as_str();
        if path.contains("cancel") {
            RequestKind::Cancel
        } else if path.ends_with("/enqueue_batch") {
            RequestKind::Submit
        } else if path.contains("/b/") {
            RequestKind::JobStatus
        } else if path.contains("/images/upload") {
            RequestKind::Upload
        } else if path == "/api/v2/models/empty_model_cache" {
            RequestKind::FreeMemory
        } else {
            RequestKind::Other
        }
    }

    /// Its destination is the web page's own.
    fn add_foreign_job(&mut self) -> u32 {
        let (_, batch) = Self::submission("canvas", next_seed(self));
        let enqueued = self.enqueue(&batch).expect("the fixture is a valid batch");
        u32::try_from(enqueued["item_ids"][0].as_u64().expect("one item")).expect("few items")
    }

    fn submission(tag: &str, seed: u64) -> (&'static str, Value) {
        let mut batch: Value = serde_json::from_str(include_str!("../../fixtures/invokeai/foreign.json"))
            .expect("a JSON fixture");
        batch["batch"]["destination"] = json!(tag);
        batch["batch"]["graph"]["nodes"]["noise"]["seed"] = json!(seed);
        ("/api/v1/queue/default/enqueue_batch", batch)
    }

    fn delete_images(&mut self) {
        self.images.clear();
    }

    fn set_hung(&mut self, hung: bool) {
        self.script.hang = hung;
    }

    fn identify_as(&mut self, identity: Identity) {
        self.script.version = identity;
    }

    fn hold(&mut self, held: bool) {
        self.script.hold = held;
    }

    fn set_job_time(&mut self, time: Duration) {
        self.script.item = time;
    }

    fn set_cancel_delay(&mut self, time: Duration) {
        self.script.cancel_tail = time;
    }

    fn fail(&mut self, failure: Option<EngineFailure>) {
        self.script.fail = failure;
    }

    /// PyTorch's message.
    fn out_of_memory() -> EngineFailure {
        let message = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 47.37 GiB of \
            which 1.12 GiB is free. Including non-PyTorch memory, this process has 46.24 GiB memory in use.";
        EngineFailure::new("OutOfMemoryError", message)
    }

    fn serve_images(&mut self, bytes: ImageBytes) {
        self.script.image_bytes = InvokeImageBytes::Plain(bytes);
    }

    fn lose_next_answer(&mut self) {
        self.script.lose_enqueue_answer = true;
    }

    fn withhold_completions(&mut self) {
        self.script.swallow = vec!["\"status\":\"completed\"".to_owned()];
    }
}
