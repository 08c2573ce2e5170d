//! Reads one card: what never changes, what rarely changes, and the rest.

use nvml_wrapper::{
    Device, Nvml, cuda_driver_version_major, cuda_driver_version_minor,
    enum_wrappers::device::{Clock, ComputeMode, EccCounter, MemoryError, TemperatureSensor},
    enums::device::{SampleValue, UsedGpuMemory},
    struct_wrappers::device::ProcessInfo,
    structs::device::FieldId,
};
use wire::health::GpuReport;

use super::{optional, required, state_from_error};
use crate::gpu::{GpuMemory, GpuProcessType, GpuState, HealthReading, processes::ProcessUsage};

const MIB: u64 = 1 << 20;
/// `NVML_PSTATE_UNKNOWN` is 32.
const LAST_PSTATE: u32 = 15;
/// `NVML_FI_DEV_REMAPPED_{COR,UNC,PENDING,FAILURE}`, `NVML_FI_DEV_GET_GPU_RECOVERY_ACTION`, `NVML_FI_DEV_MEMORY_TEMP`,
/// `NVML_FI_DEV_POWER_{AVERAGE,INSTANT}`.
const FIELDS: [FieldId; 8] = [
    FieldId(142),
    FieldId(143),
    FieldId(144),
    FieldId(145),
    FieldId(230),
    FieldId(82),
    FieldId(185),
    FieldId(186),
];

/// One card, with the readings that never change.
pub(in crate::gpu) struct Card<'nvml> {
    pub(super) device: Device<'nvml>,
    identity: GpuReport,
}

/// Readings that change rarely, or are expensive.
#[derive(Debug, Clone)]
pub(in crate::gpu) struct SlowReading {
    report: GpuReport,
    ecc_mode: Option<(bool, bool)>,
    pcie_width: Option<(u32, u32)>,
}

impl<'nvml> Card<'nvml> {
    pub(super) fn identify(device: Device<'nvml>, nvml: &Nvml) -> Result<Self, GpuState> {
        let cuda = nvml.sys_cuda_driver_version().ok();
        let pci = optional(device.pci_info())?;
        let limits = optional(device.power_management_limit_constraints())?;
        let max_clock = |of| optional(device.max_clock_info(of));
        let identity = GpuReport {
            index: optional(device.index())?.unwrap_or(0),
            name: optional(device.name())?.unwrap_or_else(|| "NVIDIA GPU".to_owned()),
            uuid: optional(device.uuid())?.unwrap_or_default(),
            driver_version: nvml.sys_driver_version().ok(),
            cuda_version: cuda.map(|version| {
                format!("{}.{}", cuda_driver_version_major(version), cuda_driver_version_minor(version))
            }),
            count: nvml.device_count().ok(),
            serial: optional(device.serial())?,
            vbios_version: optional(device.vbios_version())?,
            pci_domain: pci.as_ref().map(|pci| format!("0x{:04X}", pci.domain)),
            pci_bus: pci.as_ref().map(|pci| format!("0x{:02X}", pci.bus)),
            pci_device: pci.as_ref().map(|pci| format!("0x{:02X}", pci.device)),
            pci_device_id: pci.as_ref().map(|pci| format!("0x{:08X}", pci.pci_device_id)),
            pci_sub_device_id: pci
                .as_ref()
                .and_then(|pci| pci.pci_sub_system_id)
                .map(|id| format!("0x{id:08X}")),
            pci_bus_id: pci.map(|pci| pci.bus_id),
            power_default_limit: optional(device.power_management_limit_default())?.map(watts),
            power_min_limit: limits.as_ref().map(|limits| watts(limits.min_limit)),
            power_max_limit: limits.as_ref().map(|limits| watts(limits.max_limit)),
            clocks_max_graphics: max_clock(Clock::Graphics)?,
            clocks_max_sm: max_clock(Clock::SM)?,
            clocks_max_memory: max_clock(Clock::Memory)?,
            clocks_event_reasons_supported: optional(device.supported_throttle_reasons())?
                .map(|reasons| mask(reasons.bits())),
            compute_cap: optional(device.cuda_compute_capability())?
                .map(|version| format!("{}.{}", version.major, version.minor)),
            ..GpuReport::default()
        };
        Ok(Self { device, identity })
    }

