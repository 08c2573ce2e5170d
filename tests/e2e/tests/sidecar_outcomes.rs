//! What the outcomes of recent images and missing nodes say about the engine.

use std::time::Duration;

use e2e::sidecar::Sidecar;
use fakes::{
    engine::{EngineFailure, Identity},
    invokeai::FakeInvoke,
};
use serde_json::json;
use wire::health::{CheckStatus, ReadyStatus};

async fn text(url: &str) -> (u16, String) {
    let answer = fakes::http().get(url).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[tokio::test]
async fn a_node_removed_by_an_invokeai_upgrade_is_named() {
    let fake = FakeInvoke::start().await;
    let sidecar = Sidecar::invokeai(&fake.url(), &[]).await;
    sidecar.until_ready().await;
    fakes::eventually("the graphs are looked at", async || {
        fake.requests().iter().any(|request| request.path == "/openapi.json").then_some(())
    })
    .await;
    sidecar.until_check("engine_model", CheckStatus::Pass).await;
    fake.script(|script| {
        script.removed_nodes = vec!["create_denoise_mask".to_owned()];
        script.version = Identity::Version("6.14.3");
    });
    let check = sidecar.until_check("engine_model", CheckStatus::Warn).await;
    assert!(
        check.message.contains("\"create_denoise_mask\", which this InvokeAI does not know"),
        "{check:?}"
    );
    let answer = sidecar.generate(&json!({"prompt": "a", "size": "64x64", "steps": 2})).await;
    assert_eq!(answer.status, 200, "a graph without it is served");
}

#[tokio::test]
async fn images_that_fail_in_the_engine_are_a_warning_until_one_succeeds() {
    let fake = FakeInvoke::start().await;
    let sidecar = Sidecar::invokeai(&fake.url(), &[]).await;
    let report = sidecar.until_ready().await;
    let works = report.checks.iter().find(|check| check.name == "engine_works").unwrap();
    assert_eq!(works.status, CheckStatus::Unknown, "nothing is proven yet");
    let generate =
        async || sidecar.generate(&json!({"prompt": "a", "size": "64x64", "steps": 2})).await.status;
    assert_eq!(generate().await, 200);
    sidecar.until_check("engine_works", CheckStatus::Pass).await;
    fake.script(|script| {
        script.fail = Some(EngineFailure::new("RuntimeError", "CUDA error: unspecified launch failure"));
    });
    for _ in 0..3 {
        assert_eq!(
            sidecar.generate(&json!({"prompt": "", "size": "7x7"})).await.status,
            400,
            "no fault of it"
        );
        assert_eq!(generate().await, 502);
    }
    let check = sidecar.until_check("engine_works", CheckStatus::Warn).await;
    assert!(check.message.contains("3 images failed in the engine, the last with: CUDA error"), "{check:?}");
    assert_eq!(sidecar.readyz().await.status, ReadyStatus::Degraded, "it never gates");
    let (status, line) = text(&format!("{}/readyz/engine_works?verbose", sidecar.url)).await;
    assert!(status == 200 && line.starts_with("[+]engine_works warning: the last 3"), "{line}");
    let (_, metrics) = text(&format!("{}/metrics", sidecar.url)).await;
    assert!(
        metrics.contains(r#"ada2_sidecar_check_status{check="engine_works",status="warn"} 1"#),
        "{metrics}"
    );
    fake.script(|script| script.fail = None);
    assert_eq!(generate().await, 200);
    sidecar.until_check("engine_works", CheckStatus::Pass).await;
}

#[tokio::test]
async fn much_slower_steps_than_before_are_a_warning() {
    let fake = FakeInvoke::start().await;
    let sidecar = Sidecar::invokeai(&fake.url(), &[]).await;
    sidecar.until_ready().await;
    let generate =
        async || sidecar.generate(&json!({"prompt": "a", "size": "64x64", "steps": 5})).await.status;
    for _ in 0..5 {
        assert_eq!(generate().await, 200);
    }
    sidecar.until_check("engine_works", CheckStatus::Pass).await;
    fake.script(|script| script.item = Duration::from_secs(3));
    assert_eq!(generate().await, 200);
    let check = sidecar.until_check("engine_works", CheckStatus::Warn).await;
    assert!(check.message.contains("at 64x64 took 0.") && check.message.contains("usually 0.0"), "{check:?}");
    fake.script(|script| script.item = Duration::from_millis(20));
    assert_eq!(generate().await, 200);
    sidecar.until_check("engine_works", CheckStatus::Pass).await;
}
