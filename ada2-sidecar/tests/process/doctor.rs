//! `ada2-sidecar doctor` for a service that was started by hand. In a real systemd: `tests/systemd/doctor.py`.

use std::{fs, process::Output};

use fakes::{gpu::FakeCard, invokeai::FakeInvoke};
use serde_json::Value;

use crate::running::{Running, run};

/// Status and fix of this check, each time that it is told.
fn told(output: &Output, name: &str) -> Vec<(String, String)> {
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let checks = report["checks"].as_array().expect("a list").iter().filter(|check| check["name"] == name);
    checks.map(|check| (text(&check["status"]), text(&check["fix"]))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_was_started_by_hand_is_asked_and_makes_a_picture() {
    let card = FakeCard::new();
    let library = card.library().display().to_string();
    let state = fakes::fresh_folder("doctor");
    let flags = ["--engine", "builtin", "--nvml-lib", &library];
    let sidecar = Running::start(&state, &flags);
    sidecar.ready().await;
    let address = sidecar.url.trim_start_matches("http://").to_owned();
    let ask = |more: &[&str]| run(&[&["doctor", "--json", "--listen", &address], &flags[..], more].concat());
    let output = ask(&["--generate"]);
    for name in
        ["configuration", "version", "driver", "card", "service_card", "engine", "readiness", "generate"]
    {
        assert_eq!(told(&output, name), [("ok".to_owned(), String::new())], "{name}: {output:?}");
    }
    assert!(told(&output, "service").is_empty(), "there is no unit of this one");
    card.set(|scenario| scenario.gpus[0].lost = true);
    fakes::eventually("not ready", async || {
        let answer = fakes::http().get(format!("{}/readyz", sidecar.url)).send().await.ok()?;
        (answer.status().as_u16() == 503).then_some(())
    })
    .await;
    let output = ask(&["--generate"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(told(&output, "card")[0].0, "fail");
    assert!(
        told(&output, "nvml").is_empty() && told(&output, "gpu_present").is_empty(),
        "one cause, one line"
    );
    assert_eq!(told(&output, "generate")[0].0, "skip");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_is_asked_without_a_service_and_a_broken_file_hides_nothing_else() {
    let card = FakeCard::new();
    let library = card.library().display().to_string();
    let engine = FakeInvoke::start().await;
    let url = engine.url();
    let flags = ["--listen", "127.0.0.1:9", "--engine-url", &url, "--nvml-lib", &library];
    let ask = |more: &[&str]| run(&[&["doctor", "--json"], &flags[..], more].concat());
    let output = ask(&[]);
    for name in ["engine", "engine_version", "engine_websocket", "engine_models", "templates", "driver"] {
        assert_eq!(told(&output, name), [("ok".to_owned(), String::new())], "{name}: {output:?}");
    }
    let file = fakes::fresh_folder("doctor-file").join("config.yaml");
    fs::write(&file, "max_n: many\nmax_inflight: 0\n").unwrap();
    let path = file.display().to_string();
    let output = ask(&["--config", &path]);
    let problems = told(&output, "configuration");
    assert_eq!((output.status.code(), problems.len()), (Some(1), 2), "{problems:?}");
    assert!(problems[0].1.starts_with("correct max_") && problems[0].1.contains(&path), "{problems:?}");
    assert_eq!(told(&output, "driver")[0].0, "ok", "what needs no configuration is looked at");
    assert!(told(&output, "engine").is_empty());
}
