//! XIDs as events, without polling.

use std::{
    ffi::c_void,
    time::{Duration, Instant},
};

use super::{NO_INSTANCE, put, values};
use crate::{
    call::{
        Code, Handle, INVALID_ARGUMENT, NOT_SUPPORTED, TIMEOUT, card, handle_at, scenario_when_ready, system,
    },
    event_sets::{self, Event, XID},
    scenario_watch::ScenarioWatch,
};

/// `nvmlEventSet_t`: opaque.
type SetHandle = *mut c_void;

/// `nvmlEventData_t`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct EventEntry {
    gpu: Handle,
    kind: u64,
    data: u64,
    gpu_instance: u32,
    compute_instance: u32,
}

const _: () = assert!(size_of::<EventEntry>() == 32);

values! {
    nvmlDeviceGetSupportedEventTypes(gpu) -> u64 { gpu.event_types }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetCreate(set: *mut SetHandle) -> Code {
    system("nvmlEventSetCreate", |_| {
        if set.is_null() {
            return Err(INVALID_ARGUMENT);
        }
        // SAFETY: the client's pointer.
        unsafe { put(set, std::ptr::without_provenance_mut(event_sets::create())) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceRegisterEvents(gpu: Handle, types: u64, set: SetHandle) -> Code {
    card("nvmlDeviceRegisterEvents", gpu, |gpu| {
        if types & !gpu.event_types != 0 {
            return Err(NOT_SUPPORTED);
        }
        event_sets::register(set.addr(), gpu, types)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetWait_v2(set: SetHandle, event: *mut EventEntry, timeout_ms: u32) -> Code {
    let symbol = "nvmlEventSetWait_v2";
    let (began, timeout) = (Instant::now(), Duration::from_millis(timeout_ms.into()));
    system(symbol, |_| {
        if event.is_null() {
            return Err(INVALID_ARGUMENT);
        }
        // Before the first look: no change after it is missed.
        let news = ScenarioWatch::watch()?;
        loop {
            // Also a wait that has begun fails, or hangs, from the moment on when the scenario says so.
            let scenario = scenario_when_ready(symbol, began)?;
            if let Some(next) = event_sets::next(set.addr(), symbol, &scenario)? {
                // SAFETY: the client's pointer.
                return unsafe { put(event, entry_of(&next)) };
            }
            let left = timeout.saturating_sub(began.elapsed());
            if left.is_zero() {
                return Err(TIMEOUT);
            }
            news.wait(left);
        }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetFree(set: SetHandle) -> Code {
    system("nvmlEventSetFree", |_| event_sets::free(set.addr()))
}

fn entry_of(event: &Event) -> EventEntry {
    EventEntry {
        gpu: handle_at(event.index),
        kind: XID,
        data: event.xid,
        gpu_instance: NO_INSTANCE,
        compute_instance: NO_INSTANCE,
    }
}
