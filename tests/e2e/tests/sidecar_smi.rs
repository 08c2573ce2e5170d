//! The card as public scripts and dashboards ask for it: nvidia-smi's CSV, and nvidia_gpu_exporter's metrics.

use std::path::Path;

use e2e::sidecar::Sidecar;
use fakes::{
    gpu::{FakeCard, Process},
    promtool::lint,
    reference,
};
use serde_json::{Value, json};
use wire::health::CheckStatus;

/// What the panels of Grafana's dashboard 14574 ask for of one card that is no partitioned one; where a panel takes one of
/// two names, the newer.
const DASHBOARD: [&str; 33] = [
    "index",
    "utilization_gpu_ratio",
    "utilization_memory_ratio",
    "temperature_gpu",
    "power_draw_watts",
    "enforced_power_limit_watts",
    "power_limit_watts",
    "power_default_limit_watts",
    "memory_used_bytes",
    "memory_total_bytes",
    "fan_speed_ratio",
    "pstate",
    "compute_mode",
    "gpu_recovery_action",
    "clocks_current_graphics_clock_hz",
    "clocks_current_memory_clock_hz",
    "clocks_current_sm_clock_hz",
    "clocks_current_video_clock_hz",
    "clocks_max_graphics_clock_hz",
    "clocks_max_memory_clock_hz",
    "clocks_event_reasons_applications_clocks_setting",
    "clocks_event_reasons_gpu_idle",
    "clocks_event_reasons_hw_power_brake_slowdown",
    "clocks_event_reasons_hw_thermal_slowdown",
    "clocks_event_reasons_sw_power_cap",
    "clocks_event_reasons_sw_thermal_slowdown",
    "clocks_event_reasons_sync_boost",
    "ecc_errors_uncorrected_aggregate_total",
    "energy_joules_total",
    "xid_errors_total",
    "xid_last_timestamp_seconds",
    "compute_app_info",
    "compute_app_used_memory_bytes",
];

async fn start_watching(card: &FakeCard) -> Sidecar {
    let library = card.library().display().to_string();
    let flags = ["--gpu", "required", "--nvml-lib", &library, "--sample-interval", "20ms"];
    let sidecar = Sidecar::builtin(&flags).await;
    sidecar.until_ready().await;
    sidecar
}

