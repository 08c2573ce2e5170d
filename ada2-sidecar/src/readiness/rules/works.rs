//! What the last pictures proved of the engine. Warns and never gates: the next picture may prove the contrary, and it
//! cannot be made where work is refused.

use std::time::{Duration, Instant};

use shared::health::{Check, CheckStatus};

use super::{Inputs, Memory, Rules};
use crate::{
    gpu::{Elsewhere, GpuProcess, GpuReading},
    outcomes::{Pace, Seen},
    readiness::{
        alarm::{Alarm, Delays},
        xid::meaning,
    },
};

/// Failures in a row that are no chance.
const FAILURES: u32 = 3;
/// Steps are slow from so many times as long as usual …
const TIMES: u32 = 4;
/// … and this long: below it, the host's own scheduling is what is measured.
const SLOW_STEP: Duration = Duration::from_millis(50);
/// An engine that starts, or moves its models, holds no memory for a moment.
const LASTING: Delays = Delays { rise: Duration::from_secs(5), fall: Duration::ZERO };
const MIB: u64 = 1 << 20;

/// What one verdict leaves to the next.
#[derive(Debug, Clone, Default)]
pub(super) struct Works {
    /// The engine's start that is judged, and when it was first seen.
    start: Option<(u64, Instant)>,
    without_memory: Alarm,
    elsewhere: Alarm,
}

impl Works {
    fn next(&mut self, inputs: &Inputs<'_>, reading: Option<&GpuReading>, rules: &Rules, now: Instant) {
        let starts = inputs.engine.starts;
        let began = match self.start {
            Some((of, began)) if of == starts => began,
            // It is another process, of which nothing is proven yet.
            _ => {
                *self = Self { start: Some((starts, now)), ..Self::default() };
                now
            }
        };
        // The builtin engine paints on the CPU, and is meant to.
        let Some(reading) = reading.filter(|_| rules.engine_url.is_some()) else { return };
        let Some(processes) = reading.processes.as_deref().filter(|_| reading.engine_unit_active) else {
            // Whose memory it is cannot be told: what was seen before stands.
            return;
        };
        // Where the card has no memory of its own, being listed is all that there is to see.
        let is_own = |process: &GpuProcess| process.unit.as_ref() == Some(&rules.engine_unit);
        let unified = reading.memory.is_none();
        let holds = processes.iter().any(|process| is_own(process) && (unified || process.used != Some(0)));
        let painted = inputs.outcomes.working.max(inputs.outcomes.succeeded);
        // A list from before its first step proves nothing.
        let at_work = painted.is_some_and(|at| at > began && reading.processes_taken >= at);
        let idle = !holds && at_work && reading.elsewhere.is_empty();
        self.without_memory = self.without_memory.next(idle, holds, LASTING, now);
        let moved = !holds && !reading.elsewhere.is_empty();
        self.elsewhere = self.elsewhere.next(moved, !moved, LASTING, now);
    }
}

pub(super) fn check(
    memory: &mut Memory,
    inputs: &Inputs<'_>,
    reading: Option<&GpuReading>,
    rules: &Rules,
    now: Instant,
) -> Check {
    memory.works.next(inputs, reading, rules, now);
    let seen = inputs.outcomes;
    let check =
        |observed: &str| Check::pass("engine_works", observed, "the last picture succeeded, on this GPU");
    let warn = |observed: &str, words: String| check(observed).but(CheckStatus::Warn, words);
    let unit = &rules.engine_unit;
    if let Some(other) =
        reading.and_then(|reading| reading.elsewhere.first()).filter(|_| memory.works.elsewhere.on)
    {
        return warn("on another GPU", on_another(other, reading, unit));
    }
    if memory.works.without_memory.on {
        let words = format!(
            "{unit} makes pictures and holds no VRAM: it fell back to the CPU (look for CUDA errors in its log, restart it), or \
             its processes run outside that unit (--engine-unit)"
        );
        return warn("no VRAM held", words);
    }
    if seen.failures >= FAILURES {
        let words = format!(
            "the last {} pictures failed in the engine, the last with: {}; look at its log, restart it (`systemctl restart \
             {unit}`)",
            seen.failures,
            seen.failure.as_deref().unwrap_or("no reason given")
        );
        return warn(&format!("{} failures in a row", seen.failures), words);
    }
    if let Some(code) = memory.reports.unproven(seen.succeeded) {
        let what = format!("XID {code} ({})", meaning(code));
        let words = format!(
            "a program on the GPU failed ({what}) and no picture has succeeded since: make one; restart {unit} if it fails"
        );
        return warn(&format!("{what}, no picture since"), words);
    }
    if let Some(words) = seen.pace.as_ref().and_then(slow) {
        return warn("slow", words);
    }
    match proven(seen) {
        Some(observed) => check(observed),
        None => check("no picture yet")
            .but(CheckStatus::Unknown, "no picture was made since our start; the first one tells"),
    }
}

fn proven(seen: &Seen) -> Option<&'static str> {
    match seen {
        Seen { succeeded: None, failures: 0, .. } => None,
        Seen { failures: 0, .. } => Some("the last picture succeeded"),
        Seen { failures: 1, .. } => Some("the last picture failed"),
        Seen { .. } => Some("the last two pictures failed"),
    }
}

fn slow(pace: &Pace) -> Option<String> {
    let Pace { model, size, step, usual } = pace;
    let usual = usual.filter(|usual| *step > *usual * TIMES && *step >= SLOW_STEP)?;
    Some(format!(
        "steps of the last {model:?} at {size} took {:.2} s each, usually {:.2} s: look for heat, for other programs on the GPU \
         and for models that no longer fit into VRAM",
        step.as_secs_f64(),
        usual.as_secs_f64()
    ))
}

fn on_another(other: &Elsewhere, reading: Option<&GpuReading>, unit: &str) -> String {
    let Elsewhere { index, name, uuid, processes } = other;
    let told: Option<u64> = processes.iter().map(|process| process.used).sum();
    let held = told.map_or_else(|| "memory".to_owned(), |bytes| format!("{} MiB", bytes / MIB));
    let judged = reading.map(|reading| &reading.report);
    let judged = judged
        .map_or_else(String::new, |report| format!("GPU {} {} ({})", report.index, report.name, report.uuid));
    format!(
        "{unit} holds {held} on GPU {index} {name} ({uuid}), and what is judged is {judged}, where it holds none: set \
         --gpu-id {uuid}, or have the engine take the other one (CUDA counts cards as NVML does with \
         CUDA_DEVICE_ORDER=PCI_BUS_ID)"
    )
}