    pub(in crate::gpu) fn driver_version(&self) -> Option<&str> {
        self.identity.driver_version.as_deref()
    }

    /// None with unified memory.
    pub(in crate::gpu) fn memory(&self) -> Result<Option<GpuMemory>, GpuState> {
        let memory = required("reading the memory", self.device.memory_info())?;
        Ok(memory.map(|memory| GpuMemory {
            total: memory.total,
            reserved: memory.reserved,
            used: memory.used,
            free: memory.free,
        }))
    }

    /// Its processes; one that computes and draws is listed twice. Takes milliseconds under the driver's global lock.
    pub(in crate::gpu) fn processes(&self) -> Result<Option<Vec<ProcessUsage>>, GpuState> {
        usages(&self.device)
    }

    pub(in crate::gpu) fn has_siblings(&self) -> bool {
        self.identity.count.is_some_and(|count| count > 1)
    }

    /// The other cards that respond, with their processes. Takes milliseconds for each.
    pub(in crate::gpu) fn siblings(&self) -> Vec<Sibling> {
        let nvml = self.device.nvml();
        let read_sibling = |index| {
            let device = nvml.device_by_index(index).ok()?;
            let uuid = device.uuid().ok()?;
            let usages = usages(&device).ok()??;
            Some(Sibling { index, name: device.name().ok()?, uuid, usages })
        };
        let all = (0..self.identity.count.unwrap_or(0)).filter_map(read_sibling);
        all.filter(|sibling| sibling.uuid != self.identity.uuid).collect()
    }

    /// Fans and PCIe take 100 µs and more; only an operator changes the others.
    pub(in crate::gpu) fn read_slow(&self) -> Result<SlowReading, GpuState> {
        let device = &self.device;
        let fan = optional(device.num_fans())?.filter(|fans| *fans > 0);
        let ecc =
            optional(device.is_ecc_enabled())?.map(|mode| (mode.currently_enabled, mode.pending_enabled));
        let errors = |kind, counter| optional(device.total_ecc_errors(kind, counter));
        let width = optional(device.current_pcie_link_width())?;
        let max_width = optional(device.max_pcie_link_width())?;
        let attached = optional(device.is_display_connected())?;
        let mig = optional(device.mig_mode())?;
        let report = GpuReport {
            compute_mode: optional(device.compute_mode())?.map(|mode| compute_mode(mode).to_owned()),
            persistence_mode: optional(device.is_in_persistent_mode())?.map(enabled),
            display_mode: attached.map(enabled),
            display_attached: attached.map(yes_no),
            display_active: optional(device.is_display_active())?.map(enabled),
            fan_speed: fan.map_or(Ok(None), |_| optional(device.fan_speed(0)))?,
            power_limit: optional(device.power_management_limit())?.map(watts),
            enforced_power_limit: optional(device.enforced_power_limit())?.map(watts),
            ecc_mode_current: ecc.map(|(current, _)| enabled(current)),
            ecc_mode_pending: ecc.map(|(_, pending)| enabled(pending)),
            ecc_corrected_volatile: errors(MemoryError::Corrected, EccCounter::Volatile)?,
            ecc_corrected_aggregate: errors(MemoryError::Corrected, EccCounter::Aggregate)?,
            ecc_uncorrected_aggregate: errors(MemoryError::Uncorrected, EccCounter::Aggregate)?,
            pcie_gen_current: optional(device.current_pcie_link_gen())?,
            pcie_gen_max: optional(device.max_pcie_link_gen())?,
            pcie_width_current: width,
            pcie_width_max: max_width,
            utilization_encoder: optional(device.encoder_utilization())?.map(|rate| rate.utilization),
            utilization_decoder: optional(device.decoder_utilization())?.map(|rate| rate.utilization),
            mig_mode_current: mig.as_ref().map(|mode| enabled(mode.current == 1)),
            mig_mode_pending: mig.as_ref().map(|mode| enabled(mode.pending == 1)),
            energy_joules: optional(device.total_energy_consumption())?.map(joules),
            ..self.identity.clone()
        };
        Ok(SlowReading { report, ecc_mode: ecc, pcie_width: width.zip(max_width) })
    }

