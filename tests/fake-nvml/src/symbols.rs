//! The symbols themselves, with the layouts of `nvml.h`: only what the sidecar calls, and what the wrapper calls
//! when it is dropped.

use std::ffi::{CStr, c_char, c_void};

use crate::{
    Gpu, Process,
    call::{
        ARGUMENT_VERSION_MISMATCH, Code, Handle, INSUFFICIENT_SIZE, INVALID_ARGUMENT, NOT_FOUND, card,
        handle_of, may_answer, system,
    },
    machine,
};

const MIB: u64 = 1 << 20;
/// Size of the structure, and its version 2 in the highest byte.
const MEMORY_VERSION: u32 = 0x0200_0028;
/// "Does not say", and "no instance of a partitioned card".
const NO_BYTES: u64 = u64::MAX;
const NO_INSTANCE: u32 = u32::MAX;

/// `nvmlMemory_v2_t`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Memory {
    version: u32,
    total: u64,
    reserved: u64,
    free: u64,
    used: u64,
}

/// `nvmlUtilization_t`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Rates {
    gpu: u32,
    memory: u32,
}

/// `nvmlProcessInfo_t`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct ProcessEntry {
    pid: u32,
    used: u64,
    gpu_instance: u32,
    compute_instance: u32,
}

const _: () =
    assert!(size_of::<Memory>() == 40 && size_of::<Rates>() == 8 && size_of::<ProcessEntry>() == 24);

