//! One job in InvokeAI, from the enqueue to the last picture, or to the proof that the GPU is free of it.

use std::{collections::HashMap, time::Duration};

use serde_json::{Value, json};
use shared::picture::Format;
use tokio::sync::broadcast::{self, error::RecvError};
use tracing::{debug, warn};

use super::{
    InvokeAi,
    api::{Api, Enqueued, Item},
    events::Event,
};
use crate::{
    engine::{
        self, Desk, EngineError, Picture, Preview,
        graph::{Binding, Place, Template},
        own_words,
    },
    images::Job,
};

/// How often a job is looked for although no event came.
const SAFETY_POLL: Duration = Duration::from_secs(5);
/// How often a cancelled job is looked for until the engine is free of it.
const VERIFY_POLL: Duration = Duration::from_millis(100);

/// Runs the job. See [`crate::engine::ImageEngine::run`].
pub(super) async fn run(engine: &InvokeAi, job: &Job, desk: &Desk) -> Result<Vec<Picture>, EngineError> {
    let uploads = Uploads::of(engine, job).await?;
    let outcome = make(engine, job, &uploads, desk).await;
    if uploads.any() {
        // Nobody need wait for the tidying up.
        desk.tell(outcome.clone());
        uploads.remove(engine).await;
    }
    outcome
}

async fn make(
    engine: &InvokeAi,
    job: &Job,
    uploads: &Uploads,
    desk: &Desk,
) -> Result<Vec<Picture>, EngineError> {
    if desk.cancel.is_cancelled() {
        return Err(EngineError::Cancelled);
    }
    let template = engine.template(job);
    let mut events = engine.events.subscribe();
    let order = batch(template, job, uploads, &engine.tag);
    let (batch, _live) = hand_over(engine, &order, desk).await?;
    if batch.items.len() < job.seeds.len() {
        let_go(engine, &batch.batch).await;
        return Err(EngineError::QueueFull);
    }
    let mut progress = Progress::new(engine, template, job, &batch, desk);
    let outcome = tokio::select! {
        outcome = progress.follow(&mut events) => outcome,
        () = desk.cancel.cancelled() => Err(EngineError::Cancelled),
    };
    match outcome {
        Ok(()) => Ok(progress.into_pictures()),
        // Nobody is there: the GPU is free. What the engine finds in its queue on its return is cancelled then.
        Err(EngineError::Refused(words)) => {
            engine.sweep();
            Err(EngineError::Refused(words))
        }
        Err(error) => {
            let_go(engine, &batch.batch).await;
            if let EngineError::OutOfMemory(_) = &error
                && let Err(fault) = engine.api.empty_model_cache().await
            {
                warn!(%fault, "the engine could not be asked to free its caches");
            }
            Err(error)
        }
    }
}

/// What an edit needs in the engine: names of pictures that were put there for this job.
#[derive(Debug, Default)]
struct Uploads {
    picture: Option<String>,
    mask: Option<String>,
}

impl Uploads {
    async fn of(engine: &InvokeAi, job: &Job) -> Result<Self, EngineError> {
        let Some(source) = &job.source else { return Ok(Self::default()) };
        let picture = Some(engine.api.upload(&source.picture).await?);
        let mask = match &source.mask {
            Some(mask) => Some(engine.api.upload(mask).await?),
            None => None,
        };
        Ok(Self { picture, mask })
    }

    fn any(&self) -> bool {
        self.picture.is_some()
    }

    async fn remove(&self, engine: &InvokeAi) {
        for name in self.picture.iter().chain(&self.mask) {
            if let Err(error) = engine.api.delete_picture(name).await {
                debug!(%error, "an uploaded picture stays in the engine");
            }
        }
    }
}

/// What goes into a bound input.
fn value(job: &Job, uploads: &Uploads, binding: Binding, place: &Place) -> Value {
    let image = |name: &Option<String>| name.as_ref().map_or(Value::Null, |name| json!({"image_name": name}));
    match binding {
        Binding::Prompt => json!(job.prompt),
        Binding::NegativePrompt => json!(job.negative_prompt),
        Binding::Width => json!(job.size.width),
        Binding::Height => json!(job.size.height),
        // The first picture's; the others come with the batch's data.
        Binding::Seed => json!(job.seeds.first()),
        Binding::Steps => json!(job.steps),
        Binding::CfgScale => json!(job.cfg_scale),
        Binding::Scheduler => json!(job.scheduler),
        Binding::Model => job.model.as_ref().map_or(Value::Null, |model| model.handle.clone()),
        Binding::Image => image(&uploads.picture),
        Binding::Mask => image(&uploads.mask),
        // Where denoising starts: late, if little of the source is given up.
        Binding::Strength if place.field == "denoising_start" => json!(1.0 - job.strength),
        Binding::Strength => json!(job.strength),
        Binding::N => json!(1),
    }
}

