//! What a card is and how it is set up.

use std::ffi::{c_char, c_int};

use super::{put_both, put_text, values};
use crate::{
    Pci,
    call::{Code, Handle, NOT_SUPPORTED, card},
};

/// `nvmlPciInfo_t`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct PciEntry {
    legacy_bus_id: [u8; 16],
    domain: u32,
    bus: u32,
    device: u32,
    device_id: u32,
    subsystem_id: u32,
    bus_id: [u8; 32],
}

const _: () = assert!(size_of::<PciEntry>() == 68);

values! {
    nvmlDeviceGetIndex(gpu) -> u32 { gpu.index }
    nvmlDeviceGetPersistenceMode(gpu) -> u32 { gpu.persistence.into() }
    nvmlDeviceGetDisplayMode(gpu) -> u32 { gpu.display.connected.into() }
    nvmlDeviceGetDisplayActive(gpu) -> u32 { gpu.display.active.into() }
    nvmlDeviceGetComputeMode(gpu) -> u32 { gpu.compute_mode }
    nvmlDeviceGetPciInfo_v3(gpu) -> PciEntry { entry_of(gpu.pci) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetName(gpu: Handle, text: *mut c_char, length: u32) -> Code {
    // SAFETY: the client's buffer.
    card("nvmlDeviceGetName", gpu, |gpu| unsafe { put_text(text, length, &gpu.name) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetUUID(gpu: Handle, text: *mut c_char, length: u32) -> Code {
    // SAFETY: the client's buffer.
    card("nvmlDeviceGetUUID", gpu, |gpu| unsafe { put_text(text, length, &gpu.uuid) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetSerial(gpu: Handle, text: *mut c_char, length: u32) -> Code {
    card("nvmlDeviceGetSerial", gpu, |gpu| {
        let serial = gpu.serial.as_deref().ok_or(NOT_SUPPORTED)?;
        // SAFETY: the client's buffer.
        unsafe { put_text(text, length, serial) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetVbiosVersion(gpu: Handle, text: *mut c_char, length: u32) -> Code {
    // SAFETY: the client's buffer.
    card("nvmlDeviceGetVbiosVersion", gpu, |gpu| unsafe { put_text(text, length, &gpu.vbios) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetCudaComputeCapability(
    gpu: Handle,
    major: *mut c_int,
    minor: *mut c_int,
) -> Code {
    // SAFETY: the client's pointers.
    card("nvmlDeviceGetCudaComputeCapability", gpu, |gpu| unsafe {
        put_both(major, minor, gpu.compute_capability)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMigMode(gpu: Handle, current: *mut u32, pending: *mut u32) -> Code {
    card("nvmlDeviceGetMigMode", gpu, |gpu| {
        let mig = gpu.mig.ok_or(NOT_SUPPORTED)?;
        // SAFETY: the client's pointers.
        unsafe { put_both(current, pending, (mig.current.into(), mig.pending.into())) }
    })
}

fn entry_of(pci: Pci) -> PciEntry {
    let Pci { domain, bus, device, device_id, subsystem_id } = pci;
    PciEntry {
        legacy_bus_id: zero_ended(&format!("{domain:04X}:{bus:02X}:{device:02X}.0")),
        domain,
        bus,
        device,
        device_id,
        subsystem_id,
        bus_id: zero_ended(&format!("{domain:08X}:{bus:02X}:{device:02X}.0")),
    }
}

/// Longer text is truncated: readers look for the terminating zero.
fn zero_ended<const SIZE: usize>(text: &str) -> [u8; SIZE] {
    let mut characters = [0; SIZE];
    let length = text.len().min(SIZE - 1);
    characters[..length].copy_from_slice(&text.as_bytes()[..length]);
    characters
}
