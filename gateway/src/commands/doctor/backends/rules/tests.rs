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

fn not_ready(seen: &mut BackendFacts, evidence: Evidence) {
    seen.evidence = evidence;
    seen.health.ready = false;
    seen.health.error = Some("vram_headroom: too little".to_owned());
    (seen.clock, seen.version) = (None, None);
}

fn judged(fault: fn(&mut BackendFacts), sees: Option<&str>, is_mac: bool) -> Vec<Finding> {
    let mut facts = good();
    fault(&mut facts);
    findings(&[facts], &|_| sees.map(str::to_owned), "0.1.0", is_mac)
}

#[test]
fn a_good_backend_has_nothing_to_look_at_and_each_fault_is_told_once() {
    type Break = fn(&mut BackendFacts);
    let table: [(Break, &str, Verdict, &str); 21] = [
        (|_| (), "backend", Ok, ""),
        (|seen| seen.addresses = HostAddresses::Literal, "backend", Ok, ""),
        (
            |seen| nowhere(seen, Some("ada2")),
            "backend_address",
            Fail,
            "ada2, which resolves, in place of ada2.local",
        ),
        (|seen| nowhere(seen, None), "backend_address", Fail, "libnss-mdns"),
        (|seen| looked_up_in_vain(seen), "backend_address", Fail, "IP address"),
        (|seen| half_silent(seen), "backend_address", Warn, "in place of ada2.local"),
        (|seen| not_ready(seen, Evidence::Refused), "backend", Fail, "systemctl status ada2-sidecar"),
        (|seen| chat(seen, Evidence::Refused), "backend", Fail, "base_url: \"\""),
        (|seen| not_ready(seen, Evidence::NoRoute("x".into())), "backend", Fail, "ping ada2.local"),
        (|seen| not_ready(seen, failed(ProbeFailure::TimedOut)), "backend", Fail, "ping ada2.local"),
        (|seen| not_ready(seen, failed(ProbeFailure::Broken)), "backend", Fail, "scheme and port"),
        (|seen| says_so(seen), "backend", Fail, "curl 'http://ada2.local:7860/readyz?verbose'"),
        (|seen| stranger(seen), "backend", Fail, "sudo ada2-sidecar doctor"),
        (|seen| warns(seen, "disk: 93 % full"), "backend_warning", Warn, "readyz?verbose"),
        (
            |seen| warns(seen, "wrong probe: the backend has no /x; name its own path under `health`"),
            "probe_path",
            Warn,
            "name its own path",
        ),
        (|seen| seen.health.max_inflight = Some(1), "limits", Warn, "{images: 1}"),
        (|seen| seen.health.max_inflight = Some(2), "backend", Ok, ""),
        (|seen| seen.clock = Some(ClockOffset(60.0, 61.1)), "clock", Warn, "timedatectl set-ntp true"),
        (|seen| seen.clock = Some(ClockOffset(-61.1, -60.0)), "clock", Warn, "timedatectl set-ntp true"),
        (|seen| seen.clock = Some(ClockOffset(-30.0, 1.0)), "clock", Ok, ""),
        (|seen| seen.version = Some("0.2.0".to_owned()), "sidecar_version", Warn, "upgrade the older one"),
    ];
    for (nth, (fault, name, verdict, fix)) in table.into_iter().enumerate() {
        let found = judged(fault, None, false);
        let finding = found.iter().find(|finding| finding.name == name).unwrap();
        assert_eq!(finding.verdict, verdict, "{nth} {finding:?}");
        assert!(finding.fix.as_deref().unwrap_or_default().contains(fix), "{nth} {finding:?}");
        assert!(found.iter().all(|other| other.name == name || other.verdict == Ok), "{nth} {found:?}");
    }
}

fn nowhere(seen: &mut BackendFacts, other: Option<&str>) {
    seen.addresses = HostAddresses::Unresolved(other.map(str::to_owned));
    not_ready(seen, failed(ProbeFailure::Unresolved("no".to_owned())));
}

fn looked_up_in_vain(seen: &mut BackendFacts) {
    seen.addresses = HostAddresses::TimedOut;
    not_ready(seen, failed(ProbeFailure::TimedOut));
}

fn half_silent(seen: &mut BackendFacts) {
    let [one, two] = ["192.168.1.7", "192.168.2.7"].map(|address| address.parse().unwrap());
    seen.addresses = HostAddresses::Resolved(vec![one, two], vec![two]);
}

fn chat(seen: &mut BackendFacts, evidence: Evidence) {
    seen.makes_images = false;
    not_ready(seen, evidence);
}

fn says_so(seen: &mut BackendFacts) {
    let report = json!({
        "status": "not_ready", "checks": [], "since": 1, "sampled_at": 1.0,
        "engine": {"kind": "invokeai", "version": "6.9.0", "queue_depth": 0, "models": 2},
    });
    let verdict = Readiness::Report(serde_json::from_value(report).unwrap());
    not_ready(
        seen,
        Evidence::Answered(ProbeReport { alive: true, readiness: verdict, missing_paths: Vec::new() }),
    );
}

/// Another program has the sidecar's port.
fn stranger(seen: &mut BackendFacts) {
    let wrong_paths = vec!["/healthz".to_owned(), "/readyz".to_owned()];
    let verdict = Readiness::NotReady("/v1/models answers 404".to_owned());
    not_ready(
        seen,
        Evidence::Answered(ProbeReport { alive: false, readiness: verdict, missing_paths: wrong_paths }),
    );
    warns(seen, "wrong probe: the backend has no /readyz; name its own path under `health`");
}

fn warns(seen: &mut BackendFacts, warning: &str) {
    seen.health.warnings = vec![warning.to_owned()];
}

const fn failed(failure: ProbeFailure) -> Evidence {
    Evidence::ProbeFailed(failure)
}

#[test]
fn on_a_mac_silence_of_the_local_network_names_its_privacy_setting() {
    let silent: [fn(&mut BackendFacts); 2] = [
        |seen| not_ready(seen, failed(ProbeFailure::TimedOut)),
        |seen| not_ready(seen, Evidence::NoRoute("x".into())),
    ];
    for fault in silent {
        let fix = |is_mac| judged(fault, None, is_mac).pop().and_then(|finding| finding.fix).unwrap();
        assert!(fix(true).contains("Privacy & Security > Local Network") && !fix(false).contains("Privacy"));
    }
}

#[test]
fn a_gateway_that_is_kept_from_what_this_command_reaches_is_told() {
    for (sees, is_mac, finding) in [
        (Some("no route to host: it is off or elsewhere"), true, true),
        (Some("health probe timed out"), true, true),
        (Some("vram_headroom: too little"), true, false),
        (Some("health probe timed out"), false, false),
        (None, true, false),
    ] {
        let found = judged(|_| (), sees, is_mac);
        assert_eq!(
            found.iter().any(|finding| finding.name == "local_network"),
            finding,
            "{sees:?} {found:?}"
        );
    }
}
