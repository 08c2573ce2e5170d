//! What the gateway concludes about a backend from probes and requests. Pure: no clock, no lock, no wait.

use std::sync::Arc;

use wire::health::{GpuReport, ReadyReport, ReadyStatus};

use crate::{client::connect_error::ConnectError, config::ProbeRules};

/// What a probe or a request found out about a backend.
#[derive(Debug, Clone)]
pub enum Evidence {
    /// A probe got a response.
    Answered(ProbeReport),
    /// A probe got none.
    ProbeFailed(ProbeFailure),
    /// The connection was refused.
    Refused,
    /// There is no route to the host; with the message.
    NoRoute(String),
}

impl Evidence {
    /// Whether this shows that the backend is ready.
    pub fn is_ready(&self) -> bool {
        match self {
            Self::Answered(answered) => answered.alive && answered.readiness.is_ready(),
            Self::ProbeFailed(_) | Self::Refused | Self::NoRoute(_) => false,
        }
    }

    /// The probe's result, as a metric label.
    pub const fn probe_result(&self) -> &'static str {
        match self {
            Self::Answered(_) => "answered",
            Self::Refused => "refused",
            Self::NoRoute(_) => "no_route",
            Self::ProbeFailed(ProbeFailure::TimedOut) => "timed_out",
            Self::ProbeFailed(
                ProbeFailure::Broken | ProbeFailure::Unresolved(_) | ProbeFailure::NoDescriptor,
            ) => "broken",
        }
    }
}

impl From<ConnectError> for Evidence {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Refused => Self::Refused,
            ConnectError::NoRoute | ConnectError::NoLocalRoute => Self::NoRoute(error.to_string()),
        }
    }
}

/// The response to a probe.
#[derive(Debug, Clone)]
pub struct ProbeReport {
    /// By the liveness path.
    pub alive: bool,
    /// By the readiness path.
    pub readiness: Readiness,
    /// Probe paths that the backend does not have.
    pub missing_paths: Vec<String>,
}

/// What the readiness path says.
#[derive(Debug, Clone)]
pub enum Readiness {
    /// A sidecar's report.
    Report(Box<ReadyReport>),
    /// Ready, without a report.
    Ready,
    /// Not ready, for this reason.
    NotReady(String),
}

impl Readiness {
    pub(super) fn is_ready(&self) -> bool {
        match self {
            Self::Report(report) => report.admits(),
            Self::Ready => true,
            Self::NotReady(_) => false,
        }
    }
}

/// Why a probe got no response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeFailure {
    /// It timed out.
    TimedOut,
    /// The connection was lost.
    Broken,
    /// The host name has no address; with the message. Resolvers also fail for a moment.
    Unresolved(String),
    /// The gateway has no file descriptor left.
    NoDescriptor,
}

impl ProbeFailure {
    fn message(self) -> String {
        match self {
            Self::TimedOut => "health probe timed out".to_owned(),
            Self::Broken => "health probe failed: the connection was lost".to_owned(),
            Self::Unresolved(message) => message,
            Self::NoDescriptor => "health probe failed: the gateway has no file descriptors left".to_owned(),
        }
    }
}

/// A backend's health.
#[derive(Debug, Clone, PartialEq)]
pub struct Health {
    /// As last probed, or as a request found it.
    pub alive: bool,
    /// Whether it gets requests.
    pub ready: bool,
    /// Why it is not ready.
    pub error: Option<String>,
    /// For the status.
    pub warnings: Vec<String>,
    /// The sidecar's last report.
    pub report: Option<Arc<ReadyReport>>,
    /// How many image requests the sidecar accepts at once, as it last reported.
    pub max_inflight: Option<usize>,
    /// Probe paths that the backend does not have.
    pub missing_paths: Vec<String>,
    /// Unix seconds of the last evidence.
    pub last_check: Option<f64>,
    /// In a row.
    pub failed_probes: u32,
    /// How many sleeps of the machine came before this state.
    pub sleep_count: u64,
}

