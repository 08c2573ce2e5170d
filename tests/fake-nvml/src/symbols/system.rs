//! The machine: starting the driver's library, and finding a card.

use std::ffi::{CStr, c_char, c_int};

use super::{length_of, put, put_text};
use crate::{
    call::{Code, Handle, INVALID_ARGUMENT, NOT_FOUND, SUCCESS, handle_of, may_answer, system},
    files,
};

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlInit_v2() -> Code {
    let code =
        system(
            "nvmlInit_v2",
            |scenario| if scenario.init_error == 0 { Ok(()) } else { Err(scenario.init_error) },
        );
    if code != SUCCESS {
        // Nobody shuts down what did not start, and then the library may be unloaded.
        files::close_files();
    }
    code
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlInitWithFlags(_flags: u32) -> Code {
    // SAFETY: it takes nothing.
    unsafe { nvmlInit_v2() }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlShutdown() -> Code {
    let code = system("nvmlShutdown", |_| Ok(()));
    files::close_files();
    code
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlSystemGetDriverVersion(text: *mut c_char, length: u32) -> Code {
    // SAFETY: the client's buffer.
    system("nvmlSystemGetDriverVersion", |scenario| unsafe {
        put_text(text, length, &scenario.driver_version)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlSystemGetCudaDriverVersion_v2(version: *mut c_int) -> Code {
    // SAFETY: the client's pointer.
    system("nvmlSystemGetCudaDriverVersion_v2", |scenario| unsafe { put(version, scenario.cuda_version) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut u32) -> Code {
    // SAFETY: the client's pointer.
    system("nvmlDeviceGetCount_v2", |scenario| unsafe { put(count, length_of(&scenario.gpus)) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: u32, handle: *mut Handle) -> Code {
    let symbol = "nvmlDeviceGetHandleByIndex_v2";
    system(symbol, |scenario| {
        let gpu = scenario.gpus.iter().find(|gpu| gpu.index == index).ok_or(INVALID_ARGUMENT)?;
        may_answer(symbol, gpu)?;
        // SAFETY: the client's pointer.
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
        // SAFETY: the client's string, not null.
        let uuid = unsafe { CStr::from_ptr(uuid) }.to_bytes();
        let gpu = scenario.gpus.iter().find(|gpu| gpu.uuid.as_bytes() == uuid).ok_or(NOT_FOUND)?;
        may_answer(symbol, gpu)?;
        // SAFETY: the client's pointer.
        unsafe { put(handle, handle_of(gpu)) }
    })
}
