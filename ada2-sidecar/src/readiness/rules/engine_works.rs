//! What the last images proved of the engine. Warns and never gates: the next image may prove the contrary, and it
//! cannot be made where work is refused.

use std::time::{Duration, Instant};

use wire::health::{Check, CheckStatus};

use super::{EvaluationInputs, EvaluationState, Rules};
use crate::{
    gpu::{GpuProcess, GpuProcessType, GpuReading, OtherGpuUsage},
    job_history::{JobHistorySnapshot, StepTiming},
    readiness::{
        alarm::{Alarm, Delays},
        xid::description,
    },
};

/// This many failures in a row are no coincidence.
const FAILURE_THRESHOLD: u32 = 3;
/// Steps are slow if they take this many times as long as usual …
const SLOW_FACTOR: u32 = 4;
/// … and this long: below it, the host's scheduling dominates.
const MIN_SLOW_STEP: Duration = Duration::from_millis(50);
/// An engine that starts, or moves its models, holds no memory for a moment.
const DELAYS: Delays = Delays { rise: Duration::from_secs(5), fall: Duration::ZERO };
/// A list of processes from this long after an image's end still counts for it. Shorter than what must last: an engine that releases
/// the card at the end of a job is no cause for alarm.
const RECENT_SUCCESS: Duration = Duration::from_secs(3);
/// An engine with a model holds at least this.
const MIN_ENGINE_VRAM: u64 = 512 << 20;
const MIB: u64 = 1 << 20;

/// The state between two verdicts.
#[derive(Debug, Clone, Default)]
pub(super) struct EngineUsage {
    /// The engine's start that is evaluated, and when it was first seen.
    engine_start: Option<(u64, Instant)>,
    no_vram: Alarm,
    outside_unit: Alarm,
    /// What may be the engine outside its unit, as seen last.
    outside_process: Option<GpuProcess>,
    other_gpu: Alarm,
}

impl EngineUsage {
    fn update(
        &mut self,
        inputs: &EvaluationInputs<'_>,
        reading: Option<&GpuReading>,
        rules: &Rules,
        now: Instant,
    ) {
        let starts = inputs.engine.starts;
        let started_at = match self.engine_start {
            Some((of, began)) if of == starts => began,
            // It is another process, of which nothing is proven yet.
            _ => {
                *self = Self { engine_start: Some((starts, now)), ..Self::default() };
                now
            }
        };
        // The builtin engine runs on the CPU by design.
        let Some(reading) = reading.filter(|_| rules.engine_url.is_some()) else { return };
        let Some(processes) = reading.processes.as_deref().filter(|_| reading.engine_unit_active) else {
            // Whose memory it is is unknown: keep the previous state.
            return;
        };
        // On a card without memory of its own, being listed is the only evidence.
        let is_engine = |process: &GpuProcess| process.unit.as_ref() == Some(&rules.engine_unit);
        let is_unified_memory = reading.memory.is_none();
        let holds = processes
            .iter()
            .any(|process| is_engine(process) && (is_unified_memory || process.used != Some(0)));
        // A list from before its first step proves nothing.
        let is_generating = generating_since(inputs.job_history, now)
            .is_some_and(|at| at > started_at && reading.processes_taken_at >= at);
        let idle = !holds && is_generating && reading.other_gpus.is_empty();
        let outside_process = find_outside_process(processes, &rules.engine_unit);
        let (on_cpu, outside) = (idle && outside_process.is_none(), idle && outside_process.is_some());
        self.no_vram = self.no_vram.update(on_cpu, holds || outside, DELAYS, now);
        // A container that releases the card as soon as the image is finished is still one.
        self.outside_unit = self.outside_unit.update(outside, holds, DELAYS, now);
        self.outside_process = outside_process.cloned().or(self.outside_process.take());
        let on_other_gpu = !holds && !reading.other_gpus.is_empty();
        self.other_gpu = self.other_gpu.update(on_other_gpu, !on_other_gpu, DELAYS, now);
    }
}

/// When the engine began the job that runs now, or ran until a moment ago. It may release the card at any other
/// time.
fn generating_since(history: &JobHistorySnapshot, now: Instant) -> Option<Instant> {
    let is_fresh = |at: Instant| now.saturating_duration_since(at) < RECENT_SUCCESS;
    history.generating_since.filter(|_| history.generating > 0 || history.last_success.is_some_and(is_fresh))
}

/// The largest process that may be an engine outside its unit: a container's, one that was started by hand, or one that
/// no service accounts for. A service of another name is another program.
fn find_outside_process<'a>(processes: &'a [GpuProcess], engine_unit: &str) -> Option<&'a GpuProcess> {
    let is_unattributed = |unit: &str| unit != engine_unit && unit.strip_suffix(".scope").is_some();
    let is_candidate = |process: &&GpuProcess| {
        process.process_type != GpuProcessType::Graphics
            && process.unit.as_deref().is_none_or(is_unattributed)
            && process.used.is_none_or(|used| used >= MIN_ENGINE_VRAM)
    };
    processes.iter().filter(is_candidate).max_by_key(|process| process.used)
}

