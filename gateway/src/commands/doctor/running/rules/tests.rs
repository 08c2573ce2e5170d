use serde_json::json;
use service::doctor::Verdict::{self, Fail, Ok, Warn};

use super::*;

const CONTEXT: RunContext<'_> = RunContext {
    is_blocked: false,
    is_daemon: true,
    installed: "0.1.0",
    unreachable_process: None,
    process: None,
    is_root: false,
    store_fails: false,
    is_excluded: false,
};

fn good() -> RunningGateway {
    let status = json!({
        "gateway": {"version": "0.1.0", "config": {"loaded_at": 1000, "last_error": null}, "warnings": []},
        "backend_health": {"gpu_heavy": {"ready": true, "error": null}},
    });
    RunningGateway {
        base: "https://127.0.0.1:8800".to_owned(),
        answer: Responder::Gateway(None),
        listener: None,
        status: Some(Result::Ok(status)),
        checks: vec![
            ("health", Result::Ok("well".to_owned())),
            (IMAGES_BACKEND, Err("not ready".to_owned())),
        ],
        changed: Some((999.0, "/app/.env".to_owned())),
    }
}

fn status(running: &mut RunningGateway) -> &mut Value {
    running.status.as_mut().and_then(|status| status.as_mut().ok()).expect("a good one has one")
}

fn is_at(running: &mut RunningGateway, answer: Responder, holder: Option<(u32, &str)>) {
    (running.answer, running.status) = (answer, None);
    running.listener = holder.map(|(process, name)| (process, name.to_owned()));
}

#[test]
fn a_good_gateway_has_no_findings_and_each_fault_is_reported_once() {
    type Break = fn(&mut RunningGateway);
    let table: [(Break, &str, Verdict, &str); 10] = [
        (|_| (), "port", Ok, ""),
        (
            |running| is_at(running, Responder::Closed, None),
            "port",
            Fail,
            "launchctl kickstart system/com.ai.gateway",
        ),
        (
            |running| is_at(running, Responder::Other("x".to_owned()), Some((7, "nginx"))),
            "port",
            Fail,
            "install.sh --replace LABEL",
        ),
        (
            |running| is_at(running, Responder::Invalid("x".to_owned()), None),
            "port",
            Fail,
            "sudo lsof -nP -iTCP:8800",
        ),
        (
            |running| {
                is_at(running, Responder::Invalid("no answer in time".to_owned()), Some((7, "gateway")));
            },
            "port",
            Fail,
            RESTART,
        ),
        (|running| status(running)["gateway"]["version"] = json!("0.0.9"), "version", Warn, RESTART),
        (
            |running| status(running)["gateway"]["config"]["last_error"] = json!("x"),
            "reload",
            Warn,
            "launchctl kill HUP",
        ),
        (
            |running| running.changed = Some((1002.0, "/app/.env".to_owned())),
            "reload",
            Warn,
            "gateway check-config && ",
        ),
        (|running| running.checks[0].1 = Err("expected 200".to_owned()), "answers", Fail, "gateway verify"),
        (|running| running.status = Some(Err("401".to_owned())), "answers", Fail, "launchctl kill HUP"),
    ];
    for (nth, (fault, name, verdict, fix)) in table.into_iter().enumerate() {
        let mut running = good();
        fault(&mut running);
        let found = findings(&running, CONTEXT);
        let finding = found.iter().find(|finding| finding.name == name).unwrap();
        assert_eq!(finding.verdict, verdict, "{nth} {finding:?}");
        assert!(finding.fix.as_deref().unwrap_or_default().contains(fix), "{nth} {finding:?}");
        assert!(found.iter().all(|other| other.name == name || other.verdict == Ok), "{nth} {found:?}");
    }
}

#[test]
fn a_gateway_with_previous_settings_is_a_warning() {
    let unclear = || Responder::Invalid("x".to_owned());
    let context = RunContext { unreachable_process: Some(7), is_daemon: false, ..CONTEXT };
    for (answer, holder, expected) in [
        (Responder::Closed, None, Some(Warn)),
        (unclear(), None, Some(Warn)),
        (unclear(), Some((7, "gateway")), Some(Warn)),
        (unclear(), Some((9, "nginx")), Some(Fail)),
    ] {
        let mut running = good();
        is_at(&mut running, answer, holder);
        let found = findings(&running, context);
        assert_eq!(found.iter().map(|finding| finding.verdict).next(), expected, "{found:?}");
        let is_named = found[0].message.contains("process 7 still runs with the previous settings");
        assert_eq!(is_named, expected == Some(Warn), "{found:?}");
        if is_named {
            let fix = "gateway check-config, then: restart the gateway (process 7)";
            assert_eq!(found[0].fix.as_deref(), Some(fix));
        }
    }
    let mut running = good();
    is_at(&mut running, Responder::Closed, None);
    assert!(findings(&running, RunContext { is_blocked: true, ..context }).is_empty());
}

#[test]
fn a_fix_names_the_process_and_only_root_sees_every_holder() {
    let mut running = good();
    running.status = Some(Err("401".to_owned()));
    let found = findings(&running, RunContext { process: Some(6123), is_daemon: false, ..CONTEXT });
    assert_eq!(found[1].fix.as_deref(), Some("kill -HUP 6123"));
    is_at(&mut running, Responder::Other("x".to_owned()), None);
    for is_root in [true, false] {
        let found = findings(&running, RunContext { is_root, ..CONTEXT });
        assert_eq!(found[0].message.contains("only root can see"), !is_root, "{found:?}");
    }
}

#[test]
fn a_consequence_of_a_reported_problem_is_not_reported_again() {
    let mut running = good();
    is_at(&mut running, Responder::Closed, None);
    assert!(findings(&running, RunContext { is_blocked: true, ..CONTEXT }).is_empty());
    let failing = [("readyz", Err("expected 200, found 503".to_owned()))];
    assert_eq!(verify_result(&failing, true).verdict, Ok);
    assert_eq!(verify_result(&failing, false).verdict, Fail);
    let mut running = good();
    running.status = Some(Err("403".to_owned()));
    let found = findings(&running, RunContext { is_excluded: true, ..CONTEXT });
    assert!(found.iter().all(|finding| finding.fix.is_none()), "{found:?}");
}

#[test]
fn a_remote_gateways_report_becomes_findings() {
    let mut running = good();
    let finding = status(&mut running);
    assert!(from_status(finding).iter().all(|finding| finding.verdict == Ok));
    finding["backend_health"]["local_mlx"] = json!({"ready": false, "error": "refused\u{1b}"});
    finding["gateway"]["warnings"] = json!(["the disk is 93 % full"]);
    let found = from_status(finding);
    assert_eq!(found.iter().map(|finding| finding.verdict).collect::<Vec<_>>(), [Ok, Fail, Warn]);
    assert!(found[1].message.contains("refused\\u{1b}"), "{found:?}");
}
