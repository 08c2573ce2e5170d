//! The driver's library: load it, find the card, read it. The only file that names `nvml_wrapper`; what it cannot
//! read is absent, and what keeps it from reading at all is a [`GpuState`].

use std::path::Path;

use nvml_wrapper::{
    Device, Nvml, enum_wrappers::device::TemperatureSensor, enums::device::UsedGpuMemory, error::NvmlError,
    struct_wrappers::device::ProcessInfo,
};
use shared::health::GpuReport;

use super::{GpuState, Memory, processes::Usage};

const MIB: u64 = 1 << 20;
/// `NVML_ERROR_GPU_NOT_FOUND`, which the wrapper does not know by name.
const GPU_NOT_FOUND: u32 = 28;
/// `NVML_PSTATE_UNKNOWN` is 32.
const LAST_PSTATE: u32 = 15;

/// NVML, loaded and initialised. Dropping it lets go of the driver, so that it can be reloaded.
pub(super) struct Library(Box<Nvml>);

impl Library {
    /// Loads and initialises it.
    pub(super) fn load(path: Option<&Path>) -> Result<Self, GpuState> {
        let mut builder = Nvml::builder();
        if let Some(path) = path {
            builder.lib_path(path.as_os_str());
        }
        let nvml = builder.init().map_err(|error| refused("nvmlInit_v2", &error))?;
        if nvml.lib().nvmlShutdown.is_err() {
            // Dropping it would panic, and during another panic that would end the process.
            std::mem::forget(nvml);
            return Err(GpuState::Failed("the library has no nvmlShutdown".to_owned()));
        }
        Ok(Self(Box::new(nvml)))
    }

    /// Finds the card by index or UUID.
    pub(super) fn card(&self, wanted: &str) -> Result<Card<'_>, GpuState> {
        let found = match wanted.parse() {
            Ok(index) => self.0.device_by_index(index),
            Err(_) => self.0.device_by_uuid(wanted),
        };
        match found {
            Ok(device) => Card::identify(device, self.0.sys_driver_version().ok()),
            Err(
                NvmlError::InvalidArg | NvmlError::NotFound | NvmlError::UnexpectedVariant(GPU_NOT_FOUND),
            ) => Err(GpuState::NoDevice { wanted: wanted.to_owned(), found: self.inventory() }),
            Err(error) => Err(refused("looking for the GPU", &error)),
        }
    }

    /// `0 = GPU-… (NVIDIA RTX 6000 Ada Generation)`, one for each card.
    fn inventory(&self) -> Vec<String> {
        let words = |index| {
            let device = self.0.device_by_index(index)?;
            Ok(format!("{index} = {} ({})", device.uuid()?, device.name()?))
        };
        (0..self.0.device_count().unwrap_or(0))
            .map(|index| words(index).unwrap_or_else(|error: NvmlError| format!("{index} ({error})")))
            .collect()
    }
}

/// One card, and what never changes about it.
pub(super) struct Card<'nvml> {
    device: Device<'nvml>,
    identity: GpuReport,
}

impl<'nvml> Card<'nvml> {
    fn identify(device: Device<'nvml>, driver_version: Option<String>) -> Result<Self, GpuState> {
        let identity = GpuReport {
            index: optional(device.index())?.unwrap_or(0),
            name: optional(device.name())?.unwrap_or_else(|| "NVIDIA GPU".to_owned()),
            uuid: optional(device.uuid())?.unwrap_or_default(),
            driver_version,
            ..GpuReport::default()
        };
        Ok(Self { device, identity })
    }

    /// The one reading that must be had.
    pub(super) fn memory(&self) -> Result<Memory, GpuState> {
        let memory = self.device.memory_info().map_err(|error| refused("reading the memory", &error))?;
        Ok(Memory { total: memory.total, reserved: memory.reserved, used: memory.used, free: memory.free })
    }

    /// Who computes and who draws, one after the other; a process that does both is there twice. Takes the driver
    /// milliseconds under its global lock.
    pub(super) fn processes(&self) -> Result<Option<Vec<Usage>>, GpuState> {
        let Some(mut all) = optional(self.device.running_compute_processes())? else { return Ok(None) };
        all.extend(optional(self.device.running_graphics_processes())?.unwrap_or_default());
        Ok(Some(all.iter().map(usage).collect()))
    }

    /// Everything that changes.
    pub(super) fn report(&self) -> Result<GpuReport, GpuState> {
        let memory = self.memory()?;
        let utilisation = optional(self.device.utilization_rates())?;
        let pstate = optional(self.device.performance_state())?.map(|state| state.as_c());
        Ok(GpuReport {
            memory_total: memory.total / MIB,
            memory_reserved: memory.reserved / MIB,
            memory_used: memory.used / MIB,
            memory_free: memory.free / MIB,
            temperature: optional(self.device.temperature(TemperatureSensor::Gpu))?,
            utilization_gpu: utilisation.as_ref().map(|rates| rates.gpu),
            utilization_memory: utilisation.as_ref().map(|rates| rates.memory),
            power_draw: optional(self.device.power_usage())?.map(watts),
            power_limit: optional(self.device.enforced_power_limit())?.map(watts),
            pstate: pstate.filter(|state| *state <= LAST_PSTATE).map(|state| format!("P{state}")),
            ..self.identity.clone()
        })
    }
}

/// A reading that may be absent: whatever keeps it from us, except that the card is gone, is no trouble of the card.
fn optional<T>(reading: Result<T, NvmlError>) -> Result<Option<T>, GpuState> {
    match reading {
        Ok(value) => Ok(Some(value)),
        Err(NvmlError::GpuLost | NvmlError::ResetRequired) => Err(GpuState::Lost),
        Err(_) => Ok(None),
    }
}

/// Why nothing can be read.
fn refused(doing: &str, error: &NvmlError) -> GpuState {
    match error {
        NvmlError::GpuLost | NvmlError::ResetRequired => GpuState::Lost,
        NvmlError::DriverNotLoaded => GpuState::DriverNotLoaded,
        NvmlError::NoPermission => GpuState::NoPermission,
        NvmlError::LibRmVersionMismatch => GpuState::VersionMismatch,
        // The loader's own words; the wrapper's only say that there are some.
        NvmlError::LibloadingError(loader) => GpuState::NoLibrary(loader.to_string()),
        NvmlError::LibraryNotFound => GpuState::NoLibrary(error.to_string()),
        // Codes newer than the wrapper; its own words call them an enum variant.
        NvmlError::UnexpectedVariant(code) => GpuState::Failed(format!("{doing}: NVML error {code}")),
        _ => GpuState::Failed(format!("{doing}: {error}")),
    }
}

fn usage(process: &ProcessInfo) -> Usage {
    let used = match process.used_gpu_memory {
        UsedGpuMemory::Used(bytes) => Some(bytes),
        UsedGpuMemory::Unavailable => None,
    };
    Usage { pid: process.pid, used }
}

fn watts(milliwatts: u32) -> f64 {
    f64::from(milliwatts) / 1000.0
}
