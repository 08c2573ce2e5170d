use serde_json::json;
use service::doctor::Verdict::{self, Fail, Ok, Warn};

use super::*;
use crate::health::state::{Health, ProbeReport, Readiness};

fn good() -> BackendFacts {
    let answered = ProbeReport { alive: true, readiness: Readiness::Ready, missing_paths: Vec::new() };
    BackendFacts {
        class: "gpu_heavy".to_owned(),
        makes_images: true,
        host: "ada2.local".to_owned(),
        origin: "http://ada2.local:7860".to_owned(),
        addresses: HostAddresses::Resolved(vec!["192.168.1.7".parse().unwrap()], Vec::new()),
        evidence: Evidence::Answered(answered),
        health: Health { alive: true, ready: true, error: None, ..Health::unknown() },
        limit: Some(2),
        clock: Some(ClockOffset(-1.2, 0.1)),
        version: Some("0.1.3".to_owned()),
    }
}

fn not_ready(facts: &mut BackendFacts, evidence: Evidence) {
    facts.evidence = evidence;
    facts.health.ready = false;
    facts.health.error = Some("vram_headroom: too little".to_owned());
    (facts.clock, facts.version) = (None, None);
}

fn findings_with(fault: fn(&mut BackendFacts), reported_error: Option<&str>, is_mac: bool) -> Vec<Finding> {
    let mut facts = good();
    fault(&mut facts);
    findings(&[facts], &|_| reported_error.map(str::to_owned), "0.1.0", is_mac)
}

#[test]
fn a_good_backend_has_no_findings_and_each_fault_is_reported_once() {
    type Break = fn(&mut BackendFacts);
    let table: [(Break, &str, Verdict, &str); 21] = [
        (|_| (), "backend", Ok, ""),
        (|facts| facts.addresses = HostAddresses::Literal, "backend", Ok, ""),
        (
            |facts| unresolved(facts, Some("ada2")),
            "backend_address",
            Fail,
            "ada2, which resolves, in place of ada2.local",
        ),
        (|facts| unresolved(facts, None), "backend_address", Fail, "libnss-mdns"),
        (|facts| lookup_timed_out(facts), "backend_address", Fail, "IP address"),
        (|facts| one_address_silent(facts), "backend_address", Warn, "in place of ada2.local"),
        (|facts| not_ready(facts, Evidence::Refused), "backend", Fail, "systemctl status ada2-sidecar"),
        (|facts| chat(facts, Evidence::Refused), "backend", Fail, "base_url: \"\""),
        (|facts| not_ready(facts, Evidence::NoRoute("x".into())), "backend", Fail, "ping ada2.local"),
        (|facts| not_ready(facts, failed(ProbeFailure::TimedOut)), "backend", Fail, "ping ada2.local"),
        (|facts| not_ready(facts, failed(ProbeFailure::Broken)), "backend", Fail, "scheme and port"),
        (|facts| reports_not_ready(facts), "backend", Fail, "curl 'http://ada2.local:7860/readyz?verbose'"),
        (|facts| other_program(facts), "backend", Fail, "sudo ada2-sidecar doctor"),
        (|facts| warns(facts, "disk: 93 % full"), "backend_warning", Warn, "readyz?verbose"),
        (
            |facts| warns(facts, "wrong probe: the backend has no /x; name its own path under `health`"),
            "probe_path",
            Warn,
            "name its own path",
        ),
        (|facts| facts.health.max_inflight = Some(1), "limits", Warn, "{images: 1}"),
        (|facts| facts.health.max_inflight = Some(2), "backend", Ok, ""),
        (|facts| facts.clock = Some(ClockOffset(60.0, 61.1)), "clock", Warn, "timedatectl set-ntp true"),
        (|facts| facts.clock = Some(ClockOffset(-61.1, -60.0)), "clock", Warn, "timedatectl set-ntp true"),
        (|facts| facts.clock = Some(ClockOffset(-30.0, 1.0)), "clock", Ok, ""),
        (|facts| facts.version = Some("0.2.0".to_owned()), "sidecar_version", Warn, "upgrade the older one"),
    ];
    for (nth, (fault, name, verdict, fix)) in table.into_iter().enumerate() {
        let found = findings_with(fault, None, false);
        let finding = found.iter().find(|finding| finding.name == name).unwrap();
        assert_eq!(finding.verdict, verdict, "{nth} {finding:?}");
        assert!(finding.fix.as_deref().unwrap_or_default().contains(fix), "{nth} {finding:?}");
        assert!(found.iter().all(|other| other.name == name || other.verdict == Ok), "{nth} {found:?}");
    }
}

