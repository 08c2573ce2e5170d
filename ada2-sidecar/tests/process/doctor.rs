//! `ada2-sidecar doctor` for a service that was started by hand. In a real systemd: `tests/systemd/doctor.py`.

use std::{fs, process::Output};

use fakes::{gpu::FakeCard, invokeai::FakeInvoke};
use serde_json::Value;

use crate::running::{Running, run};

/// Status and fix of each line of this check.
fn lines_of(output: &Output, name: &str) -> Vec<(String, String)> {
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let checks = report["checks"].as_array().expect("a list").iter().filter(|check| check["name"] == name);
    checks.map(|check| (text(&check["status"]), text(&check["fix"]))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_was_started_by_hand_is_checked_and_makes_an_image() {
    let card = FakeCard::new();
    let library = card.library().display().to_string();
    let state = fakes::fresh_dir("doctor");
    let flags = ["--engine", "builtin", "--nvml-lib", &library];
    let sidecar = Running::start(&state, &flags);
    sidecar.ready().await;
    let address = sidecar.url.trim_start_matches("http://").to_owned();
    let ask = |more: &[&str]| run(&[&["doctor", "--json", "--listen", &address], &flags[..], more].concat());
    let output = ask(&["--generate"]);
    for name in
        ["configuration", "version", "driver", "card", "service_card", "engine", "readiness", "generate"]
    {
        assert_eq!(lines_of(&output, name), [("ok".to_owned(), String::new())], "{name}: {output:?}");
    }
    assert!(lines_of(&output, "service").is_empty(), "it has no unit");
    card.set(|scenario| scenario.gpus[0].lost = true);
    fakes::eventually("not ready", async || {
        let answer = fakes::http().get(format!("{}/readyz", sidecar.url)).send().await.ok()?;
        (answer.status().as_u16() == 503).then_some(())
    })
    .await;
    let output = ask(&["--generate"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(lines_of(&output, "card")[0].0, "fail");
    assert!(
        lines_of(&output, "nvml").is_empty() && lines_of(&output, "gpu_present").is_empty(),
        "one cause, one line"
    );
    assert_eq!(lines_of(&output, "generate")[0].0, "skip");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_is_checked_without_a_service_and_an_invalid_file_hides_nothing_else() {
    let card = FakeCard::new();
    let library = card.library().display().to_string();
    let engine = FakeInvoke::start().await;
    let url = engine.url();
    let flags = ["--listen", "127.0.0.1:9", "--engine-url", &url, "--nvml-lib", &library];
    let ask = |more: &[&str]| run(&[&["doctor", "--json"], &flags[..], more].concat());
    let output = ask(&[]);
    for name in ["engine", "engine_version", "engine_websocket", "engine_models", "templates", "driver"] {
        assert_eq!(lines_of(&output, name), [("ok".to_owned(), String::new())], "{name}: {output:?}");
    }
    let file = fakes::fresh_dir("doctor-file").join("config.yaml");
    fs::write(&file, "max_n: many\nmax_inflight: 0\n").unwrap();
    let path = file.display().to_string();
    let output = ask(&["--config", &path]);
    let problems = lines_of(&output, "configuration");
    assert_eq!((output.status.code(), problems.len()), (Some(1), 2), "{problems:?}");
    assert!(problems[0].1.starts_with("correct max_") && problems[0].1.contains(&path), "{problems:?}");
    assert_eq!(lines_of(&output, "driver")[0].0, "ok", "checks that need no configuration still run");
    assert!(lines_of(&output, "engine").is_empty());
}
