//! Cancels prompts of ours, and no others.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use tracing::{debug, warn};

use super::{
    ComfyUi,
    queue::{Queue, QueuedPrompt},
};
use crate::engine::EngineError;

/// Between polls until the engine is free of the prompts.
const CONFIRM_INTERVAL: Duration = Duration::from_millis(100);
/// The engine checks for interrupts between steps, and some nodes ignore them: repeat.
const INTERRUPT_RETRY: Duration = Duration::from_secs(1);
/// Polls that must find nothing if a submission may still be on its way, and the time between them. More than one: an engine
/// that hung may answer a poll before it reads the prompt whose response we gave up on. One that arrives even later is an
/// orphan.
const CONFIRMATIONS_IF_UNSURE: u8 = 2;
const UNSURE_CONFIRM_INTERVAL: Duration = Duration::from_millis(500);

/// Prompts that the engine may still hold.
#[derive(Debug)]
pub(super) struct UnfinishedPrompts {
    pub(super) prompts: Vec<String>,
    /// Whether the engine has accepted or rejected each of them.
    pub(super) all_acknowledged: bool,
}

/// Cancels the prompts and returns once none of them waits or runs. Retries for as long as the engine does not respond; the
/// slot stays taken, and readiness reports it. If the engine cannot interrupt a single prompt, this waits for its end.
pub(super) async fn cancel_and_confirm(engine: &ComfyUi, unfinished: &UnfinishedPrompts) {
    let needed = if unfinished.all_acknowledged { 1 } else { CONFIRMATIONS_IF_UNSURE };
    let (mut confirmations, mut last_interrupt) = (0, None);
    loop {
        match try_cancel(engine, &unfinished.prompts, &mut last_interrupt).await {
            Ok(false) => confirmations = 0,
            Ok(true) => confirmations += 1,
            // The engine is gone, and its queue with it: the GPU is free.
            Err(EngineError::ConnectionRefused(_)) => return,
            Err(error) => debug!(%error, "cannot confirm yet that the engine has cancelled the job"),
        }
        if confirmations >= needed {
            return;
        }
        tokio::time::sleep(if confirmations > 0 { UNSURE_CONFIRM_INTERVAL } else { CONFIRM_INTERVAL }).await;
    }
}

/// Returns whether the engine is free of them; if not, cancels them.
async fn try_cancel(
    engine: &ComfyUi,
    prompts: &[String],
    last_interrupt: &mut Option<Instant>,
) -> Result<bool, EngineError> {
    if last_interrupt.is_none() && cancel(engine, prompts, &[]).await? == CancelRoute::Job {
        *last_interrupt = Some(Instant::now());
    }
    let queue = engine.api.queue().await?;
    let ours = |queued: &[QueuedPrompt]| -> Vec<String> {
        queued.iter().map(|prompt| prompt.prompt_id.clone()).filter(|id| prompts.contains(id)).collect()
    };
    let (pending, running) = (ours(&queue.pending), ours(&queue.running));
    if pending.is_empty() && running.is_empty() {
        return Ok(true);
    }
    let due = last_interrupt.is_none_or(|last_interrupt| last_interrupt.elapsed() >= INTERRUPT_RETRY);
    cancel(engine, &pending, if due { &running } else { &[] }).await?;
    if due {
        *last_interrupt = Some(Instant::now());
    }
    Ok(false)
}

/// How prompts were cancelled.
#[derive(Debug, PartialEq, Eq)]
enum CancelRoute {
    /// Each by the route for one job, whether it waited or ran.
    Job,
    /// Those that waited by the queue, those that ran by an interrupt with their id, if the engine honours that.
    Queue,
}

/// Cancels prompts that wait, and prompts that run.
async fn cancel(
    engine: &ComfyUi,
    pending: &[String],
    running: &[String],
) -> Result<CancelRoute, EngineError> {
    if engine.may_cancel_jobs() {
        // The last one first: none may start in the place of the one that runs.
        let also_running = running.iter().filter(|prompt| !pending.contains(prompt));
        for prompt in pending.iter().rev().chain(also_running) {
            if !engine.api.cancel_job(prompt).await? {
                engine.state().lacks_job_cancel = true;
                break;
            }
        }
        if engine.may_cancel_jobs() {
            return Ok(CancelRoute::Job);
        }
    }
    if !pending.is_empty() {
        engine.api.delete_from_queue(pending).await?;
    }
    if let Some(allowed) = engine.interrupts_by_id() {
        for prompt in running {
            engine.api.interrupt(prompt, allowed).await?;
        }
    }
    Ok(CancelRoute::Queue)
}

/// Cancels orphans: prompts of ours without a request, left by an earlier process or a submission whose response was lost.
/// A running one is left alone if the engine cannot interrupt a single prompt.
pub(super) async fn cancel_orphans(
    engine: &ComfyUi,
    queue: &Queue,
    active_before: &HashSet<String>,
) -> Result<(), EngineError> {
    let prefix = engine.client_prefix();
    let is_orphan = |prompt: &&QueuedPrompt, active: &HashSet<String>| {
        let has_request = active_before.contains(&prompt.prompt_id) || active.contains(&prompt.prompt_id);
        prompt.is_from_client(&prefix) && !has_request
    };
    let (pending, running) = {
        let mut state = engine.state();
        let orphans = |queued: &[QueuedPrompt]| -> Vec<String> {
            let orphans = queued.iter().filter(|prompt| is_orphan(prompt, &state.active_prompts));
            orphans.map(|prompt| prompt.prompt_id.clone()).collect()
        };
        let (pending, running) = (orphans(&queue.pending), orphans(&queue.running));
        let all: HashSet<String> = pending.iter().chain(&running).cloned().collect();
        let new = all.difference(&state.orphans).count();
        if new > 0 {
            warn!(jobs = new, "cancelling orphaned jobs in the engine");
        }
        state.orphans = all;
        (pending, running)
    };
    // A waiting one may have started since the poll.
    let may_run: Vec<_> = pending.iter().chain(&running).cloned().collect();
    cancel(engine, &pending, &may_run).await.map(drop)
}