impl Health {
    /// Before the first probe.
    pub fn unknown() -> Self {
        Self {
            alive: false,
            ready: false,
            error: Some("the first health probe has not completed yet".to_owned()),
            warnings: Vec::new(),
            report: None,
            max_inflight: None,
            missing_paths: Vec::new(),
            last_check: None,
            failed_probes: 0,
            sleep_count: 0,
        }
    }

    /// After a sleep, earlier results mean nothing.
    pub fn after_sleep(prev: &Self) -> Self {
        Self {
            error: Some("the machine was asleep; the backend is being probed again".to_owned()),
            // Not announced again.
            missing_paths: prev.missing_paths.clone(),
            sleep_count: prev.sleep_count + 1,
            ..Self::unknown()
        }
    }

    /// The card, as last reported.
    pub fn gpu(&self) -> Option<&GpuReport> {
        self.report.as_ref()?.gpu.as_ref()
    }

    /// `ready`, `degraded`, `not_ready` or `unreachable`.
    pub fn status(&self) -> &'static str {
        let is_degraded =
            || self.report.as_ref().is_some_and(|report| report.status == ReadyStatus::Degraded);
        match (self.ready, self.alive) {
            (true, _) if is_degraded() => "degraded",
            (true, _) => "ready",
            (false, true) => "not_ready",
            (false, false) => "unreachable",
        }
    }

    fn not_ready(self, alive: bool, error: impl Into<String>) -> Self {
        Self { alive, ready: false, error: Some(error.into()), ..self }
    }
}

/// The health after this evidence. A response counts at once; missing responses only after several.
pub fn transition(prev: &Health, evidence: Evidence, rules: &ProbeRules, now: f64) -> Health {
    let health = Health { last_check: Some(now), failed_probes: 0, ..prev.clone() };
    match evidence {
        Evidence::Answered(report) => after_report(&health, report),
        Evidence::Refused => health.not_ready(false, "connection refused: nothing listens there"),
        Evidence::NoRoute(message) => health.not_ready(false, message),
        Evidence::ProbeFailed(failure) => {
            let failed_probes = prev.failed_probes.saturating_add(1);
            let health = Health { failed_probes, ..health };
            if prev.ready && failed_probes < rules.threshold {
                health
            } else {
                health.not_ready(false, failure.message())
            }
        }
    }
}

fn after_report(health: &Health, report: ProbeReport) -> Health {
    let mut warnings: Vec<_> = report
        .missing_paths
        .iter()
        .map(|path| format!("wrong probe: the backend has no {path}; set its own path under `health`"))
        .collect();
    let (mut last, mut max_inflight) = (None, None);
    let verdict = match report.readiness {
        Readiness::Report(ready) => {
            warnings.extend(ready.warnings());
            let verdict = if ready.admits() { Ok(()) } else { Err(failure_message(&ready)) };
            max_inflight = ready.max_concurrency();
            last = Some(Arc::from(ready));
            verdict
        }
        Readiness::Ready => Ok(()),
        Readiness::NotReady(message) => Err(message),
    };
    let verdict =
        if report.alive { verdict } else { verdict.and(Err("the liveness probe fails".to_owned())) };
    Health {
        alive: report.alive,
        ready: verdict.is_ok(),
        error: verdict.err(),
        warnings,
        report: last,
        max_inflight,
        missing_paths: report.missing_paths,
        last_check: health.last_check,
        failed_probes: health.failed_probes,
        sleep_count: health.sleep_count,
    }
}

/// Warns of a limit that admits more image requests at once than the sidecar accepts.
pub fn limit_warning(limit: Option<usize>, max_inflight: Option<usize>) -> Option<String> {
    let (limit, max) = limit.zip(max_inflight)?;
    (limit > max).then(|| {
        format!(
            "concurrency_limits: images is {limit}, but the sidecar accepts only {max} at once (its max_inflight) and answers \
             429 beyond that; lower the limit or raise max_inflight"
        )
    })
}

fn failure_message(report: &ReadyReport) -> String {
    let failing = report.failing_message();
    if failing.is_empty() { report.summary() } else { failing }
}

#[cfg(test)]
mod tests;
