//! The rules: from readings to the verdict. Pure: no clock, no I/O, no lock; `now` comes in. Each check is a
//! function in the file of what it is about; what the next verdict must remember is in [`EvaluationState`].

mod card;
mod engine;
mod engine_works;
mod gpu;
mod host;
mod vram;
mod xid;

use std::{
    fmt::Write,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use service::clock::unix_seconds_f64;
use wire::health::{Check, CheckStatus, EngineReport, ReadyReport, ReadyStatus};

use super::{alarm::Alarm, latch::Latch};
use crate::{
    engine::monitor::EngineState,
    gpu::{GpuReading, GpuSample, GpuState},
    host::HostSample,
    images::models::{ModelDeclaration, Preset},
    job_history::JobHistorySnapshot,
    readiness::WarmUp,
};

/// The inputs.
#[derive(Debug, Clone, Copy)]
pub struct EvaluationInputs<'a> {
    /// The last sample of the card; none before the first.
    pub gpu: Option<&'a GpuSample>,
    /// The last sample of the host; none before the first.
    pub host: Option<&'a HostSample>,
    /// When sampling began.
    pub started_at: Instant,
    /// The engine as last seen.
    pub engine: &'a EngineState,
    /// Why it rejects our graphs.
    pub graphs: &'a [String],
    /// The outcomes of the last jobs.
    pub job_history: &'a JobHistorySnapshot,
    /// Whether its model is loaded.
    pub warm_up: &'a WarmUp,
    /// Slots.
    pub slot_limit: usize,
    /// Slots taken.
    pub inflight: usize,
    /// How long the oldest cancelled job has been unconfirmed.
    pub oldest_cancel_age: Option<Duration>,
    /// Whether the service is stopping.
    pub draining: bool,
}

/// The thresholds.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Whether an absent GPU gates.
    pub gpu_required: bool,
    /// Bytes of VRAM that the engine must be able to have; 0 = off.
    pub min_free_vram: u64,
    /// The unit whose VRAM is the engine's.
    pub engine_unit: String,
    /// The engine's name, for texts.
    pub engine: &'static str,
    /// Where a model is installed in the engine, for texts.
    pub model_location: Option<&'static str>,
    /// The engine's address, for texts.
    pub engine_url: Option<String>,
    /// The model that requests without one get.
    pub default_model: Option<String>,
    /// Names for models.
    pub presets: Vec<Arc<Preset>>,
    /// The operator's declarations of models.
    pub models: Vec<ModelDeclaration>,
    /// Checks that warn where they would gate.
    pub warn_only: Vec<&'static str>,
    /// How the card's faults count.
    pub card: CardRules,
    /// The host's thresholds.
    pub host: HostRules,
}

impl Rules {
    /// A check's hint at `warn_only`, where it is not set for it.
    fn warn_only_hint(&self, check: &str, text: &'static str) -> &'static str {
        if self.warn_only.contains(&check) { "" } else { text }
    }

    /// An absent GPU is a failure if one is required, else unknown.
    fn absent_gpu_status(&self) -> CheckStatus {
        if self.gpu_required { CheckStatus::Fail } else { CheckStatus::Unknown }
    }
}

/// How the card's faults count.
#[derive(Debug, Clone, Copy)]
pub struct CardRules {
    /// What error correction should be; any without.
    pub ecc_mode: Option<bool>,
    /// Whether uncorrected errors from before our start gate.
    pub old_ecc_errors_gate: bool,
    /// Whether a row that waits for its replacement gates.
    pub remap_pending_gates: bool,
    /// Whether a row that could not be replaced gates.
    pub remap_failure_gates: bool,
}

/// The host's thresholds; 0 = off.
#[derive(Debug, Clone, Copy)]
pub struct HostRules {
    /// Bytes.
    pub min_free_disk: u64,
    /// Bytes.
    pub min_free_memory: u64,
    /// Percent; 100 = off.
    pub max_swap_used: u64,
    /// Bytes.
    pub max_engine_memory: u64,
}

/// A report, and what the next one must remember.
#[derive(Debug, Clone)]
pub struct Evaluation {
    /// What is published.
    pub report: ReadyReport,
    /// What is remembered.
    pub state: EvaluationState,
}

/// What one verdict leaves to the next.
#[derive(Debug, Clone, Default)]
pub struct EvaluationState {
    /// What also outlives the process.
    pub latch: Latch,
    vram: Option<Alarm>,
    card: card::CardAlarms,
    host: host::HostAlarms,
    gpu_faults: gpu::GpuFaultState,
    engine_usage: engine_works::EngineUsage,
    xid_history: xid::XidHistory,
}

impl EvaluationState {
    /// At the start of the service, with what an earlier one left.
    pub fn new(latch: Latch) -> Self {
        Self { latch, ..Self::default() }
    }

