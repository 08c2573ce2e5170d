//! A fake ComfyUI, 0.33.0 unless the script says otherwise: one worker, one queue, HTTP and WebSocket, playing
//! recordings of the real one. It checks a graph as the real one does and follows its links, but no model runs: a sampler
//! paints from prompt, seed, size and a digest of all that it is given.

mod api;
mod declarations;
mod evaluation;
mod files;
mod graph;
mod prompt;
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
pub use queue::{ComfyPrompt, ComfyState, PromptStatus};
pub use script::{ComfyScript, ComfyVersion};

type Core = process::Core<ComfyState>;

/// A running fake ComfyUI, with two checkpoints.
pub type FakeComfy = Fake<ComfyState>;

impl FakeComfy {
    /// Names of the files in its three directories, for example `output/ada2_00001_.png`.
    pub fn files(&self) -> Vec<String> {
        self.look(|state| state.files.keys().cloned().collect())
    }

    /// The workflow that was accepted last.
    pub fn last_graph(&self) -> Value {
        self.look(|state| state.items.last().map(|item| item.graph.clone()).unwrap_or_default())
    }

    /// The bytes of the pictures that a prompt's outputs depend on, in the graph's order; masks are none of them.
    pub fn pictures_of(&self, prompt: &ComfyPrompt) -> Vec<Bytes> {
        self.look(|state| {
            prompt.pictures().into_iter().filter_map(|name| files::input(state, name).cloned()).collect()
        })
    }

    /// Sends this binary frame to every socket.
    pub fn broadcast_raw(&self, frame: &Bytes) {
        self.change(|state| state.broadcast_raw(frame));
    }

    /// When the prompt's terminal event (`execution_success`, `_error` or `_interrupted`) was first written to a
    /// socket.
    pub fn finished_event_at(&self, prompt_id: &str) -> Option<Instant> {
        self.look(|state| state.finished.get(prompt_id).copied())
    }
}

impl FakeEngine for ComfyState {
    const NAME: &'static str = "comfyui";
    const VERSION: &'static str = "0.33.0";
    const UNTESTED_VERSION: &'static str = "0.44.0";
    const PREVIEW: Format = Format::Jpeg;
    /// The engine writes the graph into its files, and with it a file name that is new each time.
    const REPEATABLE: &'static [&'static str] = &["--png-metadata", "strip"];
    const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

    type Script = ComfyScript;
    type Item = ComfyPrompt;
    type ItemId = String;

    fn router(core: Arc<Core>) -> Router {
        api::router(core)
    }

    async fn work(core: Arc<Core>) {
        worker::work(core).await;
    }

    /// Nothing but the files outlives the process.
    fn restart(&mut self) {
        for item in &mut self.items {
            if matches!(item.status, PromptStatus::Pending | PromptStatus::Running) {
                item.status = PromptStatus::Lost;
            }
        }
        let old = std::mem::take(self);
        *self = Self {
            script: old.script,
            items: old.items,
            files: old.files,
            finished: old.finished,
            ids: old.ids,
            ..Self::default()
        };
        self.files.retain(|name, _| !name.starts_with("temp/"));
    }

    fn script(&mut self) -> &mut ComfyScript {
        &mut self.script
    }

    fn is_hung(&self) -> bool {
        self.script.hang
    }

    fn is_idle(&self) -> bool {
        self.queue_remaining() == 0
    }

    fn followers(&self) -> usize {
        self.sockets.len()
    }

    fn items(&self) -> &[ComfyPrompt] {
        &self.items
    }

    fn job(&self, item: &ComfyPrompt) -> EngineJob {
        let state = match item.status {
            PromptStatus::Pending => JobState::Pending,
            PromptStatus::Running => JobState::Running,
            PromptStatus::Completed => JobState::Completed,
            PromptStatus::Failed => JobState::Failed,
            PromptStatus::Interrupted | PromptStatus::Deleted => JobState::Cancelled,
            PromptStatus::Lost => JobState::Lost,
        };
        EngineJob {
            id: item.prompt_id.clone(),
            cancelled_by: item.prompt_id.clone(),
            owner: item.client_id.clone(),
            state,
            seed: item.seed(),
            denoise: item.input("denoise").and_then(Value::as_f64).unwrap_or(1.0),
            finished: self.finished.get(&item.prompt_id).copied(),
        }
    }

    fn kind(request: &EngineRequest) -> RequestKind {
        match (request.method.as_str(), request.path.trim_start_matches("/api")) {
            ("POST", "/prompt") => RequestKind::Submit,
            ("POST", "/interrupt" | "/queue") => RequestKind::Cancel,
            ("POST", path) if path.ends_with("/cancel") => RequestKind::Cancel,
            ("POST", "/upload/image") => RequestKind::Upload,
            ("POST", "/free") if request.body == r#"{"free_memory":true,"unload_models":true}"# => {
                RequestKind::FreeMemory
            }
            ("GET", path) if path == "/queue" || path.starts_with("/history") => RequestKind::JobStatus,
            _ => RequestKind::Other,
        }
    }

    fn add_foreign_job(&mut self) -> String {
        let (_, body) = Self::submission("5f2f7a0e-0000-4000-8000-00000000beef", next_seed(self));
        let (prompt_id, number) = (self.uuid(), self.next_number());
        self.enqueue(ComfyPrompt {
            prompt_id: prompt_id.clone(),
            client_id: body["client_id"].as_str().map(str::to_owned),
            number,
            extra_data: json!({"client_id": body["client_id"], "create_time": queue::now()}),
            graph: body["prompt"].clone(),
            outputs: vec!["9".to_owned()],
            status: PromptStatus::Pending,
            images: Vec::new(),
        });
        prompt_id
    }

    fn submission(tag: &str, seed: u64) -> (&'static str, Value) {
        let mut graph: Value = serde_json::from_str(include_str!("../../fixtures/comfyui/txt2img.json"))
            .expect("a JSON fixture");
        graph["3"]["inputs"]["seed"] = json!(seed);
        ("/prompt", json!({"prompt": graph, "client_id": format!("{tag}.1")}))
    }

    /// History and cache still name them.
    fn delete_images(&mut self) {
        self.files.retain(|name, _| !name.starts_with("output/"));
    }

    fn set_hung(&mut self, hung: bool) {
        self.script.hang = hung;
    }

    fn identify_as(&mut self, identity: Identity) {
        self.script.stats = identity;
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

    /// PyTorch's message and ComfyUI's advice, as recorded.
    fn out_of_memory() -> EngineFailure {
        let message = "CUDA out of memory. Tried to allocate 2.00 GiB. (simulated)\nThis error means you ran out of \
            memory on your GPU.\n\nTIPS: If the workflow worked before you might have accidentally set the batch_size \
            to a large number.";
        EngineFailure::new("torch.OutOfMemoryError", message)
    }

    fn serve_images(&mut self, bytes: ImageBytes) {
        self.script.image_bytes = bytes;
    }

    fn lose_next_answer(&mut self) {
        self.script.lose_prompt_answer = true;
    }

    fn withhold_completions(&mut self) {
        self.script.swallow = vec!["\"executing\"".to_owned(), "\"execution_success\"".to_owned()];
    }
}
