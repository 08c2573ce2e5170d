//! How busy a card is, and how hard it works: what changes from one second to the next.

use super::{MIB, put, put_both, values};
use crate::{
    Clocks, Gpu,
    call::{ARGUMENT_VERSION_MISMATCH, Code, Handle, INVALID_ARGUMENT, card},
};

/// Microseconds over which a codec's use is measured.
const CODEC_WINDOW: u32 = 167_000;
/// Size of the structure, and its version 2 in the highest byte.
const MEMORY_VERSION: u32 = 0x0200_0028;

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

const _: () = assert!(size_of::<Memory>() == 40 && size_of::<Rates>() == 8);

values! {
    nvmlDeviceGetUtilizationRates(gpu) -> Rates {
        Rates { gpu: gpu.utilization.gpu, memory: gpu.utilization.memory }
    }
    nvmlDeviceGetPowerUsage(gpu) -> u32 { gpu.power_draw_mw }
    nvmlDeviceGetEnforcedPowerLimit(gpu) -> u32 { gpu.power_limit_mw }
    nvmlDeviceGetPowerManagementLimit(gpu) -> u32 { gpu.power_management_limit_mw }
    nvmlDeviceGetPowerManagementDefaultLimit(gpu) -> u32 { gpu.power_range.default_mw }
    nvmlDeviceGetTotalEnergyConsumption(gpu) -> u64 { gpu.energy_mj }
    nvmlDeviceGetPerformanceState(gpu) -> u32 { gpu.pstate }
    nvmlDeviceGetCurrentClocksThrottleReasons(gpu) -> u64 { gpu.throttle_reasons }
    nvmlDeviceGetSupportedClocksThrottleReasons(gpu) -> u64 { gpu.supported_throttle_reasons }
    nvmlDeviceGetCurrPcieLinkGeneration(gpu) -> u32 { gpu.pcie.generation }
    nvmlDeviceGetMaxPcieLinkGeneration(gpu) -> u32 { gpu.pcie.max_generation }
    nvmlDeviceGetCurrPcieLinkWidth(gpu) -> u32 { gpu.pcie.width }
    nvmlDeviceGetMaxPcieLinkWidth(gpu) -> u32 { gpu.pcie.max_width }
    nvmlDeviceGetNumFans(gpu) -> u32 { super::length_of(&gpu.fans) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(gpu: Handle, memory: *mut Memory) -> Code {
    card("nvmlDeviceGetMemoryInfo_v2", gpu, |gpu| {
        // SAFETY: the client's structure, or null; whoever asks for version 2 has set its version.
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
unsafe extern "C" fn nvmlDeviceGetTemperature(gpu: Handle, sensor: u32, temperature: *mut u32) -> Code {
    card("nvmlDeviceGetTemperature", gpu, |gpu| match sensor {
        // SAFETY: the client's pointer.
        0 => unsafe { put(temperature, gpu.temperature) },
        _ => Err(INVALID_ARGUMENT),
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetClockInfo(gpu: Handle, clock: u32, megahertz: *mut u32) -> Code {
    card("nvmlDeviceGetClockInfo", gpu, |gpu| {
        let value = clock_of(gpu.clocks, clock)?;
        // SAFETY: the client's pointer.
        unsafe { put(megahertz, value) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMaxClockInfo(gpu: Handle, clock: u32, megahertz: *mut u32) -> Code {
    card("nvmlDeviceGetMaxClockInfo", gpu, |gpu| {
        let value = clock_of(gpu.max_clocks, clock)?;
        // SAFETY: the client's pointer.
        unsafe { put(megahertz, value) }
    })
}

fn clock_of(clocks: Clocks, which: u32) -> Result<u32, Code> {
    match which {
        0 => Ok(clocks.graphics),
        1 => Ok(clocks.sm),
        2 => Ok(clocks.memory),
        3 => Ok(clocks.video),
        _ => Err(INVALID_ARGUMENT),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetPowerManagementLimitConstraints(
    gpu: Handle,
    least: *mut u32,
    most: *mut u32,
) -> Code {
    // SAFETY: the client's pointers.
    card("nvmlDeviceGetPowerManagementLimitConstraints", gpu, |gpu| unsafe {
        put_both(least, most, (gpu.power_range.min_mw, gpu.power_range.max_mw))
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetEncoderUtilization(gpu: Handle, busy: *mut u32, window: *mut u32) -> Code {
    // SAFETY: the client's pointers.
    card("nvmlDeviceGetEncoderUtilization", gpu, |gpu| unsafe {
        put_both(busy, window, (gpu.utilization.encoder, CODEC_WINDOW))
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetDecoderUtilization(gpu: Handle, busy: *mut u32, window: *mut u32) -> Code {
    // SAFETY: the client's pointers.
    card("nvmlDeviceGetDecoderUtilization", gpu, |gpu| unsafe {
        put_both(busy, window, (gpu.utilization.decoder, CODEC_WINDOW))
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetFanSpeed_v2(gpu: Handle, fan: u32, percent: *mut u32) -> Code {
    card("nvmlDeviceGetFanSpeed_v2", gpu, |gpu| {
        let value = *gpu.fans.get(fan as usize).ok_or(INVALID_ARGUMENT)?;
        // SAFETY: the client's pointer.
        unsafe { put(percent, value) }
    })
}
