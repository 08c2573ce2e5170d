//! What a job sends to InvokeAI: uploads, and the batch with the job's values in its graph.

use serde_json::{Value, json};
use tracing::debug;

use super::InvokeAi;
use crate::{
    engine::EngineError,
    images::{
        Job,
        template::{Binding, NodeInput, Template},
    },
};

/// The names of the images that were uploaded for an edit.
#[derive(Debug, Default)]
pub(super) struct InvokeAiUploads {
    image: Option<String>,
    mask: Option<String>,
}

impl InvokeAiUploads {
    pub(super) async fn upload(engine: &InvokeAi, job: &Job) -> Result<Self, EngineError> {
        let mut uploads = Self::default();
        let Some(source) = &job.source else { return Ok(uploads) };
        uploads.image = Some(engine.api.upload(&source.image).await?);
        if let Some(mask) = &source.mask {
            match engine.api.upload(mask).await {
                Ok(name) => uploads.mask = Some(name),
                Err(error) => {
                    uploads.remove(engine).await;
                    return Err(error);
                }
            }
        }
        Ok(uploads)
    }

    pub(super) fn has_any(&self) -> bool {
        self.image.is_some()
    }

    pub(super) async fn remove(&self, engine: &InvokeAi) {
        for name in self.image.iter().chain(&self.mask) {
            if let Err(error) = engine.api.delete_image(name).await {
                debug!(%error, "cannot delete an uploaded image");
            }
        }
    }
}

/// The value of a bound input; None: the graph keeps its own.
fn value(job: &Job, uploads: &InvokeAiUploads, binding: Binding, input: &NodeInput) -> Option<Value> {
    let image = |name: &Option<String>| name.as_ref().map(|name| json!({"image_name": name}));
    match binding {
        Binding::Image => image(&uploads.image),
        Binding::Mask => image(&uploads.mask),
        // Where denoising starts: late, if little of the source is replaced.
        Binding::Strength if input.field == "denoising_start" => {
            job.strength.map(|strength| json!(1.0 - strength))
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
    let mut graph = template.render(|binding, input| value(job, uploads, binding, input));
    if job.discard {
        // Intermediate images stay out of the gallery, and the engine deletes them by itself.
        graph["nodes"][&template.output]["is_intermediate"] = json!(true);
    }
    json!({"prepend": false, "batch": {
        "graph": graph, "runs": 1, "data": [seeds], "origin": "ada2-sidecar", "destination": tag}})
}
