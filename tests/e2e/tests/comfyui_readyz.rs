//! Readiness of a sidecar in front of a ComfyUI.

use e2e::sidecar::Sidecar;
use fakes::comfyui::{ComfyVersion, FakeComfy, PromptStatus};
use serde_json::{Value, json};
use wire::health::{self, CheckStatus};

use crate::engine_behaviour::until_warning;

#[tokio::test]
async fn old_versions_are_refused_or_warned_about() {
    let fake = FakeComfy::start().await;
    fake.script(|script| script.version = ComfyVersion(0, 3, 40));
    let sidecar = Sidecar::comfyui(&fake.url(), &[]).await;
    fakes::eventually("too old", async || {
        let check = sidecar.until_fails("engine_reachable").await;
        check.message.contains("0.3.45 is the oldest").then_some(())
    })
    .await;
    fake.script(|script| script.version = ComfyVersion(0, 3, 50));
    until_warning(&sidecar, "cannot interrupt a single job").await;
    fake.script(|script| script.version = ComfyVersion::V0_33_0);
    fakes::eventually("no warning", async || {
        Some(sidecar.readyz().await).filter(|report| report.status == health::ReadyStatus::Ready)
    })
    .await;
}

#[tokio::test]
async fn without_a_checkpoint_nothing_is_admitted() {
    let fake = FakeComfy::start().await;
    fake.script(|script| script.checkpoints.clear());
    let sidecar = Sidecar::comfyui(&fake.url(), &[]).await;
    let check = sidecar.until_fails("engine_model").await;
    assert!(check.message.contains("models/checkpoints"), "{}", check.message);
}

#[tokio::test]
async fn waiting_jobs_of_others_are_counted_separately() {
    let fake = FakeComfy::start().await;
    fake.script(|script| script.hold = true);
    let sidecar = Sidecar::comfyui(&fake.url(), &["--max-engine-queue", "1"]).await;
    sidecar.until_ready().await;
    for _ in 0..3 {
        fake.foreign_job();
    }
    fake.until(|items| items.iter().any(|item| item.status == PromptStatus::Running)).await;
    let observed = async |text: &str| {
        fakes::eventually(text, async || {
            let report = sidecar.readyz().await;
            let check = report.checks.iter().find(|check| check.name == "engine_queue")?.clone();
            (check.observed == text).then_some(())
        })
        .await;
    };
    observed("3 jobs, 2 of others waiting").await;
    let answer = sidecar.generate(&json!({"prompt": "a", "size": "64x64", "steps": 2})).await;
    assert_eq!((answer.status, answer.code()), (429, "backend_overloaded"));
    let submissions = fake.requests().iter().filter(|request| request.method == "POST").count();
    assert_eq!(submissions, 0, "the engine heard nothing");
}

#[tokio::test]
async fn a_model_added_later_is_listed() {
    let fake = FakeComfy::start().await;
    let sidecar = Sidecar::comfyui(&fake.url(), &[]).await;
    sidecar.until_ready().await;
    fake.script(|script| script.checkpoints.push("newXL.safetensors".to_owned()));
    fakes::eventually("it is listed", async || {
        let list = fakes::http().get(format!("{}/v1/models", sidecar.url)).send().await.unwrap();
        let list: Value = serde_json::from_slice(&list.bytes().await.unwrap()).unwrap();
        list["data"].as_array()?.iter().any(|model| model["id"] == "newXL").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_node_removed_by_an_upgrade_is_named_before_an_image_fails() {
    let fake = FakeComfy::start().await;
    let sidecar = Sidecar::comfyui(&fake.url(), &[]).await;
    sidecar.until_ready().await;
    let reads_of = |class: &str| {
        let path = format!("/object_info/{class}");
        fake.requests().iter().filter(|request| request.path.ends_with(&path)).count()
    };
    fakes::eventually("the graphs are looked at", async || (reads_of("VAEDecode") >= 2).then_some(())).await;
    let model = async |status: CheckStatus| {
        fakes::eventually("engine_model", async || {
            let report = sidecar.readyz().await;
            let check = report.checks.iter().find(|check| check.name == "engine_model")?.clone();
            (check.status == status).then_some((check, report.status))
        })
        .await
    };
    model(CheckStatus::Pass).await;
    let before = reads_of("SaveImage");
    fake.script(|script| {
        script.removed_classes = vec!["VAEDecode".to_owned()];
        script.version = ComfyVersion(0, 33, 1);
    });
    let (check, status) = model(CheckStatus::Warn).await;
    assert_eq!(status, health::ReadyStatus::Degraded, "it never gates");
    assert!(
        check.message.contains("is of class \"VAEDecode\", which this ComfyUI does not know"),
        "{}",
        check.message
    );
    assert!(check.message.contains(" more (`ada2-sidecar check-config --live`)"), "{}", check.message);
    let reads = reads_of("SaveImage") - before;
    assert!(reads <= 2, "once for the families and once for the graphs, not at every poll: {reads}");
    fake.script(|script| {
        script.removed_classes.clear();
        script.version = ComfyVersion::V0_33_0;
    });
    model(CheckStatus::Pass).await;
}
