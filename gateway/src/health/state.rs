//! What the gateway concludes about a backend from what it saw. Pure: no clock, no lock, no wait.

use std::time::Duration;

use shared::health::{GpuReport, ReadyReport};

/// When a backend counts as ready.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Between probes of a ready backend.
    pub interval: Duration,
    /// For one probe.
    pub timeout: Duration,
    /// Unanswered probes in a row until a ready backend counts as not ready.
    pub threshold: u32,
}

/// What was seen of a backend.
#[derive(Debug, Clone)]
pub enum Evidence {
    /// A probe was answered.
    Answered(Answered),
    /// A probe was not answered.
    ProbeFailed(ProbeFailure),
    /// Nobody listens there; met by a probe or by a request.
    Refused,
    /// The operating system knows no way there, in these words; met by a probe or by a request.
    NoRoute(String),
    /// A request was answered with `backend_not_ready`, and these words.
    SaidNotReady(String),
}

/// An answered probe.
#[derive(Debug, Clone)]
pub struct Answered {
    /// Whether the liveness path said that the backend lives.
    pub alive: bool,
    /// What it said about being ready.
    pub verdict: Verdict,
    /// Probe paths that the backend does not have.
    pub wrong_paths: Vec<String>,
}

/// What a readiness probe said.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// A sidecar's report.
    Report(Box<ReadyReport>),
    /// Ready, in no words of ours.
    Ready,
    /// Not ready, because.
    NotReady(String),
}

/// Why a probe was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeFailure {
    /// Not in time.
    TimedOut,
    /// The connection broke.
    Broken,
}

impl ProbeFailure {
    const fn words(self) -> &'static str {
        match self {
            Self::TimedOut => "health probe timed out",
            Self::Broken => "health probe: the connection broke",
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
    /// Probe paths that the backend does not have.
    pub wrong_paths: Vec<String>,
    /// Unix seconds of the last evidence; none before the first.
    pub last_check: Option<f64>,
    /// Unanswered probes in a row.
    pub unanswered: u32,
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
            wrong_paths: Vec::new(),
            last_check: None,
            unanswered: 0,
        }
    }

    fn not_ready(self, alive: bool, error: impl Into<String>) -> Self {
        Self { alive, ready: false, error: Some(error.into()), ..self }
    }
}

/// What is believed after this evidence. What a backend says counts at once; silence only when it lasts.
pub fn next(prev: &Health, evidence: Evidence, rules: &Rules, now: f64) -> Health {
    let seen = Health { last_check: Some(now), unanswered: 0, ..prev.clone() };
    match evidence {
        Evidence::Answered(answered) => answer(&seen, answered),
        Evidence::Refused => seen.not_ready(false, "connection refused: nothing listens there"),
        Evidence::NoRoute(words) => seen.not_ready(false, words),
        Evidence::SaidNotReady(words) => seen.not_ready(true, words),
        Evidence::ProbeFailed(failure) => {
            let unanswered = prev.unanswered.saturating_add(1);
            let seen = Health { unanswered, ..seen };
            if prev.ready && unanswered < rules.threshold {
                seen
            } else {
                seen.not_ready(false, failure.words())
            }
        }
    }
}

fn answer(seen: &Health, answered: Answered) -> Health {
    let mut warnings: Vec<_> = answered
        .wrong_paths
        .iter()
        .map(|path| {
            format!("wrong probe: the backend answers 404 on {path}; name its own path under `health`")
        })
        .collect();
    let mut gpu = None;
    let verdict = match answered.verdict {
        Verdict::Report(report) => {
            warnings.extend(report.warnings());
            let verdict = if report.admits() { Ok(()) } else { Err(words_of(&report)) };
            gpu = report.gpu;
            verdict
        }
        Verdict::Ready => Ok(()),
        Verdict::NotReady(words) => Err(words),
    };
    let verdict =
        if answered.alive { verdict } else { verdict.and(Err("its liveness probe fails".to_owned())) };
    Health {
        alive: answered.alive,
        ready: verdict.is_ok(),
        error: verdict.err(),
        warnings,
        gpu,
        wrong_paths: answered.wrong_paths,
        last_check: seen.last_check,
        unanswered: seen.unanswered,
    }
}