async fn get(sidecar: &Sidecar, path: &str) -> (u16, String) {
    let answer = fakes::http().get(format!("{}{path}", sidecar.url)).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[tokio::test]
async fn csv_equals_nvidia_smis_byte_for_byte() {
    let card = FakeCard::new();
    card.set(|scenario| {
        let gpu = &mut scenario.gpus[0];
        gpu.memory.used = 609;
        gpu.utilization.gpu = 97;
    });
    let sidecar = start_watching(&card).await;
    for (path, expected) in [
        ("/gpu?query=memory.free,temperature.gpu&format=csv,noheader,nounits", "44850, 54\n"),
        (
            "/gpu?query=name,memory.total,utilization.gpu,power.draw,pstate,clocks.sm&format=csv",
            "name, memory.total [MiB], utilization.gpu [%], power.draw [W], pstate, clocks.current.sm [MHz]\n\
             NVIDIA RTX 6000 Ada Generation, 46068 MiB, 97 %, 21.50 W, P8, 210 MHz\n",
        ),
        (
            "/gpu?query=uuid,driver_version,fan.speed,ecc.errors.uncorrected.volatile.total&format=csv,noheader",
            "GPU-6adaf00d-1234-5678-9abc-def012345678, 595.80, 30 %, 0\n",
        ),
        ("/gpu?query=memory.free%2Cindex&format=csv%2Cnounits", "memory.free [MiB], index\n44850, 0\n"),
    ] {
        assert_eq!(get(&sidecar, path).await, (200, expected.to_owned()), "{path}");
    }
    let (_, stamped) = get(&sidecar, "/gpu?query=timestamp&format=csv,noheader").await;
    let shape: String = stamped.chars().map(|char| if char.is_ascii_digit() { '0' } else { char }).collect();
    assert_eq!(shape, "0000/00/00 00:00:00.000\n");
    for (query, expected) in [
        // GPUtil, systeminformation; spaces as people write them.
        (
            "index,uuid,utilization.gpu,memory.total,memory.used,memory.free,driver_version,name,gpu_serial,\
             display_active,display_mode,temperature.gpu&format=csv,noheader,nounits",
            "0, GPU-6adaf00d-1234-5678-9abc-def012345678, 97, 46068, 609, 44850, 595.80, NVIDIA RTX 6000 Ada Generation, \
             1324023012345, Disabled, Disabled, 54\n",
        ),
        (
            "driver_version,pci.sub_device_id,name,pci.bus_id,fan.speed,memory.total,memory.used,memory.free,\
             utilization.gpu,utilization.memory,temperature.gpu,temperature.memory,power.draw,power.limit,clocks.gr,\
             clocks.mem&format=csv,noheader,nounits",
            "595.80, 0x16A110DE, NVIDIA RTX 6000 Ada Generation, 00000000:01:00.0, 30, 46068, 609, 44850, 97, 0, 54, [N/A], \
             21.50, 300.00, 210, 405\n",
        ),
        (
            "pcie.link.gen.gpucurrent,+clocks.max.gr,clocks_throttle_reasons.active,hostname&format=csv,+nounits",
            "pcie.link.gen.gpucurrent, clocks.max.graphics [MHz], clocks_event_reasons.active, hostname\n1, 3105, \
             0x0000000000000001, [N/A]\n",
        ),
    ] {
        assert_eq!(
            get(&sidecar, &format!("/gpu?query={query}")).await,
            (200, expected.to_owned()),
            "{query}"
        );
    }
}

#[tokio::test]
async fn invalid_queries_are_refused() {
    let card = FakeCard::new();
    let sidecar = start_watching(&card).await;
    for (path, param, message) in [
        ("/gpu?query=memory.fre&format=csv", "query", "Nearest: memory.free"),
        ("/gpu?query=name&format=xml", "format", "csv,noheader,nounits"),
    ] {
        let (status, body) = get(&sidecar, path).await;
        let envelope: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &envelope["error"]["param"]), (400, &json!(param)), "{body}");
        assert!(envelope["error"]["message"].as_str().unwrap().contains(message), "{body}");
    }
}

