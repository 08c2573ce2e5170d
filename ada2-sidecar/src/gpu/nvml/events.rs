//! The driver's error reports (XIDs), which no reading shows: NVML's event set. The sampler sleeps by waiting for one, so that
//! it can act at once.

use std::{
    thread,
    time::{Duration, Instant},
};

use nvml_wrapper::{
    Nvml, bitmasks::event::EventTypes, enums::event::XidError, error::NvmlError, event::EventSet,
};

use super::Card;
use crate::gpu::GpuState;

/// The code for "unknown".
const UNKNOWN_XID: u32 = 999;

/// The driver's reports for one card.
pub(in crate::gpu) struct XidEvents<'nvml>(Option<EventSet<'nvml>>);

impl<'nvml> XidEvents<'nvml> {
    pub(super) fn register(nvml: &'nvml Nvml, card: &Card<'nvml>) -> Self {
        // Without this symbol, dropping the set would panic.
        if nvml.lib().nvmlEventSetFree.is_err() {
            return Self(None);
        }
        let register = |set| card.device.register_events(EventTypes::CRITICAL_XID_ERROR, set).ok();
        Self(nvml.create_event_set().ok().and_then(register))
    }

    pub(in crate::gpu) fn is_registered(&self) -> bool {
        self.0.is_some()
    }

    /// Sleeps for that long, or until the next report; returns its code. Several reports between two calls all have the code
    /// of the last one (as NVML documents).
    pub(in crate::gpu) fn wait(&self, time: Duration) -> Result<Option<u32>, GpuState> {
        let until = Instant::now() + time;
        let waited = match &self.0 {
            Some(set) => set.wait(u32::try_from(time.as_millis()).unwrap_or(u32::MAX)),
            None => Err(NvmlError::NotSupported),
        };
        match waited {
            Ok(event) => Ok(event.event_data.map(|xid| match xid {
                XidError::Value(code) => u32::try_from(code).unwrap_or(UNKNOWN_XID),
                XidError::Unknown => UNKNOWN_XID,
            })),
            Err(NvmlError::GpuLost | NvmlError::ResetRequired) => Err(GpuState::Lost),
            Err(_) => {
                // If the set fails at once, avoid a busy loop.
                thread::sleep(until.saturating_duration_since(Instant::now()));
                Ok(None)
            }
        }
    }
}
