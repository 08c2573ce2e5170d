//! A fake InvokeAI 6.14: one worker, one queue, HTTP and Socket.IO, playing recordings of the real one. It behaves
//! like the real one wherever the sidecar depends on it, writes down everything that it is asked, and misbehaves as
//! its [`InvokeScript`] says. No graph is really run: a picture is painted from prompt, seed and size.

mod api;
mod queue;
mod recording;
mod script;
mod socket;
#[cfg(test)]
mod tests;
mod worker;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::net::TcpListener;

pub use crate::fake::EngineRequest;
use crate::fake::{self, ConnectionHandle, Process};
use queue::InvokeState;
pub use queue::{ItemStatus, QueueItem};
pub use script::{InvokeFailure, InvokeImageBytes, InvokeScript, Users, VersionAnswer};

/// Where a stranger's jobs go: the web page's own destination.
const FOREIGN_ORIGIN: &str = "canvas";

/// The real server closes idle connections after it.
const IDLE: Duration = Duration::from_secs(5);

type Core = fake::Core<InvokeState>;

/// A running fake, and the hands that move it. Everything ends with it.
#[derive(Debug)]
pub struct FakeInvoke {
    process: Process<InvokeState>,
}

impl FakeInvoke {
    /// Starts on a free loopback port, with one SD 1.5 and one SDXL model, idle.
    pub async fn start() -> Self {
        Self::start_at(0).await
    }

    /// The same on this loopback port.
    pub async fn start_at(port: u16) -> Self {
        let (process, listener) = Process::bind(InvokeState::new(), port).await;
        let fake = Self { process };
        fake.run(listener);
        fake
    }

    /// `http://127.0.0.1:port`, without a slash at the end.
    pub fn url(&self) -> String {
        self.process.url()
    }

    /// Changes how it behaves, from now on: what waits for a changed setting sees the change at once.
    pub fn script(&self, change: impl FnOnce(&mut InvokeScript)) {
        self.process.core.change(|state| change(&mut state.script));
    }

    /// Every HTTP request so far, WebSocket handshakes included, oldest first.
    pub fn requests(&self) -> Vec<EngineRequest> {
        self.process.core.look(|state| state.requests.clone())
    }

    /// The requests among them that cancel something.
    pub fn cancels(&self) -> Vec<EngineRequest> {
        self.requests().into_iter().filter(|seen| seen.path.contains("cancel")).collect()
    }

    /// Every queue item so far, oldest first.
    pub fn items(&self) -> Vec<QueueItem> {
        self.process.core.look(|state| state.items.clone())
    }

    /// Names of the pictures that the gallery holds.
    pub fn gallery(&self) -> Vec<String> {
        self.process.core.look(|state| state.images.keys().cloned().collect())
    }

    /// Waits until the items are as `wanted` says (bounded).
    pub async fn until(&self, wanted: impl Fn(&[QueueItem]) -> bool) {
        crate::bounded("items", self.process.core.until(|state| wanted(&state.items).then_some(()))).await;
    }

    /// Waits until nothing runs, not even the rest of a cancelled step.
    pub async fn until_idle(&self) {
        let idle = self
            .process
            .core
            .until(|state| (!state.processing && state.next_pending().is_none()).then_some(()));
        crate::bounded("the engine is idle", idle).await;
    }

    /// Waits until `count` sockets follow the events.
    pub async fn until_followed(&self, count: usize) {
        let followed =
            self.process.core.until(|state| (state.frames.receiver_count() == count).then_some(()));
        crate::bounded("the events are followed", followed).await;
    }

    /// Enqueues a job of somebody else and gives its item id. Its [`QueueItem::status`] and [`Self::cancels`] tell
    /// whether anybody touched it.
    pub fn foreign_job(&self) -> u32 {
        let mut batch: serde_json::Value =
            serde_json::from_str(include_str!("../../fixtures/invokeai/stranger.json"))
                .expect("a JSON fixture");
        batch["batch"]["destination"] = json!(FOREIGN_ORIGIN);
        let enqueued =
            self.process.core.change(|state| state.enqueue(&batch)).expect("the fixture is a valid batch");
        u32::try_from(enqueued["item_ids"][0].as_u64().expect("one item")).expect("few items")
    }

    /// Sends this frame to every socket.
    pub fn broadcast_raw(&self, frame: &str) {
        self.process.core.change(|state| state.emit(frame.to_owned(), None));
    }

    /// Pauses or resumes the queue, as the web page does.
    pub fn pause(&self, paused: bool) {
        self.process.core.change(|state| state.started = !paused);
    }

    /// Cuts every WebSocket now, without a close frame.
    pub fn drop_sockets(&self) {
        self.process.core.drop_sockets();
    }

    /// Removes every picture from the gallery.
    pub fn delete_images(&self) {
        self.process.core.change(|state| state.images.clear());
    }

    /// When the event that told of the item's completion was first written to a socket.
    pub fn finished_event_at(&self, item: u32) -> Option<Instant> {
        self.process.core.look(|state| state.finished.get(&item).copied())
    }

    /// When each preview of the item was sent, the one before the first step included.
    pub fn previews_at(&self, item: u32) -> Vec<Instant> {
        self.process.core.look(|state| state.previewed.get(&item).cloned().unwrap_or_default())
    }

    /// Ends at once, as a killed process does: connections break, new ones are refused. The port stays ours.
    pub async fn stop(&self) {
        self.process.stop().await;
    }

    /// Starts again on the same port after [`Self::stop`]: the item that ran is cancelled, waiting ones run again by
    /// themselves, a pause is forgotten.
    pub fn restart(&self) {
        self.process.core.change(InvokeState::restart);
        self.run(self.process.listen_again());
    }

    fn run(&self, listener: TcpListener) {
        let core = &self.process.core;
        self.process.run(listener, api::router(Arc::clone(core)), IDLE, worker::work(Arc::clone(core)));
    }
}