fn words_of(report: &ReadyReport) -> String {
    let failing = report.failing();
    if failing.is_empty() { report.line() } else { failing }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use shared::health::{Check, CheckStatus, EngineReport, Status};

    const RULES: Rules =
        Rules { interval: Duration::from_secs(30), timeout: Duration::from_secs(15), threshold: 3 };

    fn report(status: Status, checks: Vec<Check>) -> Evidence {
        let engine =
            EngineReport { kind: "builtin".into(), url: None, version: None, queue_depth: 0, models: 1 };
        let report = ReadyReport { status, checks, gpu: None, engine, since: 1, sampled_at: 1.0 };
        said(Verdict::Report(Box::new(report)))
    }

    fn said(verdict: Verdict) -> Evidence {
        Evidence::Answered(Answered { alive: true, verdict, wrong_paths: Vec::new() })
    }

    fn after(evidence: impl IntoIterator<Item = Evidence>) -> Health {
        evidence.into_iter().fold(Health::unknown(), |health, evidence| next(&health, evidence, &RULES, 1.0))
    }

    const SILENT: Evidence = Evidence::ProbeFailed(ProbeFailure::TimedOut);

    #[test]
    fn what_a_backend_says_counts_at_once() {
        let failing =
            Check::pass("vram_headroom", "1", "8").but(CheckStatus::Fail, "too little: stop the other job");
        let warning = Check::pass("thermal", "85", "80").but(CheckStatus::Warn, "warm");
        for (evidence, ready, error) in [
            (report(Status::Ready, vec![]), true, None),
            (report(Status::Degraded, vec![warning]), true, None),
            (
                report(Status::NotReady, vec![failing]),
                false,
                Some("vram_headroom: too little: stop the other job"),
            ),
            (report(Status::Unrecognized, vec![]), false, Some("unrecognized")),
            (said(Verdict::Ready), true, None),
            (said(Verdict::NotReady("/readyz answered 503".into())), false, Some("/readyz answered 503")),
            (Evidence::Refused, false, Some("connection refused: nothing listens there")),
            (Evidence::NoRoute("no route to host".into()), false, Some("no route to host")),
            (Evidence::SaidNotReady("paused".into()), false, Some("paused")),
        ] {
            let health = after([said(Verdict::Ready), evidence.clone()]);
            assert_eq!((health.ready, health.error.as_deref()), (ready, error), "{evidence:?}");
            assert_eq!(health.last_check, Some(1.0));
        }
    }

    #[test]
    fn silence_counts_only_when_it_lasts() {
        let ready = said(Verdict::Ready);
        assert!(after([ready.clone(), SILENT, SILENT]).ready);
        let health = after([ready.clone(), SILENT, SILENT, SILENT]);
        assert_eq!((health.ready, health.alive), (false, false));
        assert_eq!(health.error.as_deref(), Some("health probe timed out"));
        assert!(
            after([ready.clone(), SILENT, SILENT, ready, SILENT, SILENT]).ready,
            "an answer ends the silence"
        );
        assert!(!after([SILENT]).ready);
    }

    #[test]
    fn a_wrong_probe_is_named_and_does_not_gate() {
        let answered =
            Answered { alive: true, verdict: Verdict::Ready, wrong_paths: vec!["/readyz".to_owned()] };
        let health = after([Evidence::Answered(answered)]);
        assert!(health.alive && health.ready);
        assert!(
            health.warnings[0].starts_with("wrong probe: the backend answers 404 on /readyz"),
            "{health:?}"
        );
    }

    #[test]
    fn warnings_and_the_gpu_last_no_longer_than_the_report_that_has_them() {
        let warning = Check::pass("thermal", "85", "80").but(CheckStatus::Warn, "warm");
        let degraded = report(Status::Degraded, vec![warning]);
        assert_eq!(after([degraded.clone()]).warnings, ["thermal: warm"]);
        assert!(after([degraded, report(Status::Ready, vec![])]).warnings.is_empty());
    }

    fn any_evidence() -> impl Strategy<Value = Evidence> {
        prop_oneof![
            Just(SILENT),
            Just(Evidence::ProbeFailed(ProbeFailure::Broken)),
            Just(Evidence::Refused),
            Just(Evidence::NoRoute("no".into())),
            Just(Evidence::SaidNotReady("no".into())),
            Just(said(Verdict::Ready)),
            Just(said(Verdict::NotReady("no".into()))),
            Just(report(Status::Ready, vec![])),
            Just(report(Status::NotReady, vec![])),
        ]
    }

    proptest! {
        /// Ready exactly if the last word was good and fewer probes than the threshold went unanswered since.
        #[test]
        fn ready_needs_a_good_last_word_that_is_not_stale(story in prop::collection::vec(any_evidence(), 0..20)) {
            let silent = |evidence: &&Evidence| matches!(evidence, Evidence::ProbeFailed(_));
            let since = story.iter().rev().take_while(silent).count();
            let good = match story.iter().rev().find(|evidence| !silent(evidence)) {
                Some(Evidence::Answered(answered)) => match &answered.verdict {
                    Verdict::Report(report) => report.admits(),
                    Verdict::Ready => true,
                    Verdict::NotReady(_) => false,
                },
                _ => false,
            };
            let health = after(story);
            prop_assert_eq!(health.ready, good && since < 3);
            prop_assert_eq!(health.ready, health.error.is_none(), "not ready always says why");
        }
    }
}
