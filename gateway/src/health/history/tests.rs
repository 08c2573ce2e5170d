//! Tests of the ten minutes of readings: what is kept, how much of it, for how long.

use serde_json::{Value, json};
use wire::health::EngineReport;

use super::{
    super::state::{ProbeFailure, ProbeReport},
    *,
};

fn report(status: ReadyStatus, gpu: Option<GpuReport>) -> Evidence {
    let engine = EngineReport { kind: "builtin".into(), url: None, version: None, queue_depth: 2, models: 1 };
    let report = ReadyReport { status, checks: Vec::new(), gpu, engine, since: 1, sampled_at: 1.0 };
    answered(Readiness::Report(Box::new(report)))
}

fn answered(readiness: Readiness) -> Evidence {
    Evidence::Answered(ProbeReport { alive: true, readiness, missing_paths: Vec::new() })
}

fn card(json: impl Into<Option<Value>>) -> Option<GpuReport> {
    let mut all = json!({"index": 0, "name": "card", "uuid": "GPU-1"});
    all.as_object_mut()?.extend(json.into()?.as_object()?.clone());
    Some(serde_json::from_value(all).unwrap())
}

fn json_of(evidence: &Evidence) -> Value {
    serde_json::to_value(Sample::of(evidence, 7.123_456)).unwrap()
}

#[test]
fn a_sample_has_what_the_report_has_and_nothing_else() {
    let memory = |more: Value| {
        let mut all =
            json!({"memory.total": 1000, "memory.reserved": 20, "memory.used": 600, "memory.free": 380});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        card(all)
    };
    let plain = |more: Value| {
        let mut all = json!({"at": 7.123, "status": "ready", "queue_depth": 2});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    let rows = [
        ("no card", None, json!({})),
        ("unified memory", card(json!({"temperature.gpu": 46})), json!({"temperature": 46})),
        (
            "the engine's share is known",
            memory(json!({"memory.effective_free": 880})),
            json!({"memory_total": 1000, "memory_reserved": 20, "memory_free": 380, "memory_engine": 500,
                "memory_others": 100}),
        ),
        (
            "the engine's share is unknown",
            memory(json!({})),
            json!({"memory_total": 1000, "memory_reserved": 20, "memory_free": 380, "memory_used": 600}),
        ),
        (
            "figures of two readings that do not add up",
            memory(json!({"memory.effective_free": 1000})),
            json!({"memory_total": 1000, "memory_reserved": 20, "memory_free": 380, "memory_engine": 620,
                "memory_others": 0}),
        ),
        (
            "power of an old driver",
            card(json!({"power.draw.instant": 71.5, "power.limit": 300.0, "utilization.gpu": 97})),
            json!({"power": 71.5, "power_limit": 300.0, "utilization": 97}),
        ),
        (
            "the limit in force counts",
            card(json!({"power.draw": 70.0, "power.draw.average": 60.0, "power.limit": 300.0,
                "enforced.power.limit": 280.0})),
            json!({"power": 70.0, "power_limit": 280.0}),
        ),
    ];
    for (case, gpu, expected) in rows {
        assert_eq!(json_of(&report(ReadyStatus::Ready, gpu)), plain(expected), "{case}");
    }
}

#[test]
fn a_sample_without_report_has_only_its_status() {
    for (evidence, status) in [
        (Evidence::ProbeFailed(ProbeFailure::TimedOut), "unreachable"),
        (Evidence::Refused, "unreachable"),
        (Evidence::NoRoute("no route".into()), "unreachable"),
        (answered(Readiness::NotReady("503".into())), "not_ready"),
        (answered(Readiness::Ready), "ready"),
    ] {
        assert_eq!(json_of(&evidence), json!({"at": 7.123, "status": status}), "{evidence:?}");
    }
    for (status, expected) in [
        (ReadyStatus::Ready, "ready"),
        (ReadyStatus::Degraded, "degraded"),
        (ReadyStatus::NotReady, "not_ready"),
        (ReadyStatus::Unrecognized, "not_ready"),
    ] {
        assert_eq!(json_of(&report(status, None))["status"], expected);
    }
}

fn times(history: &History, seen: u64) -> Vec<f64> {
    history.after(seen).0.iter().map(|sample| sample.at).collect()
}

fn ready() -> Evidence {
    report(ReadyStatus::Ready, None)
}

#[test]
fn ten_minutes_are_kept_at_one_sample_a_second() {
    let mut history = History::default();
    for quarter in 0..=8000_u32 {
        history.record(&ready(), f64::from(quarter) / 4.0);
    }
    let all = times(&history, 0);
    assert_eq!((all.len(), all.first(), all.last()), (MAX_SAMPLES, Some(&1401.0), Some(&2000.0)));
    assert!(all.windows(2).all(|pair| (pair[1] - pair[0] - 1.0).abs() < 0.001), "one in four");
    history.record(&ready(), 2000.0 + MAX_AGE_SECONDS);
    assert_eq!(times(&history, 0).len(), 2, "what is older than ten minutes is gone");
}

#[test]
fn a_reader_gets_what_it_has_not_seen() {
    let mut history = History::default();
    assert_eq!(history.after(0).1, 0);
    for at in [1.0, 2.0, 3.0] {
        history.record(&ready(), at);
    }
    assert_eq!(times(&history, 0), [1.0, 2.0, 3.0]);
    assert_eq!(times(&history, 2), [3.0]);
    assert!(times(&history, 3).is_empty());
    for at in 4..2000 {
        history.record(&ready(), f64::from(at));
    }
    assert_eq!(times(&history, 3).len(), MAX_SAMPLES, "a slow reader gets what is left, not what it missed");
    assert_eq!(history.after(3).1, 1999);
}

#[test]
fn a_backend_without_reports_has_no_history_and_failures_follow_a_report() {
    let mut history = History::default();
    for (at, evidence) in [Evidence::Refused, answered(Readiness::Ready)].iter().enumerate() {
        history.record(evidence, f64::from(u32::try_from(at).unwrap()));
    }
    assert!(times(&history, 0).is_empty());
    history.record(&ready(), 10.0);
    history.record(&Evidence::Refused, 11.0);
    assert_eq!(times(&history, 0), [10.0, 11.0]);
}

#[test]
fn a_clock_that_is_set_back_starts_anew() {
    let mut history = History::default();
    history.record(&ready(), 5000.0);
    history.record(&ready(), 100.0);
    history.record(&ready(), 101.0);
    assert_eq!(times(&history, 0), [100.0, 101.0]);
    assert_eq!(times(&history, 1), [100.0, 101.0]);
}
