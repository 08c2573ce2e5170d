//! The driver's library: load it, find the card, read it. Only this file and those below it name `nvml_wrapper`; what
//! they cannot read is absent, and what keeps them from reading at all is a [`GpuState`].

mod card;
mod events;

use std::path::Path;

use nvml_wrapper::{Nvml, error::NvmlError};

use super::GpuState;

pub(crate) use card::recovery_action_name;
pub(super) use card::{Card, Sibling, SlowReading};
pub(super) use events::XidEvents;

/// `NVML_ERROR_GPU_NOT_FOUND`, which the wrapper does not know by name.
const GPU_NOT_FOUND: u32 = 28;
/// `NVML_ERROR_ARGUMENT_VERSION_MISMATCH`, `NVML_ERROR_DEPRECATED`: the driver is older or newer than this question.
const NOT_THIS_VERSION: [u32; 2] = [25, 26];

/// NVML, loaded and initialised. Dropping it lets go of the driver, so that it can be reloaded.
pub(super) struct Library(Box<Nvml>);

impl Library {
    /// Loads and initialises it.
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
    pub(super) fn card(&self, wanted: &str) -> Result<Card<'_>, GpuState> {
        let found = match wanted.parse() {
            Ok(index) => self.0.device_by_index(index),
            Err(_) => self.0.device_by_uuid(wanted),
        };
        match found {
            Ok(device) => Card::identify(device, &self.0),
            Err(
                NvmlError::InvalidArg | NvmlError::NotFound | NvmlError::UnexpectedVariant(GPU_NOT_FOUND),
            ) => Err(GpuState::NoDevice { requested: wanted.to_owned(), found: self.inventory() }),
            Err(error) => Err(state_from_error("looking for the GPU", &error)),
        }
    }

    /// Listens to what the driver reports of the card.
    pub(super) fn events<'nvml>(&'nvml self, card: &Card<'nvml>) -> XidEvents<'nvml> {
        XidEvents::register(&self.0, card)
    }

    /// Every card and who uses it. One that is lost is an error.
    pub(super) fn cards(&self) -> Result<Vec<Sibling>, GpuState> {
        let count = self.0.device_count().map_err(|error| state_from_error("counting the GPUs", &error))?;
        if count == 0 {
            return Err(GpuState::NoDevice { requested: "0".to_owned(), found: Vec::new() });
        }
        (0..count).map(|index| Sibling::at(&self.0, index)).collect()
    }

    /// `0 = GPU-… (NVIDIA RTX 6000 Ada Generation)`, one for each card.
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

/// A reading that may be absent: whatever keeps it from us, except that the card is gone, is no trouble of the card.
fn optional<T>(reading: Result<T, NvmlError>) -> Result<Option<T>, GpuState> {
    match reading {
        Ok(value) => Ok(Some(value)),
        Err(NvmlError::GpuLost | NvmlError::ResetRequired) => Err(GpuState::Lost),
        Err(_) => Ok(None),
    }
}

/// A reading that shows that the driver answers: it may be one that this driver or card does not have, and that is all.
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

/// Why nothing can be read.
fn state_from_error(operation: &str, error: &NvmlError) -> GpuState {
    match error {
        NvmlError::GpuLost | NvmlError::ResetRequired => GpuState::Lost,
        NvmlError::DriverNotLoaded => GpuState::DriverNotLoaded,
        NvmlError::NoPermission => GpuState::NoPermission,
        NvmlError::LibRmVersionMismatch => GpuState::VersionMismatch,
        // The loader's own words; the wrapper's only say that there are some.
        NvmlError::LibloadingError(loader) => GpuState::LibraryUnavailable(loader.to_string()),
        NvmlError::LibraryNotFound => GpuState::LibraryUnavailable(error.to_string()),
        // Codes newer than the wrapper; its own words call them an enum variant.
        NvmlError::UnexpectedVariant(code) => GpuState::Failed(format!("{operation}: NVML error {code}")),
        _ => GpuState::Failed(format!("{operation}: {error}")),
    }
}
