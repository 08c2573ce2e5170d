//! The card under the names of nvidia_gpu_exporter: one label `uuid` without its prefix; bytes, ratios, watts, hertz.

use std::time::Instant;

use prometheus::{CounterVec, IntCounterVec, Opts};
use service::clock::unix_seconds_f64;
use wire::health::GpuReport;

use super::MetricsPage;
use crate::{
    gpu::{GpuProcessType, GpuReading, GpuSample},
    readiness::ReadinessSnapshot,
    smi::{
        self, GpuView,
        fields::{self, FieldUnit},
    },
};

const MIB: f64 = 1_048_576.0;
const MHZ: f64 = 1e6;
/// The exporter's label value for what is unknown.
const UNKNOWN: &str = "[N/A]";

pub(super) fn add(page: &MetricsPage, published: &ReadinessSnapshot) {
    let view =
        GpuView { sample: published.gpu_sample.as_deref(), report: &published.report, now: Instant::now() };
    let fresh = view.fresh_reading().is_ok();
    page.gauge(
        "nvidia_smi_last_collect_success",
        "1 if the last reading of the card is recent.",
        f64::from(u8::from(fresh)),
    );
    let failed = view.sample.map_or(0, |sample| sample.failed_total);
    page.counter("nvidia_smi_failed_scrapes_total", "Samples of the card that gave no reading.", failed);
    if let (Some(reading), Some(sample)) = (view.reading(), view.sample) {
        let uuid = reading.report.uuid.trim_start_matches("GPU-").to_lowercase();
        let time = unix_seconds_f64(sample.timestamp);
        page.gauge("nvidia_smi_last_collect_success_timestamp_seconds", "When the card was read last.", time);
        xids(page, &uuid, sample);
        if fresh {
            card(page, &uuid, reading);
            processes(page, &uuid, reading);
        }
    }
}

fn card(page: &MetricsPage, uuid: &str, reading: &GpuReading) {
    let report = &reading.report;
    let json = serde_json::to_value(report).expect("a report is JSON");
    for field in fields::supported().filter(|field| field.unit != FieldUnit::Text) {
        let number =
            smi::format_value(&field, &json).and_then(|text| exporter_value(field.name, &text, reading));
        let Some(number) = number else { continue };
        let (suffix, factor) = in_base_units(field.unit);
        let name = format!("nvidia_smi_{}{suffix}", field.name.replace('.', "_"));
        let help = format!("{} of nvidia-smi --query-gpu.", field.name);
        if name.ends_with("_total") {
            counter(page, &name, &help, uuid, number);
        } else {
            page.gauge_with_labels(&name, &help, &[("uuid", uuid)], number * factor);
        }
    }
    let gauge = |name: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            page.gauge_with_labels(&format!("nvidia_smi_{name}"), help, &[("uuid", uuid)], value);
        }
    };
    let effective = report.memory_effective_free.map(|mib| mib as f64 * MIB);
    gauge("memory_effective_free_bytes", "Memory available to the engine.", effective);
    if let Some(joules) = report.energy_joules {
        let help = "Energy drawn by the card since the driver was loaded.";
        counter(page, "nvidia_smi_energy_joules_total", help, uuid, joules);
    }
    info(page, uuid, report);
}

/// The metric's suffix for a unit, and the factor to Prometheus' base unit.
const fn in_base_units(unit: FieldUnit) -> (&'static str, f64) {
    match unit {
        FieldUnit::Text | FieldUnit::Unitless => ("", 1.0),
        FieldUnit::Mib => ("_bytes", MIB),
        FieldUnit::Percent => ("_ratio", 0.01),
        FieldUnit::Watts => ("_watts", 1.0),
        FieldUnit::Mhz => ("_clock_hz", MHZ),
        FieldUnit::Micros => ("_seconds", 1e-6),
    }
}

