//! The symbols themselves, with the layouts of `nvml.h`: only what the sidecar calls, and what the wrapper calls
//! when it is dropped. Here is how they hand values to C.

mod events;
mod faults;
mod fields;
mod identity;
mod load;
mod processes;
mod system;

use std::ffi::c_char;

use crate::call::{Code, INSUFFICIENT_SIZE, INVALID_ARGUMENT};

const MIB: u64 = 1 << 20;
/// "No instance of a partitioned card".
const NO_INSTANCE: u32 = u32::MAX;

/// Symbols that only hand out one value of a card.
macro_rules! values {
    ($($symbol:ident($gpu:ident) -> $type:ty { $value:expr })*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $symbol(gpu: $crate::call::Handle, to: *mut $type) -> $crate::call::Code {
            $crate::call::card(stringify!($symbol), gpu, |$gpu| {
                let value: $type = $value;
                // SAFETY: the client's pointer.
                unsafe { $crate::symbols::put(to, value) }
            })
        }
    )*};
}
use values;

/// # Safety
/// `to` is valid or null.
unsafe fn put<T>(to: *mut T, value: T) -> Result<(), Code> {
    if to.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: not null, and so valid.
    unsafe { to.write(value) };
    Ok(())
}

/// # Safety
/// Both are valid or null.
unsafe fn put_both<T>(first: *mut T, second: *mut T, values: (T, T)) -> Result<(), Code> {
    // SAFETY: the client's promise.
    unsafe { put(first, values.0).and_then(|()| put(second, values.1)) }
}

/// # Safety
/// `to` has room for `length` characters, or is null.
unsafe fn put_text(to: *mut c_char, length: u32, text: &str) -> Result<(), Code> {
    if to.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    if text.len() >= length as usize {
        return Err(INSUFFICIENT_SIZE);
    }
    // SAFETY: there is room for the text and the zero behind it.
    unsafe {
        to.copy_from_nonoverlapping(text.as_ptr().cast(), text.len());
        to.add(text.len()).write(0);
    }
    Ok(())
}

fn length_of<T>(all: &[T]) -> u32 {
    u32::try_from(all.len()).unwrap_or(u32::MAX)
}
