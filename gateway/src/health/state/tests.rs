use std::time::Duration;

use super::*;
use proptest::prelude::*;
use wire::health::{Check, CheckStatus, EngineReport, ReadyStatus};

const RULES: ProbeRules =
    ProbeRules { interval: Duration::from_secs(30), timeout: Duration::from_secs(15), threshold: 3 };

fn report(status: ReadyStatus, checks: Vec<Check>) -> Evidence {
    let engine = EngineReport { kind: "builtin".into(), url: None, version: None, queue_depth: 0, models: 1 };
    let report = ReadyReport { status, checks, gpu: None, engine, since: 1, sampled_at: 1.0 };
    readiness(Readiness::Report(Box::new(report)))
}

fn readiness(verdict: Readiness) -> Evidence {
    Evidence::Answered(ProbeReport { alive: true, readiness: verdict, missing_paths: Vec::new() })
}

fn after(evidence: impl IntoIterator<Item = Evidence>) -> Health {
    evidence
        .into_iter()
        .fold(Health::unknown(), |health, evidence| transition(&health, evidence, &RULES, 1.0))
}

const TIMED_OUT: Evidence = Evidence::ProbeFailed(ProbeFailure::TimedOut);

#[test]
fn a_response_counts_at_once() {
    let failing = Check::pass("vram_headroom", "1", "8")
        .with_status(CheckStatus::Fail, "too little: stop the other job");
    let warning = Check::pass("thermal", "85", "80").with_status(CheckStatus::Warn, "warm");
    for (evidence, ready, error) in [
        (report(ReadyStatus::Ready, vec![]), true, None),
        (report(ReadyStatus::Degraded, vec![warning]), true, None),
        (
            report(ReadyStatus::NotReady, vec![failing]),
            false,
            Some("vram_headroom: too little: stop the other job"),
        ),
        (report(ReadyStatus::Unrecognized, vec![]), false, Some("unrecognized")),
        (readiness(Readiness::Ready), true, None),
        (readiness(Readiness::NotReady("/readyz returned 503".into())), false, Some("/readyz returned 503")),
        (Evidence::Refused, false, Some("connection refused: nothing listens there")),
        (Evidence::NoRoute("no route to host".into()), false, Some("no route to host")),
    ] {
        let health = after([readiness(Readiness::Ready), evidence.clone()]);
        assert_eq!((health.ready, health.error.as_deref()), (ready, error), "{evidence:?}");
        assert_eq!(health.last_check, Some(1.0));
    }
}

#[test]
fn failed_probes_count_only_after_several() {
    let ready = readiness(Readiness::Ready);
    assert!(after([ready.clone(), TIMED_OUT, TIMED_OUT]).ready);
    let health = after([ready.clone(), TIMED_OUT, TIMED_OUT, TIMED_OUT]);
    assert_eq!((health.ready, health.alive), (false, false));
    assert_eq!(health.error.as_deref(), Some("health probe timed out"));
    assert!(
        after([ready.clone(), TIMED_OUT, TIMED_OUT, ready, TIMED_OUT, TIMED_OUT]).ready,
        "a response resets the count"
    );
    assert!(!after([TIMED_OUT]).ready);
}

#[test]
fn an_unresolved_name_is_a_failed_probe_with_its_own_message() {
    let lost = || {
        Evidence::ProbeFailed(ProbeFailure::Unresolved("the host name \"ada2\" cannot be resolved".into()))
    };
    assert_eq!(after([lost()]).error.as_deref(), Some("the host name \"ada2\" cannot be resolved"));
    assert!(after([readiness(Readiness::Ready), lost(), lost()]).ready, "resolvers also fail for a moment");
    assert!(!after([readiness(Readiness::Ready), lost(), lost(), lost()]).ready);
}

#[test]
fn a_limit_above_the_sidecars_own_is_a_warning() {
    let slots = |observed: &str| report(ReadyStatus::Ready, vec![Check::pass("slots", observed, "any")]);
    for (evidence, limit, warned) in [
        (slots("0 of 4 taken"), Some(5), true),
        (slots("0 of 4 taken"), Some(4), false),
        (slots("0 of 4 taken"), None, false),
        (readiness(Readiness::Ready), Some(5), false),
    ] {
        let warning = limit_warning(limit, after([evidence.clone()]).max_inflight);
        assert_eq!(warning.is_some(), warned, "{evidence:?} {limit:?}");
        assert!(warning.is_none_or(
            |warning| warning.contains("images is 5") && warning.contains("accepts only 4 at once")
        ));
    }
    let health = after([slots("0 of 4 taken"), TIMED_OUT]);
    assert_eq!(health.max_inflight, Some(4), "a failed probe changes nothing");
}

