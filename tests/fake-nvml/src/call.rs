//! What every call does before it answers: note itself, look at the scenario, be slow or hang, fail as scripted.

use std::{
    ffi::c_void,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crate::{Gpu, Scenario, files};

/// `nvmlReturn_t`.
pub(crate) type Code = u32;
/// `nvmlDevice_t`: opaque; ours is the card's index plus one, for it must not be null.
pub(crate) type Handle = *mut c_void;

pub(crate) const SUCCESS: Code = 0;
pub(crate) const INVALID_ARGUMENT: Code = 2;
pub(crate) const NOT_SUPPORTED: Code = 3;
pub(crate) const NOT_FOUND: Code = 6;
pub(crate) const INSUFFICIENT_SIZE: Code = 7;
pub(crate) const TIMEOUT: Code = 10;
pub(crate) const GPU_IS_LOST: Code = 15;
pub(crate) const ARGUMENT_VERSION_MISMATCH: Code = 25;
pub(crate) const UNKNOWN: Code = 999;

/// How often a waiting call reads the scenario again.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// A call that is about the machine.
pub(crate) fn system(symbol: &str, answer: impl FnOnce(&Scenario) -> Result<(), Code>) -> Code {
    let began = Instant::now();
    files::log_call(symbol);
    let answered = scenario_when_ready(symbol, began).and_then(|scenario| answer(&scenario));
    answered.err().unwrap_or(SUCCESS)
}

/// A call that is about one card.
pub(crate) fn card(symbol: &str, handle: Handle, answer: impl FnOnce(&Gpu) -> Result<(), Code>) -> Code {
    system(symbol, |scenario| {
        let gpu = gpu_for_handle(scenario, handle)?;
        may_answer(symbol, gpu)?;
        answer(gpu)
    })
}

/// The scenario, once it lets a call answer that began then: a symbol hangs for as long as it is said to, and one
/// that is slow no longer is so as soon as the scenario says so.
pub(crate) fn scenario_when_ready(symbol: &str, began: Instant) -> Result<Arc<Scenario>, Code> {
    loop {
        let scenario = files::scenario()?;
        let delay = Duration::from_millis(scenario.delay_ms.get(symbol).copied().unwrap_or(0));
        let left = delay.saturating_sub(began.elapsed());
        let hangs = scenario.hang.iter().any(|hanging| hanging == symbol);
        if !hangs && left.is_zero() {
            return scenario.errors.get(symbol).map_or(Ok(scenario.clone()), |code| Err(*code));
        }
        thread::sleep(if hangs { POLL_INTERVAL } else { POLL_INTERVAL.min(left) });
    }
}

/// The card of this handle.
pub(crate) fn gpu_for_handle(scenario: &Scenario, handle: Handle) -> Result<&Gpu, Code> {
    scenario.gpus.iter().find(|gpu| handle_of(gpu) == handle).ok_or(INVALID_ARGUMENT)
}

/// Whether the card answers this symbol.
pub(crate) fn may_answer(symbol: &str, gpu: &Gpu) -> Result<(), Code> {
    if gpu.lost { Err(GPU_IS_LOST) } else { scripted_error(symbol, gpu) }
}

/// Whether a card that is there answers this symbol.
pub(crate) fn scripted_error(symbol: &str, gpu: &Gpu) -> Result<(), Code> {
    if gpu.unsupported.iter().any(|unsupported| unsupported == symbol) {
        return Err(NOT_SUPPORTED);
    }
    gpu.errors.get(symbol).map_or(Ok(()), |code| Err(*code))
}

pub(crate) fn handle_of(gpu: &Gpu) -> Handle {
    handle_at(gpu.index)
}

pub(crate) fn handle_at(index: u32) -> Handle {
    std::ptr::without_provenance_mut(index as usize + 1)
}
