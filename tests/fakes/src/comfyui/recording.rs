//! The recorded runs, and how their events and history entries are made those of another prompt.

use std::{collections::BTreeMap, sync::LazyLock};

use serde_json::{Map, Value, json};

use super::queue::{ComfyPrompt, now};

static RUNS: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../fixtures/comfyui/runs.json")).expect("a JSON fixture")
});

/// A text frame.
#[derive(Debug, Clone)]
pub(super) struct RecordedEvent {
    pub(super) name: String,
    pub(super) data: Value,
}

/// The recorded run of a prompt of this kind, with its node ids and how these are called in the prompt.
#[derive(Debug)]
pub(super) struct Recording {
    run: &'static Value,
    nodes: BTreeMap<&'static str, String>,
    prompt_id: String,
    steps: u64,
}

impl Recording {
    pub(super) fn of(prompt: &ComfyPrompt, is_cached: bool) -> Self {
        let has = |class| prompt.has(class);
        let run = if is_cached {
            "repeated"
        } else if has("LoadImageMask") {
            "inpaint"
        } else if has("LoadImage") {
            "img2img_n2"
        } else {
            "txt2img_flags"
        };
        let run = &RUNS[run];
        Self {
            run,
            nodes: nodes(&run["prompt"], &prompt.graph),
            prompt_id: prompt.prompt_id.clone(),
            steps: prompt.steps(),
        }
    }

    /// The events from `execution_start` to `execution_success`. Of a sampler's steps there is one `progress`, in
    /// place of all. Nodes that the prompt has not are left out, as are its nodes that were not recorded.
    pub(super) fn events(&self) -> Vec<RecordedEvent> {
        let frames = self.run["frames"].as_array().into_iter().flatten();
        let events = frames.filter(|frame| frame["type"] != "status" && frame["type"] != "feature_flags");
        events.filter_map(|frame| self.event(frame)).take_while(|event| !is_end(event)).collect()
    }

    fn event(&self, frame: &Value) -> Option<RecordedEvent> {
        let name = frame["type"].as_str()?.to_owned();
        let mut data = self.retarget(&frame["data"]);
        match name.as_str() {
            "progress_state" => {
                let nodes = data["nodes"].as_object_mut()?;
                if nodes.is_empty() || nodes.values().any(is_in_mid_step) {
                    return None;
                }
                for node in nodes.values_mut().filter(|node| node["max"].as_u64() > Some(1)) {
                    (node["value"], node["max"]) = (json!(self.steps), json!(self.steps));
                }
            }
            "progress" if data["value"] != 1 => return None,
            "progress" | "executing" | "executed" if data.get("node").is_none() => return None,
            _ => {}
        }
        Some(RecordedEvent { name, data })
    }

    /// The recorded event of a failed or interrupted prompt.
    pub(super) fn failure(&self, run: &str, event: &str) -> Value {
        let frames = RUNS[run]["frames"].as_array().into_iter().flatten();
        let recorded = frames.into_iter().find(|frame| frame["type"] == event).expect("as recorded");
        self.retarget(&recorded["data"])
    }

    /// The history entry of a prompt that ended with the last of these messages.
    pub(super) fn entry(
        &self,
        prompt: &ComfyPrompt,
        outputs: &Map<String, Value>,
        messages: &[(String, Value)],
    ) -> Value {
        let mut entry = match messages.last().map(|(event, _)| event.as_str()) {
            Some("execution_error") => RUNS["out_of_memory"]["history"].clone(),
            Some("execution_interrupted") => RUNS["interrupted"]["history"].clone(),
            _ => self.run["history"].clone(),
        };
        entry["prompt"] = prompt.listed();
        entry["outputs"] = json!(outputs);
        entry["status"]["messages"] = json!(messages);
        entry["meta"] = self.retarget(&entry)["meta"].clone();
        entry
    }

    /// Puts this prompt's id and node ids, and the time, into recorded JSON. What is about other nodes is left out.
    fn retarget(&self, recorded: &Value) -> Value {
        let Some(members) = recorded.as_object() else { return recorded.clone() };
        let renamed =
            |name: &Value| self.nodes.get(name.as_str().unwrap_or_default()).map(|node| json!(node));
        let member = |(key, value): (&String, &Value)| {
            let value = match (key.as_str(), value) {
                ("prompt_id", _) => json!(self.prompt_id),
                ("timestamp", _) => json!(now()),
                (
                    "node" | "node_id" | "display_node" | "display_node_id" | "real_node_id",
                    Value::String(_),
                ) => renamed(value)?,
                ("nodes" | "executed", Value::Array(nodes)) => nodes.iter().filter_map(renamed).collect(),
                ("nodes" | "meta", Value::Object(nodes)) => nodes
                    .iter()
                    .filter_map(|(node, about)| {
                        Some((self.nodes.get(node.as_str())?.clone(), self.retarget(about)))
                    })
                    .collect::<Map<_, _>>()
                    .into(),
                _ => value.clone(),
            };
            Some((key.clone(), value))
        };
        members.iter().filter_map(member).collect::<Map<_, _>>().into()
    }
}

fn is_end(event: &RecordedEvent) -> bool {
    event.name == "executing" && event.data["node"].is_null()
}

fn is_in_mid_step(node: &Value) -> bool {
    node["state"] == "running" && node["value"].is_u64()
}

/// What recorded nodes are called in a graph: those of the same role, in the order of their names.
fn nodes(recorded: &'static Value, graph: &Value) -> BTreeMap<&'static str, String> {
    let nodes = graph.as_object().into_iter().flatten();
    let mut left: Vec<_> = nodes.map(|(name, node)| (name.clone(), role(node))).collect();
    let mut found = BTreeMap::new();
    for (name, node) in recorded.as_object().into_iter().flatten() {
        if let Some(at) = left.iter().position(|(_, other)| *other == role(node)) {
            found.insert(name.as_str(), left.remove(at).0);
        }
    }
    found
}

fn role(node: &Value) -> &str {
    match node["class_type"].as_str().unwrap_or_default() {
        "KSamplerAdvanced" | "SamplerCustomAdvanced" => "KSampler",
        "PreviewImage" => "SaveImage",
        class => class,
    }
}
