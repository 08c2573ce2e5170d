//! The sidecar's `/readyz`. Unknown values deserialize, so that an older gateway understands a newer sidecar.

mod gpu;

use serde::{Deserialize, Serialize};

pub use gpu::{FieldUnit, GpuReport};

/// The body of `/readyz`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReadyReport {
    /// The verdict.
    pub status: ReadyStatus,
    /// All checks, in a fixed order.
    pub checks: Vec<Check>,
    /// The last reading of the GPU, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuReport>,
    /// The engine.
    pub engine: EngineReport,
    /// When the status changed last, in Unix seconds.
    pub since: u64,
    /// When the GPU was read, or without a GPU the verdict was made, in Unix seconds.
    pub sampled_at: f64,
}

impl ReadyReport {
    /// Whether requests are admitted.
    pub fn admits(&self) -> bool {
        matches!(self.status, ReadyStatus::Ready | ReadyStatus::Degraded)
    }

    /// The messages of the failing checks: `vram_headroom: …; engine_queue: …`.
    pub fn failing_message(&self) -> String {
        self.join_messages(CheckStatus::Fail)
    }

    /// Whether this check alone fails.
    pub fn fails_only(&self, name: &str) -> bool {
        let mut failing = self.checks.iter().filter(|check| check.status == CheckStatus::Fail);
        failing.next().is_some_and(|check| check.name == name) && failing.next().is_none()
    }

    /// How many image requests it runs at once, from its check `slots`: `1 of 4 taken`.
    pub fn max_concurrency(&self) -> Option<usize> {
        let slots = self.checks.iter().find(|check| check.name == "slots")?;
        slots.observed.split_once(" of ")?.1.split(' ').next()?.parse().ok()
    }

    /// The messages of the checks that warn.
    pub fn warnings(&self) -> Vec<String> {
        self.checks
            .iter()
            .filter(|check| check.status == CheckStatus::Warn)
            .map(Check::message_line)
            .collect()
    }

    /// One line: `ready`, `degraded: …` or `not_ready: …`.
    pub fn summary(&self) -> String {
        match self.status {
            ReadyStatus::Ready => "ready".to_owned(),
            ReadyStatus::Degraded => format!("degraded: {}", self.join_messages(CheckStatus::Warn)),
            ReadyStatus::NotReady => format!("not_ready: {}", self.failing_message()),
            ReadyStatus::Unrecognized => "unrecognized".to_owned(),
        }
    }

    fn join_messages(&self, status: CheckStatus) -> String {
        let messages: Vec<_> =
            self.checks.iter().filter(|check| check.status == status).map(Check::message_line).collect();
        messages.join("; ")
    }
}

/// The verdict over all checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadyStatus {
    /// All checks that gate pass.
    Ready,
    /// Requests are admitted, but something needs attention.
    Degraded,
    /// Requests are refused.
    NotReady,
    /// A value of a newer version.
    #[serde(other)]
    Unrecognized,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// Its stable name.
    pub name: String,
    /// Its result.
    pub status: CheckStatus,
    /// What was observed.
    #[serde(default)]
    pub observed: String,
    /// What would pass.
    #[serde(default)]
    pub expected: String,
    /// If it does not pass: what is wrong, and what to do about it.
    #[serde(default)]
    pub message: String,
}

impl Check {
    /// A check that passes.
    pub fn pass(name: &str, observed: impl Into<String>, expected: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            status: CheckStatus::Pass,
            observed: observed.into(),
            expected: expected.into(),
            message: String::new(),
        }
    }

    /// Replaces the result, with a message that explains it.
    #[must_use]
    pub fn with_status(mut self, status: CheckStatus, message: impl Into<String>) -> Self {
        self.status = status;
        self.message = message.into();
        self
    }

    fn message_line(&self) -> String {
        format!("{}: {}", self.name, self.message)
    }
}

