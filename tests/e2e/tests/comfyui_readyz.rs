//! Readiness of a sidecar in front of a ComfyUI.

use e2e::sidecar::Sidecar;
use fakes::comfyui::{ComfyVersion, FakeComfy, PromptStatus, StatsAnswer};
use serde_json::{Value, json};
use wire::health::{self, CheckStatus};

async fn until_message(sidecar: &Sidecar, text: &str) {
    fakes::eventually(text, async || {
        let check = sidecar.until_fails("engine_reachable").await;
        check.message.contains(text).then_some(())
    })
    .await;
}

async fn until_warning(sidecar: &Sidecar, text: &str) {
    fakes::eventually(text, async || {
        let report = sidecar.readyz().await;
        let check = report.checks.iter().find(|check| check.name == "engine_reachable")?.clone();
        let warned = check.status == CheckStatus::Warn && check.message.contains(text);
        (warned && report.status == health::ReadyStatus::Degraded).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_engine_that_is_not_there_yet_is_waited_for() {
    let fake = FakeComfy::start().await;
    fake.stop().await;
    let sidecar = Sidecar::comfyui(&fake.url(), &[]).await;
    sidecar.until_fails("engine_reachable").await;
    let refused = sidecar.generate(&json!({"prompt": "a", "size": "64x64"})).await;
    assert_eq!((refused.status, refused.code()), (503, "backend_not_ready"), "{refused:?}");
    fake.restart();
    let report = sidecar.until_ready().await;
    assert_eq!((report.engine.kind.as_str(), report.engine.version.as_deref()), ("comfyui", Some("0.33.0")));
    assert_eq!(report.engine.models, 2);
}

#[tokio::test]
async fn an_engine_that_hangs_is_distinguished_from_one_that_is_gone() {
    let fake = FakeComfy::start().await;
    let sidecar = Sidecar::comfyui(&fake.url(), &[]).await;
    sidecar.until_ready().await;
    fake.script(|script| script.hang = true);
    until_message(&sidecar, "does not answer").await;
    fake.script(|script| script.hang = false);
    sidecar.until_ready().await;
}

#[tokio::test]
async fn whatever_else_listens_there_is_not_the_engine() {
    let fake = FakeComfy::start().await;
    fake.script(|script| script.stats = StatsAnswer::Html);
    let sidecar = Sidecar::comfyui(&fake.url(), &[]).await;
    until_message(&sidecar, "gives other JSON, or none").await;
    fake.script(|script| script.stats = StatsAnswer::Json(json!({"system": {"os": "linux"}})));
    until_message(&sidecar, "names no version").await;
    let version = |text: &str| StatsAnswer::Json(json!({"system": {"comfyui_version": text}, "devices": []}));
    fake.script(|script| script.stats = version("0.3.40"));
    until_message(&sidecar, "0.3.45 is the oldest").await;
    fake.script(|script| script.stats = version("0.44.0"));
    until_warning(&sidecar, "untested").await;
    fake.script(|script| {
        script.stats = StatsAnswer::Real;
        script.version = ComfyVersion(0, 3, 50);
    });
    until_warning(&sidecar, "cannot end one running job").await;
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
async fn jobs_of_others_that_wait_are_counted_apart_from_ours() {
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
async fn a_model_that_is_put_there_later_is_offered() {
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
async fn a_node_that_an_upgrade_took_away_is_named_before_an_image_fails() {
    let fake = FakeComfy::start().await;
    let sidecar = Sidecar::comfyui(&fake.url(), &[]).await;
    sidecar.until_ready().await;
    let body = || fake.requests().iter().filter(|request| request.path.contains("/object_info/")).count();
    fakes::eventually("the graphs are looked at", async || (body() >= 9).then_some(())).await;
    let model = async |status: CheckStatus| {
        fakes::eventually("engine_model", async || {
            let report = sidecar.readyz().await;
            let check = report.checks.iter().find(|check| check.name == "engine_model")?.clone();
            (check.status == status).then_some((check, report.status))
        })
        .await
    };
    model(CheckStatus::Pass).await;
    let before = body();
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
    assert!(check.message.contains("and 2 more (`ada2-sidecar check-config --live`)"), "{}", check.message);
    assert!(body() - before < 30, "each class once, and not at every survey: {}", body() - before);
    fake.script(|script| {
        script.removed_classes.clear();
        script.version = ComfyVersion::V0_33_0;
    });
    model(CheckStatus::Pass).await;
}
