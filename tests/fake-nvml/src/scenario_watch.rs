//! Waiting for another scenario without looking again and again, which would cost more than what watches the card.

use std::{
    ffi::CString,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    time::Duration,
};

use crate::{
    call::{Code, UNKNOWN},
    files,
};

/// Notices every scenario that is renamed into place while it lives.
pub(crate) struct ScenarioWatch(OwnedFd);

impl ScenarioWatch {
    pub(crate) fn watch() -> Result<Self, Code> {
        let dir = files::dir().ok_or(UNKNOWN)?.as_os_str().as_bytes();
        let dir = CString::new(dir).map_err(|_| UNKNOWN)?;
        // SAFETY: no pointer goes in.
        let raw = unsafe { libc::inotify_init1(libc::IN_CLOEXEC) };
        if raw < 0 {
            return Err(UNKNOWN);
        }
        // SAFETY: just made, and nobody else's.
        let notify = unsafe { OwnedFd::from_raw_fd(raw) };
        // SAFETY: the path is a string of ours.
        let added = unsafe { libc::inotify_add_watch(raw, dir.as_ptr(), libc::IN_MOVED_TO) };
        if added < 0 { Err(UNKNOWN) } else { Ok(Self(notify)) }
    }

    /// Waits for a change, or that long.
    pub(crate) fn wait(&self, left: Duration) {
        let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // Not cut to zero, or the last millisecond would be spent in a loop.
        let milliseconds = i32::try_from(left.as_micros().div_ceil(1_000)).unwrap_or(i32::MAX);
        // SAFETY: one entry, which is ours.
        let ready = unsafe { libc::poll(&raw mut poll, 1, milliseconds) };
        if ready > 0 {
            let mut buffer = [0_u8; 4096];
            // SAFETY: the buffer is ours, and as long as stated.
            unsafe { libc::read(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
        }
    }
}
