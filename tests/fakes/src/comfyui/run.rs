//! One prompt on its way through the worker: what it has done, and the frames that tell of it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{
    Core,
    graph::{self, NodeResult},
    nodes::Node,
    queue::{ComfyPrompt, ComfyState, PromptStatus, now},
};
use crate::engine::EngineFailure;

/// How a prompt ends; the node is the one that ran.
#[derive(Debug)]
pub(super) enum End {
    Success,
    Interrupted(String),
    Failed(String, EngineFailure),
}

impl End {
    pub(super) fn outside_output(node: &str) -> Self {
        let message = "**** ERROR: Saving image outside the output folder is not allowed.\n full_output_folder: \
            /srv/comfyui\n         output_dir: /srv/comfyui/output\n";
        Self::Failed(node.to_owned(), EngineFailure::new("Exception", message))
    }
}

#[derive(Debug)]
pub(super) struct Run {
    pub(super) prompt_id: String,
    pub(super) order: Vec<String>,
    /// Some node that is to run is a sampler.
    pub(super) samples: bool,
    index: usize,
    item: ComfyPrompt,
    keys: BTreeMap<String, String>,
    cached: BTreeSet<String>,
    /// The snapshot that `progress_state` sends.
    progress: Map<String, Value>,
    executed: Vec<String>,
    outputs: Map<String, Value>,
    /// What history keeps of the events.
    messages: Vec<(String, Value)>,
}

impl Run {
    /// None if the queue was emptied in the last moment.
    pub(super) fn begin(state: &mut ComfyState) -> Option<Self> {
        let index = state.take_next()?;
        let item = state.items[index].clone();
        let keys = graph::keys(state, index);
        let is_cached = |node: &str| state.cache.contains_key(&keys[node]);
        let cached: BTreeSet<String> = keys.keys().filter(|node| is_cached(node)).cloned().collect();
        let order = graph::order(&item.graph, &item.outputs, is_cached);
        let is_sampler = |node: &String| graph::class(&item.graph, node).contains("Sampler");
        let samples = order.iter().any(|node| is_sampler(node) && !cached.contains(node));
        Some(Self {
            prompt_id: item.prompt_id.clone(),
            order,
            samples,
            index,
            item,
            keys,
            cached,
            progress: Map::new(),
            executed: Vec::new(),
            outputs: Map::new(),
            messages: Vec::new(),
        })
    }

    pub(super) fn announce(&mut self, state: &ComfyState) {
        self.send_recorded(state, "execution_start", json!({}), false);
        let cached: Vec<&String> = self.cached.iter().collect();
        let cached = json!({ "nodes": cached });
        self.send_recorded(state, "execution_cached", cached, false);
    }

    /// An event that history keeps, with id and time.
    fn send_recorded(&mut self, state: &ComfyState, event: &str, mut data: Value, broadcast: bool) {
        data["prompt_id"] = json!(self.prompt_id);
        data["timestamp"] = json!(now());
        if broadcast {
            state.send_or_broadcast(event, &data);
        } else {
            state.send_event(event, &data);
        }
        self.messages.push((event.to_owned(), data));
    }

    /// An output whose result is known shows it again, old file names and all. False if the node must run.
    pub(super) fn repeat_cached(&mut self, state: &ComfyState, node: &str) -> bool {
        let Some(known) = state.cache.get(&self.keys[node]) else { return false };
        if let Some(shown) = &known.ui {
            self.send_executed(state, node, shown);
        }
        self.send_progress(state, node, (json!(1), json!(1)), "finished");
        true
    }

    pub(super) fn send_executing(&mut self, state: &mut ComfyState, node: &str) {
        self.send_progress(state, node, (json!(0.0), json!(1.0)), "running");
        state.node = Some(node.to_owned());
        state.send_event(
            "executing",
            &json!({"node": node, "display_node": node, "prompt_id": self.prompt_id}),
        );
    }

    /// The whole snapshot, with this node's part renewed.
    pub(super) fn send_progress(
        &mut self,
        state: &ComfyState,
        node: &str,
        (value, max): (Value, Value),
        how: &str,
    ) {
        let part = json!({"value": value, "max": max, "state": how, "node_id": node, "prompt_id": self.prompt_id,
            "display_node_id": node, "parent_node_id": null, "real_node_id": node});
        self.progress.insert(node.to_owned(), part);
        let snapshot = json!({"prompt_id": self.prompt_id, "nodes": self.progress});
        state.send_or_broadcast("progress_state", &snapshot);
    }

