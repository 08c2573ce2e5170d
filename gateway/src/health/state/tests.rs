use std::time::Duration;

use super::*;
use proptest::prelude::*;
use wire::health::{Check, CheckStatus, EngineReport, ReadyStatus};

const RULES: ProbeRules =
    ProbeRules { interval: Duration::from_secs(30), timeout: Duration::from_secs(15), threshold: 3 };

fn report(status: ReadyStatus, checks: Vec<Check>) -> Evidence {
    let engine = EngineReport { kind: "builtin".into(), url: None, version: None, queue_depth: 0, models: 1 };
    let report = ReadyReport { status, checks, gpu: None, engine, since: 1, sampled_at: 1.0 };
    said(Readiness::Report(Box::new(report)))
}

fn said(verdict: Readiness) -> Evidence {
    Evidence::Answered(ProbeReport { alive: true, readiness: verdict, missing_paths: Vec::new() })
}

fn after(evidence: impl IntoIterator<Item = Evidence>) -> Health {
    evidence
        .into_iter()
        .fold(Health::unknown(), |health, evidence| transition(&health, evidence, &RULES, 1.0))
}

const SILENT: Evidence = Evidence::ProbeFailed(ProbeFailure::TimedOut);

#[test]
fn what_a_backend_says_counts_at_once() {
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
        (said(Readiness::Ready), true, None),
        (said(Readiness::NotReady("/readyz answered 503".into())), false, Some("/readyz answered 503")),
        (Evidence::Refused, false, Some("connection refused: nothing listens there")),
        (Evidence::NoRoute("no route to host".into()), false, Some("no route to host")),
    ] {
        let health = after([said(Readiness::Ready), evidence.clone()]);
        assert_eq!((health.ready, health.error.as_deref()), (ready, error), "{evidence:?}");
        assert_eq!(health.last_check, Some(1.0));
    }
}

#[test]
fn silence_counts_only_when_it_lasts() {
    let ready = said(Readiness::Ready);
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
fn a_name_that_cannot_be_resolved_is_silence_with_its_own_words() {
    let lost = || {
        Evidence::ProbeFailed(ProbeFailure::Unresolved("the host name \"ada2\" cannot be resolved".into()))
    };
    assert_eq!(after([lost()]).error.as_deref(), Some("the host name \"ada2\" cannot be resolved"));
    assert!(after([said(Readiness::Ready), lost(), lost()]).ready, "resolvers fail for a moment, too");
    assert!(!after([said(Readiness::Ready), lost(), lost(), lost()]).ready);
}

#[test]
fn a_limit_above_the_sidecars_own_is_a_warning() {
    let slots = |observed: &str| report(ReadyStatus::Ready, vec![Check::pass("slots", observed, "any")]);
    for (evidence, limit, warned) in [
        (slots("0 of 4 taken"), Some(5), true),
        (slots("0 of 4 taken"), Some(4), false),
        (slots("0 of 4 taken"), None, false),
        (said(Readiness::Ready), Some(5), false),
    ] {
        let words = limit_warning(limit, after([evidence.clone()]).max_inflight);
        assert_eq!(words.is_some(), warned, "{evidence:?} {limit:?}");
        assert!(words.is_none_or(|words| words.contains("images is 5") && words.contains("takes 4 at once")));
    }
    let health = after([slots("0 of 4 taken"), SILENT]);
    assert_eq!(health.max_inflight, Some(4), "silence says nothing new");
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
fn warnings_and_the_gpu_last_no_longer_than_the_report_that_has_them() {
    let warning = Check::pass("thermal", "85", "80").with_status(CheckStatus::Warn, "warm");
    let degraded = report(ReadyStatus::Degraded, vec![warning]);
    assert_eq!(after([degraded.clone()]).warnings, ["thermal: warm"]);
    assert!(after([degraded, report(ReadyStatus::Ready, vec![])]).warnings.is_empty());
}

#[test]
fn after_a_sleep_nothing_is_known_but_that() {
    let answered =
        ProbeReport { alive: true, readiness: Readiness::Ready, missing_paths: vec!["/readyz".to_owned()] };
    let health = Health::after_sleep(&after([Evidence::Answered(answered)]));
    assert_eq!((health.alive, health.ready, health.last_check), (false, false, None));
    assert!(health.error.is_some_and(|error| error.contains("asleep") && error.contains("asked again")));
    assert_eq!((health.missing_paths.len(), health.warnings.len()), (1, 0));
    let slept = Health::after_sleep(&after([said(Readiness::Ready)]));
    assert!(!transition(&slept, SILENT, &RULES, 1.0).ready, "silence confirms nothing");
    assert!(transition(&slept, said(Readiness::Ready), &RULES, 1.0).ready);
    assert_eq!(transition(&slept, said(Readiness::Ready), &RULES, 1.0).sleep_count, 1);
}

fn any_evidence() -> impl Strategy<Value = Evidence> {
    prop_oneof![
        Just(SILENT),
        Just(Evidence::ProbeFailed(ProbeFailure::Broken)),
        Just(Evidence::Refused),
        Just(Evidence::NoRoute("no".into())),
        Just(Evidence::ProbeFailed(ProbeFailure::Unresolved("no".into()))),
        Just(said(Readiness::Ready)),
        Just(said(Readiness::NotReady("no".into()))),
        Just(report(ReadyStatus::Ready, vec![])),
        Just(report(ReadyStatus::NotReady, vec![])),
    ]
}

proptest! {
    /// Ready exactly if the last word was good and fewer probes than the threshold went unanswered since.
    #[test]
    fn ready_needs_a_good_last_word_that_is_not_stale(story in prop::collection::vec(any_evidence(), 0..20)) {
        let silent = |evidence: &&Evidence| matches!(evidence, Evidence::ProbeFailed(_));
        let since = story.iter().rev().take_while(silent).count();
        let good = match story.iter().rev().find(|evidence| !silent(evidence)) {
            Some(Evidence::Answered(answered)) => match &answered.readiness {
                Readiness::Report(report) => report.admits(),
                Readiness::Ready => true,
                Readiness::NotReady(_) => false,
            },
            _ => false,
        };
        let last = story.last().is_some_and(Evidence::is_ready);
        let health = after(story);
        prop_assert!(health.ready || !last, "what admits makes it ready");
        prop_assert_eq!(health.ready, good && since < 3);
        prop_assert_eq!(health.ready, health.error.is_none(), "not ready always says why");
    }
}

#[test]
fn every_probe_has_a_result_that_the_metrics_know() {
    let timed_out = Evidence::ProbeFailed(ProbeFailure::TimedOut);
    for evidence in [timed_out, Evidence::Refused, Evidence::NoRoute("no".into())] {
        assert!(crate::metrics::PROBE_RESULTS.contains(&evidence.probe_result()), "{evidence:?}");
    }
}
