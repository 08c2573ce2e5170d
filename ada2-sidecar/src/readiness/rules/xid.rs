//! The driver's error reports (XIDs): the state that they leave, and its check.

use std::{
    collections::VecDeque,
    time::{Duration, Instant, SystemTime},
};

use service::clock::unix_seconds;
use wire::health::{Check, CheckStatus};

use super::{EvaluationInputs, EvaluationState, unavailable};
use crate::{
    gpu::GpuReading,
    readiness::xid::{XidPolicy, description},
};

/// An application fault warns for this long.
const WARNING: Duration = Duration::from_mins(1);
/// This many within [`BURST_WINDOW`] warn until the engine restarts.
const BURST_COUNT: usize = 3;
/// For context switches that timed out, the limit is lower.
const BURST_TIMEOUT_COUNT: usize = 2;
const XID_CONTEXT_SWITCH_TIMEOUT: u32 = 109;
const BURST_WINDOW: Duration = Duration::from_mins(10);

/// Reports since this process started.
#[derive(Debug, Clone, Default)]
pub(super) struct XidHistory {
    last_sequence: u64,
    /// Application faults of the last ten minutes.
    recent: VecDeque<(u32, Instant)>,
    /// The last one of a burst.
    burst_code: Option<u32>,
    /// The last application fault.
    last_application: Option<(u32, Instant)>,
    driver_loads: u32,
    engine_restarts: u64,
}

impl XidHistory {
    pub(super) fn acknowledge(&mut self) {
        self.recent.clear();
        self.burst_code = None;
        self.last_application = None;
    }

    /// The last application fault, if no image succeeded after it.
    pub(super) fn unverified_fault(&self, succeeded: Option<Instant>) -> Option<u32> {
        let (code, at) = self.last_application?;
        succeeded.is_none_or(|succeeded| succeeded < at).then_some(code)
    }
}

/// Adds new reports, and clears what has ended.
pub(super) fn update(
    memory: &mut EvaluationState,
    inputs: &EvaluationInputs<'_>,
    reading: Option<&GpuReading>,
) {
    let history = &mut memory.xid_history;
    if let Some(sample) = inputs.gpu {
        if sample.driver_loads != history.driver_loads {
            history.driver_loads = sample.driver_loads;
            memory.latch = memory.latch.cleared();
        }
        let last_sequence = history.last_sequence;
        for xid in sample.xids.recent.iter().filter(|xid| xid.sequence > last_sequence) {
            memory.latch.record_xid(xid.code, xid.timestamp);
            if XidPolicy::for_code(xid.code) == XidPolicy::Application {
                history.recent.push_back((xid.code, xid.at));
                history.last_application = Some((xid.code, xid.at));
                history.update_burst(xid.at);
            }
        }
        history.last_sequence = sample.xids.recent.last().map_or(history.last_sequence, |last| last.sequence);
    }
    if inputs.engine.restarts != history.engine_restarts {
        history.engine_restarts = inputs.engine.restarts;
        history.burst_code = None;
        memory.latch.clear_engine_errors();
    }
    if let Some(action) = reading.and_then(|reading| reading.health.recovery_action) {
        memory.latch.record_recovery_action(action);
    }
}

impl XidHistory {
    fn update_burst(&mut self, at: Instant) {
        self.recent.retain(|(_, then)| at.saturating_duration_since(*then) <= BURST_WINDOW);
        let timeouts = self.recent.iter().filter(|(code, _)| *code == XID_CONTEXT_SWITCH_TIMEOUT).count();
        if self.recent.len() >= BURST_COUNT || timeouts >= BURST_TIMEOUT_COUNT {
            self.burst_code = self.recent.back().map(|(code, _)| *code);
        }
    }
}

pub(super) fn check(
    state: &EvaluationState,
    inputs: &EvaluationInputs<'_>,
    reading: Option<&GpuReading>,
    now: Instant,
    wall: SystemTime,
) -> Check {
    let expected = "no fatal XID";
    let latch = &state.latch;
    let latched = |policy: XidPolicy| {
        latch.xids.iter().rev().find(move |(code, _)| XidPolicy::for_code(**code) == policy)
    };
    let at = |code: u32, since: u64| format!("XID {code} ({}) {} ago", description(code), age(since, wall));
    let check = Check::pass("xid", "none", expected);
    let with_observed = |observed: String| Check { observed, ..check.clone() };
    if let Some((code, xid)) = latched(XidPolicy::Fatal) {
        let observed = at(*code, xid.since);
        let message = format!(
            "the driver reported {observed}: check `dmesg`, reset the GPU or reboot; stays until reboot, driver reload or \
             `sudo ada2-sidecar ack`"
        );
        return with_observed(observed).with_status(CheckStatus::Fail, message);
    }
    if let Some((code, xid)) = latched(XidPolicy::FatalForEngine) {
        let observed = at(*code, xid.since);
        let message = format!(
            "the driver reported {observed}: restart the engine; stays until then or `sudo ada2-sidecar ack`"
        );
        return with_observed(observed).with_status(CheckStatus::Fail, message);
    }
    if let Some((code, xid)) = latched(XidPolicy::LatchedWarning) {
        let observed = at(*code, xid.since);
        let message = format!(
            "the driver reported {observed}: reset the GPU when idle; stays until then or `sudo ada2-sidecar ack`"
        );
        return with_observed(observed).with_status(CheckStatus::Warn, message);
    }
    let history = &state.xid_history;
    if let Some(code) = history.burst_code {
        let observed =
            format!("{} in 10 min, the last XID {code} ({})", history.recent.len(), description(code));
        let message =
            format!("programs on the GPU fail repeatedly: {observed}; restart the engine and check its log");
        return with_observed(observed).with_status(CheckStatus::Warn, message);
    }
    let last = history.recent.back().filter(|(_, then)| now.saturating_duration_since(*then) < WARNING);
    if let Some((code, _)) = last {
        let observed = format!("XID {code} ({})", description(*code));
        let message = format!(
            "a program on the GPU failed: {observed}; a warning for a minute, check the engine's log"
        );
        return with_observed(observed).with_status(CheckStatus::Warn, message);
    }
    match reading {
        Some(reading) if reading.health.receives_xids => check,
        None if inputs.gpu.is_some_and(|sample| !sample.xids.recent.is_empty()) => check,
        _ => unavailable("xid", expected, reading),
    }
}

fn age(since: u64, wall: SystemTime) -> String {
    match unix_seconds(wall).saturating_sub(since) {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}
