//! Runs one job in InvokeAI: until its last image, or until the GPU is free of it.

use std::time::Duration;

use serde_json::Value;
use tracing::{debug, warn};

use super::{
    InvokeAi,
    api::{Enqueued, InvokeAiApi},
    batch_tracker::BatchTracker,
    payload::{InvokeAiUploads, batch_payload},
};
use crate::{
    engine::{EngineError, GeneratedImage, JobContext},
    images::Job,
};

/// Between polls until the engine is free of a cancelled job.
const VERIFY_POLL: Duration = Duration::from_millis(100);

/// Runs the job. See [`crate::engine::ImageEngine::run`].
pub(super) async fn run(
    engine: &InvokeAi,
    job: &Job,
    context: &JobContext,
) -> Result<Vec<GeneratedImage>, EngineError> {
    let uploads = InvokeAiUploads::upload(engine, job).await?;
    let outcome = generate(engine, job, &uploads, context).await;
    if uploads.has_any() {
        // Clients do not wait for the cleanup.
        context.complete(outcome.clone());
        uploads.remove(engine).await;
    }
    outcome
}

async fn generate(
    engine: &InvokeAi,
    job: &Job,
    uploads: &InvokeAiUploads,
    context: &JobContext,
) -> Result<Vec<GeneratedImage>, EngineError> {
    if context.cancel.is_cancelled() {
        return Err(EngineError::Cancelled);
    }
    let template = job.graph().ok_or_else(EngineError::without_graph)?;
    let mut events = engine.events.subscribe();
    let payload = batch_payload(&template, job, uploads, &engine.tag);
    let (batch, _active) = submit(engine, &payload, context).await?;
    if batch.items.len() < job.seeds.len() {
        cancel_and_confirm(engine, &batch.batch_id).await;
        return Err(EngineError::QueueFull);
    }
    if batch.items.len() > job.seeds.len() || batch.items.windows(2).any(|pair| pair[0] == pair[1]) {
        cancel_and_confirm(engine, &batch.batch_id).await;
        let message =
            format!("the engine enqueued {} items for {} images", batch.items.len(), job.seeds.len());
        return Err(EngineError::Failed(message));
    }
    let mut tracker = BatchTracker::new(engine, &template, job, &batch, context);
    let outcome = tokio::select! {
        outcome = tracker.wait_for_images(&mut events) => outcome,
        () = context.cancel.cancelled() => Err(EngineError::Cancelled),
    };
    match outcome {
        Ok(()) => Ok(tracker.into_images()),
        // The engine is gone: the GPU is free. What it finds in its queue when it is back is cancelled then.
        Err(EngineError::ConnectionRefused(message)) => {
            engine.request_orphan_scan();
            Err(EngineError::ConnectionRefused(message))
        }
        Err(error) => {
            cancel_and_confirm(engine, &batch.batch_id).await;
            if let EngineError::OutOfMemory(_) = &error
                && let Err(error) = engine.api.empty_model_cache().await
            {
                warn!(fault = %error, "cannot make the engine free its caches");
            }
            Err(error)
        }
    }
}

/// Enqueues the batch. If the response is lost, the job may have arrived: then the client gets the error at once, but this
/// returns only after a scan for orphans, or when the engine is gone.
async fn submit<'a>(
    engine: &'a InvokeAi,
    batch: &Value,
    context: &JobContext,
) -> Result<(Enqueued, ActiveBatch<'a>), EngineError> {
    let enqueue_guard = engine.enqueue_lock.read().await;
    let error = match engine.api.enqueue(batch).await {
        Ok(batch) => {
            let active = ActiveBatch::register(engine, &batch.batch_id);
            return Ok((batch, active));
        }
        Err(error) => error,
    };
    drop(enqueue_guard);
    if error.is_outcome_unknown() {
        context.complete(Err(error.clone()));
        engine.request_orphan_scan();
        let is_unresolved = || {
            let state = engine.state();
            state.pending_orphan_scans > 0 && !state.is_unreachable
        };
        while is_unresolved() {
            tokio::time::sleep(VERIFY_POLL).await;
        }
    }
    Err(error)
}

/// Cancels the batch and returns once the GPU is free of it: no item waits or runs, and the worker is idle or already busy
/// with another item. Retries for as long as the engine does not respond; the slot stays taken, and readiness reports it.
async fn cancel_and_confirm(engine: &InvokeAi, batch: &str) {
    let mut is_requested = false;
    loop {
        if !is_requested {
            is_requested = engine.api.cancel_batch(batch).await.is_ok();
        }
        match is_free(&engine.api, batch).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(EngineError::ConnectionRefused(_)) => {
                engine.request_orphan_scan();
                return;
            }
            Err(error) => debug!(%error, batch, "cannot confirm yet that the engine has cancelled the job"),
        }
        tokio::time::sleep(VERIFY_POLL).await;
    }
}

async fn is_free(api: &InvokeAiApi, batch: &str) -> Result<bool, EngineError> {
    if api.counts_of_batch(batch).await?.active() > 0 {
        return Ok(false);
    }
    let status = api.queue_status().await?;
    Ok(!status.processor.is_processing || status.queue.in_progress > 0)
}

/// Marks the batch as having a waiting request.
struct ActiveBatch<'a> {
    engine: &'a InvokeAi,
    batch: String,
}

impl<'a> ActiveBatch<'a> {
    fn register(engine: &'a InvokeAi, batch: &str) -> Self {
        engine.state().active_batches.insert(batch.to_owned());
        Self { engine, batch: batch.to_owned() }
    }
}

impl Drop for ActiveBatch<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Its task can no longer cancel it.
            self.engine.request_orphan_scan();
        }
        self.engine.state().active_batches.remove(&self.batch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panicking_job_causes_an_orphan_scan() {
        let engine = InvokeAi::new("http://127.0.0.1:9".parse().unwrap(), "tag".into());
        engine.state().pending_orphan_scans = 0;
        drop(ActiveBatch::register(&engine, "done"));
        assert_eq!(engine.state().pending_orphan_scans, 0, "a job that ended in order leaves nothing behind");
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _active = ActiveBatch::register(&engine, "lost");
            panic!("a fault of ours");
        }));
        assert!(panicked.is_err());
        assert!(engine.state().pending_orphan_scans > 0 && engine.state().active_batches.is_empty());
    }
}