/// Enqueues the batch. Where the answer is lost, the job perhaps is not: then this returns only after the survey has
/// looked for it by our tag, or the engine is gone; whoever waits is told at once.
async fn hand_over<'a>(
    engine: &'a InvokeAi,
    batch: &Value,
    desk: &Desk,
) -> Result<(Enqueued, Live<'a>), EngineError> {
    let open = engine.door.read().await;
    let error = match engine.api.enqueue(batch).await {
        Ok(batch) => {
            let live = Live::enter(engine, &batch.batch);
            return Ok((batch, live));
        }
        Err(error) => error,
    };
    drop(open);
    if matches!(error, EngineError::NoAnswer(_) | EngineError::Strange(_)) {
        desk.tell(Err(error.clone()));
        engine.sweep();
        let unresolved = || {
            let state = engine.state();
            state.sweeps > 0 && !state.gone
        };
        while unresolved() {
            tokio::time::sleep(VERIFY_POLL).await;
        }
    }
    Err(error)
}

/// The request body: the graph once, and the seeds as the batch's data.
fn batch(template: &Template, job: &Job, uploads: &Uploads, tag: &str) -> Value {
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

/// Cancels the batch and returns once the GPU is free of it: no item waits or runs, and the worker is idle or already
/// busy with another item. Keeps at it for as long as the engine does not answer: the slot stays taken, and readiness
/// says so.
async fn let_go(engine: &InvokeAi, batch: &str) {
    let mut asked = false;
    loop {
        if !asked {
            asked = engine.api.cancel_batch(batch).await.is_ok();
        }
        match is_free(&engine.api, batch).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(EngineError::Refused(_)) => {
                engine.sweep();
                return;
            }
            Err(error) => debug!(%error, batch, "cannot tell yet whether the engine has let go of a job"),
        }
        tokio::time::sleep(VERIFY_POLL).await;
    }
}

async fn is_free(api: &Api, batch: &str) -> Result<bool, EngineError> {
    if api.counts_of_batch(batch).await?.active() > 0 {
        return Ok(false);
    }
    let status = api.queue_status().await?;
    Ok(!status.processor.is_processing || status.queue.in_progress > 0)
}

/// Keeps the batch among those that a request waits for.
struct Live<'a> {
    engine: &'a InvokeAi,
    batch: String,
}

impl<'a> Live<'a> {
    fn enter(engine: &'a InvokeAi, batch: &str) -> Self {
        engine.state().live.insert(batch.to_owned());
        Self { engine, batch: batch.to_owned() }
    }
}

impl Drop for Live<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Nobody is left to cancel it.
            self.engine.sweep();
        }
        self.engine.state().live.remove(&self.batch);
    }
}

/// What is known of a running batch.
struct Progress<'a> {
    engine: &'a InvokeAi,
    batch: &'a Enqueued,
    /// The node whose pictures are the result.
    output: &'a str,
    seeds: &'a [u32],
    desk: &'a Desk,
    names: HashMap<u64, String>,
    pictures: HashMap<u64, Picture>,
}

impl<'a> Progress<'a> {
    fn new(
        engine: &'a InvokeAi,
        template: &'a Template,
        job: &'a Job,
        batch: &'a Enqueued,
        desk: &'a Desk,
    ) -> Self {
        let (names, pictures) = (HashMap::new(), HashMap::new());
        Self { engine, batch, output: &template.output, seeds: &job.seeds, desk, names, pictures }
    }

    /// Until every picture is here, or the first failure.
    async fn follow(&mut self, events: &mut broadcast::Receiver<Event>) -> Result<(), EngineError> {
        let mut safety = tokio::time::interval(SAFETY_POLL);
        safety.reset();
        while self.pictures.len() < self.batch.items.len() {
            let event = tokio::select! {
                event = events.recv() => event,
                _ = safety.tick() => Ok(Event::Interrupted),
            };
            match event {
                Ok(Event::Picture { batch, item, node, image })
                    if self.is_ours(&batch) && node == self.output =>
                {
                    self.names.insert(item, image);
                }
                Ok(Event::Progress { batch, fraction, preview, .. }) if self.is_ours(&batch) => {
                    self.step(fraction, preview);
                }
                Ok(Event::Item { batch, item, status, error }) if self.is_ours(&batch) => {
                    self.item_changed(item, &status, error).await?;
                }
                Ok(Event::Cancelled(items)) if items.iter().any(|item| self.batch.items.contains(item)) => {
                    return Err(cancelled_by_others());
                }
                Ok(Event::Interrupted) | Err(RecvError::Lagged(_)) => self.look().await?,
                Ok(_) => {}
                Err(RecvError::Closed) => return Err(EngineError::NoAnswer("the events ended".to_owned())),
            }
        }
        Ok(())
    }