/// The exporter's number for a value: affirmative values are 1, masks and enumerations have NVML's numbers.
fn exporter_value(name: &str, text: &str, reading: &GpuReading) -> Option<f64> {
    if name == "gpu_recovery_action" {
        return reading.health.recovery_action.map(f64::from);
    }
    match text {
        "Enabled" | "Yes" | "Active" | "Exclusive_Thread" => Some(1.0),
        "Disabled" | "No" | "Not Active" | "Default" => Some(0.0),
        "Prohibited" => Some(2.0),
        "Exclusive_Process" => Some(3.0),
        _ => match (text.strip_prefix('P'), text.strip_prefix("0x")) {
            (Some(state), _) => state.parse().ok(),
            (_, Some(mask)) => u64::from_str_radix(mask, 16).ok().map(|mask| mask as f64),
            _ => text.parse().ok(),
        },
    }
}

fn counter(page: &MetricsPage, name: &str, help: &str, uuid: &str, value: f64) {
    let counter = CounterVec::new(Opts::new(name, help), &["uuid"]).expect("names are valid");
    counter.with_label_values(&[uuid]).inc_by(value);
    page.add(counter);
}

fn info(page: &MetricsPage, uuid: &str, report: &GpuReport) {
    let or_unknown = |text: &Option<String>| text.clone().unwrap_or_else(|| UNKNOWN.to_owned());
    let index = report.index.to_string();
    let labels = [
        ("uuid", uuid.to_owned()),
        ("index", index.clone()),
        ("name", report.name.clone()),
        ("driver_version", or_unknown(&report.driver_version)),
        ("cuda_version", or_unknown(&report.cuda_version)),
        ("driver_model_current", UNKNOWN.to_owned()),
        ("driver_model_pending", UNKNOWN.to_owned()),
        ("vbios_version", or_unknown(&report.vbios_version)),
        ("serial", or_unknown(&report.serial)),
        ("compute_cap", or_unknown(&report.compute_cap)),
        ("pci_bus_id", or_unknown(&report.pci_bus_id)),
        ("pci_sub_device_id", or_unknown(&report.pci_sub_device_id)),
    ];
    let labels: Vec<_> = labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
    page.gauge_with_labels("nvidia_smi_gpu_info", "The card and its driver.", &labels, 1.0);
}

fn xids(page: &MetricsPage, uuid: &str, sample: &GpuSample) {
    let labels = ["uuid", "xid"];
    let total =
        IntCounterVec::new(Opts::new("nvidia_smi_xid_errors_total", "Error reports of the driver."), &labels)
            .expect("names are valid");
    let last = page.gauge_family(
        "nvidia_smi_xid_last_timestamp_seconds",
        "When the driver last reported it.",
        &labels,
    );
    for (code, (count, wall)) in &sample.xids.totals {
        total.with_label_values(&[uuid, &code.to_string()]).inc_by(*count);
        last.with_label_values(&[uuid, &code.to_string()]).set(unix_seconds_f64(*wall));
    }
    page.add(total);
}

/// Compute processes as the exporter lists them; graphics-only processes are left out.
fn processes(page: &MetricsPage, uuid: &str, reading: &GpuReading) {
    let has_processes = f64::from(u8::from(reading.processes.is_some()));
    page.gauge(
        "nvidia_smi_compute_apps_last_collect_success",
        "1 if the driver lists its processes.",
        has_processes,
    );
    let Some(processes) = &reading.processes else { return };
    let computing: Vec<_> =
        processes.iter().filter(|process| process.process_type != GpuProcessType::Graphics).collect();
    let count = computing.len() as f64;
    page.gauge_with_labels("nvidia_smi_compute_apps", "Compute processes.", &[("uuid", uuid)], count);
    let labels = ["uuid", "pid", "process_name"];
    let info = page.gauge_family("nvidia_smi_compute_app_info", "A compute process.", &labels);
    for process in computing {
        info.with_label_values(&[uuid, &process.pid.to_string(), &process.name]).set(1.0);
    }
    let used = page.gauge_family(
        "nvidia_smi_compute_app_used_memory_bytes",
        "Memory that a process holds.",
        &labels,
    );
    for process in processes {
        if let Some(bytes) = process.used {
            used.with_label_values(&[uuid, &process.pid.to_string(), &process.name]).set(bytes as f64);
        }
    }
}