#[test]
fn a_wrong_probe_is_named_and_does_not_gate() {
    let answered =
        ProbeReport { alive: true, readiness: Readiness::Ready, missing_paths: vec!["/readyz".to_owned()] };
    let health = after([Evidence::Answered(answered)]);
    assert!(health.alive && health.ready);
    assert!(health.warnings[0].starts_with("wrong probe: the backend has no /readyz"), "{health:?}");
}

#[test]
fn warnings_and_the_gpu_come_from_the_last_report_only() {
    let warning = Check::pass("thermal", "85", "80").with_status(CheckStatus::Warn, "warm");
    let degraded = report(ReadyStatus::Degraded, vec![warning]);
    assert_eq!(after([degraded.clone()]).warnings, ["thermal: warm"]);
    assert!(after([degraded, report(ReadyStatus::Ready, vec![])]).warnings.is_empty());
}

#[test]
fn after_a_sleep_only_the_sleep_is_known() {
    let answered =
        ProbeReport { alive: true, readiness: Readiness::Ready, missing_paths: vec!["/readyz".to_owned()] };
    let health = Health::after_sleep(&after([Evidence::Answered(answered)]));
    assert_eq!((health.alive, health.ready, health.last_check), (false, false, None));
    assert!(health.error.is_some_and(|error| error.contains("asleep") && error.contains("probed again")));
    assert_eq!((health.missing_paths.len(), health.warnings.len()), (1, 0));
    let slept = Health::after_sleep(&after([readiness(Readiness::Ready)]));
    assert!(!transition(&slept, TIMED_OUT, &RULES, 1.0).ready, "a failed probe confirms nothing");
    assert!(transition(&slept, readiness(Readiness::Ready), &RULES, 1.0).ready);
    assert_eq!(transition(&slept, readiness(Readiness::Ready), &RULES, 1.0).sleep_count, 1);
}

fn any_evidence() -> impl Strategy<Value = Evidence> {
    prop_oneof![
        Just(TIMED_OUT),
        Just(Evidence::ProbeFailed(ProbeFailure::Broken)),
        Just(Evidence::Refused),
        Just(Evidence::NoRoute("no".into())),
        Just(Evidence::ProbeFailed(ProbeFailure::Unresolved("no".into()))),
        Just(readiness(Readiness::Ready)),
        Just(readiness(Readiness::NotReady("no".into()))),
        Just(report(ReadyStatus::Ready, vec![])),
        Just(report(ReadyStatus::NotReady, vec![])),
    ]
}

proptest! {
    /// Ready exactly if the last response was good and fewer probes than the threshold went unanswered since.
    #[test]
    fn ready_needs_a_recent_good_response(evidence in prop::collection::vec(any_evidence(), 0..20)) {
        let silent = |evidence: &&Evidence| matches!(evidence, Evidence::ProbeFailed(_));
        let since = evidence.iter().rev().take_while(silent).count();
        let good = match evidence.iter().rev().find(|evidence| !silent(evidence)) {
            Some(Evidence::Answered(answered)) => match &answered.readiness {
                Readiness::Report(report) => report.admits(),
                Readiness::Ready => true,
                Readiness::NotReady(_) => false,
            },
            _ => false,
        };
        let last = evidence.last().is_some_and(Evidence::is_ready);
        let health = after(evidence);
        prop_assert!(health.ready || !last, "a report that admits requests makes it ready");
        prop_assert_eq!(health.ready, good && since < 3);
        prop_assert_eq!(health.ready, health.error.is_none(), "not ready always has a reason");
    }
}

#[test]
fn every_probe_result_is_a_known_label() {
    let timed_out = Evidence::ProbeFailed(ProbeFailure::TimedOut);
    for evidence in [timed_out, Evidence::Refused, Evidence::NoRoute("no".into())] {
        assert!(crate::metrics::PROBE_RESULTS.contains(&evidence.probe_result()), "{evidence:?}");
    }
}

#[test]
fn the_status_tells_who_answered_and_what() {
    for (evidence, status) in [
        (report(ReadyStatus::Ready, vec![]), "ready"),
        (report(ReadyStatus::Degraded, vec![]), "degraded"),
        (report(ReadyStatus::NotReady, vec![]), "not_ready"),
        (readiness(Readiness::Ready), "ready"),
        (readiness(Readiness::NotReady("no".into())), "not_ready"),
        (Evidence::Refused, "unreachable"),
    ] {
        assert_eq!(after([evidence.clone()]).status(), status, "{evidence:?}");
    }
    assert_eq!(after([]).status(), "unreachable");
    assert_eq!(after([report(ReadyStatus::Degraded, vec![]), TIMED_OUT]).status(), "degraded", "one is none");
}
