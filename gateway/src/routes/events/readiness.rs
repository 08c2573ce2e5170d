//! The event `readiness`: whether the images backend takes requests, and its own report. Pure.

use serde_json::{Value, json};

use crate::{config::ImageEngine, health::state::Health};

/// The event's data. `health` is that of the class's backend, if there is one.
pub(super) fn of(class: &str, engine: ImageEngine, health: Option<&Health>) -> Value {
    match (engine, health) {
        (ImageEngine::Mock, _) => bare(class, "ready", None, &json!({"kind": "mock"})),
        (ImageEngine::Backend, None) => bare(class, "not_ready", Some("it is not configured"), &Value::Null),
        (ImageEngine::Backend, Some(health)) => of_backend(class, health),
    }
}

fn bare(class: &str, status: &str, error: Option<&str>, engine: &Value) -> Value {
    json!({
        "class": class,
        "status": status,
        "error": error,
        "checks": [],
        "engine": engine,
        "gpu": null,
        "at": null,
    })
}

/// The report of a backend that is out of reach says nothing about now.
fn of_backend(class: &str, health: &Health) -> Value {
    let status = health.status();
    let report = health.report.as_ref().filter(|_| status != "unreachable");
    json!({
        "class": class,
        "status": status,
        "error": health.error,
        "checks": report.map(|report| report.checks.as_slice()).unwrap_or_default(),
        "engine": report.map(|report| &report.engine),
        "gpu": report.and_then(|report| report.gpu.as_ref()),
        "at": health.last_check,
    })
}

/// What of an event is worth another one: the verdict, and the result and the message of each check. Readings change all the
/// time.
pub(super) fn essence(readiness: &Value) -> Value {
    let checks = readiness["checks"].as_array().into_iter().flatten();
    let checks = checks.map(|check| json!([check["name"], check["status"], check["message"]]));
    json!([readiness["status"], readiness["error"], checks.collect::<Vec<_>>()])
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use wire::health::{Check, CheckStatus, EngineReport, GpuReport, ReadyReport, ReadyStatus};

    use super::*;

    fn health(ready: bool, alive: bool, error: Option<&str>, report: Option<ReadyReport>) -> Health {
        let (error, report) = (error.map(str::to_owned), report.map(Arc::new));
        Health { alive, ready, error, report, last_check: Some(7.5), ..Health::unknown() }
    }

    fn report(status: ReadyStatus, message: &str, temperature: u32) -> ReadyReport {
        let check = Check::pass("thermal", format!("{temperature} C"), "below 80 C");
        let checks = vec![check.with_status(CheckStatus::Warn, message)];
        let gpu = Some(GpuReport { temperature: Some(temperature), ..GpuReport::default() });
        let engine =
            EngineReport { kind: "builtin".into(), url: None, version: None, queue_depth: 0, models: 2 };
        ReadyReport { status, checks, gpu, engine, since: 1, sampled_at: 2.0 }
    }

    #[test]
    fn the_report_is_passed_on_while_the_backend_answers() {
        let degraded = health(true, true, None, Some(report(ReadyStatus::Degraded, "warm", 85)));
        let expected = json!({
            "class": "c", "status": "degraded", "error": null, "at": 7.5,
            "checks": [{"name": "thermal", "status": "warn", "observed": "85 C", "expected": "below 80 C",
                "message": "warm"}],
            "engine": {"kind": "builtin", "queue_depth": 0, "models": 2},
            "gpu": {"index": 0, "name": "", "uuid": "", "temperature.gpu": 85},
        });
        assert_eq!(of("c", ImageEngine::Backend, Some(&degraded)), expected);
    }

    #[test]
    fn without_a_report_of_now_there_are_no_checks() {
        let old = || Some(report(ReadyStatus::Ready, "", 40));
        for (case, engine, health, status, error, kind) in [
            ("mock", ImageEngine::Mock, None, "ready", None, Some("mock")),
            (
                "mock in place of a backend",
                ImageEngine::Mock,
                Some(health(false, false, Some("refused"), old())),
                "ready",
                None,
                Some("mock"),
            ),
            ("none", ImageEngine::Backend, None, "not_ready", Some("it is not configured"), None),
            (
                "gone",
                ImageEngine::Backend,
                Some(health(false, false, Some("refused"), old())),
                "unreachable",
                Some("refused"),
                None,
            ),
            (
                "another program",
                ImageEngine::Backend,
                Some(health(false, true, Some("503"), None)),
                "not_ready",
                Some("503"),
                None,
            ),
            ("no sidecar", ImageEngine::Backend, Some(health(true, true, None, None)), "ready", None, None),
        ] {
            let event = of("c", engine, health.as_ref());
            assert_eq!((&event["status"], &event["error"]), (&json!(status), &json!(error)), "{case}");
            assert_eq!((&event["checks"], &event["gpu"]), (&json!([]), &Value::Null), "{case}");
            assert_eq!(event["engine"]["kind"], json!(kind), "{case}");
        }
    }

    #[test]
    fn readings_alone_are_no_news() {
        let event = |status, message: &str, temperature| {
            let health = health(true, true, None, Some(report(status, message, temperature)));
            essence(&of("c", ImageEngine::Backend, Some(&health)))
        };
        let before = event(ReadyStatus::Degraded, "warm", 85);
        assert_eq!(event(ReadyStatus::Degraded, "warm", 86), before);
        assert_ne!(event(ReadyStatus::Degraded, "warmer", 85), before);
        assert_ne!(event(ReadyStatus::Ready, "warm", 85), before);
    }
}
