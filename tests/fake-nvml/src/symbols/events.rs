//! Sets of events.

use std::ffi::c_void;

use super::put;
use crate::call::{Code, system};

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetCreate(set: *mut *mut c_void) -> Code {
    // SAFETY: the caller's pointer.
    system("nvmlEventSetCreate", |_| unsafe { put(set, std::ptr::without_provenance_mut(1)) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetFree(_set: *mut c_void) -> Code {
    system("nvmlEventSetFree", |_| Ok(()))
}
