//! The store belongs to one process: two would sweep each other's unfinished files.

use std::{
    fs::{File, TryLockError},
    io::{ErrorKind, Read, Seek, Write},
    path::Path,
};

use service::files::open_no_follow;

/// The lock; released when dropped, or when the process ends in any way.
#[derive(Debug)]
pub(super) struct StoreLock {
    _file: File,
}

/// Why the lock was not had.
#[derive(Debug)]
pub(super) enum LockError {
    /// This process has it, in its own words.
    Held(String),
    /// Something else than a file of ours lies there.
    NotRegularFile(String),
    /// The file cannot be made or locked.
    Io(std::io::Error),
}

impl StoreLock {
    /// Takes the lock and writes down who has it.
    pub(super) fn acquire(dir: &Path) -> Result<Self, LockError> {
        let path = dir.join(".lock");
        // Not truncated: until it is ours, it says whose it is.
        let mut file = open_no_follow(&path).map_err(|error| match error.kind() {
            ErrorKind::InvalidInput => LockError::NotRegularFile(error.to_string()),
            _ => LockError::Io(error),
        })?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.take(200).read_to_string(&mut holder);
                let (process, program) = holder.trim().split_once('\n').unwrap_or((holder.trim(), "another"));
                return Err(LockError::Held(
                    format!("{program}, process {process}").escape_debug().to_string(),
                ));
            }
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(io)?;
        // The process id first and alone, for whoever looks for a pid file.
        writeln!(file, "{}\ngateway {}", std::process::id(), env!("CARGO_PKG_VERSION")).map_err(io)?;
        Ok(Self { _file: file })
    }
}

fn io(error: std::io::Error) -> LockError {
    LockError::Io(error)
}
