//! The table that `nvidia-smi` prints, with the sidecar's own lines below it.

use std::fmt::Write;

use wire::health::GpuReport;

use super::{GpuView, MIB, csv::timestamp};
use crate::{
    gpu::{GpuProcess, GpuReading},
    readiness,
};

/// Characters between the outer bars.
const WIDTH: usize = 89;

/// The last line is the readiness.
pub(crate) fn table(view: &GpuView<'_>) -> String {
    let mut text = match view.reading() {
        Some(reading) => card(reading),
        None => format!("{}\n", view.unavailable_reason()),
    };
    if let Some(sample) = view.sample {
        let age = view.now.saturating_duration_since(sample.taken).as_secs_f64();
        let _ = writeln!(text, "sampled {} ({age:.1} s ago)", timestamp(sample.timestamp));
        if let Some(xid) = sample.xids.recent.last() {
            let age = view.now.saturating_duration_since(xid.at).as_secs();
            let _ = writeln!(
                text,
                "last XID {} ({}) {age} s ago",
                xid.code,
                readiness::xid_description(xid.code)
            );
        }
    }
    let _ = writeln!(text, "readiness: {}", view.report.summary());
    text
}

fn card(reading: &GpuReading) -> String {
    let report = &reading.report;
    let mut text = String::new();
    let title = format!(
        "ada2-sidecar {:<20} Driver Version: {:<14} CUDA Version: {}",
        env!("CARGO_PKG_VERSION"),
        or_na(report.driver_version.as_deref()),
        or_na(report.cuda_version.as_deref())
    );
    rule(&mut text, '+', '-', &[WIDTH]);
    row(&mut text, &[(title, WIDTH)]);
    rule(&mut text, '|', '-', &[41, 24, 22]);
    for headings in [
        ["GPU  Name                 Persistence-M", "Bus-Id          Disp.A", "Volatile Uncorr. ECC"],
        ["Fan  Temp   Perf          Pwr:Usage/Cap", "          Memory-Usage", "GPU-Util  Compute M."],
    ] {
        row(&mut text, &[(headings[0].into(), 41), (headings[1].into(), 24), (headings[2].into(), 22)]);
    }
    rule(&mut text, '|', '=', &[41, 24, 22]);
    for cells in card_rows(report) {
        let [left, middle, right] = cells;
        row(&mut text, &[(left, 41), (middle, 24), (right, 22)]);
    }
    rule(&mut text, '+', '-', &[41, 24, 22]);
    processes(&mut text, report.index, reading.processes.as_deref());
    let vram = match report.memory_effective_free {
        Some(mib) => format!("{mib} MiB of VRAM available to the engine"),
        None if reading.memory.is_none() => "the card has no memory of its own".to_owned(),
        None => "VRAM available to the engine unknown".to_owned(),
    };
    let _ = writeln!(text, "{vram}; recovery action {}", or_na(report.recovery_action.as_deref()));
    text
}

fn card_rows(report: &GpuReport) -> [[String; 3]; 2] {
    let on_off = |mode: Option<&str>| match mode {
        Some("Enabled") => "On",
        Some("Disabled") => "Off",
        _ => "N/A",
    };
    let number = |value: Option<u32>, unit: &str| {
        value.map_or_else(|| "N/A".to_owned(), |value| format!("{value}{unit}"))
    };
    let watts = |value: Option<f64>| value.map_or_else(|| "N/A".to_owned(), |watts| format!("{watts:.0}W"));
    // As in nvidia-smi: a count while ECC is enabled.
    let ecc = match report.ecc_mode_current.as_deref() {
        Some("Disabled") => "Off".to_owned(),
        _ => report.ecc_uncorrected_volatile.map_or_else(|| "N/A".to_owned(), |count| count.to_string()),
    };
    let name: String = if report.name.chars().count() > 27 {
        report.name.chars().take(24).chain("...".chars()).collect()
    } else {
        report.name.clone()
    };
    [
        [
            format!("{:>3}  {name:<28} {:>5}", report.index, on_off(report.persistence_mode.as_deref())),
            format!(
                "{:>18} {:>3}",
                or_na(report.pci_bus_id.as_deref()),
                on_off(report.display_active.as_deref())
            ),
            format!("{ecc:>20}"),
        ],
        [
            format!(
                "{:>3}  {:>4}    {:<3}{:>15} / {:>5}",
                number(report.fan_speed, "%"),
                number(report.temperature, "C"),
                or_na(report.pstate.as_deref()),
                watts(report.power_draw),
                watts(report.enforced_power_limit.or(report.power_limit))
            ),
            match (report.memory_used, report.memory_total) {
                (Some(used), Some(total)) => format!("{used:>7}MiB / {total:>6}MiB"),
                _ => "Not Supported".to_owned(),
            },
            format!(
                "{:>7} {:>12}",
                number(report.utilization_gpu, "%"),
                or_na(report.compute_mode.as_deref())
            ),
        ],
    ]
}

