//! The card's memory in readiness: of other processes, of none, and without figures.

use e2e::sidecar::Sidecar;
use fakes::gpu::{FakeCard, Process, Scenario};
use serde_json::json;
use wire::health::{CheckStatus, ReadyStatus};

async fn text(url: &str) -> (u16, String) {
    let answer = fakes::http().get(url).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[tokio::test]
async fn vram_held_by_others_gates_and_names_them() {
    let card = FakeCard::new();
    card.set(|scenario| {
        scenario.gpus[0].memory.used = 41_000;
        scenario.gpus[0].processes =
            vec![Process { pid: 4_194_305, used_mib: Some(40_900), graphics: false }];
    });
    let library = card.library().display().to_string();
    let flags = ["--gpu", "required", "--nvml-lib", &library, "--min-free-vram", "4GiB"];
    let sidecar = Sidecar::builtin(&flags).await;
    // The engine is this process here, and its unit is not active: whose the memory is is unknown.
    sidecar.until_ready().await;
    let report = sidecar.readyz().await;
    let check = report.checks.iter().find(|check| check.name == "vram_headroom").unwrap();
    assert_eq!(check.status, CheckStatus::Pass, "4459 MiB are free, whoever holds the rest");
    let holds = |used: u64, listed: u64| {
        card.set(|scenario| {
            scenario.gpus[0].memory.used = used;
            scenario.gpus[0].processes[0].used_mib = Some(listed);
        });
    };
    holds(43_000, 42_900);
    fakes::eventually("a warning", async || {
        let report = sidecar.readyz().await;
        let check = report.checks.into_iter().find(|check| check.name == "vram_headroom").unwrap();
        (check.status == CheckStatus::Warn).then_some(check)
    })
    .await;
    assert!(sidecar.readyz().await.admits(), "it may be the engine's own");
}

#[tokio::test]
async fn memory_of_no_listed_process_gates_unless_warn_only() {
    let card = FakeCard::new();
    card.set(|scenario| scenario.gpus[0].memory.used = 43_000);
    let library = card.library().display().to_string();
    let flags = ["--gpu", "required", "--nvml-lib", &library, "--min-free-vram", "4GiB"];
    let sidecar = Sidecar::builtin(&flags).await;
    let check = sidecar.until_fails("vram_headroom").await;
    assert!(check.message.contains("42.0 GiB are held by no process that the driver lists"), "{check:?}");
    let answer = sidecar.generate(&json!({"prompt": "a", "size": "64x64"})).await;
    assert_eq!((answer.status, answer.code()), (503, "backend_not_ready"), "{answer:?}");
    assert!(answer.message().contains("held by no process that the driver lists"), "{answer:?}");
    let lenient = Sidecar::builtin(&[&flags[..], &["--warn-only", "vram_headroom"]].concat()).await;
    let report = lenient.until_ready().await;
    assert_eq!(report.status, ReadyStatus::Degraded);
    let check = report.checks.iter().find(|check| check.name == "vram_headroom").unwrap();
    assert_eq!(check.status, CheckStatus::Warn);
    assert!(check.message.ends_with("(only a warning, because warn_only names vram_headroom)"), "{check:?}");
    assert_eq!(lenient.generate(&json!({"prompt": "a", "size": "64x64", "steps": 1})).await.status, 200);
}

#[tokio::test]
async fn a_card_without_vram_figures_is_ready() {
    let card = FakeCard::new();
    card.set(|scenario| {
        let unified = serde_json::from_str::<Scenario>(
            r#"{"gpus":[{"name":"NVIDIA GB10","unsupported":["nvmlDeviceGetMemoryInfo_v2","nvmlDeviceGetMemoryInfo"]}]}"#,
        );
        *scenario = unified.unwrap();
    });
    let library = card.library().display().to_string();
    let flags = ["--gpu", "required", "--nvml-lib", &library, "--sample-interval", "20ms"];
    let sidecar = Sidecar::builtin(&flags).await;
    let report = sidecar.until_ready().await;
    assert_eq!(report.status, ReadyStatus::Ready);
    let check = report.checks.iter().find(|check| check.name == "vram_headroom").unwrap();
    assert_eq!(check.status, CheckStatus::Unknown);
    let gpu = report.gpu.unwrap();
    assert_eq!((gpu.name.as_str(), gpu.temperature, gpu.memory_total), ("NVIDIA GB10", Some(54), None));
    for (path, says) in [
        ("/healthz", "gpu 0 NVIDIA GB10 N/A MiB 54C ready\n"),
        ("/gpu", "NVIDIA GB10"),
        ("/gpu", "Not Supported"),
        ("/gpu?query=name,memory.total,temperature.gpu&format=csv,noheader", "NVIDIA GB10, [N/A], 54\n"),
        ("/readyz?verbose", "[+]vram_headroom unknown: "),
        ("/metrics", "nvidia_smi_temperature_gpu{"),
    ] {
        let (status, body) = text(&format!("{}{path}", sidecar.url)).await;
        assert!(status == 200 && body.contains(says), "{path}: {body}");
    }
    // The reading that shows that such a card still answers.
    card.set(|scenario| scenario.gpus[0].fail("nvmlDeviceGetTemperature", 999));
    let check = sidecar.until_fails("nvml").await;
    assert!(check.message.contains("reading the temperature"), "{check:?}");
}
