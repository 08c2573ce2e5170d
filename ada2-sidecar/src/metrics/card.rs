//! The card under the names of nvidia_gpu_exporter: one label `uuid` without its prefix; bytes, ratios, watts, hertz.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use prometheus::{IntCounterVec, Opts};
use shared::health::GpuReport;

use super::Page;
use crate::{
    gpu::{GpuReading, GpuSample},
    readiness::Published,
    smi::View,
};

const MIB: f64 = 1_048_576.0;
const MHZ: f64 = 1e6;

pub(super) fn add(page: &Page, published: &Published) {
    let view = View { sample: published.gpu.as_deref(), report: &published.report, now: Instant::now() };
    let fresh = view.fresh().is_ok();
    page.gauge(
        "nvidia_smi_last_collect_success",
        "1 if the card was read lately.",
        f64::from(u8::from(fresh)),
    );
    if let (Some(reading), Some(sample)) = (view.reading(), view.sample) {
        let uuid = reading.report.uuid.trim_start_matches("GPU-").to_lowercase();
        let time = seconds(sample.wall);
        page.gauge("nvidia_smi_last_collect_success_timestamp_seconds", "When the card was read last.", time);
        xids(page, &uuid, sample);
        if fresh {
            card(page, &uuid, reading);
            processes(page, &uuid, reading);
        }
    }
}

fn card(page: &Page, uuid: &str, reading: &GpuReading) {
    let report = &reading.report;
    let gauge = |name: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            page.labelled(&format!("nvidia_smi_{name}"), help, &[("uuid", uuid)], value);
        }
    };
    let mib = |mib: u64| Some(mib as f64 * MIB);
    gauge("memory_total_bytes", "Memory of the card.", mib(report.memory_total));
    gauge("memory_reserved_bytes", "Memory that the driver keeps.", mib(report.memory_reserved));
    gauge("memory_used_bytes", "Memory that processes hold.", mib(report.memory_used));
    gauge("memory_free_bytes", "Memory that nobody holds.", mib(report.memory_free));
    gauge(
        "memory_effective_free_bytes",
        "Memory that the engine could have.",
        report.memory_effective_free.and_then(mib),
    );
    gauge("temperature_gpu", "Degrees Celsius.", report.temperature.map(f64::from));
    gauge("utilization_gpu_ratio", "Part of the time that some kernel ran.", ratio(report.utilization_gpu));
    gauge(
        "utilization_memory_ratio",
        "Part of the time that memory was accessed.",
        ratio(report.utilization_memory),
    );
    gauge("fan_speed_ratio", "Part of its full speed.", ratio(report.fan_speed));
    gauge("power_draw_watts", "Power drawn.", report.power_draw);
    gauge("power_limit_watts", "Power limit as set.", report.power_limit);
    gauge("enforced_power_limit_watts", "Power limit in force.", report.enforced_power_limit);
    clocks_and_faults(reading, gauge);
    counters(page, uuid, report);
    let info = [
        ("uuid", uuid),
        ("name", report.name.as_str()),
        ("driver_version", report.driver_version.as_deref().unwrap_or("")),
        ("cuda_version", report.cuda_version.as_deref().unwrap_or("")),
        ("pci_bus_id", report.pci_bus_id.as_deref().unwrap_or("")),
    ];
    page.labelled("nvidia_smi_gpu_info", "The card and its driver.", &info, 1.0);
}

