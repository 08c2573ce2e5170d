//! The one worker: runs prompts first in, first out, by playing their recording.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{
    Core,
    evaluation::Evaluation,
    files,
    queue::{ComfyPrompt, ComfyState, PromptStatus, now},
    recording::{RecordedEvent, Recording},
    script::ComfyScript,
};
use crate::{engine::EngineFailure, painting::encode};

/// What every preview shows: 512 pixels, whatever the image's size.
const PREVIEW: &[u8] = include_bytes!("../../../fixtures/comfyui/preview.jpg");

pub(super) async fn work(core: Arc<Core>) {
    loop {
        core.until(ComfyState::next_pending).await;
        core.unless_hung().await;
        if let Some(prompt) = core.change(ComfyState::begin) {
            Run::of(&core, prompt).perform(&core).await;
        }
    }
}

/// Why a prompt ends early.
enum Stop {
    Interrupted,
    Failed(EngineFailure),
}

/// A prompt that runs.
struct Run {
    prompt: ComfyPrompt,
    recording: Recording,
    /// The images of an equal prompt.
    cached: Option<Value>,
    /// The nodes that ran; the last is the one that runs.
    executed: Vec<Value>,
    /// The last `progress_state`.
    snapshot: Value,
    outputs: Map<String, Value>,
    /// What history keeps of the events.
    messages: Vec<(String, Value)>,
}

impl Run {
    fn of(core: &Core, prompt: ComfyPrompt) -> Self {
        let cached = core.look(|state| state.cache.get(&prompt.graph.to_string()).cloned());
        Self {
            recording: Recording::of(&prompt, cached.is_some()),
            prompt,
            cached,
            executed: Vec::new(),
            snapshot: Value::Null,
            outputs: Map::new(),
            messages: Vec::new(),
        }
    }

    async fn perform(mut self, core: &Core) {
        let mut status = PromptStatus::Completed;
        for event in self.recording.events() {
            core.unless_hung().await;
            if let Err(stop) = self.play(core, event).await {
                status = core.change(|state| self.stop(state, stop));
                break;
            }
        }
        pass(core, |script| script.history_lag).await;
        core.unless_hung().await;
        core.change(|state| self.close(state, status));
    }

    async fn play(
        &mut self,
        core: &Core,
        RecordedEvent { name, mut data }: RecordedEvent,
    ) -> Result<(), Stop> {
        match name.as_str() {
            "progress" => return self.sample(core, &data).await,
            "progress_state" => self.snapshot = data.clone(),
            "executed" => data["output"] = self.output(core, &data["node"]).await,
            _ => {}
        }
        core.change(|state| {
            self.send(state, &name, &data);
            if name == "executing" {
                state.node = data["node"].as_str().map(str::to_owned);
                self.executed.push(data["node"].clone());
            }
        });
        self.unless_interrupted(core).await
    }

    /// The sampler's steps, with the script's delays after the first.
    async fn sample(&mut self, core: &Core, progress: &Value) -> Result<(), Stop> {
        let steps = self.prompt.steps();
        for step in 1..=steps {
            let pause = core.look(|state| state.script.item) / u32::try_from(steps).expect("few steps");
            tokio::select! {
                () = core.until(|state| state.interrupted.then_some(())) => {}
                () = tokio::time::sleep(pause) => {}
            }
            self.unless_interrupted(core).await?;
            core.unless_hung().await;
            core.change(|state| self.send_step(state, progress, (step, steps)));
            if step == 1 {
                if let Some(failure) = core.look(|state| state.script.fail.clone()) {
                    return Err(Stop::Failed(failure));
                }
                core.until(|state| (!state.script.hold || state.interrupted).then_some(())).await;
            }
        }
        self.unless_interrupted(core).await
    }

    /// Where previews with metadata are negotiated the preview comes before its progress, else after.
    fn send_step(&mut self, state: &ComfyState, progress: &Value, (step, steps): (u64, u64)) {
        let node = progress["node"].as_str().unwrap_or_default();
        let at = |data: &mut Value| (data["value"], data["max"]) = (json!(step), json!(steps));
        at(&mut self.snapshot["nodes"][node]);
        self.send(state, "progress_state", &self.snapshot.clone());
        let mut progress = progress.clone();
        at(&mut progress);
        let has_metadata = state.has_preview_metadata(self.prompt.client_id.as_deref());
        let previews = state.makes_previews(&self.prompt);
        if previews && has_metadata {
            state.send_preview(&self.prompt, node, PREVIEW);
        }
        self.send(state, "progress", &progress);
        if previews && !has_metadata {
            state.send_preview(&self.prompt, node, PREVIEW);
        }
    }