    /// Everything else, in the form for `/readyz` and in the form for the rules.
    pub(in crate::gpu) fn read_fast(
        &self,
        slow: &SlowReading,
    ) -> Result<(GpuReport, HealthReading), GpuState> {
        let device = &self.device;
        let memory = self.memory()?;
        let temperature = self.temperature(memory.is_some())?;
        let mib = |of: fn(&GpuMemory) -> u64| memory.as_ref().map(|memory| of(memory) / MIB);
        let rates = optional(device.utilization_rates())?;
        let pstate = optional(device.performance_state())?.map(|state| state.as_c());
        let clock = |of| optional(device.clock_info(of));
        let slowdown = optional(device.current_throttle_reasons())?.map(|reasons| reasons.bits());
        let uncorrected = optional(device.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile))?;
        let [correctable, uncorrectable, pending, failure, recovery, memory_temperature, average, instant] =
            self.fields()?;
        let to_u32 = |value: Option<u64>| value.and_then(|value| u32::try_from(value).ok());
        let health = HealthReading {
            clock_event_reasons: slowdown,
            ecc_uncorrected: uncorrected,
            ecc_mode: slow.ecc_mode,
            remapped_uncorrectable: uncorrectable,
            remap_pending: pending.map(|rows| rows > 0),
            remap_failure: failure.map(|rows| rows > 0),
            recovery_action: to_u32(recovery),
            pcie_width: slow.pcie_width,
            ..HealthReading::default()
        };
        let report = GpuReport {
            memory_total: mib(|memory| memory.total),
            memory_reserved: mib(|memory| memory.reserved),
            memory_used: mib(|memory| memory.used),
            memory_free: mib(|memory| memory.free),
            temperature,
            temperature_memory: to_u32(memory_temperature),
            utilization_gpu: rates.as_ref().map(|rates| rates.gpu),
            utilization_memory: rates.as_ref().map(|rates| rates.memory),
            power_draw: optional(device.power_usage())?.map(watts),
            power_draw_average: to_u32(average).map(watts),
            power_draw_instant: to_u32(instant).map(watts),
            clocks_graphics: clock(Clock::Graphics)?,
            clocks_sm: clock(Clock::SM)?,
            clocks_memory: clock(Clock::Memory)?,
            clocks_video: clock(Clock::Video)?,
            clocks_event_reasons: slowdown.map(mask),
            pstate: pstate.filter(|state| *state <= LAST_PSTATE).map(|state| format!("P{state}")),
            ecc_uncorrected_volatile: uncorrected,
            remapped_correctable: correctable,
            remapped_uncorrectable: uncorrectable,
            remapped_pending: health.remap_pending.map(yes_no),
            remapped_failure: health.remap_failure.map(yes_no),
            recovery_action: health.recovery_action.map(|action| recovery_action_name(action).to_owned()),
            ..slow.report.clone()
        };
        Ok((report, health))
    }

    /// At least one reading must prove that the driver responds.
    fn temperature(&self, is_proven: bool) -> Result<Option<u32>, GpuState> {
        let temperature = self.device.temperature(TemperatureSensor::Gpu);
        if is_proven { optional(temperature) } else { required("reading the temperature", temperature) }
    }

    /// The call for a lost card can succeed, with an error in each value.
    fn fields(&self) -> Result<[Option<u64>; FIELDS.len()], GpuState> {
        let mut values = [None; FIELDS.len()];
        let Some(samples) = optional(self.device.field_values_for(&FIELDS))? else { return Ok(values) };
        for (value, sample) in values.iter_mut().zip(samples) {
            *value = optional(sample.and_then(|sample| sample.value))?.and_then(|value| number(&value));
        }
        Ok(values)
    }
}

