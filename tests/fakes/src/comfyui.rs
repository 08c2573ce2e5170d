//! A fake ComfyUI, 0.33.0 unless told otherwise: one worker, one queue, HTTP and WebSocket, answering as recorded from
//! the real one. It behaves like the real one wherever the sidecar depends on it, writes down everything that it is
//! asked, and misbehaves as its [`ComfyScript`] says. Workflows run node by node, but no model does: a picture is painted
//! from prompt, seed and size.

mod api;
mod events;
mod files;
mod graph;
mod heap;
mod history;
mod jobs;
mod latent;
mod literal;
mod nodes;
mod pixels;
mod prompt;
mod queue;
mod refusal;
mod run;
mod script;
mod socket;
#[cfg(test)]
mod tests;
mod validate;
mod worker;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde_json::{Number, Value, json};
use tokio::net::TcpListener;

pub use crate::fake::EngineRequest;
use crate::fake::{self, ConnectionHandle, Process};
use queue::ComfyState;
pub use queue::{ComfyPrompt, PromptStatus};
pub use script::{ComfyFailure, ComfyImageBytes, ComfyScript, ComfyVersion, StatsAnswer};

/// The client id of somebody else's jobs.
const FOREIGN_CLIENT: &str = "5f2f7a0e-0000-4000-8000-00000000beef";

/// The real server closes idle connections after it.
const IDLE: Duration = Duration::from_secs(75);

type Core = fake::Core<ComfyState>;

/// A running fake, and the hands that move it. Everything ends with it.
#[derive(Debug)]
pub struct FakeComfy {
    process: Process<ComfyState>,
}

impl FakeComfy {
    /// Starts on a free loopback port, with two checkpoints, idle.
    pub async fn start() -> Self {
        let (process, listener) = Process::bind(ComfyState::default(), 0).await;
        let fake = Self { process };
        fake.run(listener);
        fake
    }

    /// `http://127.0.0.1:port`, without a slash at the end.
    pub fn url(&self) -> String {
        self.process.url()
    }

    /// Changes how it behaves, from now on: what waits for a changed setting sees the change at once.
    pub fn script(&self, change: impl FnOnce(&mut ComfyScript)) {
        self.process.core.change(|state| change(&mut state.script));
    }

    /// Every HTTP request so far, WebSocket handshakes included, oldest first.
    pub fn requests(&self) -> Vec<EngineRequest> {
        self.process.core.look(|state| state.requests.clone())
    }

    /// The requests among them that cancel something.
    pub fn cancels(&self) -> Vec<EngineRequest> {
        let cancels = |seen: &EngineRequest| {
            let path = seen.path.trim_start_matches("/api");
            seen.method == "POST" && (path == "/interrupt" || path == "/queue" || path.ends_with("/cancel"))
        };
        self.requests().into_iter().filter(cancels).collect()
    }

    /// Every accepted prompt so far, oldest first, those before a restart included.
    pub fn items(&self) -> Vec<ComfyPrompt> {
        self.process.core.look(|state| state.items.clone())
    }

    /// Names of the files in its three folders, for example `output/ada2_00001_.png`.
    pub fn files(&self) -> Vec<String> {
        self.process.core.look(|state| state.files.keys().cloned().collect())
    }

    /// Waits until the items are as `wanted` says (bounded).
    pub async fn until(&self, wanted: impl Fn(&[ComfyPrompt]) -> bool) {
        crate::bounded("items", self.process.core.until(|state| wanted(&state.items).then_some(()))).await;
    }

    /// Waits until nothing runs or waits.
    pub async fn until_idle(&self) {
        let idle = self.process.core.until(|state| (state.queue_remaining() == 0).then_some(()));
        crate::bounded("the engine is idle", idle).await;
    }

    /// Waits until `count` sockets follow the events.
    pub async fn until_followed(&self, count: usize) {
        let followed = self.process.core.until(|state| (state.sockets.len() == count).then_some(()));
        crate::bounded("the events are followed", followed).await;
    }

    /// Enqueues a prompt of somebody else and gives its id; with an idle worker it starts at once. Its
    /// [`ComfyPrompt::status`] and [`Self::cancels`] tell whether anybody touched it.
    pub fn foreign_job(&self) -> String {
        let mut graph: Value = serde_json::from_str(include_str!("../../fixtures/comfyui/txt2img.json"))
            .expect("a JSON fixture");
        self.process.core.change(|state| {
            let (prompt_id, number) = (state.uuid(), Number::from(state.next_number(false)));
            // Each is another picture, so that none is over at once because its result is known.
            graph["3"]["inputs"]["seed"] = json!(1_000_000 + state.items.len());
            let extra_data = json!({"client_id": FOREIGN_CLIENT, "create_time": queue::now()});
            state.enqueue(ComfyPrompt {
                prompt_id: prompt_id.clone(),
                client_id: Some(FOREIGN_CLIENT.to_owned()),
                number,
                extra_data,
                graph,
                outputs: vec!["9".to_owned()],
                status: PromptStatus::Pending,
                images: Vec::new(),
            });
            prompt_id
        })
    }

    /// Sends this binary frame to every socket.
    pub fn broadcast_raw(&self, frame: &Bytes) {
        self.process.core.change(|state| state.broadcast_raw(frame));
    }

    /// Cuts every WebSocket now, without a close frame.
    pub fn drop_sockets(&self) {
        self.process.core.drop_sockets();
    }

    /// Removes every file of the output folder; history and cache still name them.
    pub fn delete_images(&self) {
        self.process.core.change(|state| state.files.retain(|name, _| !name.starts_with("output/")));
    }

    /// When the prompt's terminal event (`execution_success`, `_error` or `_interrupted`) was first written to a
    /// socket.
    pub fn finished_event_at(&self, prompt_id: &str) -> Option<Instant> {
        self.process.core.look(|state| state.finished.get(prompt_id).copied())
    }

    /// Ends at once, as a killed process does: connections break without a close frame, new ones are refused. The
    /// port stays ours.
    pub async fn stop(&self) {
        self.process.stop().await;
    }

    /// Starts again on the same port after [`Self::stop`], knowing nothing: queue, history and counter are empty.
    pub fn restart(&self) {
        self.process.core.change(ComfyState::restart);
        self.run(self.process.listen_again());
    }

    fn run(&self, listener: TcpListener) {
        let core = &self.process.core;
        self.process.run(listener, api::router(Arc::clone(core)), IDLE, worker::work(Arc::clone(core)));
    }
}
