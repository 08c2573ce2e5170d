//! One job in InvokeAI, from the enqueue to the last picture, or to the proof that the GPU is free of it.

use std::time::Duration;

use serde_json::Value;
use tracing::{debug, warn};

use super::{
    InvokeAi,
    api::{Api, Enqueued},
    order::{Uploads, batch},
    progress::Progress,
};
use crate::{
    engine::{Desk, EngineError, Picture},
    images::Job,
};

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
    if batch.items.len() > job.seeds.len() || batch.items.windows(2).any(|pair| pair[0] == pair[1]) {
        let_go(engine, &batch.batch).await;
        let words = format!("the engine took {} items for {} pictures", batch.items.len(), job.seeds.len());
        return Err(EngineError::Failed(words));
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
    if error.leaves_open() {
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
}
