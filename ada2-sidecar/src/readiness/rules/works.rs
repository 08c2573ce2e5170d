//! What the last pictures proved of the engine. Warns and never gates: the next picture may prove the contrary, and it
//! cannot be made where work is refused.

use std::time::{Duration, Instant};

use wire::health::{Check, CheckStatus};

use super::{Inputs, Memory, Rules};
use crate::{
    gpu::{Elsewhere, GpuProcess, GpuReading, Work},
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
/// A list of processes from so long after a picture's end still tells of it. Shorter than what must last: an engine that lets
/// go of the card at the end of a job is no cause for alarm.
const JUST_ENDED: Duration = Duration::from_secs(3);
/// Less is no engine with a model.
const MUCH: u64 = 512 << 20;
const MIB: u64 = 1 << 20;

/// What one verdict leaves to the next.
#[derive(Debug, Clone, Default)]
pub(super) struct Works {
    /// The engine's start that is judged, and when it was first seen.
    start: Option<(u64, Instant)>,
    without_memory: Alarm,
    outside: Alarm,
    /// What may be the engine outside its unit, as seen last.
    stranger: Option<GpuProcess>,
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
        // A list from before its first step proves nothing.
        let at_work =
            painting(inputs.outcomes, now).is_some_and(|at| at > began && reading.processes_taken >= at);
        let idle = !holds && at_work && reading.elsewhere.is_empty();
        let stranger = stranger(processes, &rules.engine_unit);
        let (on_cpu, outside) = (idle && stranger.is_none(), idle && stranger.is_some());
        self.without_memory = self.without_memory.next(on_cpu, holds || outside, LASTING, now);
        // A container that lets go of the card at once when the picture is finished is still one.
        self.outside = self.outside.next(outside, holds, LASTING, now);
        self.stranger = stranger.cloned().or(self.stranger.take());
        let moved = !holds && !reading.elsewhere.is_empty();
        self.elsewhere = self.elsewhere.next(moved, !moved, LASTING, now);
    }
}

/// When the engine began to paint what it is painting now, or was until a moment ago. It may let go of the card at any other
/// time.
fn painting(seen: &Seen, now: Instant) -> Option<Instant> {
    let is_fresh = |at: Instant| now.saturating_duration_since(at) < JUST_ENDED;
    seen.working.filter(|_| seen.painting > 0 || seen.succeeded.is_some_and(is_fresh))
}

/// The largest process that may be an engine outside its unit: a container's, one that was started by hand, or one that
/// nobody answers for. A service of another name is another program.
fn stranger<'a>(processes: &'a [GpuProcess], engine_unit: &str) -> Option<&'a GpuProcess> {
    let is_nobodys = |unit: &str| unit != engine_unit && unit.strip_suffix(".scope").is_some();
    let may_be = |process: &&GpuProcess| {
        process.work != Work::Graphics
            && process.unit.as_deref().is_none_or(is_nobodys)
            && process.used.is_none_or(|used| used >= MUCH)
    };
    processes.iter().filter(may_be).max_by_key(|process| process.used)
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
    let on_card = rules.engine_url.is_some() && (rules.gpu_required || reading.is_some());
    let expected =
        if on_card { "the last picture succeeded, on this GPU" } else { "the last picture succeeded" };
    let check = |observed: &str| Check::pass("engine_works", observed, expected);
    let warn = |observed: &str, words: String| check(observed).but(CheckStatus::Warn, words);
    let unit = &rules.engine_unit;
    if let Some((observed, words)) = misplaced(&memory.works, reading, unit) {
        return warn(observed, words);
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

/// Why the engine does not work where it should: observed, and in words.
fn misplaced(works: &Works, reading: Option<&GpuReading>, unit: &str) -> Option<(&'static str, String)> {
    let other = reading.and_then(|reading| reading.elsewhere.first()).filter(|_| works.elsewhere.on);
    if let Some(other) = other {
        return Some(("on another GPU", on_another(other, reading, unit)));
    }
    if let Some(stranger) = works.stranger.as_ref().filter(|_| works.outside.on) {
        return Some(("outside its unit", outside(stranger, unit)));
    }
    works.without_memory.on.then(|| {
        let message = format!(
            "{unit} makes pictures and holds no VRAM: it fell back to the CPU (look for CUDA errors in its log, restart it), or \
             its processes run outside that unit (--engine-unit)"
        );
        ("no VRAM held", message)
    })
}

fn outside(stranger: &GpuProcess, unit: &str) -> String {
    let GpuProcess { pid, name, unit: own, used, .. } = stranger;
    let held = used.map_or_else(|| "memory".to_owned(), |bytes| format!("{} MiB", bytes / MIB));
    let (belongs, remedy) = match own {
        Some(own) => (own.as_str(), format!("set --engine-unit {own} if that is the engine")),
        None => ("no unit", "run it in a unit, and name that with --engine-unit".to_owned()),
    };
    format!(
        "{unit} holds no VRAM while pictures are made, and pid {pid} {name:?} ({belongs}) holds {held}: the engine runs outside \
         that unit; {remedy}"
    )
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
    let size = size.map_or_else(|| "its own size".to_owned(), |size| size.to_string());
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
