//! Getting the engine to let go of prompts of ours: of exactly these.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use tracing::{debug, warn};

use super::{
    ComfyUi,
    follow::client_prefix,
    queue::{Queue, Ticket},
};
use crate::engine::EngineError;

/// How often prompts are looked for until the engine is free of them.
const VERIFY_POLL: Duration = Duration::from_millis(100);
/// The engine looks between steps whether it was interrupted, and some nodes do not pass that on: it is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Looks that must find nothing where an order may still be on its way to the engine, and the time between them. More
/// than one: an engine that hung may answer a look before it reads the order whose answer we gave up on. One that comes
/// even later is an orphan to the next survey.
const LOOKS_WHEN_UNSURE: u8 = 2;
const UNSURE_POLL: Duration = Duration::from_millis(500);

/// Prompts that the engine may still hold.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) prompts: Vec<String>,
    /// Whether the engine has said of each that it took it or did not.
    pub(super) sure: bool,
}

/// Cancels the prompts and returns once none of them waits or runs. Keeps at it for as long as the engine does not
/// answer: the slot stays taken, and readiness says so. An engine that cannot end one prompt alone is waited for.
pub(super) async fn let_go(engine: &ComfyUi, left: &Left) {
    let needed = if left.sure { 1 } else { LOOKS_WHEN_UNSURE };
    let (mut clean, mut asked) = (0, None);
    loop {
        match ask(engine, &left.prompts, &mut asked).await {
            Ok(false) => clean = 0,
            Ok(true) => clean += 1,
            // Nobody is there: the GPU is free, and the queue was lost with the engine.
            Err(EngineError::Refused(_)) => return,
            Err(error) => debug!(%error, "cannot tell yet whether the engine has let go of a job"),
        }
        if clean >= needed {
            return;
        }
        tokio::time::sleep(if clean > 0 { UNSURE_POLL } else { VERIFY_POLL }).await;
    }
}

/// Whether the engine is free of them; if not, it is asked to be.
async fn ask(engine: &ComfyUi, prompts: &[String], asked: &mut Option<Instant>) -> Result<bool, EngineError> {
    let api = &engine.api;
    if asked.is_none() {
        api.unqueue(prompts).await?;
    }
    let queue = api.queue().await?;
    let of_us = |tickets: &[Ticket]| -> Vec<String> {
        tickets.iter().map(|ticket| ticket.prompt.clone()).filter(|prompt| prompts.contains(prompt)).collect()
    };
    let (pending, running) = (of_us(&queue.pending), of_us(&queue.running));
    if pending.is_empty() && running.is_empty() {
        return Ok(true);
    }
    if !pending.is_empty() {
        api.unqueue(&pending).await?;
    }
    let due = asked.is_none_or(|asked| asked.elapsed() >= ASK_AGAIN);
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
pub(super) async fn orphans(
    engine: &ComfyUi,
    queue: &Queue,
    live_before: &HashSet<String>,
) -> Result<(), EngineError> {
    let prefix = client_prefix(&engine.tag);
    let is_orphan = |ticket: &&Ticket, live: &HashSet<String>| {
        let waited_for = live_before.contains(&ticket.prompt) || live.contains(&ticket.prompt);
        ticket.is_of(&prefix) && !waited_for
    };
    let (pending, running) = {
        let mut state = engine.state();
        let orphans = |tickets: &[Ticket]| -> Vec<String> {
            let orphans = tickets.iter().filter(|ticket| is_orphan(ticket, &state.live));
            orphans.map(|ticket| ticket.prompt.clone()).collect()
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
        engine.api.unqueue(&pending).await?;
    }
    if let Some(allowed) = engine.interrupts_by_id() {
        // One that waited a moment ago may run by now.
        for prompt in pending.iter().chain(&running) {
            engine.api.interrupt(prompt, allowed).await?;
        }
    }
    Ok(())
}
