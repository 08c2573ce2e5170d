//! Getting the engine to let go of prompts of ours: of exactly these.

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

/// How often prompts are looked for until the engine is free of them.
const CONFIRM_INTERVAL: Duration = Duration::from_millis(100);
/// The engine looks between steps whether it was interrupted, and some nodes do not pass that on: it is asked again.
const INTERRUPT_RETRY: Duration = Duration::from_secs(1);
/// Looks that must find nothing where an order may still be on its way to the engine, and the time between them. More
/// than one: an engine that hung may answer a look before it reads the order whose answer we gave up on. One that comes
/// even later is an orphan to the next survey.
const CONFIRMATIONS_IF_UNSURE: u8 = 2;
const UNSURE_CONFIRM_INTERVAL: Duration = Duration::from_millis(500);

/// Prompts that the engine may still hold.
#[derive(Debug)]
pub(super) struct UnfinishedPrompts {
    pub(super) prompts: Vec<String>,
    /// Whether the engine has said of each that it took it or did not.
    pub(super) all_acknowledged: bool,
}

/// Cancels the prompts and returns once none of them waits or runs. Keeps at it for as long as the engine does not
/// answer: the slot stays taken, and readiness says so. An engine that cannot end one prompt alone is waited for.
pub(super) async fn cancel_and_confirm(engine: &ComfyUi, unfinished: &UnfinishedPrompts) {
    let needed = if unfinished.all_acknowledged { 1 } else { CONFIRMATIONS_IF_UNSURE };
    let (mut clean, mut asked) = (0, None);
    loop {
        match try_cancel(engine, &unfinished.prompts, &mut asked).await {
            Ok(false) => clean = 0,
            Ok(true) => clean += 1,
            // Nobody is there: the GPU is free, and the queue was lost with the engine.
            Err(EngineError::ConnectionRefused(_)) => return,
            Err(error) => debug!(%error, "cannot tell yet whether the engine has let go of a job"),
        }
        if clean >= needed {
            return;
        }
        tokio::time::sleep(if clean > 0 { UNSURE_CONFIRM_INTERVAL } else { CONFIRM_INTERVAL }).await;
    }
}

/// Whether the engine is free of them; if not, it is asked to be.
async fn try_cancel(
    engine: &ComfyUi,
    prompts: &[String],
    asked: &mut Option<Instant>,
) -> Result<bool, EngineError> {
    let api = &engine.api;
    if asked.is_none() {
        api.delete_from_queue(prompts).await?;
    }
    let queue = api.queue().await?;
    let of_us = |tickets: &[QueuedPrompt]| -> Vec<String> {
        tickets
            .iter()
            .map(|ticket| ticket.prompt_id.clone())
            .filter(|prompt| prompts.contains(prompt))
            .collect()
    };
    let (pending, running) = (of_us(&queue.pending), of_us(&queue.running));
    if pending.is_empty() && running.is_empty() {
        return Ok(true);
    }
    if !pending.is_empty() {
        api.delete_from_queue(&pending).await?;
    }
    let due = asked.is_none_or(|asked| asked.elapsed() >= INTERRUPT_RETRY);
    if let Some(allowed) = engine.interrupts_by_id()
        && due
    {
        for prompt in &running {
            api.interrupt(prompt, allowed).await?;
        }
    }
    if due {
        *asked = Some(Instant::now());
    }
    Ok(false)
}

/// Cancels what is of us and waited for by nobody: of an earlier process, or of an order whose answer was lost. A
/// running one is let run where it could only be ended together with others' work.
pub(super) async fn cancel_orphans(
    engine: &ComfyUi,
    queue: &Queue,
    live_before: &HashSet<String>,
) -> Result<(), EngineError> {
    let prefix = engine.client_prefix();
    let is_orphan = |ticket: &&QueuedPrompt, live: &HashSet<String>| {
        let waited_for = live_before.contains(&ticket.prompt_id) || live.contains(&ticket.prompt_id);
        ticket.is_from_client(&prefix) && !waited_for
    };
    let (pending, running) = {
        let mut state = engine.state();
        let orphans = |tickets: &[QueuedPrompt]| -> Vec<String> {
            let orphans = tickets.iter().filter(|ticket| is_orphan(ticket, &state.active_prompts));
            orphans.map(|ticket| ticket.prompt_id.clone()).collect()
        };
        let (pending, running) = (orphans(&queue.pending), orphans(&queue.running));
        let all: HashSet<String> = pending.iter().chain(&running).cloned().collect();
        let new = all.difference(&state.orphans).count();
        if new > 0 {
            warn!(jobs = new, "cancelling jobs of ours in the engine that nobody waits for");
        }
        state.orphans = all;
        (pending, running)
    };
    if !pending.is_empty() {
        engine.api.delete_from_queue(&pending).await?;
    }
    if let Some(allowed) = engine.interrupts_by_id() {
        // One that waited a moment ago may run by now.
        for prompt in pending.iter().chain(&running) {
            engine.api.interrupt(prompt, allowed).await?;
        }
    }
    Ok(())
}