fn processes(text: &mut String, index: u32, processes: Option<&[GpuProcess]>) {
    rule(text, '+', '-', &[WIDTH]);
    row(text, &[("Processes:".into(), WIDTH)]);
    let headings = format!(
        " {:>3} {:>8} {:>4}  {:<24} {:<28} {:>13}",
        "GPU", "PID", "Type", "Process name", "Unit", "GPU Memory"
    );
    row(text, &[(headings, WIDTH)]);
    rule(text, '|', '=', &[WIDTH]);
    let placeholder = match processes {
        None => Some("  Not reported by the driver"),
        Some([]) => Some("  No running processes found"),
        Some(_) => None,
    };
    if let Some(placeholder) = placeholder {
        row(text, &[(placeholder.into(), WIDTH)]);
    }
    for process in processes.unwrap_or_default() {
        let used = process.used.map_or_else(|| "N/A".to_owned(), |bytes| format!("{}MiB", bytes / MIB));
        let unit = process.unit.as_deref().unwrap_or("-");
        let line = format!(
            " {index:>3} {:>8} {:>4}  {:<24.24} {unit:<28.28} {used:>13}",
            process.pid,
            process.process_type.as_str(),
            process.name
        );
        row(text, &[(line, WIDTH)]);
    }
    rule(text, '+', '-', &[WIDTH]);
}

fn or_na(text: Option<&str>) -> &str {
    text.unwrap_or("N/A")
}

fn rule(text: &mut String, corner: char, dash: char, widths: &[usize]) {
    let cells: Vec<_> = widths.iter().map(|width| dash.to_string().repeat(*width)).collect();
    let last = if corner == '|' && dash == '=' { '|' } else { '+' };
    let _ = writeln!(text, "{corner}{}{last}", cells.join("+"));
}

fn row(text: &mut String, cells: &[(String, usize)]) {
    for (cell, width) in cells {
        let inner_width = width - 2;
        let _ = write!(text, "| {cell:<inner_width$} ");
    }
    text.push_str("|\n");
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::gpu::{GpuMemory, GpuProcessType, HealthReading};

    fn report() -> GpuReport {
        GpuReport {
            name: "NVIDIA RTX 6000 Ada Generation".into(),
            driver_version: Some("595.80".into()),
            cuda_version: Some("13.1".into()),
            pci_bus_id: Some("00000000:01:00.0".into()),
            persistence_mode: Some("Enabled".into()),
            display_active: Some("Disabled".into()),
            compute_mode: Some("Default".into()),
            pstate: Some("P2".into()),
            temperature: Some(54),
            fan_speed: Some(30),
            utilization_gpu: Some(97),
            power_draw: Some(287.3),
            enforced_power_limit: Some(300.0),
            memory_total: Some(46_068),
            memory_used: Some(12_034),
            memory_effective_free: Some(45_459),
            ecc_uncorrected_volatile: Some(0),
            recovery_action: Some("None".into()),
            ..GpuReport::default()
        }
    }

    #[test]
    fn the_table_looks_like_nvidia_smis() {
        let engine = GpuProcess {
            pid: 4711,
            name: "python3".into(),
            unit: Some("invokeai.service".into()),
            process_type: GpuProcessType::Compute,
            used: Some(12_034 * MIB),
        };
        let mut reading = GpuReading {
            report: report(),
            health: HealthReading::default(),
            memory: None,
            processes: Some(vec![engine]),
            processes_taken_at: Instant::now(),
            engine_unit_active: true,
            other_gpus: Vec::new(),
        };
        insta::assert_snapshot!(card(&reading), @r"
        +-----------------------------------------------------------------------------------------+
        | ada2-sidecar 0.1.0                Driver Version: 595.80         CUDA Version: 13.1     |
        |-----------------------------------------+------------------------+----------------------+
        | GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |
        | Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |
        |=========================================+========================+======================|
        |   0  NVIDIA RTX 6000 Ada Gene...     On |   00000000:01:00.0 Off |                    0 |
        | 30%   54C    P2            287W /  300W |   12034MiB /  46068MiB |     97%      Default |
        +-----------------------------------------+------------------------+----------------------+
        +-----------------------------------------------------------------------------------------+
        | Processes:                                                                              |
        |  GPU      PID Type  Process name             Unit                            GPU Memory |
        |=========================================================================================|
        |    0     4711    C  python3                  invokeai.service                  12034MiB |
        +-----------------------------------------------------------------------------------------+
        45459 MiB of VRAM available to the engine; recovery action None
        ");
        reading.report.memory_effective_free = None;
        assert!(card(&reading).ends_with("the card has no memory of its own; recovery action None\n"));
        reading.memory = Some(GpuMemory { total: 2, reserved: 0, used: 1, free: 1 });
        assert!(card(&reading).contains("VRAM available to the engine unknown; recovery"));
        assert!(card(&reading).lines().all(|line| line.chars().count() <= 100));
    }
}