    /// An operator acknowledged the latched faults.
    pub fn acknowledge(&mut self) {
        self.latch = self.latch.cleared();
        self.xid_history.acknowledge();
    }
}

/// Evaluates every check. `prev` is the report before this one; `memory` what it left.
pub fn evaluate(
    prev: Option<&ReadyReport>,
    mut memory: EvaluationState,
    inputs: &EvaluationInputs<'_>,
    rules: &Rules,
    now: Instant,
    wall: SystemTime,
) -> Evaluation {
    let reading = match inputs.gpu.map(|sample| &sample.state) {
        Some(GpuState::Present(reading)) => Some(&**reading),
        _ => None,
    };
    xid::update(&mut memory, inputs, reading);
    let mut checks = gpu::checks(&mut memory.gpu_faults, inputs, rules, now);
    checks.push(xid::check(&memory, inputs, reading, now, wall));
    checks.extend(card::checks(&mut memory, reading, rules, now));
    let (vram, headroom) = vram::check(memory.vram, reading, rules, now);
    memory.vram = vram;
    checks.push(headroom);
    checks.extend(engine::checks(inputs, rules));
    checks.push(engine_works::check(&mut memory, inputs, reading, rules, now));
    checks.push(engine::slots(inputs));
    checks.extend(host::checks(&mut memory.host, inputs, rules, now));
    checks.push(draining(inputs.draining));
    for check in checks.iter_mut().filter(|check| rules.warn_only.contains(&check.name.as_str())) {
        downgrade_to_warning(check);
    }
    let status = status_of(&checks);
    let unix = unix_seconds_f64(wall);
    let unchanged = prev.filter(|prev| prev.status == status);
    let report = ReadyReport {
        status,
        checks,
        gpu: reading.map(|reading| reading.report.clone()),
        engine: engine_report(inputs.engine, rules),
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "unix seconds fit for long"
        )]
        since: unchanged.map_or(unix as u64, |prev| prev.since),
        sampled_at: inputs
            .gpu
            .filter(|_| reading.is_some())
            .map_or(unix, |sample| unix_seconds_f64(sample.timestamp)),
    };
    Evaluation { report, state: memory }
}

/// A check that would gate warns instead, and its message says why.
fn downgrade_to_warning(check: &mut Check) {
    if check.status == CheckStatus::Fail {
        check.status = CheckStatus::Warn;
        let _ = write!(check.message, " (only a warning, because warn_only names {})", check.name);
    }
}

/// Whether a check is about card or host: without a running service there is neither engine nor slots.
pub fn is_host_check(check: &Check) -> bool {
    !matches!(
        check.name.as_str(),
        "engine_reachable"
            | "engine_process"
            | "engine_queue"
            | "engine_model"
            | "engine_works"
            | "slots"
            | "draining"
    )
}

/// The verdict over these checks.
pub fn status_of(checks: &[Check]) -> ReadyStatus {
    let any = |status| checks.iter().any(|check| check.status == status);
    if any(CheckStatus::Fail) {
        ReadyStatus::NotReady
    } else if any(CheckStatus::Warn) {
        ReadyStatus::Degraded
    } else {
        ReadyStatus::Ready
    }
}

fn draining(draining: bool) -> Check {
    let check = Check::pass("draining", if draining { "yes" } else { "no" }, "no");
    if draining {
        check.with_status(CheckStatus::Fail, "the service is stopping; running requests are being finished")
    } else {
        check
    }
}

fn engine_report(engine: &EngineState, rules: &Rules) -> EngineReport {
    let status = engine.last_status.as_ref();
    EngineReport {
        kind: rules.engine.to_owned(),
        url: rules.engine_url.clone(),
        version: status.map(|status| status.version.clone()),
        queue_depth: status.map_or(0, |status| status.queue_depth),
        models: status.map_or(0, |status| engine::servable_models(status, rules)),
    }
}

/// A missing reading is unknown.
fn unavailable(name: &str, expected: &str, reading: Option<&GpuReading>) -> Check {
    let why =
        if reading.is_some() { "the driver does not support this reading" } else { "no GPU is being read" };
    Check::pass(name, "unknown", expected).with_status(CheckStatus::Unknown, why)
}

#[cfg(test)]
mod tests;
