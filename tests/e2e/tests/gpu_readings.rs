//! What is read of the card, and what is left out where a driver does not support it.

use std::path::PathBuf;

use ada2_sidecar::gpu::{GpuReading, GpuSamplerConfig, KernelPaths};
use fakes::gpu::{Clocks, EccCounts, FakeCard, Mig, Pcie, Process, RemappedRows, Utilization};

use crate::gpu_sampler::{MIB, NO_SUCH_PID, Samples, sampling};

#[tokio::test]
async fn every_reading_arrives() {
    let card = FakeCard::new();
    let own_pid = std::process::id();
    card.set(|scenario| {
        let gpu = &mut scenario.gpus[0];
        gpu.memory.used = 11_425;
        gpu.utilization = Utilization { gpu: 97, memory: 40, encoder: 60, decoder: 7 };
        gpu.memory_temperature = Some(72);
        gpu.mig = Some(Mig { current: false, pending: true });
        gpu.pstate = 2;
        gpu.power_draw_mw = 287_310;
        gpu.power_limit_mw = 290_000;
        gpu.clocks = Clocks { graphics: 2505, sm: 2500, memory: 10_001, video: 1965 };
        gpu.throttle_reasons = 4;
        gpu.ecc.pending = false;
        gpu.ecc.corrected = EccCounts { volatile: 1, aggregate: 2 };
        gpu.ecc.uncorrected = EccCounts { volatile: 3, aggregate: 4 };
        gpu.remapped_rows = RemappedRows { correctable: 5, uncorrectable: 6, pending: true, failure: false };
        gpu.recovery_action = 3;
        gpu.pcie = Pcie { generation: 3, max_generation: 4, width: 8, max_width: 16 };
        gpu.processes = vec![
            Process { pid: own_pid, used_mib: Some(11_000), graphics: false },
            Process { pid: own_pid, used_mib: Some(11_000), graphics: true },
            Process { pid: NO_SUCH_PID, used_mib: None, graphics: true },
        ];
    });
    let mut samples = Samples::of(&card, "0");
    let reading = samples.reading(|_| true).await;
    assert_eq!(reading.report, every_value(), "the engine's share is unknown: its unit does not exist");
    assert_eq!(reading.memory.unwrap().free, 34_034 * MIB);
    let processes = reading.processes.expect("the lists are supported");
    assert_eq!(processes.iter().map(|process| process.pid).collect::<Vec<_>>(), [own_pid, NO_SUCH_PID]);
    assert_eq!(processes[0].used, Some(11_000 * MIB));
    assert!(!processes[0].name.starts_with('['), "a living process has a name");
    assert_eq!((processes[1].name.as_str(), processes[1].used), ("[Not Found]", None));
}

/// The readings of the card of [`every_reading_arrives`].
fn every_value() -> wire::health::GpuReport {
    let text = |text: &str| Some(text.to_owned());
    wire::health::GpuReport {
        index: 0,
        name: "NVIDIA RTX 6000 Ada Generation".into(),
        uuid: "GPU-6adaf00d-1234-5678-9abc-def012345678".into(),
        driver_version: text("595.80"),
        cuda_version: text("13.1"),
        count: Some(1),
        serial: text("1324023012345"),
        vbios_version: text("95.02.3C.00.05"),
        pci_bus_id: text("00000000:01:00.0"),
        pci_domain: text("0x0000"),
        pci_bus: text("0x01"),
        pci_device: text("0x00"),
        pci_device_id: text("0x26B110DE"),
        pci_sub_device_id: text("0x16A110DE"),
        compute_cap: text("8.9"),
        compute_mode: text("Default"),
        persistence_mode: text("Enabled"),
        display_mode: text("Disabled"),
        display_attached: text("No"),
        display_active: text("Disabled"),
        memory_total: Some(46_068),
        memory_reserved: Some(609),
        memory_used: Some(11_425),
        memory_free: Some(34_034),
        memory_effective_free: None,
        ..changing_values()
    }
}

