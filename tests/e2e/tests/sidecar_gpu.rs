//! The card over HTTP: as nvidia-smi prints it, for Prometheus, and every latch seen from outside.

use std::time::{Duration, Instant};

use e2e::sidecar::Sidecar;
use fakes::gpu::{FakeCard, Process};
use serde_json::{Value, json};
use wire::health::{CheckStatus, ReadyStatus};

const NO_SUCH_PID: u32 = 4_194_305;

async fn start_watching(card: &FakeCard) -> Sidecar {
    start_watching_every(card, "20ms").await
}

async fn start_watching_every(card: &FakeCard, interval: &str) -> Sidecar {
    let library = card.library().display().to_string();
    let flags = ["--gpu", "required", "--nvml-lib", &library, "--sample-interval", interval];
    let sidecar = Sidecar::builtin(&flags).await;
    sidecar.until_ready().await;
    sidecar
}

async fn get(sidecar: &Sidecar, path: &str) -> (u16, String) {
    get_as(sidecar, path, "*/*").await
}

async fn get_as(sidecar: &Sidecar, path: &str, accept: &str) -> (u16, String) {
    let answer =
        fakes::http().get(format!("{}{path}", sidecar.url)).header("accept", accept).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[tokio::test]
async fn the_table_and_json_report_the_card_its_processes_and_the_readiness() {
    let card = FakeCard::new();
    card.set(|scenario| {
        scenario.gpus[0].memory.used = 12_034;
        scenario.gpus[0].processes =
            vec![Process { pid: NO_SUCH_PID, used_mib: Some(12_000), graphics: false }];
    });
    let sidecar = start_watching(&card).await;
    let (status, table) = get(&sidecar, "/gpu").await;
    assert_eq!(status, 200);
    for text in [
        "NVIDIA RTX 6000 Ada Gene...",
        "Driver Version: 595.80",
        "CUDA Version: 13.1",
        "12034MiB /  46068MiB",
        "54C    P8",
        "4194305    C  [Not Found]",
        "12000MiB",
    ] {
        assert!(table.contains(text), "{text}:\n{table}");
    }
    assert_eq!(table.lines().last(), Some("readiness: ready"), "{table}");
    let (status, body) = get_as(&sidecar, "/gpu", "application/json").await;
    let gpu: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &gpu["memory.used"], &gpu["temperature.gpu"]), (200, &json!(12_034), &json!(54)));
    let process = json!({"pid": NO_SUCH_PID, "process_name": "[Not Found]", "type": "C", "used_gpu_memory": 12_000, "unit": null});
    assert_eq!((&gpu["processes"], &gpu["readiness"]), (&json!([process]), &json!("ready")));
    assert!(gpu["sample_age_seconds"].as_f64().unwrap() < 5.0);
    assert_eq!(gpu["last_xid"], Value::Null);
}

#[tokio::test]
async fn without_a_card_nvidia_smis_message_is_printed() {
    let card = FakeCard::new();
    let sidecar = start_watching(&card).await;
    card.set(|scenario| scenario.gpus[0].lost = true);
    sidecar.until_fails("gpu_present").await;
    let (status, table) = get(&sidecar, "/gpu").await;
    assert!(status == 200 && table.starts_with("GPU is lost\n"), "{table}");
    assert!(
        table.lines().last().unwrap().starts_with("readiness: not_ready: gpu_present: GPU is lost"),
        "{table}"
    );
    let (status, body) = get(&sidecar, "/gpu?query=memory.free&format=csv,noheader").await;
    assert!(status == 503 && body.contains("GPU is lost"), "a script must not read an old number: {body}");
    let (_, body) = get_as(&sidecar, "/gpu", "application/json").await;
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["error"], "GPU is lost");
}

#[tokio::test]
async fn no_request_calls_the_driver() {
    let card = FakeCard::new();
    // The sampler itself looks once in 5 s at most here: every further call would be a request's.
    let sidecar = start_watching_every(&card, "5s").await;
    let paths = [
        "/healthz",
        "/readyz",
        "/readyz?verbose",
        "/readyz/ecc",
        "/gpu",
        "/gpu?query=memory.free&format=csv",
        "/metrics",
    ];
    let quiet = async || {
        let before = card.all_calls();
        tokio::time::sleep(Duration::from_millis(100)).await;
        (card.all_calls() == before).then_some(before)
    };
    let before = fakes::eventually("the first look is over", quiet).await;
    let start = Instant::now();
    for path in paths.iter().cycle().take(70) {
        assert_eq!(get(&sidecar, path).await.0, 200, "{path}");
    }
    let answer = sidecar.generate(&json!({"prompt": "a", "size": "64x64", "steps": 1})).await;
    assert_eq!(answer.status, 200);
    let looks = 1 + usize::try_from(start.elapsed().as_secs() / 5).unwrap();
    let calls = card.all_calls() - before;
    assert!(calls <= looks * 60, "{calls} calls, and 71 requests, in {:?}", start.elapsed());
    assert!(calls == 0 || start.elapsed() > Duration::from_secs(1), "{calls} calls at once");
}