fn unresolved(facts: &mut BackendFacts, other: Option<&str>) {
    facts.addresses = HostAddresses::Unresolved(other.map(str::to_owned));
    not_ready(facts, failed(ProbeFailure::Unresolved("no".to_owned())));
}

fn lookup_timed_out(facts: &mut BackendFacts) {
    facts.addresses = HostAddresses::TimedOut;
    not_ready(facts, failed(ProbeFailure::TimedOut));
}

fn one_address_silent(facts: &mut BackendFacts) {
    let [one, two] = ["192.168.1.7", "192.168.2.7"].map(|address| address.parse().unwrap());
    facts.addresses = HostAddresses::Resolved(vec![one, two], vec![two]);
}

fn chat(facts: &mut BackendFacts, evidence: Evidence) {
    facts.makes_images = false;
    not_ready(facts, evidence);
}

fn reports_not_ready(facts: &mut BackendFacts) {
    let report = json!({
        "status": "not_ready", "checks": [], "since": 1, "sampled_at": 1.0,
        "engine": {"kind": "invokeai", "version": "6.9.0", "queue_depth": 0, "models": 2},
    });
    let verdict = Readiness::Report(serde_json::from_value(report).unwrap());
    not_ready(
        facts,
        Evidence::Answered(ProbeReport { alive: true, readiness: verdict, missing_paths: Vec::new() }),
    );
}

/// Another program has the sidecar's port.
fn other_program(facts: &mut BackendFacts) {
    let wrong_paths = vec!["/healthz".to_owned(), "/readyz".to_owned()];
    let verdict = Readiness::NotReady("/v1/models answers 404".to_owned());
    not_ready(
        facts,
        Evidence::Answered(ProbeReport { alive: false, readiness: verdict, missing_paths: wrong_paths }),
    );
    warns(facts, "wrong probe: the backend has no /readyz; name its own path under `health`");
}

fn warns(facts: &mut BackendFacts, warning: &str) {
    facts.health.warnings = vec![warning.to_owned()];
}

const fn failed(failure: ProbeFailure) -> Evidence {
    Evidence::ProbeFailed(failure)
}

#[test]
fn on_a_mac_an_unreachable_local_host_names_the_privacy_setting() {
    let silent: [fn(&mut BackendFacts); 2] = [
        |facts| not_ready(facts, failed(ProbeFailure::TimedOut)),
        |facts| not_ready(facts, Evidence::NoRoute("x".into())),
    ];
    for fault in silent {
        let fix = |is_mac| findings_with(fault, None, is_mac).pop().and_then(|finding| finding.fix).unwrap();
        assert!(fix(true).contains("Privacy & Security > Local Network") && !fix(false).contains("Privacy"));
    }
}

#[test]
fn a_gateway_that_does_not_reach_what_this_command_does_is_reported() {
    for (reported_error, is_mac, is_blocked) in [
        (Some("no route to host: it is off or elsewhere"), true, true),
        (Some("health probe timed out"), true, true),
        (Some("vram_headroom: too little"), true, false),
        (Some("health probe timed out"), false, false),
        (None, true, false),
    ] {
        let found = findings_with(|_| (), reported_error, is_mac);
        assert_eq!(
            found.iter().any(|finding| finding.name == "local_network"),
            is_blocked,
            "{reported_error:?} {found:?}"
        );
    }
}
