//! A log file that is reopened after a rotation has renamed it, without a signal. This is checked before each line: a rotation
//! compresses the old file at once, and later lines in it would be lost.

use std::{
    fs::{self, File, Metadata},
    io::{self, ErrorKind, Write},
    os::{
        fd::AsFd,
        unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::log_writer::{LogSink, SinkChange};
use crate::files::create_group_readable;

/// Between two attempts to reopen the file.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    /// Device and inode.
    identity: (u64, u64),
    reopen_failure: Option<(Instant, String)>,
}

impl LogFile {
    /// Opens it for appending; a new one is readable by the group. Does not block: a named pipe would block the whole process
    /// until it has a reader.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let append = || {
            let flags = OFlags::NONBLOCK.bits().cast_signed();
            match File::options().append(true).custom_flags(flags).open(path) {
                Ok(file) => Ok(file),
                // For a pipe without a reader, this is `No such device or address`.
                Err(error) => Err(fs::metadata(path)
                    .ok()
                    .and_then(|metadata| check_file_type(&metadata))
                    .unwrap_or(error)),
            }
        };
        let file = match append() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                match create_group_readable(File::options().append(true), path) {
                    // The rotation has created it meanwhile.
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => append()?,
                    created => created?,
                }
            }
            opened => opened?,
        };
        let metadata = file.metadata()?;
        if let Some(why) = check_file_type(&metadata) {
            return Err(why);
        }
        // A write to a terminal or pipe blocks, as on standard error.
        fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
        let identity = identity(&metadata);
        Ok(Self { path: path.to_owned(), file, identity, reopen_failure: None })
    }

    fn is_current(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|metadata| identity(&metadata) == self.identity)
    }
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// An error unless it is a regular file, a device such as `/dev/null`, or our own standard output or error (`/dev/stderr` may
/// be a pipe).
fn check_file_type(metadata: &Metadata) -> Option<io::Error> {
    let kind = metadata.file_type();
    let is_own = |stream: io::Result<File>| {
        stream.and_then(|stream| stream.metadata()).is_ok_and(|other| identity(&other) == identity(metadata))
    };
    if kind.is_file()
        || kind.is_char_device()
        || is_own(duplicate(io::stdout()))
        || is_own(duplicate(io::stderr()))
    {
        return None;
    }
    let what = match () {
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a named pipe",
        () if kind.is_socket() => "a socket",
        () => "a disk",
    };
    let message =
        format!("it is {what}, which cannot hold a log: name a regular file, or none for standard error");
    Some(io::Error::new(ErrorKind::InvalidInput, message))
}

fn duplicate(stream: impl AsFd) -> io::Result<File> {
    stream.as_fd().try_clone_to_owned().map(File::from)
}

impl LogSink for LogFile {
    fn check_rotation(&mut self) -> SinkChange {
        if self.is_current() {
            self.reopen_failure = None;
            return SinkChange::Unchanged;
        }
        if self.reopen_failure.as_ref().is_some_and(|(at, _)| at.elapsed() < RETRY_INTERVAL) {
            return SinkChange::Unchanged;
        }
        match Self::open(&self.path) {
            Ok(reopened) => {
                *self = reopened;
                SinkChange::Reopened
            }
            Err(error) => {
                let message = format!(
                    "the log file {} was moved away and cannot be reopened: {error}; still writing to the old file",
                    self.path.display()
                );
                let already_reported =
                    self.reopen_failure.replace((Instant::now(), message.clone())).is_some();
                if already_reported { SinkChange::Unchanged } else { SinkChange::ReopenFailed(message) }
            }
        }
    }