    /// Looks at the flag, as the real server does between steps and between nodes.
    async fn unless_interrupted(&self, core: &Core) -> Result<(), Stop> {
        if !core.look(|state| state.interrupted) {
            return Ok(());
        }
        pass(core, |script| script.cancel_tail).await;
        Err(Stop::Interrupted)
    }

    /// Saves the node's image; of an equal prompt the old file is named again, whether it is there or not.
    async fn output(&mut self, core: &Core, node: &Value) -> Value {
        let node = node.as_str().unwrap_or_default();
        let output = if let Some(output) = self.cached.take() {
            output
        } else {
            let prompt = self.prompt.clone();
            let (files, id) = (core.look(|state| state.files.clone()), node.to_owned());
            let painting = tokio::task::spawn_blocking(move || image_of(&prompt.graph, &id, &files));
            let image = painting.await.expect("the painter does not panic");
            core.change(|state| {
                let output = files::save(state, &self.prompt.graph[node], image);
                state.cache.insert(self.prompt.graph.to_string(), output.clone());
                output
            })
        };
        self.outputs.insert(node.to_owned(), output.clone());
        output
    }

    fn send(&mut self, state: &ComfyState, event: &str, data: &Value) {
        state.send_event(self.prompt.client_id.as_deref(), event, data);
        if event.starts_with("execution_") {
            self.messages.push((event.to_owned(), data.clone()));
        }
    }

    /// The terminal event of a prompt that did not succeed.
    fn stop(&mut self, state: &ComfyState, stop: Stop) -> PromptStatus {
        let node = self.executed.pop().unwrap_or_default();
        let class = self.prompt.graph[node.as_str().unwrap_or_default()]["class_type"].clone();
        let (event, mut data, status) = match stop {
            Stop::Interrupted => {
                let event = "execution_interrupted";
                (event, self.recording.failure("interrupted", event), PromptStatus::Interrupted)
            }
            Stop::Failed(failure) => {
                let event = "execution_error";
                let mut data = self.recording.failure("out_of_memory", event);
                data["exception_message"] = json!(failure.message);
                data["exception_type"] = json!(failure.error_type);
                // Paths and prompts, so that tests can see that they never reach a client.
                data["traceback"] = json!(["  File \"/srv/comfyui/execution.py\", line 545, in execute\n"]);
                data["current_inputs"] = self.prompt.graph.clone();
                (event, data, PromptStatus::Failed)
            }
        };
        data["node_id"] = node;
        data["node_type"] = class;
        data["executed"] = json!(self.executed);
        data["timestamp"] = json!(now());
        self.send(state, event, &data);
        status
    }

    /// History first, then the queue's length, then the last frame.
    fn close(self, state: &mut ComfyState, status: PromptStatus) {
        let Self { prompt, outputs, .. } = &self;
        let entry = self.recording.entry(prompt, outputs, &self.messages);
        state.history.insert(prompt.prompt_id.clone(), entry);
        state.finish(&prompt.prompt_id, status, outputs);
        let last = json!({"node": null, "prompt_id": prompt.prompt_id});
        state.send_event(prompt.client_id.as_deref(), "executing", &last);
    }
}

/// Waits for a scripted time; it ends at once when that is set to zero.
async fn pass(core: &Core, time: impl Fn(&ComfyScript) -> Duration) {
    tokio::select! {
        () = tokio::time::sleep(core.look(|state| time(&state.script))) => {}
        () = core.until(|state| time(&state.script).is_zero().then_some(())) => {}
    }
}

/// The picture that the output node gets, with the graph in it.
fn image_of(graph: &Value, output: &str, files: &BTreeMap<String, Bytes>) -> Bytes {
    let picture = Evaluation::of(graph, files).picture(output);
    encode(&picture, Some(("prompt", &graph.to_string())))
}
