//! The last ten minutes of a sidecar's readings, for charts. Pure: no clock, no lock, no wait.

use std::collections::VecDeque;

use serde::Serialize;
use wire::health::{GpuReport, ReadyReport, ReadyStatus};

use super::state::{Evidence, Readiness};

/// How long a sample is kept.
const MAX_AGE_SECONDS: f64 = 600.0;
const MAX_SAMPLES: usize = 600;
/// Between two samples. A little less than the second between two probes, which no timer keeps exactly.
const MIN_GAP_SECONDS: f64 = 0.9;

/// What one probe read. Memory is in MiB, power in W, temperature in degrees Celsius, utilization in percent. What is not known
/// is absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Sample {
    /// Unix seconds, by the gateway's clock.
    at: f64,
    /// `ready`, `degraded`, `not_ready` or `unreachable`.
    status: &'static str,
    #[serde(flatten)]
    memory: MemoryShares,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    power: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    power_limit: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    utilization: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_depth: Option<u64>,
}

/// Who holds the card's memory. Nothing is present with unified memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[expect(clippy::struct_field_names, reason = "these are the keys in JSON")]
struct MemoryShares {
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_total: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_reserved: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_free: Option<u64>,
    /// Held by the engine, which gives it up for a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_engine: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_others: Option<u64>,
    /// By all processes; only while the engine's share is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_used: Option<u64>,
}

impl Sample {
    /// What a probe found at this time.
    pub(super) fn of(evidence: &Evidence, at: f64) -> Self {
        let status = status_of(evidence);
        let at = (at * 1000.0).round() / 1000.0;
        let Some(report) = report_of(evidence) else { return Self { at, status, ..Self::default() } };
        let queue_depth = Some(report.engine.queue_depth);
        let Some(gpu) = &report.gpu else { return Self { at, status, queue_depth, ..Self::default() } };
        Self {
            at,
            status,
            memory: MemoryShares::of(gpu),
            temperature: gpu.temperature,
            power: gpu.power_draw.or(gpu.power_draw_average).or(gpu.power_draw_instant),
            power_limit: gpu.enforced_power_limit.or(gpu.power_limit),
            utilization: gpu.utilization_gpu,
            queue_depth,
        }
    }
}

impl MemoryShares {
    fn of(gpu: &GpuReport) -> Self {
        let engine = gpu
            .memory_effective_free
            .zip(gpu.memory_free)
            .map(|(effective, free)| effective.saturating_sub(free));
        let others = gpu.memory_used.zip(engine).map(|(used, engine)| used.saturating_sub(engine));
        Self {
            memory_total: gpu.memory_total,
            memory_reserved: gpu.memory_reserved,
            memory_free: gpu.memory_free,
            memory_engine: others.and(engine),
            memory_others: others,
            memory_used: gpu.memory_used.filter(|_| others.is_none()),
        }
    }
}

fn report_of(evidence: &Evidence) -> Option<&ReadyReport> {
    match evidence {
        Evidence::Answered(answer) => match &answer.readiness {
            Readiness::Report(report) => Some(report),
            Readiness::Ready | Readiness::NotReady(_) => None,
        },
        Evidence::ProbeFailed(_) | Evidence::Refused | Evidence::NoRoute(_) => None,
    }
}

fn status_of(evidence: &Evidence) -> &'static str {
    let is_alive = matches!(evidence, Evidence::Answered(answer) if answer.alive);
    let is_degraded = || report_of(evidence).is_some_and(|report| report.status == ReadyStatus::Degraded);
    match (evidence.is_ready(), is_alive) {
        (true, _) if is_degraded() => "degraded",
        (true, _) => "ready",
        (false, true) => "not_ready",
        (false, false) => "unreachable",
    }
}

/// The samples of one backend, oldest first.
#[derive(Debug, Default)]
pub(super) struct History {
    samples: VecDeque<Sample>,
    /// How many samples there have been.
    count: u64,
}

impl History {
    /// Adds what a probe found. A backend has a history once it has sent a report: others have no figures.
    pub(super) fn record(&mut self, evidence: &Evidence, at: f64) {
        let sample = Sample::of(evidence, at);
        match self.samples.back() {
            None if report_of(evidence).is_none() => return,
            Some(last) if (sample.at - last.at).abs() < MIN_GAP_SECONDS => return,
            // The clock was set back.
            Some(last) if sample.at < last.at => self.samples.clear(),
            _ => {}
        }
        let is_expired = |old: &Sample| sample.at - old.at > MAX_AGE_SECONDS;
        while self.samples.front().is_some_and(is_expired) || self.samples.len() >= MAX_SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
        self.count += 1;
    }

    /// The samples after the first `seen` ones, as far as they are kept, and how many there have been.
    pub(super) fn after(&self, seen: u64) -> (Vec<Sample>, u64) {
        let new = usize::try_from(self.count.saturating_sub(seen)).unwrap_or(usize::MAX);
        let known = self.samples.len().saturating_sub(new);
        (self.samples.iter().skip(known).cloned().collect(), self.count)
    }
}

#[cfg(test)]
mod tests;
