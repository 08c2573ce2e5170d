//! Readiness: engine and card, each fault with its own message, and work refused while it lasts.

use std::time::{Duration, Instant};

use e2e::sidecar::Sidecar;
use fakes::{
    gpu::FakeCard,
    invokeai::{FakeInvoke, Users},
};
use serde_json::json;
use wire::health::CheckStatus;

use crate::engine_behaviour::{refused, text};

#[tokio::test]
async fn a_paused_queue_gates_and_the_engine_gets_nothing() {
    let fake = FakeInvoke::start().await;
    let sidecar = Sidecar::invokeai(&fake.url(), &[]).await;
    sidecar.until_ready().await;
    fake.pause(true);
    let start = Instant::now();
    let check = sidecar.until_fails("engine_queue").await;
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert!(check.message.contains("resume it"), "{}", check.message);
    refused(&sidecar, "engine_queue: ").await;
    assert!(!fake.requests().iter().any(|request| request.method == "POST"), "nothing was enqueued");
    let (status, lines) = text(&format!("{}/readyz?verbose", sidecar.url)).await;
    assert_eq!(status, 503);
    assert!(
        lines.contains("[-]engine_queue failed: ") && lines.ends_with("readyz check failed\n"),
        "{lines}"
    );
    let (one, _) = text(&format!("{}/readyz/engine_queue", sidecar.url)).await;
    let (other, _) = text(&format!("{}/readyz/slots", sidecar.url)).await;
    assert_eq!((one, other), (503, 200));
    fake.pause(false);
    sidecar.until_ready().await;
}

#[tokio::test]
async fn an_invokeai_in_multi_user_mode_is_reported_as_such() {
    let fake = FakeInvoke::start().await;
    fake.script(|script| script.users = Users::Multiple);
    let sidecar = Sidecar::invokeai(&fake.url(), &[]).await;
    let check = sidecar.until_fails("engine_reachable").await;
    assert!(check.message.contains("asks for a login"), "{}", check.message);
    assert!(check.message.contains("multi-user mode") && check.message.contains("multiuser: false"));
    assert!(check.message.contains("engine_auth_file"), "{}", check.message);
    assert!(!check.message.contains("--engine-url"), "{}", check.message);
    refused(&sidecar, "multi-user mode").await;
    fake.script(|script| script.users = Users::Single);
    sidecar.until_ready().await;
}

/// Longer than a label may be: no DNS server gets it.
#[tokio::test]
async fn an_unresolvable_engine_is_distinguished_from_a_reset_connection() {
    let host = "a".repeat(70);
    let sidecar = Sidecar::invokeai(&format!("http://{host}:9090"), &[]).await;
    let check = sidecar.until_fails("engine_reachable").await;
    let expected = format!("the name \"{host}\" cannot be resolved: correct --engine-url");
    assert!(check.message.contains(&expected), "{}", check.message);
    let (status, page) = text(&format!("{}/some/page", sidecar.url)).await;
    assert!(status == 503 && page.contains("cannot be resolved"), "{status} {page}");
    let sidecar = Sidecar::comfyui(&format!("http://{host}:8188"), &[]).await;
    assert!(sidecar.until_fails("engine_reachable").await.message.contains(&expected));
}

#[tokio::test]
async fn without_a_supported_model_nothing_is_admitted() {
    let fake = FakeInvoke::start().await;
    fake.script(|script| script.models.clear());
    let sidecar = Sidecar::invokeai(&fake.url(), &[]).await;
    let check = sidecar.until_fails("engine_model").await;
    assert!(check.message.contains("install one"), "{}", check.message);
    refused(&sidecar, "engine_model: ").await;
}

#[tokio::test]
async fn a_gpu_is_required_unless_it_is_configured_as_optional() {
    let missing = ["--nvml-lib", "/nowhere/libnvidia-ml.so.1"];
    let strict = Sidecar::builtin(&[&["--gpu", "required"][..], &missing].concat()).await;
    fakes::eventually("the library is missing", async || {
        let check = strict.until_fails("nvml").await;
        check.message.contains("libnvidia-ml cannot be loaded").then_some(())
    })
    .await;
    refused(&strict, "nvml: ").await;
    let lenient = Sidecar::builtin(&missing).await;
    let report = lenient.until_ready().await;
    let nvml = report.checks.iter().find(|check| check.name == "nvml").unwrap();
    assert_eq!(nvml.status, CheckStatus::Unknown);
    assert_eq!(lenient.generate(&json!({"prompt": "a", "size": "64x64", "steps": 1})).await.status, 200);
}

#[tokio::test]
async fn the_cards_readings_are_reported_and_a_lost_card_gates_until_it_is_back() {
    let card = FakeCard::new();
    let library = card.library().display().to_string();
    let flags = ["--gpu", "required", "--nvml-lib", &library, "--sample-interval", "20ms"];
    let sidecar = Sidecar::builtin(&flags).await;
    let report = sidecar.until_ready().await;
    let gpu = report.gpu.unwrap();
    assert_eq!((gpu.memory_total, gpu.temperature), (Some(46_068), Some(54)));
    let (_, health) = text(&format!("{}/healthz", sidecar.url)).await;
    let line = format!(
        "ok\ngpu 0 NVIDIA RTX 6000 Ada Generation {}/46068 MiB 54C ready\n",
        gpu.memory_used.unwrap()
    );
    assert_eq!(health, line);
    card.set(|scenario| scenario.gpus[0].lost = true);
    let check = sidecar.until_fails("gpu_present").await;
    assert!(check.message.contains("GPU is lost"), "{}", check.message);
    refused(&sidecar, "GPU is lost").await;
    card.set(|scenario| scenario.gpus[0].lost = false);
    sidecar.until_ready().await;
}

#[tokio::test]
async fn a_hanging_driver_only_makes_the_reading_stale() {
    let card = FakeCard::new();
    let library = card.library().display().to_string();
    let sidecar =
        Sidecar::builtin(&["--gpu", "required", "--nvml-lib", &library, "--sample-interval", "20ms"]).await;
    sidecar.until_ready().await;
    card.set(|scenario| scenario.hang.push("nvmlDeviceGetMemoryInfo_v2".to_owned()));
    let check = sidecar.until_fails("snapshot_fresh").await;
    assert!(check.message.contains("hangs"), "{}", check.message);
    let start = Instant::now();
    assert_eq!(text(&format!("{}/healthz", sidecar.url)).await.0, 200);
    assert!(start.elapsed() < Duration::from_secs(5), "no request waits for the driver");
    sidecar.stop().await;
}
