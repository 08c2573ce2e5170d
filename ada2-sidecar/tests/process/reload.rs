//! SIGHUP reloads the configuration: all of it or nothing.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;

use fakes::gpu::FakeCard;
use serde_json::json;
use tokio::net::UnixDatagram;

use crate::running::{Running, notification};

/// A sidecar with this configuration, and the service manager's end of its notification socket.
fn start(dir: &Path, yaml: &str) -> (Running, UnixDatagram) {
    let (file, socket) = (dir.join("config.yaml"), dir.join("notify"));
    std::fs::write(&file, yaml).unwrap();
    let manager = UnixDatagram::bind(&socket).unwrap();
    let (file, socket) = (file.display().to_string(), socket.display().to_string());
    let flags = ["--engine", "builtin", "--config", &file];
    (Running::start_with(&dir.join("state"), &flags, &[("NOTIFY_SOCKET", &socket)]), manager)
}

async fn reload(sidecar: &Running, manager: &UnixDatagram, dir: &Path, yaml: &str) {
    std::fs::write(dir.join("config.yaml"), yaml).unwrap();
    sidecar.signal("-HUP");
    assert!(notification(manager, "RELOADING=1").await.contains("MONOTONIC_USEC="));
    notification(manager, "READY=1").await;
}

#[tokio::test]
async fn limits_and_token_change_while_a_job_runs() {
    let dir = fakes::fresh_dir("reload");
    let (sidecar, manager) = start(&dir, "max_inflight: 1\n");
    sidecar.ready().await;
    notification(&manager, "READY=1").await;
    let url = format!("{}/v1/images/generations", sidecar.url);
    let long = json!({"prompt": "a", "size": "64x64", "steps": 150});
    let short = json!({"prompt": "a", "size": "64x64", "steps": 1});
    let (started, ()) = tokio::join!(fakes::post(&url, &long), async {
        fakes::eventually("the job runs", async || sidecar.slots().await?.contains("1 of 1").then_some(()))
            .await;
        assert_eq!(fakes::post(&url, &short).await.status, 429);
        reload(&sidecar, &manager, &dir, "max_inflight: 2\n").await;
        assert_eq!(fakes::post(&url, &short).await.status, 200, "beside the one that runs");
        let yaml = "max_inflight: 2\ntoken: sesame-sesame-1\n";
        reload(&sidecar, &manager, &dir, yaml).await;
        assert_eq!(fakes::post(&url, &short).await.status, 401);
    });
    assert_eq!(started.status, 200, "started without a token, and finished: {started:?}");
}

#[tokio::test]
async fn a_refused_reload_changes_nothing_and_log_and_status_say_why() {
    let dir = fakes::fresh_dir("refused");
    let (sidecar, manager) = start(&dir, "max_n: 2\n");
    sidecar.ready().await;
    notification(&manager, "READY=1").await;
    reload(&sidecar, &manager, &dir, "max_n: 3\nengine_unit: other.service\ntoken: sesame-sesame-1\n").await;
    notification(&manager, "last reload refused: ").await;
    reload(&sidecar, &manager, &dir, "max_n: [").await;
    let url = format!("{}/v1/images/generations", sidecar.url);
    let answer = fakes::post(&url, &json!({"prompt": "a", "size": "64x64", "n": 3})).await;
    assert_eq!(answer.status, 400, "the limit is still 2, and no token is required: {answer:?}");
    reload(&sidecar, &manager, &dir, "max_n: 3\n").await;
    let answer = fakes::post(&url, &json!({"prompt": "a", "size": "64x64", "n": 3, "steps": 1})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    sidecar.signal("-TERM");
    let (code, log) = sidecar.end().await;
    assert_eq!(code, Some(0));
    for part in
        ["engine_unit: expected", "restart to apply", "config.yaml", "not reloaded", "configuration reloaded"]
    {
        assert!(log.contains(part), "{part} in {log}");
    }
    assert!(!log.contains("sesame"), "{log}");
}

#[tokio::test]
async fn warn_only_changes_live_and_what_it_replaces_is_read_with_a_warning() {
    let (dir, card) = (fakes::fresh_dir("warn-only"), FakeCard::new());
    card.set(|machine| machine.gpus[0].remapped_rows.failure = true);
    let yaml = format!("gpu: required\nnvml_lib: {}\nsample_interval: 20ms\n", card.library().display());
    let (sidecar, manager) = start(&dir, &yaml);
    let until = async |status: u16| {
        fakes::eventually("row_remap", async || {
            let url = format!("{}/readyz", sidecar.url);
            let answer = fakes::http().get(url).send().await.ok()?;
            let is = answer.status().as_u16() == status;
            let text = answer.text().await.ok()?;
            (is && text.contains("a faulty memory row could not be replaced")).then_some(())
        })
        .await;
    };
    until(503).await;
    notification(&manager, "READY=1").await;
    for (more, status) in [
        ("warn_only: [disk, row_remap]\n", 200),
        ("", 503),
        ("row_remap_failure: degraded\n", 200),
        ("", 503),
    ] {
        reload(&sidecar, &manager, &dir, &format!("{yaml}{more}")).await;
        until(status).await;
    }
    reload(&sidecar, &manager, &dir, &format!("{yaml}warn_only: row_remp\n")).await;
    until(503).await;
    sidecar.signal("-TERM");
    let (code, log) = sidecar.end().await;
    assert_eq!(code, Some(0));
    for part in [
        "config.yaml: row_remap_failure: read for this version only; set warn_only: row_remap in its place",
        "did you mean",
    ] {
        assert!(log.contains(part), "{part} in {log}");
    }
}
