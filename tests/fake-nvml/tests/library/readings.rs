//! Every value, first of the card that nobody has changed, then of one that has another value everywhere.

use fake_nvml::{
    CardMemory, Clocks, Display, Ecc, EccCounts, Mig, Pci, Pcie, Process, RemappedRows, Utilization,
};
use nvml_wrapper::{
    bitmasks::device::ThrottleReasons,
    enum_wrappers::device::{
        Clock, ComputeMode, EccCounter, MemoryError, PerformanceState, TemperatureSensor,
    },
    enums::device::{SampleValue, UsedGpuMemory},
    error::NvmlError,
    structs::device::FieldId,
};

use crate::machine::Machine;

const MIB: u64 = 1 << 20;

/// Remapped rows, and the recovery action.
pub(crate) const FIELDS: [FieldId; 5] =
    [FieldId(142), FieldId(143), FieldId(144), FieldId(145), FieldId(230)];

#[test]
fn the_default_card_is_a_healthy_idle_rtx_6000_ada() -> Result<(), NvmlError> {
    let machine = Machine::new();
    let nvml = machine.load();
    assert_eq!(nvml.sys_driver_version()?, "595.80");
    assert_eq!(nvml.sys_cuda_driver_version()?, 13_010);
    assert_eq!(nvml.device_count()?, 1);
    let card = nvml.device_by_uuid("GPU-6adaf00d-1234-5678-9abc-def012345678")?;
    assert_eq!(card.index()?, 0);
    assert_eq!(card.name()?, "NVIDIA RTX 6000 Ada Generation");
    let pci = card.pci_info()?;
    assert_eq!((pci.bus_id.as_str(), pci.pci_device_id), ("00000000:01:00.0", 0x26b1_10de));
    let capability = card.cuda_compute_capability()?;
    assert_eq!((capability.major, capability.minor), (8, 9));
    assert_eq!(card.compute_mode()?, ComputeMode::Default);
    assert!(card.is_in_persistent_mode()?);
    assert!(!card.is_display_connected()? && !card.is_display_active()?);
    assert!(matches!(card.mig_mode(), Err(NvmlError::NotSupported)));

    let memory = card.memory_info()?;
    assert_eq!((memory.total, memory.reserved, memory.used), (46_068 * MIB, 609 * MIB, 0));
    assert_eq!(memory.free, 45_459 * MIB);
    assert!(card.running_compute_processes()?.is_empty());
    assert!(card.running_graphics_processes()?.is_empty());
    assert_eq!(card.utilization_rates()?.gpu, 0);
    assert_eq!(card.temperature(TemperatureSensor::Gpu)?, 54);
    assert_eq!((card.num_fans()?, card.fan_speed(0)?), (1, 30));
    assert_eq!(card.power_usage()?, 21_500);
    assert_eq!((card.power_management_limit()?, card.enforced_power_limit()?), (300_000, 300_000));
    assert_eq!(card.performance_state()?, PerformanceState::Eight);
    assert_eq!(clocks(&card)?, [210, 210, 405, 1185]);
    assert_eq!(card.current_throttle_reasons()?, ThrottleReasons::GPU_IDLE);
    assert_eq!(pcie(&card)?, [1, 4, 16, 16]);
    let ecc = card.is_ecc_enabled()?;
    assert!(ecc.currently_enabled && ecc.pending_enabled);
    assert_eq!(ecc_errors(&card)?, [0, 0, 0, 0]);
    assert_eq!(fields(&card)?, [0, 0, 0, 0, 0]);
    Ok(())
}

#[test]
fn identity_and_settings_follow_the_scenario() -> Result<(), NvmlError> {
    let machine = Machine::new();
    let nvml = machine.load();
    let card = nvml.device_by_index(0)?;
    machine.set(|scenario| {
        scenario.cuda_version = 12_080;
        let gpu = &mut scenario.gpus[0];
        gpu.pci = Pci { domain: 0x1_0000, bus: 0xc1, device: 2, device_id: 7, subsystem_id: 8 };
        gpu.compute_capability = (12, 0);
        gpu.compute_mode = 3;
        gpu.persistence = false;
        gpu.display = Display { connected: false, active: true };
        gpu.mig = Some(Mig { current: false, pending: true });
    });
    assert_eq!(nvml.sys_cuda_driver_version()?, 12_080);
    let pci = card.pci_info()?;
    assert_eq!((pci.domain, pci.bus, pci.device), (0x1_0000, 0xc1, 2));
    assert_eq!((pci.bus_id.as_str(), pci.pci_device_id), ("00010000:C1:02.0", 7));
    assert_eq!(pci.pci_sub_system_id, Some(8));
    assert_eq!(card.cuda_compute_capability()?.major, 12);
    assert_eq!(card.compute_mode()?, ComputeMode::ExclusiveProcess);
    assert!(!card.is_in_persistent_mode()?);
    assert!(!card.is_display_connected()? && card.is_display_active()?);
    let mig = card.mig_mode()?;
    assert_eq!((mig.current, mig.pending), (0, 1));
    Ok(())
}