#[tokio::test]
async fn metrics_follow_the_exporters_names_and_promtool_accepts_them() {
    let card = FakeCard::new();
    card.set(|scenario| {
        scenario.gpus[0].memory.used = 1024;
        scenario.gpus[0].processes =
            vec![Process { pid: std::process::id(), used_mib: Some(1024), graphics: false }];
    });
    let sidecar = start_watching(&card).await;
    card.xid(31);
    sidecar.until_check("xid", CheckStatus::Warn).await;
    sidecar.generate(&json!({"prompt": "a", "size": "64x64", "steps": 1})).await;
    get(&sidecar, "/no/such/path").await;
    let (status, text) = get(&sidecar, "/metrics").await;
    assert_eq!(status, 200);
    let uuid = r#"uuid="6adaf00d-1234-5678-9abc-def012345678""#;
    for line in [
        &format!("nvidia_smi_memory_total_bytes{{{uuid}}} 48305799168"),
        &format!("nvidia_smi_temperature_gpu{{{uuid}}} 54"),
        &format!("nvidia_smi_power_draw_watts{{{uuid}}} 21.5"),
        &format!("nvidia_smi_pstate{{{uuid}}} 8"),
        &format!("nvidia_smi_clocks_current_sm_clock_hz{{{uuid}}} 210000000"),
        &format!("nvidia_smi_ecc_errors_uncorrected_volatile_total{{{uuid}}} 0"),
        &format!("nvidia_smi_xid_errors_total{{{uuid},xid=\"31\"}} 1"),
        "nvidia_smi_last_collect_success 1",
        "nvidia_smi_failed_scrapes_total 0",
        "ada2_sidecar_ready 1",
        r#"ada2_sidecar_check_status{check="xid",status="warn"} 1"#,
        r#"ada2_sidecar_check_status{check="ecc",status="pass"} 1"#,
        &format!("nvidia_smi_index{{{uuid}}} 0"),
        &format!("nvidia_smi_clocks_current_video_clock_hz{{{uuid}}} 1185000000"),
        &format!("nvidia_smi_clocks_max_graphics_clock_hz{{{uuid}}} 3105000000"),
        &format!("nvidia_smi_power_default_limit_watts{{{uuid}}} 300"),
        &format!("nvidia_smi_fan_speed_ratio{{{uuid}}} 0.3"),
        &format!("nvidia_smi_compute_mode{{{uuid}}} 0"),
        &format!("nvidia_smi_gpu_recovery_action{{{uuid}}} 0"),
        &format!("nvidia_smi_clocks_event_reasons_gpu_idle{{{uuid}}} 1"),
        &format!("nvidia_smi_clocks_event_reasons_sync_boost{{{uuid}}} 0"),
        &format!("nvidia_smi_energy_joules_total{{{uuid}}} 1234.567"),
        &format!("nvidia_smi_compute_apps{{{uuid}}} 1"),
        "nvidia_smi_compute_apps_last_collect_success 1",
        r#"ada2_sidecar_jobs_total{result="done"} 1"#,
        r#"ada2_sidecar_jobs_total{result="cancelled"} 0"#,
        r#"ada2_sidecar_requests_total{route="/v1/images/generations",status="200"} 1"#,
        r#"ada2_sidecar_requests_total{route="other",status="404"} 1"#,
        "ada2_sidecar_slots_limit 4",
        "ada2_sidecar_log_lines_dropped_total 0",
    ] {
        assert!(text.lines().any(|other| other == line), "{line} in\n{text}");
    }
    assert_has_dashboard_metrics(&text, uuid);
    assert_reference_has_metrics(&text);
    assert!(!text.contains("/no/such/path"), "clients cannot create label values");
    match lint(&text) {
        Some(complaints) => assert_eq!(complaints, "", "{text}"),
        None => println!("skipped: promtool is not on PATH"),
    }
}

fn assert_reference_has_metrics(text: &str) {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ada2-sidecar/REFERENCE.md");
    let readings = reference::reading_metrics(&page);
    let is_reading = |name: &String| {
        let suffixes = ["", "_bytes", "_ratio", "_watts", "_clock_hz"];
        suffixes.iter().any(|suffix| name.strip_suffix(suffix).is_some_and(|name| readings.contains(name)))
    };
    let scraped = reference::metric_names(text).filter(|name| !is_reading(name));
    // Known only where the engine's unit is.
    let of_engine = "nvidia_smi_memory_effective_free_bytes".to_owned();
    reference::check_names(&page, "metrics", scraped.chain([of_engine]));
}

fn assert_has_dashboard_metrics(text: &str, uuid: &str) {
    let info = text.lines().find(|line| line.starts_with("nvidia_smi_gpu_info{")).unwrap();
    for label in [
        r#"index="0""#,
        r#"name="NVIDIA RTX 6000 Ada Generation""#,
        r#"vbios_version="95.02.3C.00.05""#,
        r#"driver_model_current="[N/A]""#,
        r#"pci_sub_device_id="0x16A110DE""#,
        r#"compute_cap="8.9""#,
    ] {
        assert!(info.contains(label), "{label} in {info}");
    }
    for name in DASHBOARD {
        let is_it = |line: &str| line.starts_with(&format!("nvidia_smi_{name}{{")) && line.contains(uuid);
        assert!(text.lines().any(is_it), "{name}");
    }
}
