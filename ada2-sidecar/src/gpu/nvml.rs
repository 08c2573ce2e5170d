//! The driver's library: load it, find the card, read it. Only this module and its children use `nvml_wrapper`. A single
//! reading that fails is None; an error that prevents all readings is a [`GpuState`].

mod card;
mod events;

use std::path::Path;

use nvml_wrapper::{Nvml, error::NvmlError};

use super::GpuState;

pub(crate) use card::recovery_action_name;
pub(super) use card::{Card, Sibling, SlowReading};
pub(super) use events::XidEvents;

/// `NVML_ERROR_GPU_NOT_FOUND`, which the wrapper lacks.
const GPU_NOT_FOUND: u32 = 28;
/// `NVML_ERROR_ARGUMENT_VERSION_MISMATCH`, `NVML_ERROR_DEPRECATED`: the driver is older or newer than this function.
const NOT_THIS_VERSION: [u32; 2] = [25, 26];

/// NVML, loaded and initialised. Dropping it releases the driver, so that it can be reloaded.
pub(super) struct Library(Box<Nvml>);

impl Library {
    pub(super) fn load(path: Option<&Path>) -> Result<Self, GpuState> {
        let mut builder = Nvml::builder();
        if let Some(path) = path {
            builder.lib_path(path.as_os_str());
        }
        let nvml = builder.init().map_err(|error| state_from_error("nvmlInit_v2", &error))?;
        if nvml.lib().nvmlShutdown.is_err() {
            // Dropping it would panic, and during another panic that would end the process.
            std::mem::forget(nvml);
            return Err(GpuState::Failed("the library has no nvmlShutdown".to_owned()));
        }
        Ok(Self(Box::new(nvml)))
    }

    /// Finds the card by index or UUID.
    pub(super) fn card(&self, gpu_id: &str) -> Result<Card<'_>, GpuState> {
        let found = match gpu_id.parse() {
            Ok(index) => self.0.device_by_index(index),
            Err(_) => self.0.device_by_uuid(gpu_id),
        };
        match found {
            Ok(device) => Card::identify(device, &self.0),
            Err(
                NvmlError::InvalidArg | NvmlError::NotFound | NvmlError::UnexpectedVariant(GPU_NOT_FOUND),
            ) => Err(GpuState::NoDevice { requested: gpu_id.to_owned(), found: self.inventory() }),
            Err(error) => Err(state_from_error("finding the GPU", &error)),
        }
    }

    /// Registers for the driver's error reports.
    pub(super) fn events<'nvml>(&'nvml self, card: &Card<'nvml>) -> XidEvents<'nvml> {
        XidEvents::register(&self.0, card)
    }

    /// All cards with the processes that use them. A lost one is an error.
    pub(super) fn cards(&self) -> Result<Vec<Sibling>, GpuState> {
        let count = self.0.device_count().map_err(|error| state_from_error("counting the GPUs", &error))?;
        if count == 0 {
            return Err(GpuState::NoDevice { requested: "0".to_owned(), found: Vec::new() });
        }
        (0..count).map(|index| Sibling::at(&self.0, index)).collect()
    }

    /// For each card, `0 = GPU-… (NVIDIA RTX 6000 Ada Generation)`.
    fn inventory(&self) -> Vec<String> {
        let describe = |index| {
            let device = self.0.device_by_index(index)?;
            Ok(format!("{index} = {} ({})", device.uuid()?, device.name()?))
        };
        (0..self.0.device_count().unwrap_or(0))
            .map(|index| describe(index).unwrap_or_else(|error: NvmlError| format!("{index} ({error})")))
            .collect()
    }
}

/// A reading that may fail: only a lost card is an error.
fn optional<T>(reading: Result<T, NvmlError>) -> Result<Option<T>, GpuState> {
    match reading {
        Ok(value) => Ok(Some(value)),
        Err(NvmlError::GpuLost | NvmlError::ResetRequired) => Err(GpuState::Lost),
        Err(_) => Ok(None),
    }
}

/// A reading that must succeed, unless this driver or card does not support it.
fn required<T>(operation: &str, reading: Result<T, NvmlError>) -> Result<Option<T>, GpuState> {
    match reading {
        Ok(value) => Ok(Some(value)),
        Err(NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_) | NvmlError::FunctionNotFound) => {
            Ok(None)
        }
        Err(NvmlError::UnexpectedVariant(code)) if NOT_THIS_VERSION.contains(&code) => Ok(None),
        Err(error) => Err(state_from_error(operation, &error)),
    }
}

/// The state that follows from an error.
fn state_from_error(operation: &str, error: &NvmlError) -> GpuState {
    match error {
        NvmlError::GpuLost | NvmlError::ResetRequired => GpuState::Lost,
        NvmlError::DriverNotLoaded => GpuState::DriverNotLoaded,
        NvmlError::NoPermission => GpuState::NoPermission,
        NvmlError::LibRmVersionMismatch => GpuState::VersionMismatch,
        // The loader's message; the wrapper's has no details.
        NvmlError::LibloadingError(loader) => GpuState::LibraryUnavailable(loader.to_string()),
        NvmlError::LibraryNotFound => GpuState::LibraryUnavailable(error.to_string()),
        // A code that is newer than the wrapper.
        NvmlError::UnexpectedVariant(code) => GpuState::Failed(format!("{operation}: NVML error {code}")),
        _ => GpuState::Failed(format!("{operation}: {error}")),
    }
}
