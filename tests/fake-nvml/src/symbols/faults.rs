//! Memory errors, corrected or not.

use super::{put, put_both};
use crate::call::{Code, Handle, INVALID_ARGUMENT, NOT_SUPPORTED, card};

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetEccMode(gpu: Handle, current: *mut u32, pending: *mut u32) -> Code {
    // SAFETY: the client's pointers.
    card("nvmlDeviceGetEccMode", gpu, |gpu| unsafe {
        put_both(current, pending, (gpu.ecc.current.into(), gpu.ecc.pending.into()))
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetTotalEccErrors(
    gpu: Handle,
    kind: u32,
    counter: u32,
    count: *mut u64,
) -> Code {
    card("nvmlDeviceGetTotalEccErrors", gpu, |gpu| {
        if !gpu.ecc.current {
            return Err(NOT_SUPPORTED);
        }
        let counts = match kind {
            0 => gpu.ecc.corrected,
            1 => gpu.ecc.uncorrected,
            _ => return Err(INVALID_ARGUMENT),
        };
        let value = match counter {
            0 => counts.volatile,
            1 => counts.aggregate,
            _ => return Err(INVALID_ARGUMENT),
        };
        // SAFETY: the client's pointer.
        unsafe { put(count, value) }
    })
}