#[tokio::test]
async fn a_hung_driver_delays_no_request() {
    let card = FakeCard::new();
    let sidecar = start_watching(&card).await;
    card.set(|scenario| scenario.hang.push("nvmlDeviceGetMemoryInfo_v2".to_owned()));
    sidecar.until_fails("snapshot_fresh").await;
    for path in ["/healthz", "/gpu", "/metrics"] {
        assert_eq!(get(&sidecar, path).await.0, 200, "{path}");
    }
    let (_, table) = get(&sidecar, "/gpu").await;
    assert!(table.contains("46068MiB") && table.contains("readiness: not_ready: snapshot_fresh"), "{table}");
    assert_eq!(get(&sidecar, "/gpu?query=memory.free&format=csv").await.0, 503, "an old number is none");
    let answer = sidecar.generate(&json!({"prompt": "a"})).await;
    assert!(answer.status == 503 && answer.message().contains("hangs"), "{answer:?}");
    card.set(|scenario| scenario.hang.clear());
    sidecar.until_ready().await;
}

#[tokio::test]
async fn a_fatal_xid_gates_at_once_and_survives_restarts_until_it_is_acknowledged() {
    let card = FakeCard::new();
    let state = fakes::fresh_dir("latch");
    let library = card.library().display().to_string();
    let flags = ["--engine", "builtin", "--gpu", "required", "--nvml-lib", &library];
    let sidecar = Sidecar::start_in(state.clone(), &flags).await;
    sidecar.until_ready().await;
    card.xid(79);
    let check = sidecar.until_fails("xid").await;
    assert!(check.message.contains("XID 79 (GPU has fallen off the bus)"), "{check:?}");
    let (_, table) = get(&sidecar, "/gpu").await;
    assert!(table.contains("last XID 79"), "{table}");
    fakes::eventually("it is stored", async || {
        std::fs::read_to_string(state.join("latch.json")).ok().filter(|text| text.contains("\"79\""))
    })
    .await;
    sidecar.stop().await;

    let sidecar = Sidecar::start_in(state.clone(), &flags).await;
    let check = sidecar.until_fails("xid").await;
    assert!(check.message.contains("ada2-sidecar ack"), "{check:?}");
    // What `ada2-sidecar ack` does while a service runs.
    std::fs::write(state.join("ack"), "").unwrap();
    sidecar.until_ready().await;
    fakes::eventually("it is taken", async || (!state.join("ack").exists()).then_some(())).await;
    assert!(!std::fs::read_to_string(state.join("latch.json")).unwrap().contains("\"79\""));
    card.xid(31);
    let check = sidecar.until_check("xid", CheckStatus::Warn).await;
    assert!(check.message.contains("XID 31 (GPU memory page fault)"), "{check:?}");
    assert_eq!(sidecar.readyz().await.status, ReadyStatus::Degraded, "a program's fault never gates");
}

#[tokio::test]
async fn reset_advice_unloads_the_library_and_its_end_clears_a_fatal_xid() {
    let card = FakeCard::new();
    let sidecar = start_watching(&card).await;
    card.xid(95);
    sidecar.until_fails("xid").await;
    card.set(|scenario| scenario.gpus[0].recovery_action = 1);
    let check = sidecar.until_fails("recovery_action").await;
    assert!(check.message.contains("--gpu-reset"), "{check:?}");
    fakes::eventually("the driver can be reset", async || (card.calls("nvmlShutdown") > 0).then_some(()))
        .await;
    card.set(|scenario| scenario.gpus[0].recovery_action = 0);
    sidecar.until_ready().await;
}

#[tokio::test]
async fn a_reloaded_driver_clears_latches() {
    let card = FakeCard::new();
    let sidecar = start_watching(&card).await;
    card.set(|scenario| scenario.gpus[0].ecc.uncorrected.volatile = 3);
    let check = sidecar.until_fails("ecc").await;
    assert!(check.message.contains("rose above the 0"), "{check:?}");
    card.xid(119);
    sidecar.until_fails("xid").await;
    // The module is unloaded while the card is away, and loaded again.
    card.set(|scenario| {
        scenario.gpus[0].lost = true;
        scenario.init_error = 9;
    });
    let check = sidecar.until_fails("nvml").await;
    assert!(check.message.contains("modprobe"), "{check:?}");
    card.set(|scenario| {
        scenario.gpus[0].lost = false;
        scenario.gpus[0].ecc.uncorrected.volatile = 0;
        scenario.init_error = 0;
    });
    sidecar.until_ready().await;
}

#[tokio::test]
async fn a_driver_upgrade_while_running_is_degraded() {
    let card = FakeCard::new();
    let sidecar = start_watching(&card).await;
    let library = card.library();
    let new = library.with_file_name("new");
    std::fs::copy(&library, &new).unwrap();
    std::fs::rename(&new, &library).unwrap();
    let check = sidecar.until_check("driver", CheckStatus::Warn).await;
    assert!(check.message.contains("upgraded while it is loaded: 595.80 runs"), "{check:?}");
    let report = sidecar.readyz().await;
    assert_eq!(report.status, ReadyStatus::Degraded);
    assert_eq!(sidecar.generate(&json!({"prompt": "a", "size": "64x64", "steps": 1})).await.status, 200);
}

#[tokio::test]
async fn a_failed_call_clears_no_failure_of_the_last_reading() {
    let card = FakeCard::new();
    let sidecar = start_watching_every(&card, "200ms").await;
    card.set(|scenario| scenario.gpus[0].remapped_rows.failure = true);
    sidecar.until_fails("row_remap").await;
    card.set(|scenario| scenario.gpus[0].fail("nvmlDeviceGetMemoryInfo_v2", 999));
    fakes::eventually("two calls have failed", async || {
        let report = sidecar.readyz().await;
        assert!(!report.admits(), "{report:?}");
        report
            .checks
            .iter()
            .any(|check| check.name == "nvml" && check.status == CheckStatus::Fail)
            .then_some(())
    })
    .await;
}