    /// The node with what feeds it.
    pub(super) fn fed(&self, core: &Core, node: &str) -> Node {
        let values = self.item.graph[node]["inputs"].clone();
        core.look(|state| {
            let mut linked = BTreeMap::new();
            for (name, value) in values.as_object().into_iter().flatten() {
                let Some(link) = graph::link(value) else { continue };
                let known = state.cache.get(&self.keys[&link.from]).expect("it ran before this one");
                linked.insert(name.clone(), known.outputs[link.slot].clone());
            }
            let class = graph::class(&self.item.graph, node).to_owned();
            Node { class, linked, values: values.clone(), files: state.files.clone() }
        })
    }

    pub(super) fn wants_previews(&self, state: &ComfyState) -> bool {
        match self.item.extra_data["preview_method"].as_str().filter(|_| state.is_after(0, 4, 0)) {
            Some("none") => false,
            Some("auto" | "latent2rgb" | "taesd") => true,
            _ => state.script.previews,
        }
    }

    /// The text chunks of a saved picture: the whole workflow, and what the client adds to it.
    pub(super) fn texts(&self) -> Vec<(String, String)> {
        let extra = self.item.extra_data["extra_pnginfo"].as_object().into_iter().flatten();
        let graph = ("prompt".to_owned(), self.item.graph.to_string());
        std::iter::once(graph).chain(extra.map(|(key, value)| (key.clone(), value.to_string()))).collect()
    }

    pub(super) fn finish_node(&mut self, state: &mut ComfyState, node: &str, known: NodeResult) {
        if let Some(shown) = &known.ui {
            self.send_executed(state, node, shown);
        }
        let max = self.progress[node]["max"].clone();
        self.send_progress(state, node, (max.clone(), max), "finished");
        self.executed.push(node.to_owned());
        state.cache.insert(self.keys[node].clone(), known);
    }

    fn send_executed(&mut self, state: &ComfyState, node: &str, ui: &Value) {
        self.outputs.insert(node.to_owned(), ui.clone());
        let executed = json!({"node": node, "display_node": node, "output": ui, "prompt_id": self.prompt_id});
        state.send_event("executed", &executed);
    }

    /// The terminal event. An interrupt is told to all if the prompt has no client, the other two are not.
    pub(super) fn send_end(&mut self, state: &ComfyState, end: &End) -> PromptStatus {
        let at = |node: &str| json!({"node_id": node, "node_type": graph::class(&self.item.graph, node), "executed": self.executed});
        match end {
            End::Success => {
                self.send_recorded(state, "execution_success", json!({}), false);
                PromptStatus::Completed
            }
            End::Interrupted(node) => {
                let data = at(node);
                self.send_recorded(state, "execution_interrupted", data, true);
                PromptStatus::Interrupted
            }
            End::Failed(node, failure) => {
                let mut data = at(node);
                data["exception_message"] = json!(failure.message);
                data["exception_type"] = json!(failure.error_type);
                // Paths and prompts, so that tests can see that they never reach a client.
                let raised = "  File \"/srv/comfyui/execution.py\", line 545, in execute\n";
                data["traceback"] = json!([raised]);
                data["current_inputs"] = self.item.graph[node]["inputs"].clone();
                data["current_outputs"] =
                    json!(self.item.graph.as_object().map(|nodes| nodes.keys().collect::<Vec<_>>()));
                self.send_recorded(state, "execution_error", data, false);
                PromptStatus::Failed
            }
        }
    }

    /// History first, then the queue's length, then the last frame.
    pub(super) fn close(self, state: &mut ComfyState, status: PromptStatus) {
        let images = self.outputs.values().flat_map(|shown| shown["images"].as_array().into_iter().flatten());
        let word = |image: &Value, key: &str| image[key].as_str().unwrap_or_default().to_owned();
        let names = images.map(|image| {
            let parts = ["type", "subfolder", "filename"].map(|key| word(image, key));
            parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
        });
        state.items[self.index].images = names.collect();
        state.items[self.index].status = status;
        state.record(&self.item, &self.outputs, &self.messages);
        (state.running, state.node) = (None, None);
        state.broadcast_status();
        state.send_event("executing", &json!({"node": null, "prompt_id": self.prompt_id}));
    }
}