pub(super) fn check(
    state: &mut EvaluationState,
    inputs: &EvaluationInputs<'_>,
    reading: Option<&GpuReading>,
    rules: &Rules,
    now: Instant,
) -> Check {
    state.engine_usage.update(inputs, reading, rules, now);
    let history = inputs.job_history;
    let on_card = rules.engine_url.is_some() && (rules.gpu_required || reading.is_some());
    let expected = if on_card { "the last image succeeded, on this GPU" } else { "the last image succeeded" };
    let check = |observed: &str| Check::pass("engine_works", observed, expected);
    let warn = |observed: &str, message: String| check(observed).with_status(CheckStatus::Warn, message);
    let unit = &rules.engine_unit;
    if let Some((observed, message)) = misplaced_engine(&state.engine_usage, reading, unit) {
        return warn(observed, message);
    }
    if history.failures >= FAILURE_THRESHOLD {
        let message = format!(
            "the last {} images failed in the engine, the last with: {}; check its log and restart it (`systemctl restart \
             {unit}`)",
            history.failures,
            history.last_failure.as_deref().unwrap_or("no reason given")
        );
        return warn(&format!("{} failures in a row", history.failures), message);
    }
    if let Some(code) = state.xid_history.unverified_fault(history.last_success) {
        let what = format!("XID {code} ({})", description(code));
        let message = format!(
            "a program on the GPU failed ({what}) and no image has succeeded since: request one, and restart {unit} if it fails"
        );
        return warn(&format!("{what}, no image since"), message);
    }
    if let Some(message) = history.step_timing.as_ref().and_then(slow_steps_message) {
        return warn("slow", message);
    }
    match last_result(history) {
        Some(observed) => check(observed),
        None => {
            check("no image yet").with_status(CheckStatus::Unknown, "no image has been made since the start")
        }
    }
}

/// Why the engine does not run where it should: the observed value and the message.
fn misplaced_engine(
    usage: &EngineUsage,
    reading: Option<&GpuReading>,
    unit: &str,
) -> Option<(&'static str, String)> {
    let other = reading.and_then(|reading| reading.other_gpus.first()).filter(|_| usage.other_gpu.on);
    if let Some(other) = other {
        return Some(("on another GPU", other_gpu_message(other, reading, unit)));
    }
    if let Some(process) = usage.outside_process.as_ref().filter(|_| usage.outside_unit.on) {
        return Some(("outside its unit", outside_message(process, unit)));
    }
    usage.no_vram.on.then(|| {
        let message = format!(
            "{unit} makes images and holds no VRAM: it fell back to the CPU (look for CUDA errors in its log, restart it), or \
             its processes run outside that unit (--engine-unit)"
        );
        ("no VRAM held", message)
    })
}

fn outside_message(process: &GpuProcess, unit: &str) -> String {
    let GpuProcess { pid, name, unit: own, used, .. } = process;
    let held = used.map_or_else(|| "memory".to_owned(), |bytes| format!("{} MiB", bytes / MIB));
    let (belongs, remedy) = match own {
        Some(own) => (own.as_str(), format!("set --engine-unit {own} if that is the engine")),
        None => ("no unit", "run it in a unit, and name that with --engine-unit".to_owned()),
    };
    format!(
        "{unit} holds no VRAM while images are made, and pid {pid} {name:?} ({belongs}) holds {held}: the engine runs outside \
         that unit; {remedy}"
    )
}

fn last_result(history: &JobHistorySnapshot) -> Option<&'static str> {
    match history {
        JobHistorySnapshot { last_success: None, failures: 0, .. } => None,
        JobHistorySnapshot { failures: 0, .. } => Some("the last image succeeded"),
        JobHistorySnapshot { failures: 1, .. } => Some("the last image failed"),
        JobHistorySnapshot { .. } => Some("the last two images failed"),
    }
}

fn slow_steps_message(pace: &StepTiming) -> Option<String> {
    let StepTiming { model, size, mean: step, median: usual } = pace;
    let usual = usual.filter(|usual| *step > *usual * SLOW_FACTOR && *step >= MIN_SLOW_STEP)?;
    let size = size.map_or_else(|| "its own size".to_owned(), |size| size.to_string());
    Some(format!(
        "steps of the last {model:?} at {size} took {:.2} s each, usually {:.2} s: look for heat, for other programs on the GPU \
         and for models that no longer fit into VRAM",
        step.as_secs_f64(),
        usual.as_secs_f64()
    ))
}

fn other_gpu_message(other: &OtherGpuUsage, reading: Option<&GpuReading>, unit: &str) -> String {
    let OtherGpuUsage { index, name, uuid, processes } = other;
    let total_held: Option<u64> = processes.iter().map(|process| process.used).sum();
    let held = total_held.map_or_else(|| "memory".to_owned(), |bytes| format!("{} MiB", bytes / MIB));
    let judged = reading.map(|reading| &reading.report);
    let judged = judged
        .map_or_else(String::new, |report| format!("GPU {} {} ({})", report.index, report.name, report.uuid));
    format!(
        "{unit} holds {held} on GPU {index} {name} ({uuid}), and what is judged is {judged}, where it holds none: set \
         --gpu-id {uuid}, or let the engine use the other one (CUDA counts cards as NVML does with \
         CUDA_DEVICE_ORDER=PCI_BUS_ID)"
    )
}