#[test]
fn load_follows_the_scenario() -> Result<(), NvmlError> {
    let machine = Machine::new();
    let nvml = machine.load();
    let card = nvml.device_by_index(0)?;
    machine.set_card(|gpu| {
        gpu.memory = CardMemory { total: 8192, reserved: 200, used: 3000 };
        gpu.processes = vec![
            Process { pid: 7, used_mib: Some(2000), graphics: false },
            Process { pid: 8, used_mib: None, graphics: true },
        ];
        gpu.utilization = Utilization { gpu: 97, memory: 40, ..Utilization::default() };
        gpu.temperature = 81;
        gpu.fans = vec![70, 71];
        gpu.power_draw_mw = 287_310;
        gpu.power_limit_mw = 250_000;
        gpu.power_management_limit_mw = 280_000;
        gpu.pstate = 2;
        gpu.clocks = Clocks { graphics: 2505, sm: 2504, memory: 9501, video: 1950 };
        gpu.throttle_reasons = 4 | 64;
        gpu.pcie = Pcie { generation: 3, max_generation: 5, width: 4, max_width: 8 };
    });
    let memory = card.memory_info()?;
    assert_eq!((memory.total, memory.used, memory.free), (8192 * MIB, 3000 * MIB, 4992 * MIB));
    let computing = &card.running_compute_processes()?[0];
    assert_eq!((computing.pid, &computing.used_gpu_memory), (7, &UsedGpuMemory::Used(2000 * MIB)));
    let drawing = &card.running_graphics_processes()?[0];
    assert_eq!((drawing.pid, &drawing.used_gpu_memory), (8, &UsedGpuMemory::Unavailable));
    let busy = card.utilization_rates()?;
    assert_eq!((busy.gpu, busy.memory), (97, 40));
    assert_eq!(card.temperature(TemperatureSensor::Gpu)?, 81);
    assert_eq!((card.num_fans()?, card.fan_speed(1)?), (2, 71));
    assert!(matches!(card.fan_speed(2), Err(NvmlError::InvalidArg)));
    assert_eq!(card.power_usage()?, 287_310);
    assert_eq!((card.power_management_limit()?, card.enforced_power_limit()?), (280_000, 250_000));
    assert_eq!(card.performance_state()?, PerformanceState::Two);
    assert_eq!(clocks(&card)?, [2505, 2504, 9501, 1950]);
    let reasons = ThrottleReasons::SW_POWER_CAP | ThrottleReasons::HW_THERMAL_SLOWDOWN;
    assert_eq!(card.current_throttle_reasons()?, reasons);
    assert_eq!(pcie(&card)?, [3, 5, 4, 8]);
    Ok(())
}

#[test]
fn faults_follow_the_scenario() -> Result<(), NvmlError> {
    let machine = Machine::new();
    let nvml = machine.load();
    let card = nvml.device_by_index(0)?;
    machine.set_card(|gpu| {
        gpu.ecc = Ecc {
            current: true,
            pending: false,
            corrected: EccCounts { volatile: 1, aggregate: 2 },
            uncorrected: EccCounts { volatile: 3, aggregate: 4 },
        };
        gpu.remapped_rows = RemappedRows { correctable: 5, uncorrectable: 6, pending: true, failure: true };
        gpu.recovery_action = 4;
    });
    let ecc = card.is_ecc_enabled()?;
    assert!(ecc.currently_enabled && !ecc.pending_enabled);
    assert_eq!(ecc_errors(&card)?, [1, 2, 3, 4]);
    assert_eq!(fields(&card)?, [5, 6, 1, 1, 4]);
    machine.set_card(|gpu| gpu.ecc.current = false);
    assert!(matches!(ecc_errors(&card), Err(NvmlError::NotSupported)));
    Ok(())
}

fn clocks(card: &nvml_wrapper::Device<'_>) -> Result<[u32; 4], NvmlError> {
    Ok([
        card.clock_info(Clock::Graphics)?,
        card.clock_info(Clock::SM)?,
        card.clock_info(Clock::Memory)?,
        card.clock_info(Clock::Video)?,
    ])
}

fn pcie(card: &nvml_wrapper::Device<'_>) -> Result<[u32; 4], NvmlError> {
    Ok([
        card.current_pcie_link_gen()?,
        card.max_pcie_link_gen()?,
        card.current_pcie_link_width()?,
        card.max_pcie_link_width()?,
    ])
}

fn ecc_errors(card: &nvml_wrapper::Device<'_>) -> Result<[u64; 4], NvmlError> {
    Ok([
        card.total_ecc_errors(MemoryError::Corrected, EccCounter::Volatile)?,
        card.total_ecc_errors(MemoryError::Corrected, EccCounter::Aggregate)?,
        card.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile)?,
        card.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Aggregate)?,
    ])
}

fn fields(card: &nvml_wrapper::Device<'_>) -> Result<Vec<u32>, NvmlError> {
    let number = |value| match value {
        SampleValue::U32(number) => Ok(number),
        _ => Err(NvmlError::Unknown),
    };
    card.field_values_for(&FIELDS)?.into_iter().map(|field| field?.value.and_then(number)).collect()
}
