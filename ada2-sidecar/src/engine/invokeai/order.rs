//! What is ordered: the pictures that a job needs in the engine, and the batch with the job's values in its graph.

use serde_json::{Value, json};
use tracing::debug;

use super::InvokeAi;
use crate::{
    engine::EngineError,
    images::{
        Job,
        template::{Binding, Place, Template},
    },
};

/// What an edit needs in the engine: names of pictures that were put there for this job.
#[derive(Debug, Default)]
pub(super) struct Uploads {
    picture: Option<String>,
    mask: Option<String>,
}

impl Uploads {
    pub(super) async fn of(engine: &InvokeAi, job: &Job) -> Result<Self, EngineError> {
        let Some(source) = &job.source else { return Ok(Self::default()) };
        let picture = Some(engine.api.upload(&source.picture).await?);
        let mask = match &source.mask {
            Some(mask) => Some(engine.api.upload(mask).await?),
            None => None,
        };
        Ok(Self { picture, mask })
    }

    pub(super) fn any(&self) -> bool {
        self.picture.is_some()
    }

    pub(super) async fn remove(&self, engine: &InvokeAi) {
        for name in self.picture.iter().chain(&self.mask) {
            if let Err(error) = engine.api.delete_picture(name).await {
                debug!(%error, "an uploaded picture stays in the engine");
            }
        }
    }
}

/// What goes into a bound input; nothing where the graph keeps its own.
fn value(job: &Job, uploads: &Uploads, binding: Binding, place: &Place) -> Option<Value> {
    let image = |name: &Option<String>| name.as_ref().map(|name| json!({"image_name": name}));
    match binding {
        Binding::Prompt => Some(json!(job.prompt)),
        Binding::NegativePrompt => job.negative_prompt.as_ref().map(|text| json!(text)),
        Binding::Width => job.size.map(|size| json!(size.width)),
        Binding::Height => job.size.map(|size| json!(size.height)),
        // The first picture's; the others come with the batch's data.
        Binding::Seed => Some(json!(job.seeds.first())),
        Binding::Steps => job.steps.map(|steps| json!(steps)),
        Binding::CfgScale => job.cfg_scale.map(|scale| json!(scale)),
        Binding::Scheduler => job.scheduler.as_ref().map(|name| json!(name)),
        Binding::Model => job.model.as_ref().map(|model| model.handle.clone()),
        Binding::Image => image(&uploads.picture),
        Binding::Mask => image(&uploads.mask),
        // Where denoising starts: late, if little of the source is given up.
        Binding::Strength if place.field == "denoising_start" => {
            job.strength.map(|strength| json!(1.0 - strength))
        }
        Binding::Strength => job.strength.map(|strength| json!(strength)),
        Binding::N => Some(json!(1)),
    }
}

/// The request body: the graph once, and the seeds as the batch's data.
pub(super) fn batch(template: &Template, job: &Job, uploads: &Uploads, tag: &str) -> Value {
    let seeds: Vec<_> = template
        .places(Binding::Seed)
        .iter()
        .map(|place| json!({"node_path": place.node, "field_name": place.field, "items": job.seeds}))
        .collect();
    let mut graph = template.render(|binding, place| value(job, uploads, binding, place));
    if job.discard {
        // The engine keeps intermediate pictures out of its gallery and deletes them by itself.
        graph["nodes"][&template.output]["is_intermediate"] = json!(true);
    }
    json!({"prepend": false, "batch": {
        "graph": graph, "runs": 1, "data": [seeds], "origin": "ada2-sidecar", "destination": tag}})
}
