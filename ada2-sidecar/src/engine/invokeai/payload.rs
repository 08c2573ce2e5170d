//! What a job sends to InvokeAI: uploads, and the batch with the job's values in its graph.

use serde_json::{Value, json};
use tracing::debug;

use super::InvokeAi;
use crate::{
    engine::EngineError,
    images::{
        Job, SourceImages,
        template::{Binding, NodeInput, Template},
    },
};

/// The names of the images that were uploaded for an edit.
#[derive(Debug, Default)]
pub(super) struct InvokeAiUploads {
    images: Vec<String>,
    mask: Option<String>,
}

impl InvokeAiUploads {
    pub(super) async fn upload(engine: &InvokeAi, job: &Job) -> Result<Self, EngineError> {
        let mut uploads = Self::default();
        let Some(source) = &job.source else { return Ok(uploads) };
        match uploads.upload_all(engine, source).await {
            Ok(()) => Ok(uploads),
            Err(error) => {
                uploads.remove(engine).await;
                Err(error)
            }
        }
    }

    async fn upload_all(&mut self, engine: &InvokeAi, source: &SourceImages) -> Result<(), EngineError> {
        for image in &source.images {
            self.images.push(engine.api.upload(image).await?);
        }
        if let Some(mask) = &source.mask {
            self.mask = Some(engine.api.upload(mask).await?);
        }
        Ok(())
    }

    pub(super) fn has_any(&self) -> bool {
        !self.images.is_empty()
    }

    pub(super) async fn remove(&self, engine: &InvokeAi) {
        for name in self.images.iter().chain(&self.mask) {
            if let Err(error) = engine.api.delete_image(name).await {
                debug!(%error, "cannot delete an uploaded image");
            }
        }
    }
}

/// The value of a bound input; None: the graph keeps its own.
fn value(
    template: &Template,
    job: &Job,
    uploads: &InvokeAiUploads,
    binding: Binding,
    input: &NodeInput,
) -> Option<Value> {
    let image = |name: Option<&String>| name.map(|name| json!({"image_name": name}));
    match binding {
        Binding::Image(number) => image(uploads.images.get(usize::from(number).checked_sub(1)?)),
        Binding::Mask => image(uploads.mask.as_ref()),
        // Where denoising starts: late, if little of the source is replaced.
        Binding::Strength if input.field == "denoising_start" => {
            let exponent = template.rules.strength_exponent.unwrap_or(1.0);
            job.strength.map(|strength| json!(1.0 - strength.powf(exponent)))
        }
        // The seed is the first image's; the others are in the batch's data.
        _ => job.value(binding),
    }
}

/// The request body: the graph, and the seeds as the batch's data.
pub(super) fn batch_payload(template: &Template, job: &Job, uploads: &InvokeAiUploads, tag: &str) -> Value {
    let seeds: Vec<_> = template
        .inputs_bound_to(Binding::Seed)
        .iter()
        .map(|input| json!({"node_path": input.node, "field_name": input.field, "items": job.seeds}))
        .collect();
    let mut graph = template.render(|binding, input| value(template, job, uploads, binding, input));
    if job.discard {
        // Intermediate images stay out of the gallery, and the engine deletes them by itself.
        graph["nodes"][&template.output]["is_intermediate"] = json!(true);
    }
    // Without any data there is one item for each run.
    let (runs, data) = if seeds.is_empty() { (job.seeds.len(), json!([])) } else { (1, json!([seeds])) };
    json!({"prepend": false, "batch": {
        "graph": graph, "runs": runs, "data": data, "origin": "ada2-sidecar", "destination": tag}})
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{engine::invokeai, images::choice::ModelChoice};

    #[test]
    fn each_seed_is_an_item_and_without_seeds_each_run_is() {
        let graph = json!({"id": "g", "nodes": {"a": {"id": "a", "type": "img_scale", "image": null, "seed": 0}}, "edges": []});
        let batch = |bindings: &str| {
            let yaml = format!("output: a\n{bindings}");
            let template = Template::read(invokeai::GRAPH_FORMAT, &graph.to_string(), &yaml).unwrap();
            let choice = ModelChoice { name: "m".into(), model: None, preset: None, loras: Arc::default() };
            let job = Job { seeds: vec![7, 8], ..Job::warm_up(choice) };
            let payload = batch_payload(&template, &job, &InvokeAiUploads::default(), "tag");
            (payload["batch"]["runs"].clone(), payload["batch"]["data"].clone())
        };
        let seeds = json!([[{"node_path": "a", "field_name": "seed", "items": [7, 8]}]]);
        assert_eq!(batch("bindings: {seed: [a.seed]}"), (json!(1), seeds));
        assert_eq!(batch("without: [prompt, seed]\nbindings: {image: [a.image]}"), (json!(2), json!([])));
    }
}