/// Those of them that change while it works.
fn changing_values() -> wire::health::GpuReport {
    let text = |text: &str| Some(text.to_owned());
    wire::health::GpuReport {
        temperature: Some(54),
        utilization_gpu: Some(97),
        utilization_memory: Some(40),
        utilization_encoder: Some(60),
        utilization_decoder: Some(7),
        temperature_memory: Some(72),
        fan_speed: Some(30),
        power_draw: Some(287.31),
        power_draw_average: Some(287.31),
        power_draw_instant: Some(287.31),
        power_default_limit: Some(300.0),
        power_min_limit: Some(100.0),
        power_max_limit: Some(300.0),
        power_limit: Some(300.0),
        enforced_power_limit: Some(290.0),
        clocks_graphics: Some(2505),
        clocks_sm: Some(2500),
        clocks_memory: Some(10_001),
        clocks_video: Some(1965),
        clocks_max_graphics: Some(3105),
        clocks_max_sm: Some(3105),
        clocks_max_memory: Some(10_001),
        clocks_event_reasons_supported: text("0x00000000000001FF"),
        clocks_event_reasons: text("0x0000000000000004"),
        ecc_mode_current: text("Enabled"),
        ecc_mode_pending: text("Disabled"),
        ecc_corrected_volatile: Some(1),
        ecc_corrected_aggregate: Some(2),
        ecc_uncorrected_volatile: Some(3),
        ecc_uncorrected_aggregate: Some(4),
        remapped_correctable: Some(5),
        remapped_uncorrectable: Some(6),
        remapped_pending: text("Yes"),
        remapped_failure: text("No"),
        recovery_action: text("Drain P2P"),
        pcie_gen_current: Some(3),
        pcie_gen_max: Some(4),
        pcie_width_current: Some(8),
        pcie_width_max: Some(16),
        pstate: text("P2"),
        mig_mode_current: text("Disabled"),
        mig_mode_pending: text("Enabled"),
        energy_joules: Some(1234.567),
        ..wire::health::GpuReport::default()
    }
}

#[tokio::test]
async fn readings_that_the_driver_does_not_support_are_absent() {
    let card = FakeCard::new();
    card.set(|scenario| {
        scenario.gpus[0].pstate = 32;
        scenario.gpus[0].unsupported = [
            "nvmlDeviceGetUtilizationRates",
            "nvmlDeviceGetTemperature",
            "nvmlDeviceGetPowerUsage",
            "nvmlDeviceGetEnforcedPowerLimit",
            "nvmlDeviceGetPowerManagementLimit",
            "nvmlDeviceGetComputeRunningProcesses_v3",
        ]
        .map(str::to_owned)
        .to_vec();
    });
    let GpuReading { report, processes, .. } = Samples::of(&card, "0").reading(|_| true).await;
    assert_eq!((report.temperature, report.pstate), (None, None));
    assert_eq!((report.utilization_gpu, report.power_draw, report.power_limit), (None, None, None));
    assert_eq!(processes, None);
    assert_eq!(report.memory_total, Some(46_068));
}

#[tokio::test]
async fn a_card_without_memory_figures_is_read_like_any_other() {
    let card = FakeCard::new();
    card.set(|scenario| scenario.gpus[0].unsupported = vec!["nvmlDeviceGetMemoryInfo_v2".to_owned()]);
    let reading = Samples::of(&card, "0").reading(|_| true).await;
    assert_eq!((reading.memory, reading.report.memory_total, reading.report.memory_free), (None, None, None));
    assert_eq!((reading.report.temperature, reading.report.memory_effective_free), (Some(54), None));
    // A driver that is older than this question.
    for code in [13, 25] {
        let card = FakeCard::new();
        card.set(|scenario| scenario.gpus[0].fail("nvmlDeviceGetMemoryInfo_v2", code));
        assert_eq!(Samples::of(&card, "0").reading(|_| true).await.memory, None, "{code}");
    }
}