/// The result of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckStatus {
    /// As expected.
    Pass,
    /// Needs attention; requests are admitted.
    Warn,
    /// Requests are refused.
    Fail,
    /// Not available here, or a value of a newer version; never a failure.
    #[serde(other)]
    Unknown,
}

/// The engine as the sidecar sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineReport {
    /// `invokeai`, `comfyui` or `builtin`.
    pub kind: String,
    /// Its address; absent for the builtin one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Its version, once read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Jobs in its queue, pending or running, from all clients.
    pub queue_depth: u64,
    /// How many models it has.
    pub models: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_a_newer_sidecar_deserialize() {
        let json = r#"{"status":"resting","since":1,"sampled_at":1.5,"new":true,
            "checks":[{"name":"mood","status":"sideways"}],
            "engine":{"kind":"dream","queue_depth":0,"models":1,"extra":[]}}"#;
        let report: ReadyReport = serde_json::from_str(json).unwrap();
        assert_eq!(report.status, ReadyStatus::Unrecognized);
        assert_eq!(report.checks[0].status, CheckStatus::Unknown);
        assert!(!report.admits(), "an unknown status admits nothing");
    }

    fn report(status: ReadyStatus, checks: Vec<Check>) -> ReadyReport {
        let engine =
            EngineReport { kind: "builtin".into(), url: None, version: None, queue_depth: 0, models: 0 };
        ReadyReport { status, checks, gpu: None, engine, since: 1, sampled_at: 1.0 }
    }

    #[test]
    fn requests_are_admitted_while_nothing_fails() {
        for (status, admits) in [
            (ReadyStatus::Ready, true),
            (ReadyStatus::Degraded, true),
            (ReadyStatus::NotReady, false),
            (ReadyStatus::Unrecognized, false),
        ] {
            assert_eq!(report(status, Vec::new()).admits(), admits, "{status:?}");
        }
    }

    #[test]
    fn warnings_and_failures_are_told_apart() {
        let check = |name: &str, status| Check::pass(name, "", "").with_status(status, "why");
        let (warn, fail) = (check("disk", CheckStatus::Warn), check("nvml", CheckStatus::Fail));
        let passing = Check::pass("slots", "", "");
        let of = |checks: &[&Check]| report(ReadyStatus::NotReady, checks.iter().copied().cloned().collect());
        let both = of(&[&passing, &warn, &fail]);
        assert_eq!(both.warnings(), ["disk: why"]);
        assert_eq!(both.failing_message(), "nvml: why");
        assert!(both.fails_only("nvml") && !both.fails_only("disk") && !both.fails_only("slots"));
        assert!(!of(&[&passing]).fails_only("slots"));
        assert!(!of(&[&fail, &check("engine_queue", CheckStatus::Fail)]).fails_only("nvml"), "not alone");
        let summary = |status| ReadyReport { status, ..both.clone() }.summary();
        assert_eq!(
            [ReadyStatus::Ready, ReadyStatus::Degraded, ReadyStatus::Unrecognized].map(summary),
            ["ready", "degraded: disk: why", "unrecognized"]
        );
    }

    #[test]
    fn the_sidecars_limit_is_parsed_from_its_slots() {
        let limit = |name: &str, observed: &str| {
            let check = Check::pass(name, observed, "any");
            report(ReadyStatus::Ready, vec![Check::pass("nvml", "1 of 9", ""), check]).max_concurrency()
        };
        assert_eq!(limit("slots", "0 of 4 taken"), Some(4));
        assert_eq!(
            [limit("slots", "busy"), limit("slots", "1 of many"), limit("other", "1 of 4")],
            [None; 3]
        );
    }

    #[test]
    fn the_summary_has_the_failing_checks() {
        let fail = Check::pass("engine_queue", "paused", "running")
            .with_status(CheckStatus::Fail, "paused: resume it");
        let checks = vec![Check::pass("nvml", "loaded", "loaded"), fail];
        let report = report(ReadyStatus::NotReady, checks);
        assert_eq!(report.summary(), "not_ready: engine_queue: paused: resume it");
    }
}