// The machine.

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlInit_v2() -> Code {
    system("nvmlInit_v2", |scenario| if scenario.init_error == 0 { Ok(()) } else { Err(scenario.init_error) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlInitWithFlags(_flags: u32) -> Code {
    // SAFETY: it takes nothing.
    unsafe { nvmlInit_v2() }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlShutdown() -> Code {
    let code = system("nvmlShutdown", |_| Ok(()));
    machine::let_go();
    code
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlSystemGetDriverVersion(text: *mut c_char, length: u32) -> Code {
    // SAFETY: the caller's buffer.
    system("nvmlSystemGetDriverVersion", |scenario| unsafe {
        put_text(text, length, &scenario.driver_version)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetCreate(set: *mut *mut c_void) -> Code {
    // SAFETY: the caller's pointer.
    system("nvmlEventSetCreate", |_| unsafe { put(set, std::ptr::without_provenance_mut(1)) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetFree(_set: *mut c_void) -> Code {
    system("nvmlEventSetFree", |_| Ok(()))
}

// Finding a card.

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut u32) -> Code {
    // SAFETY: the caller's pointer.
    system("nvmlDeviceGetCount_v2", |scenario| unsafe { put(count, length_of(&scenario.gpus)) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: u32, handle: *mut Handle) -> Code {
    let symbol = "nvmlDeviceGetHandleByIndex_v2";
    system(symbol, |scenario| {
        let gpu = scenario.gpus.iter().find(|gpu| gpu.index == index).ok_or(INVALID_ARGUMENT)?;
        may_answer(symbol, gpu)?;
        // SAFETY: the caller's pointer.
        unsafe { put(handle, handle_of(gpu)) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetHandleByUUID(uuid: *const c_char, handle: *mut Handle) -> Code {
    let symbol = "nvmlDeviceGetHandleByUUID";
    system(symbol, |scenario| {
        if uuid.is_null() {
            return Err(INVALID_ARGUMENT);
        }
        // SAFETY: the caller's string, not null.
        let uuid = unsafe { CStr::from_ptr(uuid) }.to_bytes();
        let gpu = scenario.gpus.iter().find(|gpu| gpu.uuid.as_bytes() == uuid).ok_or(NOT_FOUND)?;
        may_answer(symbol, gpu)?;
        // SAFETY: the caller's pointer.
        unsafe { put(handle, handle_of(gpu)) }
    })
}

// One card.

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetIndex(gpu: Handle, index: *mut u32) -> Code {
    // SAFETY: the caller's pointer.
    card("nvmlDeviceGetIndex", gpu, |gpu| unsafe { put(index, gpu.index) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetName(gpu: Handle, text: *mut c_char, length: u32) -> Code {
    // SAFETY: the caller's buffer.
    card("nvmlDeviceGetName", gpu, |gpu| unsafe { put_text(text, length, &gpu.name) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetUUID(gpu: Handle, text: *mut c_char, length: u32) -> Code {
    // SAFETY: the caller's buffer.
    card("nvmlDeviceGetUUID", gpu, |gpu| unsafe { put_text(text, length, &gpu.uuid) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(gpu: Handle, memory: *mut Memory) -> Code {
    card("nvmlDeviceGetMemoryInfo_v2", gpu, |gpu| {
        // SAFETY: the caller's structure, or null; whoever asks for version 2 has set its version.
        match unsafe { memory.as_ref() }.ok_or(INVALID_ARGUMENT)?.version {
            // SAFETY: as above.
            MEMORY_VERSION => unsafe { put(memory, memory_of(gpu)) },
            _ => Err(ARGUMENT_VERSION_MISMATCH),
        }
    })
}

fn memory_of(gpu: &Gpu) -> Memory {
    let memory = gpu.memory;
    Memory {
        version: MEMORY_VERSION,
        total: memory.total * MIB,
        reserved: memory.reserved * MIB,
        free: memory.total.saturating_sub(memory.reserved + memory.used) * MIB,
        used: memory.used * MIB,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetUtilizationRates(gpu: Handle, rates: *mut Rates) -> Code {
    card("nvmlDeviceGetUtilizationRates", gpu, |gpu| {
        let busy = gpu.utilization;
        // SAFETY: the caller's pointer.
        unsafe { put(rates, Rates { gpu: busy.gpu, memory: busy.memory }) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetTemperature(gpu: Handle, sensor: u32, temperature: *mut u32) -> Code {
    card("nvmlDeviceGetTemperature", gpu, |gpu| match sensor {
        // SAFETY: the caller's pointer.
        0 => unsafe { put(temperature, gpu.temperature) },
        _ => Err(INVALID_ARGUMENT),
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetPowerUsage(gpu: Handle, milliwatts: *mut u32) -> Code {
    // SAFETY: the caller's pointer.
    card("nvmlDeviceGetPowerUsage", gpu, |gpu| unsafe { put(milliwatts, gpu.power_draw_mw) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetEnforcedPowerLimit(gpu: Handle, milliwatts: *mut u32) -> Code {
    // SAFETY: the caller's pointer.
    card("nvmlDeviceGetEnforcedPowerLimit", gpu, |gpu| unsafe { put(milliwatts, gpu.power_limit_mw) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetPerformanceState(gpu: Handle, state: *mut u32) -> Code {
    // SAFETY: the caller's pointer.
    card("nvmlDeviceGetPerformanceState", gpu, |gpu| unsafe { put(state, gpu.pstate) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    gpu: Handle,
    count: *mut u32,
    entries: *mut ProcessEntry,
) -> Code {
    // SAFETY: the caller's pointers.
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
    // SAFETY: the caller's pointers.
    card("nvmlDeviceGetGraphicsRunningProcesses_v3", gpu, |gpu| unsafe {
        put_processes(gpu, true, count, entries)
    })
}

/// The caller says how many it has room for and is told how many there are; without enough room, only that.
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
    // SAFETY: the caller's pointer, or null.
    let room = *unsafe { count.as_ref() }.ok_or(INVALID_ARGUMENT)?;
    // SAFETY: just seen not to be null.
    unsafe { put(count, length_of(&all)) }?;
    if length_of(&all) > room || (entries.is_null() && !all.is_empty()) {
        return Err(INSUFFICIENT_SIZE);
    }
    for (at, process) in all.into_iter().enumerate() {
        // SAFETY: there is room for as many as the caller said.
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

// Handing values to C.

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