/// One after the other: the calls are counted.
#[tokio::test]
async fn every_reading_that_the_driver_does_not_support_is_absent_and_the_rest_is_reported() {
    let card = FakeCard::new();
    Samples::of(&card, "0").reading(|_| true).await;
    let needed = ["nvmlInit_v2", "nvmlShutdown", "nvmlDeviceGetHandleByIndex_v2"];
    let all: Vec<_> =
        card.symbols().into_iter().filter(|symbol| !needed.contains(&symbol.as_str())).collect();
    assert!(all.len() > 35, "{all:?}");
    for symbol in &all {
        let card = FakeCard::new();
        card.set(|scenario| scenario.gpus[0].unsupported = vec![symbol.clone()]);
        Samples::of(&card, "0").reading(|_| true).await;
    }
    let card = FakeCard::new();
    card.set(|scenario| scenario.gpus[0].unsupported = all.clone());
    let reading = Samples::of(&card, "0").reading(|_| true).await;
    assert_eq!((reading.report.name.as_str(), reading.report.uuid.as_str()), ("NVIDIA GPU", ""));
}

/// As the kernel shows a unit with this one process.
fn kernel_with(unit: &str, pid: u32) -> KernelPaths {
    let dir = fakes::fresh_dir("kernel");
    let (proc, cgroups) = (dir.join("proc"), dir.join("cgroup"));
    let write = |path: PathBuf, text: &str| {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let process = proc.join(pid.to_string());
    write(process.join("comm"), "python3\n");
    write(process.join("cgroup"), &format!("0::/system.slice/{unit}\n"));
    write(process.join("stat"), &format!("{pid} (python3) S 1 0 0\n"));
    write(cgroups.join("system.slice").join(unit).join("cgroup.procs"), &format!("{pid}\n"));
    KernelPaths { proc, cgroups }
}

#[tokio::test]
async fn an_engine_on_another_card_is_looked_for_only_when_it_is_not_on_ours() {
    const LIST: &str = "nvmlDeviceGetComputeRunningProcesses_v3";
    let card = FakeCard::new();
    let engine = Process { pid: 4711, used_mib: Some(12_000), graphics: false };
    card.set(|scenario| {
        let mut second = scenario.gpus[0].clone();
        (second.index, second.uuid, second.name) = (1, "GPU-2".into(), "NVIDIA RTX 4090".into());
        second.memory.used = 12_000;
        second.processes = vec![engine.clone()];
        scenario.gpus.push(second);
    });
    let of_engine = |gpu_id| GpuSamplerConfig {
        engine_unit: "comfyui.service".to_owned(),
        kernel: kernel_with("comfyui.service", 4711),
        ..sampling(Some(card.library()), gpu_id)
    };
    let reading = Samples::with(of_engine("0")).reading(|_| true).await;
    let [there] = &reading.other_gpus[..] else { panic!("{:?}", reading.other_gpus) };
    assert_eq!((there.index, there.uuid.as_str(), there.name.as_str()), (1, "GPU-2", "NVIDIA RTX 4090"));
    assert_eq!((there.processes[0].pid, there.processes[0].used), (4711, Some(12_000 * MIB)));
    assert_eq!(reading.report.count, Some(2));
    let body = card.calls(LIST);
    let reading = Samples::with(of_engine("GPU-2")).reading(|_| true).await;
    assert!(reading.other_gpus.is_empty() && reading.report.memory_effective_free == Some(45_459));
    assert_eq!(card.calls(LIST) - body, 2, "one list, in the two calls that it takes");
    // A sibling that does not answer is no problem of this card.
    card.set(|scenario| scenario.gpus[1].lost = true);
    let reading = Samples::with(of_engine("0")).reading(|_| true).await;
    assert!(reading.other_gpus.is_empty());
}
