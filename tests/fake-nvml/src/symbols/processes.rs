//! Who holds a card's memory.

use super::{MIB, NO_INSTANCE, length_of, put};
use crate::{
    Gpu, Process,
    call::{Code, Handle, INSUFFICIENT_SIZE, INVALID_ARGUMENT, card},
};

/// "Does not say".
const NO_BYTES: u64 = u64::MAX;

/// `nvmlProcessInfo_t`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct ProcessEntry {
    pid: u32,
    used: u64,
    gpu_instance: u32,
    compute_instance: u32,
}

const _: () = assert!(size_of::<ProcessEntry>() == 24);

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    gpu: Handle,
    count: *mut u32,
    entries: *mut ProcessEntry,
) -> Code {
    // SAFETY: the client's pointers.
    card("nvmlDeviceGetComputeRunningProcesses_v3", gpu, |gpu| unsafe {
        put_processes(gpu, false, count, entries)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetGraphicsRunningProcesses_v3(
    gpu: Handle,
    count: *mut u32,
    entries: *mut ProcessEntry,
) -> Code {
    // SAFETY: the client's pointers.
    card("nvmlDeviceGetGraphicsRunningProcesses_v3", gpu, |gpu| unsafe {
        put_processes(gpu, true, count, entries)
    })
}

/// The client passes how many it has room for and gets how many there are; without enough room, only that.
///
/// # Safety
/// `count` is valid or null, and `entries` has room for that many.
unsafe fn put_processes(
    gpu: &Gpu,
    graphics: bool,
    count: *mut u32,
    entries: *mut ProcessEntry,
) -> Result<(), Code> {
    let all: Vec<_> = gpu.processes.iter().filter(|process| process.graphics == graphics).collect();
    // SAFETY: the client's pointer, or null.
    let room = *unsafe { count.as_ref() }.ok_or(INVALID_ARGUMENT)?;
    // SAFETY: just seen not to be null.
    unsafe { put(count, length_of(&all)) }?;
    if length_of(&all) > room || (entries.is_null() && !all.is_empty()) {
        return Err(INSUFFICIENT_SIZE);
    }
    for (at, process) in all.into_iter().enumerate() {
        // SAFETY: there is room for as many as the client said.
        unsafe { entries.add(at).write(entry_of(process)) };
    }
    Ok(())
}

fn entry_of(process: &Process) -> ProcessEntry {
    ProcessEntry {
        pid: process.pid,
        used: process.used_mib.map_or(NO_BYTES, |mib| mib * MIB),
        gpu_instance: NO_INSTANCE,
        compute_instance: NO_INSTANCE,
    }
}
