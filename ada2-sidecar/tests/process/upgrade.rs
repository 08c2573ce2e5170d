//! State and configuration of earlier versions are read without loss or warnings.

use std::fs;

use fakes::{
    gpu::FakeCard,
    old_state::{copy_old_state, lost_settings},
};
use wire::health::{CheckStatus, ReadyReport};

use crate::running::{Running, run};

#[test]
fn a_configuration_of_0_1_has_the_same_effect() {
    let dir = copy_old_state("0.1", "ada2-sidecar");
    let file = dir.join("config.yaml").display().to_string();
    let output = run(&["--config", &file, "check-config"]);
    let (printed, warnings) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((output.status.code(), warnings.as_ref()), (Some(0), ""));
    assert_eq!(lost_settings(&dir, &printed), [""; 0]);
}

#[tokio::test]
async fn the_state_of_0_1_is_taken_over() {
    let dir = copy_old_state("0.1", "ada2-sidecar");
    let state = dir.join("state");
    // A latch holds for one boot only: the upgrade happens in the same boot.
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("a Linux");
    let latch = fs::read_to_string(state.join("latch.json")).expect("the fixture");
    let old_boot = latch.split('"').nth(3).expect("boot_id comes first");
    fs::write(state.join("latch.json"), latch.replace(old_boot, boot.trim())).expect("the dir is ours");
    let instance = |state: &std::path::Path| {
        let text = fs::read_to_string(state.join("instance")).expect("the fixture");
        text.lines().next().expect("an id").to_owned()
    };
    let before = instance(&state);

    let card = FakeCard::new();
    let library = card.library().display().to_string();
    let running = Running::start(&state, &["--engine", "builtin", "--nvml-lib", &library]);
    let report = fakes::eventually("the first look", async || {
        let answer = fakes::http().get(format!("{}/readyz", running.url)).send().await.ok()?;
        let report: ReadyReport = serde_json::from_slice(&answer.bytes().await.ok()?).ok()?;
        report.checks.iter().any(|check| check.name == "xid").then_some(report)
    })
    .await;
    let xid = report.checks.iter().find(|check| check.name == "xid").expect("just seen");
    assert_eq!(xid.status, CheckStatus::Fail, "{xid:?}");
    assert!(xid.message.contains("XID 79"), "{xid:?}");
    assert_eq!(instance(&state), before, "earlier jobs in the engine are recognised by it");
    running.signal("-TERM");
    let first_lines = running.first_lines.clone();
    let (code, log) = running.end().await;
    assert_eq!(code, Some(0));
    let complaints: Vec<_> = first_lines
        .lines()
        .chain(log.lines())
        .filter(|line| line.contains("\"WARN\"") || line.contains("\"ERROR\""))
        // Except those that the latch and the end cause.
        .filter(|line| !line.contains("XID 79") && !line.contains("\"draining\""))
        .collect();
    assert_eq!(complaints, [""; 0]);
}
