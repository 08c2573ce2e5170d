//! How an image was made, for the response: what ran, not what was requested.

use serde_json::{Map, Value, json};
use wire::openai::images::ImageSize;

use super::{Job, Task, models::LoraUse, template::Binding};

impl Job {
    /// The settings of one image. Values that only a user's template knows are left out.
    pub fn settings(&self, seed: u64, size: Option<ImageSize>) -> Map<String, Value> {
        let template = self.template.as_deref();
        let model = self.model.as_ref().map(|model| model.name.as_str());
        let strength = self.strength.or_else(|| template?.default_strength());
        let entries = [
            ("model", Some(json!(model.unwrap_or(&self.name)))),
            ("preset", model.filter(|model| *model != self.name).map(|_| json!(self.name))),
            ("task", Some(json!(self.task.name()))),
            ("steps", self.steps.or_else(|| template?.default_steps()).map(|steps| json!(steps))),
            ("cfg_scale", self.cfg_scale.or_else(|| template?.default_cfg_scale()).map(|scale| json!(scale))),
            ("scheduler", self.scheduler.clone().or_else(|| template?.default_scheduler()).map(Value::from)),
            ("size", size.map(|size| json!(size.to_string()))),
            ("seed", template.is_none_or(|template| template.binds(Binding::Seed)).then(|| json!(seed))),
            ("negative_prompt", self.negative_prompt.clone().map(Value::from)),
            ("strength", strength.filter(|_| self.task != Task::Generate).map(|strength| json!(strength))),
            ("images", self.source.as_ref().map(|source| json!(source.images.len()))),
            ("loras", (!self.loras.is_empty()).then(|| self.loras.iter().map(lora).collect())),
        ];
        entries.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }
}

fn lora(lora: &LoraUse) -> Value {
    json!({"name": lora.lora.name, "weight": lora.weight})
}
