//! The default model is loaded before the first request, and again after the engine's restart.

use e2e::sidecar::Sidecar;
use fakes::{
    engine::FakeEngine,
    invokeai::{FakeInvoke, InvokeScript, InvokeState, ItemStatus},
};
use serde_json::json;

#[tokio::test]
async fn nothing_is_admitted_until_the_model_is_loaded_and_the_gallery_stays_empty() {
    let fake = FakeInvoke::start().await;
    fake.script(|script: &mut InvokeScript| script.hold = true);
    let sidecar = Sidecar::invokeai(&fake.url(), &["--warm-up", "on"]).await;
    fake.until(|items| items.iter().any(|item| item.status == ItemStatus::InProgress)).await;
    let check = sidecar.until_fails("engine_model").await;
    assert_eq!(check.observed, "warming");
    let answer = sidecar.generate(&json!({"prompt": "a", "size": "64x64"})).await;
    assert_eq!((answer.status, answer.code()), (503, "backend_not_ready"));
    assert!(answer.message().contains("engine_model: warming"), "{}", answer.message());
    fake.script(|script| script.hold = false);
    sidecar.until_ready().await;
    let submission =
        fake.requests().into_iter().find(|request| request.path.contains("enqueue_batch")).unwrap();
    let submission: serde_json::Value = serde_json::from_slice(&submission.body).unwrap();
    let nodes = &submission["batch"]["graph"]["nodes"];
    assert_eq!(nodes["l2i"]["is_intermediate"], true, "it does not show in the engine's gallery");
    assert_eq!((&nodes["noise"]["width"], &nodes["denoise"]["steps"]), (&json!(64), &json!(1)));
}

#[tokio::test]
async fn a_restarted_engine_is_warmed_up_again_before_it_is_ready() {
    let fake = FakeInvoke::start().await;
    let sidecar = Sidecar::invokeai(&fake.url(), &["--warm-up", "on"]).await;
    sidecar.until_ready().await;
    let jobs = fake.items().len();
    fake.stop().await;
    sidecar.until_fails("engine_reachable").await;
    fake.script(|script| script.hold = true);
    fake.restart();
    let check = sidecar.until_fails("engine_model").await;
    assert_eq!(check.observed, "warming");
    fake.until(|items| items.len() > jobs).await;
    fake.script(|script| script.hold = false);
    sidecar.until_ready().await;
}

#[tokio::test]
async fn a_model_that_cannot_be_loaded_is_a_warning_with_the_engines_message() {
    let fake = FakeInvoke::start().await;
    fake.script(|script| script.fail = Some(InvokeState::out_of_memory()));
    let sidecar = Sidecar::invokeai(&fake.url(), &["--warm-up", "on"]).await;
    let report = sidecar.until_ready().await;
    let check = report.checks.iter().find(|check| check.name == "engine_model").unwrap();
    assert!(check.message.contains("could not be loaded in advance (CUDA out of memory"), "{check:?}");
}

#[tokio::test]
async fn shutdown_cancels_a_running_warm_up() {
    let fake = FakeInvoke::start().await;
    fake.script(|script| script.hold = true);
    let sidecar = Sidecar::invokeai(&fake.url(), &["--warm-up", "on"]).await;
    fake.until(|items| items.iter().any(|item| item.status == ItemStatus::InProgress)).await;
    sidecar.stop().await;
    assert_eq!(fake.items()[0].status, ItemStatus::Canceled);
}

#[tokio::test]
async fn a_warm_up_runs_also_if_its_check_only_warns() {
    let fake = FakeInvoke::start().await;
    fake.script(|script: &mut InvokeScript| script.hold = true);
    let flags = ["--warm-up", "on", "--warn-only", "engine_model"];
    let sidecar = Sidecar::invokeai(&fake.url(), &flags).await;
    fake.until(|items| items.iter().any(|item| item.status == ItemStatus::InProgress)).await;
    assert!(sidecar.until_ready().await.warnings().iter().any(|text| text.contains("engine_model: warming")));
    fake.script(|script| script.hold = false);
    fakes::eventually("it is loaded", async || sidecar.readyz().await.warnings().is_empty().then_some(()))
        .await;
}