fn number(value: &SampleValue) -> Option<u64> {
    match value {
        SampleValue::U32(number) => Some(u64::from(*number)),
        SampleValue::U64(number) => Some(*number),
        SampleValue::I64(number) => u64::try_from(*number).ok(),
        SampleValue::F64(_) => None,
    }
}

#[derive(Debug)]
pub(in crate::gpu) struct Sibling {
    pub(in crate::gpu) index: u32,
    pub(in crate::gpu) name: String,
    pub(in crate::gpu) uuid: String,
    pub(in crate::gpu) usages: Vec<ProcessUsage>,
}

impl Sibling {
    /// The card with this index; without processes if the driver does not list them.
    pub(super) fn at(nvml: &Nvml, index: u32) -> Result<Self, GpuState> {
        let device =
            nvml.device_by_index(index).map_err(|error| state_from_error("finding the GPU", &error))?;
        Ok(Self {
            index,
            name: optional(device.name())?.unwrap_or_else(|| "NVIDIA GPU".to_owned()),
            uuid: device.uuid().map_err(|error| state_from_error("reading the GPU's UUID", &error))?,
            usages: usages(&device)?.unwrap_or_default(),
        })
    }
}

fn usages(device: &Device<'_>) -> Result<Option<Vec<ProcessUsage>>, GpuState> {
    let Some(compute) = optional(device.running_compute_processes())? else { return Ok(None) };
    let graphics = optional(device.running_graphics_processes())?.unwrap_or_default();
    let compute = compute.iter().map(|process| usage(process, GpuProcessType::Compute));
    let graphics = graphics.iter().map(|process| usage(process, GpuProcessType::Graphics));
    Ok(Some(compute.chain(graphics).collect()))
}

fn usage(process: &ProcessInfo, process_type: GpuProcessType) -> ProcessUsage {
    let used = match process.used_gpu_memory {
        UsedGpuMemory::Used(bytes) => Some(bytes),
        UsedGpuMemory::Unavailable => None,
    };
    ProcessUsage { pid: process.pid, used, process_type }
}

fn watts(milliwatts: u32) -> f64 {
    f64::from(milliwatts) / 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "a card draws 2^53 mJ in three centuries")]
fn joules(millijoules: u64) -> f64 {
    millijoules as f64 / 1000.0
}

/// As `nvidia-smi` writes bit masks.
fn mask(bits: u64) -> String {
    format!("0x{bits:016X}")
}

fn enabled(on: bool) -> String {
    if on { "Enabled" } else { "Disabled" }.to_owned()
}

fn yes_no(is: bool) -> String {
    if is { "Yes" } else { "No" }.to_owned()
}

const fn compute_mode(mode: ComputeMode) -> &'static str {
    match mode {
        ComputeMode::Default => "Default",
        ComputeMode::ExclusiveThread => "Exclusive_Thread",
        ComputeMode::Prohibited => "Prohibited",
        ComputeMode::ExclusiveProcess => "Exclusive_Process",
    }
}

/// `nvmlDeviceGpuRecoveryAction_t`, as `nvidia-smi` writes it.
pub(crate) const fn recovery_action_name(action: u32) -> &'static str {
    match action {
        0 => "None",
        1 => "Reset",
        2 => "Reboot",
        3 => "Drain P2P",
        4 => "Drain and Reset",
        5 => "IMEX Restart",
        6 => "Bus Reset",
        7 => "System Reboot",
        _ => "Unknown",
    }
}
