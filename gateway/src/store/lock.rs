//! The store belongs to one process: two would remove each other's unfinished files.

use std::{
    fs::{File, TryLockError},
    io::{ErrorKind, Read, Seek, Write},
    path::Path,
};

use service::files::open_no_follow;

/// Released when dropped, and when the process ends.
#[derive(Debug)]
pub(super) struct StoreLock {
    _file: File,
}

#[derive(Debug)]
pub(super) enum LockError {
    /// By this program and process.
    Held(String),
    NotRegularFile(String),
    /// The file cannot be created or locked.
    Io(std::io::Error),
}

impl StoreLock {
    /// Locks the store and writes this process into the lock file.
    pub(super) fn acquire(dir: &Path) -> Result<Self, LockError> {
        let path = dir.join(".lock");
        // Not truncated: it names the holder until it is ours.
        let mut file = open_no_follow(&path).map_err(|error| match error.kind() {
            ErrorKind::InvalidInput => LockError::NotRegularFile(error.to_string()),
            _ => LockError::Io(error),
        })?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.take(200).read_to_string(&mut holder);
                let (process, program) =
                    holder.trim().split_once('\n').unwrap_or((holder.trim(), "an unknown program"));
                return Err(LockError::Held(
                    format!("{program}, process {process}").escape_debug().to_string(),
                ));
            }
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(io)?;
        // The process id on a line of its own, as in a pid file.
        writeln!(file, "{}\ngateway {}", std::process::id(), env!("CARGO_PKG_VERSION")).map_err(io)?;
        Ok(Self { _file: file })
    }
}

fn io(error: std::io::Error) -> LockError {
    LockError::Io(error)
}