fn clocks_and_faults(reading: &GpuReading, gauge: impl Fn(&str, &str, Option<f64>)) {
    let report = &reading.report;
    let hertz = |mhz: Option<u32>| mhz.map(|mhz| f64::from(mhz) * MHZ);
    gauge("clocks_current_sm_clock_hz", "Clock of the multiprocessors.", hertz(report.clocks_sm));
    gauge("clocks_current_memory_clock_hz", "Clock of the memory.", hertz(report.clocks_memory));
    gauge("clocks_current_graphics_clock_hz", "Clock of graphics.", hertz(report.clocks_graphics));
    gauge("pstate", "Performance state; 0 is the fastest.", number_behind(report.pstate.as_deref(), "P"));
    gauge("ecc_mode_current", "1 while error correction is on.", enabled(report.ecc_mode_current.as_deref()));
    gauge(
        "gpu_recovery_action",
        "0 none, 1 reset, 2 reboot, 3 drain P2P, 4 drain and reset.",
        reading.vitals.recovery_action.map(f64::from),
    );
    gauge("pcie_link_gen_current", "PCIe generation now.", report.pcie_gen_current.map(f64::from));
    gauge("pcie_link_width_current", "PCIe lanes now.", report.pcie_width_current.map(f64::from));
    gauge(
        "remapped_rows_correctable",
        "Memory rows replaced after correctable errors.",
        count(report.remapped_correctable),
    );
    gauge(
        "remapped_rows_uncorrectable",
        "Memory rows replaced after uncorrectable errors.",
        count(report.remapped_uncorrectable),
    );
    gauge("remapped_rows_pending", "1 while a row waits for a reset.", flag(reading.vitals.remap_pending));
    gauge("remapped_rows_failure", "1 if a row could not be replaced.", flag(reading.vitals.remap_failure));
    for (name, bit) in [
        ("gpu_idle", 0x01),
        ("sw_power_cap", 0x04),
        ("hw_slowdown", 0x08),
        ("sw_thermal_slowdown", 0x20),
        ("hw_thermal_slowdown", 0x40),
        ("hw_power_brake_slowdown", 0x80),
    ] {
        let set = reading.vitals.slowdown.map(|bits| bits & bit != 0);
        gauge(&format!("clocks_event_reasons_{name}"), "1 while this slows the clocks.", flag(set));
    }
}

fn counters(page: &Page, uuid: &str, report: &GpuReport) {
    for (kind, scope, value) in [
        ("uncorrected", "volatile", report.ecc_uncorrected_volatile),
        ("uncorrected", "aggregate", report.ecc_uncorrected_aggregate),
        ("corrected", "volatile", report.ecc_corrected_volatile),
        ("corrected", "aggregate", report.ecc_corrected_aggregate),
    ] {
        let Some(value) = value else { continue };
        let help = if scope == "volatile" {
            "Memory errors since the driver was loaded."
        } else {
            "Memory errors in the card's life."
        };
        let counter = IntCounterVec::new(
            Opts::new(format!("nvidia_smi_ecc_errors_{kind}_{scope}_total"), help),
            &["uuid"],
        )
        .expect("names are valid");
        counter.with_label_values(&[uuid]).inc_by(value);
        page.add(counter);
    }
}

fn xids(page: &Page, uuid: &str, sample: &GpuSample) {
    let labels = ["uuid", "xid"];
    let total =
        IntCounterVec::new(Opts::new("nvidia_smi_xid_errors_total", "Error reports of the driver."), &labels)
            .expect("names are valid");
    let last =
        page.family("nvidia_smi_xid_last_timestamp_seconds", "When the driver reported it last.", &labels);
    for (code, (count, wall)) in &sample.xids.totals {
        total.with_label_values(&[uuid, &code.to_string()]).inc_by(*count);
        last.with_label_values(&[uuid, &code.to_string()]).set(seconds(*wall));
    }
    page.add(total);
}

fn processes(page: &Page, uuid: &str, reading: &GpuReading) {
    let labels = ["uuid", "pid", "process_name"];
    let used =
        page.family("nvidia_smi_compute_app_used_memory_bytes", "Memory that a process holds.", &labels);
    for process in reading.processes.iter().flatten() {
        if let Some(bytes) = process.used {
            used.with_label_values(&[uuid, &process.pid.to_string(), &process.name]).set(bytes as f64);
        }
    }
}

fn seconds(wall: SystemTime) -> f64 {
    wall.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn ratio(percent: Option<u32>) -> Option<f64> {
    percent.map(|percent| f64::from(percent) / 100.0)
}

fn count(value: Option<u64>) -> Option<f64> {
    value.map(|value| value as f64)
}

fn flag(value: Option<bool>) -> Option<f64> {
    value.map(|value| f64::from(u8::from(value)))
}

fn enabled(word: Option<&str>) -> Option<f64> {
    word.map(|word| f64::from(u8::from(word == "Enabled")))
}

fn number_behind(text: Option<&str>, prefix: &str) -> Option<f64> {
    text?.strip_prefix(prefix)?.parse().ok()
}
