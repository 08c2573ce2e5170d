//! What every call does before it answers: note itself, read the scenario, be slow or hang, fail as told.

use std::{
    ffi::{CStr, OsStr, c_void},
    fs::{self, OpenOptions},
    io::Write,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use crate::{CALLS_FILE, Gpu, SCENARIO_FILE, Scenario};

/// `nvmlReturn_t`.
pub(crate) type Code = u32;
/// `nvmlDevice_t`: opaque; ours is the card's index plus one, for it must not be null.
pub(crate) type Handle = *mut c_void;

pub(crate) const SUCCESS: Code = 0;
pub(crate) const INVALID_ARGUMENT: Code = 2;
pub(crate) const NOT_SUPPORTED: Code = 3;
pub(crate) const NOT_FOUND: Code = 6;
pub(crate) const INSUFFICIENT_SIZE: Code = 7;
pub(crate) const GPU_IS_LOST: Code = 15;
pub(crate) const ARGUMENT_VERSION_MISMATCH: Code = 25;
pub(crate) const UNKNOWN: Code = 999;

/// A call that is about the machine.
pub(crate) fn system(symbol: &str, answer: impl FnOnce(&Scenario) -> Result<(), Code>) -> Code {
    let answered = machine(symbol).and_then(|scenario| answer(&scenario));
    answered.err().unwrap_or(SUCCESS)
}

/// A call that is about one card.
pub(crate) fn card(symbol: &str, handle: Handle, answer: impl FnOnce(&Gpu) -> Result<(), Code>) -> Code {
    system(symbol, |scenario| {
        let is_meant = |gpu: &&Gpu| handle_of(gpu) == handle;
        let gpu = scenario.gpus.iter().find(is_meant).ok_or(INVALID_ARGUMENT)?;
        may_answer(symbol, gpu)?;
        answer(gpu)
    })
}

/// Whether the card answers this symbol.
pub(crate) fn may_answer(symbol: &str, gpu: &Gpu) -> Result<(), Code> {
    if gpu.lost {
        return Err(GPU_IS_LOST);
    }
    if gpu.unsupported.iter().any(|unsupported| unsupported == symbol) {
        return Err(NOT_SUPPORTED);
    }
    gpu.errors.get(symbol).map_or(Ok(()), |code| Err(*code))
}

pub(crate) fn handle_of(gpu: &Gpu) -> Handle {
    (gpu.index as usize + 1) as Handle
}

fn machine(symbol: &str) -> Result<Scenario, Code> {
    let folder = own_folder().ok_or(UNKNOWN)?;
    note(&folder, symbol);
    let scenario: Scenario = fs::read(folder.join(SCENARIO_FILE))
        .ok()
        .and_then(|json| serde_json::from_slice(&json).ok())
        .ok_or(UNKNOWN)?;
    while scenario.hang.iter().any(|hanging| hanging == symbol) {
        thread::sleep(Duration::from_hours(1));
    }
    if let Some(milliseconds) = scenario.delay_ms.get(symbol) {
        thread::sleep(Duration::from_millis(*milliseconds));
    }
    Ok(scenario)
}

/// One write, to a file that is only ever appended to: lines of several threads do not mix. A test that is over has
/// removed the folder, and then nobody reads it.
fn note(folder: &Path, symbol: &str) {
    if let Ok(mut calls) = OpenOptions::new().append(true).create(true).open(folder.join(CALLS_FILE)) {
        let _ = calls.write_all(format!("{symbol}\n").as_bytes());
    }
}

/// Where this copy of the library was loaded from.
fn own_folder() -> Option<PathBuf> {
    let mut found = libc::Dl_info {
        dli_fname: std::ptr::null(),
        dli_fbase: std::ptr::null_mut(),
        dli_sname: std::ptr::null(),
        dli_saddr: std::ptr::null_mut(),
    };
    // SAFETY: the address is of a function in this library, and `found` is ours to be written.
    let known = unsafe { libc::dladdr(own_folder as *const c_void, &raw mut found) };
    if known == 0 || found.dli_fname.is_null() {
        return None;
    }
    // SAFETY: the loader's string, which lives as long as the library is loaded.
    let path = unsafe { CStr::from_ptr(found.dli_fname) };
    Path::new(OsStr::from_bytes(path.to_bytes())).parent().map(Path::to_owned)
}