    /// One picture runs at a time: those before it are done.
    #[expect(clippy::cast_precision_loss, reason = "a handful of pictures")]
    fn step(&self, fraction: f64, preview: Option<Preview>) {
        let done = self.pictures.len() as f64;
        let fraction = (done + fraction) / self.batch.items.len() as f64;
        self.desk.progress.send_replace(engine::Progress { fraction, preview });
    }

    fn is_ours(&self, batch: &str) -> bool {
        self.batch.batch == batch
    }

    async fn item_changed(
        &mut self,
        item: u64,
        status: &str,
        error: Option<(String, String)>,
    ) -> Result<(), EngineError> {
        match status {
            "completed" => self.fetch(item).await,
            "failed" => {
                let (kind, message) = error.unwrap_or_default();
                Err(failure(&kind, &message))
            }
            "canceled" => Err(cancelled_by_others()),
            _ => Ok(()),
        }
    }

    /// The safety net: asks for every item that is still missing. An engine that does not answer is asked again
    /// later; the request's own time limit ends the waiting.
    async fn look(&mut self) -> Result<(), EngineError> {
        for &id in &self.batch.items {
            if self.pictures.contains_key(&id) {
                continue;
            }
            let item = match self.engine.api.item(id).await {
                Ok(item) => item,
                Err(error @ (EngineError::NoAnswer(_) | EngineError::Strange(_))) => {
                    debug!(%error, item = id, "cannot look for a job; trying again");
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            let Item { status, error_type, error_message, .. } = &item;
            if let Some(image) = item.picture_of(self.output) {
                self.names.insert(id, image.to_owned());
            }
            let error =
                Some((error_type.clone().unwrap_or_default(), error_message.clone().unwrap_or_default()));
            self.item_changed(id, status, error).await?;
        }
        Ok(())
    }

    async fn fetch(&mut self, item: u64) -> Result<(), EngineError> {
        if self.pictures.contains_key(&item) {
            return Ok(());
        }
        if !self.names.contains_key(&item) {
            let found = self.engine.api.item(item).await?;
            let image = found.picture_of(self.output).ok_or_else(|| {
                EngineError::Failed("the engine finished the job without a picture".to_owned())
            })?;
            self.names.insert(item, image.to_owned());
        }
        let bytes = self.engine.api.picture(&self.names[&item]).await?;
        let format = Format::of_whole(&bytes)
            .map_err(|fault| EngineError::Failed(format!("the engine's picture cannot be used: {fault}")))?;
        let place = self.batch.items.iter().position(|id| *id == item).unwrap_or_default();
        self.pictures.insert(item, Picture { bytes, format, seed: self.seeds[place] });
        Ok(())
    }

    /// In the order of the seeds.
    fn into_pictures(mut self) -> Vec<Picture> {
        self.batch.items.iter().filter_map(|item| self.pictures.remove(item)).collect()
    }
}

fn failure(kind: &str, message: &str) -> EngineError {
    let words = own_words(message);
    let memory = kind.contains("OutOfMemory") || message.to_ascii_lowercase().contains("out of memory");
    if memory { EngineError::OutOfMemory(words) } else { EngineError::Failed(words) }
}

fn cancelled_by_others() -> EngineError {
    EngineError::Failed("the job was cancelled in InvokeAI, by a person there or by its restart".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_whose_task_panics_is_looked_for() {
        let engine = InvokeAi::new("http://127.0.0.1:9".parse().unwrap(), "tag".into());
        engine.state().sweeps = 0;
        drop(Live::enter(&engine, "done"));
        assert_eq!(engine.state().sweeps, 0, "a job that ended in order leaves nothing behind");
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _live = Live::enter(&engine, "lost");
            panic!("a fault of ours");
        }));
        assert!(panicked.is_err());
        assert!(engine.state().sweeps > 0 && engine.state().live.is_empty());
    }

    #[test]
    fn running_out_of_memory_is_told_from_other_failures() {
        for (kind, message) in [
            ("OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB."),
            ("RuntimeError", "CUDA error: out of memory"),
        ] {
            assert!(matches!(failure(kind, message), EngineError::OutOfMemory(_)), "{kind}");
        }
        assert_eq!(
            failure("Exception", "Unknown model x\nTraceback"),
            EngineError::Failed("Unknown model x".into())
        );
    }
}
