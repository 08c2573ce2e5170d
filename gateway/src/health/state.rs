//! What the gateway concludes about a backend from what it saw. Pure: no clock, no lock, no wait.

use wire::health::{GpuReport, ReadyReport};

use crate::{client::connect_error::ConnectError, config::ProbeRules};

/// What was seen of a backend.
#[derive(Debug, Clone)]
pub enum Evidence {
    /// A probe was answered.
    Answered(ProbeReport),
    /// A probe was not answered.
    ProbeFailed(ProbeFailure),
    /// Nobody listens there; met by a probe or by a request.
    Refused,
    /// The operating system knows no way there, in these words; met by a probe or by a request.
    NoRoute(String),
}

impl Evidence {
    /// Whether a backend of which this was seen is ready.
    pub fn is_ready(&self) -> bool {
        match self {
            Self::Answered(answered) => answered.alive && answered.readiness.is_ready(),
            Self::ProbeFailed(_) | Self::Refused | Self::NoRoute(_) => false,
        }
    }

    /// How the probe ended that found this.
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

/// An answered probe.
#[derive(Debug, Clone)]
pub struct ProbeReport {
    /// Whether the liveness path said that the backend lives.
    pub alive: bool,
    /// What it said about being ready.
    pub readiness: Readiness,
    /// Probe paths that the backend does not have.
    pub missing_paths: Vec<String>,
}

/// What a readiness probe said.
#[derive(Debug, Clone)]
pub enum Readiness {
    /// A sidecar's report.
    Report(Box<ReadyReport>),
    /// Ready, in no words of ours.
    Ready,
    /// Not ready, because.
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

/// Why a probe was not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeFailure {
    /// Not in time.
    TimedOut,
    /// The connection broke.
    Broken,
    /// Its host name has no address, in these words. Resolvers fail for a moment, too.
    Unresolved(String),
    /// The gateway itself had no file descriptor left to ask with.
    NoDescriptor,
}

impl ProbeFailure {
    fn message(self) -> String {
        match self {
            Self::TimedOut => "health probe timed out".to_owned(),
            Self::Broken => "health probe: the connection broke".to_owned(),
            Self::Unresolved(message) => message,
            Self::NoDescriptor => {
                "health probe: the gateway has no file descriptor left to ask with".to_owned()
            }
        }
    }
}

/// What is believed of a backend.
#[derive(Debug, Clone, PartialEq)]
pub struct Health {
    /// It answers.
    pub alive: bool,
    /// Requests are admitted.
    pub ready: bool,
    /// Why not.
    pub error: Option<String>,
    /// What wants attention.
    pub warnings: Vec<String>,
    /// The sidecar's last reading.
    pub gpu: Option<GpuReport>,
    /// How many picture requests the sidecar takes at once, as it said last.
    pub max_inflight: Option<usize>,
    /// Probe paths that the backend does not have.
    pub missing_paths: Vec<String>,
    /// Unix seconds of the last evidence; none before the first.
    pub last_check: Option<f64>,
    /// Unanswered probes in a row.
    pub failed_probes: u32,
    /// How often the machine had slept when this belief began.
    pub sleep_count: u64,
}

impl Health {
    /// Nothing is known yet: not ready.
    pub fn unknown() -> Self {
        Self {
            alive: false,
            ready: false,
            error: Some("its first health probe is not answered yet".to_owned()),
            warnings: Vec::new(),
            gpu: None,
            max_inflight: None,
            missing_paths: Vec::new(),
            last_check: None,
            failed_probes: 0,
            sleep_count: 0,
        }
    }

    /// The machine slept: as little is known as at first.
    pub fn after_sleep(prev: &Self) -> Self {
        Self {
            error: Some("the machine was asleep; the backend is being asked again".to_owned()),
            // Not news when they are met again.
            missing_paths: prev.missing_paths.clone(),
            sleep_count: prev.sleep_count + 1,
            ..Self::unknown()
        }
    }

    fn not_ready(self, alive: bool, error: impl Into<String>) -> Self {
        Self { alive, ready: false, error: Some(error.into()), ..self }
    }
}

/// What is believed after this evidence. What a backend says counts at once; silence only when it lasts.
pub fn transition(prev: &Health, evidence: Evidence, rules: &ProbeRules, now: f64) -> Health {
    let seen = Health { last_check: Some(now), failed_probes: 0, ..prev.clone() };
    match evidence {
        Evidence::Answered(answered) => answer(&seen, answered),
        Evidence::Refused => seen.not_ready(false, "connection refused: nothing listens there"),
        Evidence::NoRoute(message) => seen.not_ready(false, message),
        Evidence::ProbeFailed(failure) => {
            let unanswered = prev.failed_probes.saturating_add(1);
            let seen = Health { failed_probes: unanswered, ..seen };
            if prev.ready && unanswered < rules.threshold {
                seen
            } else {
                seen.not_ready(false, failure.message())
            }
        }
    }
}

fn answer(seen: &Health, probe_report: ProbeReport) -> Health {
    let mut warnings: Vec<_> = probe_report
        .missing_paths
        .iter()
        .map(|path| format!("wrong probe: the backend has no {path}; name its own path under `health`"))
        .collect();
    let (mut gpu, mut most_at_once) = (None, None);
    let verdict = match probe_report.readiness {
        Readiness::Report(report) => {
            warnings.extend(report.warnings());
            let verdict = if report.admits() { Ok(()) } else { Err(failure_message(&report)) };
            most_at_once = report.max_concurrency();
            gpu = report.gpu;
            verdict
        }
        Readiness::Ready => Ok(()),
        Readiness::NotReady(message) => Err(message),
    };
    let verdict =
        if probe_report.alive { verdict } else { verdict.and(Err("its liveness probe fails".to_owned())) };
    Health {
        alive: probe_report.alive,
        ready: verdict.is_ok(),
        error: verdict.err(),
        warnings,
        gpu,
        max_inflight: most_at_once,
        missing_paths: probe_report.missing_paths,
        last_check: seen.last_check,
        failed_probes: seen.failed_probes,
        sleep_count: seen.sleep_count,
    }
}

/// What is wrong with letting in more picture requests at once than the sidecar takes.
pub fn limit_warning(limit: Option<usize>, most_at_once: Option<usize>) -> Option<String> {
    let (limit, most) = limit.zip(most_at_once)?;
    (limit > most).then(|| {
        format!(
            "concurrency_limits: images is {limit}, and the sidecar takes {most} at once (its max_inflight): it answers \
             what is above with 429; lower the one or raise the other"
        )
    })
}

fn failure_message(report: &ReadyReport) -> String {
    let failing = report.failing_message();
    if failing.is_empty() { report.summary() } else { failing }
}

#[cfg(test)]
mod tests;