    fn reopen_error(&self) -> Option<String> {
        self.reopen_failure.as_ref().map(|(_, message)| message.clone())
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, atomic::AtomicU64},
        thread,
    };

    use super::*;
    use crate::telemetry::{
        LogFormat,
        log_writer::{LogLine, LogWriter},
    };

    static DROPPED: AtomicU64 = AtomicU64::new(0);

    fn temp_dir() -> PathBuf {
        let dir = std::env::temp_dir().join(format!("log-file-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    fn lines(path: &Path) -> Vec<String> {
        fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    #[test]
    fn no_line_is_lost_in_a_rotation() {
        let dir = temp_dir();
        let log = dir.join("log");
        let writer = Arc::new(LogWriter::new(LogFile::open(&log).unwrap(), LogFormat::Text, &DROPPED));
        let writers: Vec<_> = (0..4)
            .map(|nr| {
                let mut line = LogLine(writer.clone());
                thread::spawn(move || {
                    for nth in 0..500 {
                        line.write_all(format!("{nr} {nth}\n").as_bytes()).unwrap();
                    }
                })
            })
            .collect();
        let mut rotated = Vec::new();
        for nth in 0..20 {
            while !log.exists() {
                thread::yield_now();
            }
            let moved = dir.join(format!("log.{nth}"));
            fs::rename(&log, &moved).unwrap();
            rotated.push(moved);
            // Some rotations create the new file.
            if nth % 2 == 0 {
                drop(File::options().append(true).create(true).open(&log).unwrap());
            }
            if writers.iter().all(thread::JoinHandle::is_finished) {
                break;
            }
        }
        for writer in writers {
            writer.join().unwrap();
        }
        let mut line = LogLine(writer);
        line.write_all(b"last\n").unwrap();
        assert_eq!(lines(&log).last().map(String::as_str), Some("last"), "later lines are in the new file");
        rotated.push(log);
        let mut all: Vec<_> =
            rotated.iter().flat_map(|path| lines(path)).filter(|line| line != "last").collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 2000);
    }

    #[test]
    fn if_reopening_fails_the_old_file_stays_in_use_and_reports_it_once() {
        let dir = temp_dir();
        let (log, moved) = (dir.join("logs/log"), dir.join("moved"));
        fs::create_dir(dir.join("logs")).unwrap();
        let writer = Arc::new(LogWriter::new(LogFile::open(&log).unwrap(), LogFormat::Text, &DROPPED));
        fs::rename(dir.join("logs"), &moved).unwrap();
        let mut line = LogLine(writer.clone());
        line.write_all(b"one\n").unwrap();
        line.write_all(b"two\n").unwrap();
        let old = lines(&moved.join("log"));
        assert_eq!((old.len(), old[1].as_str(), old[2].as_str()), (3, "one", "two"), "{old:?}");
        assert!(
            old[0].contains("was moved away and cannot be reopened") && old[0].contains("WARN"),
            "{old:?}"
        );
        assert!(writer.reopen_error().is_some());
        fs::rename(&moved, dir.join("logs")).unwrap();
        line.write_all(b"three\n").unwrap();
        assert_eq!((lines(&log).len(), writer.reopen_error()), (4, None));
    }

    fn pipe(at: &Path) {
        assert!(std::process::Command::new("mkfifo").arg(at).status().unwrap().success());
    }

    #[test]
    fn a_file_that_is_not_regular_is_refused_without_blocking() {
        let dir = temp_dir();
        let log = dir.join("log");
        pipe(&log);
        let refused = |path: &Path| LogFile::open(path).err().unwrap().to_string();
        assert!(
            refused(&log).starts_with("it is a named pipe, which cannot hold a log"),
            "{}",
            refused(&log)
        );
        let _reader = File::options().read(true).write(true).open(&log).unwrap();
        assert!(refused(&log).starts_with("it is a named pipe"), "with a reader, too");
        assert!(refused(&dir).starts_with("it is a directory"));
        let socket = dir.join("socket");
        let _bound = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert!(refused(&socket).starts_with("it is a socket"));
        assert!(LogFile::open(Path::new("/dev/null")).is_ok());
    }

    #[test]
    fn a_pipe_in_place_of_the_log_leaves_the_old_file_in_use_and_is_reported_once() {
        let dir = temp_dir();
        let (log, moved) = (dir.join("log"), dir.join("moved"));
        let writer = Arc::new(LogWriter::new(LogFile::open(&log).unwrap(), LogFormat::Text, &DROPPED));
        fs::rename(&log, &moved).unwrap();
        pipe(&log);
        let mut line = LogLine(writer.clone());
        line.write_all(b"one\n").unwrap();
        line.write_all(b"two\n").unwrap();
        let old = lines(&moved);
        assert_eq!((old.len(), old[1].as_str(), old[2].as_str()), (3, "one", "two"), "{old:?}");
        assert!(old[0].contains("cannot be reopened: it is a named pipe"), "{old:?}");
        assert!(writer.reopen_error().is_some());
    }
}
