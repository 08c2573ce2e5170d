//! The driver's error reports: what they leave behind, and the check that shows it.

use std::{
    collections::VecDeque,
    time::{Duration, Instant, SystemTime},
};

use wire::health::{Check, CheckStatus};

use super::{Inputs, Memory, unread};
use crate::{
    gpu::GpuReading,
    readiness::xid::{Policy, meaning},
};

/// A program's fault warns for this long.
const WARNING: Duration = Duration::from_mins(1);
/// So many of them within [`BURST`] warn until the engine is started anew.
const MANY: usize = 3;
/// Of context switches that timed out, fewer are many.
const MANY_TIMEOUTS: usize = 2;
const TIMEOUT: u32 = 109;
const BURST: Duration = Duration::from_mins(10);

/// Reports of this process's time.
#[derive(Debug, Clone, Default)]
pub(super) struct Reports {
    last: u64,
    /// Programs' faults of the last ten minutes.
    recent: VecDeque<(u32, Instant)>,
    /// They came in numbers: which was the last.
    burst: Option<u32>,
    /// The last program's fault.
    application: Option<(u32, Instant)>,
    driver_loads: u32,
    engine_starts: u64,
}

impl Reports {
    pub(super) fn acknowledge(&mut self) {
        self.recent.clear();
        self.burst = None;
        self.application = None;
    }

    /// The last program's fault, if no picture succeeded after it.
    pub(super) fn unproven(&self, succeeded: Option<Instant>) -> Option<u32> {
        let (code, at) = self.application?;
        succeeded.is_none_or(|succeeded| succeeded < at).then_some(code)
    }
}

/// Takes in what is new, and what ends what was before.
pub(super) fn note(memory: &mut Memory, inputs: &Inputs<'_>, reading: Option<&GpuReading>) {
    let reports = &mut memory.reports;
    if let Some(sample) = inputs.gpu {
        if sample.driver_loads != reports.driver_loads {
            reports.driver_loads = sample.driver_loads;
            memory.latch = memory.latch.cleared();
        }
        let seen = reports.last;
        for xid in sample.xids.recent.iter().filter(|xid| xid.sequence > seen) {
            memory.latch.note(xid.code, xid.wall);
            if Policy::of(xid.code) == Policy::Application {
                reports.recent.push_back((xid.code, xid.at));
                reports.application = Some((xid.code, xid.at));
                reports.count(xid.at);
            }
        }
        reports.last = sample.xids.recent.last().map_or(reports.last, |last| last.sequence);
    }
    if inputs.engine.starts != reports.engine_starts {
        reports.engine_starts = inputs.engine.starts;
        reports.burst = None;
        memory.latch.note_engine_start();
    }
    if let Some(action) = reading.and_then(|reading| reading.vitals.recovery_action) {
        memory.latch.note_recovery(action);
    }
}

impl Reports {
    fn count(&mut self, at: Instant) {
        self.recent.retain(|(_, then)| at.saturating_duration_since(*then) <= BURST);
        let timeouts = self.recent.iter().filter(|(code, _)| *code == TIMEOUT).count();
        if self.recent.len() >= MANY || timeouts >= MANY_TIMEOUTS {
            self.burst = self.recent.back().map(|(code, _)| *code);
        }
    }
}

pub(super) fn check(
    memory: &Memory,
    inputs: &Inputs<'_>,
    reading: Option<&GpuReading>,
    now: Instant,
    wall: SystemTime,
) -> Check {
    let expected = "no fatal report of the driver";
    let latch = &memory.latch;
    let latched =
        |wanted: Policy| latch.xids.iter().rev().find(move |(code, _)| Policy::of(**code) == wanted);
    let at = |code: u32, since: u64| format!("XID {code} ({}) {} ago", meaning(code), age(since, wall));
    let check = Check::pass("xid", "none", expected);
    let seen = |observed: String| Check { observed, ..check.clone() };
    if let Some((code, xid)) = latched(Policy::Fatal) {
        let observed = at(*code, xid.since);
        let words = format!(
            "the driver reported {observed}: look at `dmesg`, reset the GPU or reboot; stays until reboot, driver reload or \
             `sudo ada2-sidecar ack`"
        );
        return seen(observed).but(CheckStatus::Fail, words);
    }
    if let Some((code, xid)) = latched(Policy::FatalForEngine) {
        let observed = at(*code, xid.since);
        let words = format!(
            "the driver reported {observed}: restart the engine; stays until then or `sudo ada2-sidecar ack`"
        );
        return seen(observed).but(CheckStatus::Fail, words);
    }
    if let Some((code, xid)) = latched(Policy::Lasting) {
        let observed = at(*code, xid.since);
        let words = format!(
            "the driver reported {observed}: reset the GPU when idle; stays until then or `sudo ada2-sidecar ack`"
        );
        return seen(observed).but(CheckStatus::Warn, words);
    }
    let reports = &memory.reports;
    if let Some(code) = reports.burst {
        let observed = format!("{} in 10 min, the last XID {code} ({})", reports.recent.len(), meaning(code));
        let words = format!(
            "programs on the GPU fail again and again: {observed}; restart the engine, look at its log"
        );
        return seen(observed).but(CheckStatus::Warn, words);
    }
    let last = reports.recent.back().filter(|(_, then)| now.saturating_duration_since(*then) < WARNING);
    if let Some((code, _)) = last {
        let observed = format!("XID {code} ({})", meaning(*code));
        let words = format!(
            "a program on the GPU failed: {observed}; a warning for a minute, look at the engine's log"
        );
        return seen(observed).but(CheckStatus::Warn, words);
    }
    match reading {
        Some(reading) if reading.vitals.reports_xids => check,
        None if inputs.gpu.is_some_and(|sample| !sample.xids.recent.is_empty()) => check,
        _ => unread("xid", expected, reading),
    }
}

fn age(since: u64, wall: SystemTime) -> String {
    let now = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    match now.saturating_sub(since) {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}
