//! A log file that is known by its path. A rotation renames it; the next line goes into a new one under the path, without any
//! signal. Asked before each line: a rotation compresses the old file at once, and what were still written to it would be lost.

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

/// Between two tries to begin a file anew.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The file.
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    /// What it is, whatever it is called.
    identity: (u64, u64),
    reopen_failure: Option<(Instant, String)>,
}

impl LogFile {
    /// Opens it for appending; a new one can be read by the group. Never waits: a named pipe would hold up the whole process
    /// until somebody reads it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let append = || {
            let flags = OFlags::NONBLOCK.bits().cast_signed();
            match File::options().append(true).custom_flags(flags).open(path) {
                Ok(file) => Ok(file),
                // The system's word for a pipe that nobody reads is `No such device or address`.
                Err(error) => {
                    Err(fs::metadata(path).ok().and_then(|found| check_file_type(&found)).unwrap_or(error))
                }
            }
        };
        let file = match append() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                match create_group_readable(File::options().append(true), path) {
                    // The rotation was quicker.
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => append()?,
                    created => created?,
                }
            }
            opened => opened?,
        };
        let found = file.metadata()?;
        if let Some(why) = check_file_type(&found) {
            return Err(why);
        }
        // A line waits for its place on a terminal and in a pipe, as it does on standard error.
        fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
        let identity = identity(&found);
        Ok(Self { path: path.to_owned(), file, identity, reopen_failure: None })
    }

    fn is_current(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|found| identity(&found) == self.identity)
    }
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Why no log is written there, unless it is a regular file, a device such as `/dev/null`, or where our own standard output
/// or error goes (`/dev/stderr` may be a pipe).
fn check_file_type(found: &Metadata) -> Option<io::Error> {
    let kind = found.file_type();
    let is = |stream: io::Result<File>| {
        stream.and_then(|stream| stream.metadata()).is_ok_and(|own| identity(&own) == identity(found))
    };
    if kind.is_file() || kind.is_char_device() || is(duplicate(io::stdout())) || is(duplicate(io::stderr())) {
        return None;
    }
    let what = match () {
        () if kind.is_dir() => "a folder",
        () if kind.is_fifo() => "a named pipe",
        () if kind.is_socket() => "a socket",
        () => "a disk",
    };
    let message =
        format!("it is {what}, where no log can be kept: name a regular file, or none for standard error");
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
                    "the log file {} was moved away and cannot be begun anew: {error}; lines go on into the old one",
                    self.path.display()
                );
                let already_reported =
                    self.reopen_failure.replace((Instant::now(), message.clone())).is_some();
                if already_reported { SinkChange::Unchanged } else { SinkChange::ReopenFailed(message) }
            }
        }
    }

    fn reopen_error(&self) -> Option<String> {
        self.reopen_failure.as_ref().map(|(_, words)| words.clone())
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

    fn folder() -> PathBuf {
        let folder = std::env::temp_dir().join(format!("log-file-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn lines(path: &Path) -> Vec<String> {
        fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    #[test]
    fn every_line_after_a_rotation_goes_into_the_new_file_and_none_is_lost() {
        let folder = folder();
        let log = folder.join("log");
        let out = Arc::new(LogWriter::new(LogFile::open(&log).unwrap(), LogFormat::Text, &DROPPED));
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let mut line = LogLine(out.clone());
                thread::spawn(move || {
                    for nth in 0..500 {
                        line.write_all(format!("{writer} {nth}\n").as_bytes()).unwrap();
                    }
                })
            })
            .collect();
        let mut rotated = Vec::new();
        for nth in 0..20 {
            while !log.exists() {
                thread::yield_now();
            }
            let moved = folder.join(format!("log.{nth}"));
            fs::rename(&log, &moved).unwrap();
            rotated.push(moved);
            // As a rotation does that makes the new file itself.
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
        let mut line = LogLine(out);
        line.write_all(b"last\n").unwrap();
        assert_eq!(
            lines(&log).last().map(String::as_str),
            Some("last"),
            "and what comes then is in the new one"
        );
        rotated.push(log);
        let mut all: Vec<_> =
            rotated.iter().flat_map(|path| lines(path)).filter(|line| line != "last").collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 2000);
    }

    #[test]
    fn where_it_cannot_be_begun_anew_the_old_one_goes_on_and_says_so_once() {
        let folder = folder();
        let (log, moved) = (folder.join("logs/log"), folder.join("moved"));
        fs::create_dir(folder.join("logs")).unwrap();
        let out = Arc::new(LogWriter::new(LogFile::open(&log).unwrap(), LogFormat::Text, &DROPPED));
        fs::rename(folder.join("logs"), &moved).unwrap();
        let mut line = LogLine(out.clone());
        line.write_all(b"one\n").unwrap();
        line.write_all(b"two\n").unwrap();
        let old = lines(&moved.join("log"));
        assert_eq!((old.len(), old[1].as_str(), old[2].as_str()), (3, "one", "two"), "{old:?}");
        assert!(
            old[0].contains("was moved away and cannot be begun anew") && old[0].contains("WARN"),
            "{old:?}"
        );
        assert!(out.reopen_error().is_some());
        fs::rename(&moved, folder.join("logs")).unwrap();
        line.write_all(b"three\n").unwrap();
        assert_eq!((lines(&log).len(), out.reopen_error()), (4, None));
    }

    fn pipe(at: &Path) {
        assert!(std::process::Command::new("mkfifo").arg(at).status().unwrap().success());
    }

    #[test]
    fn what_is_no_file_is_refused_in_words_and_nothing_waits_for_a_reader() {
        let folder = folder();
        let log = folder.join("log");
        pipe(&log);
        let refused = |path: &Path| LogFile::open(path).err().unwrap().to_string();
        assert!(
            refused(&log).starts_with("it is a named pipe, where no log can be kept"),
            "{}",
            refused(&log)
        );
        let _reader = File::options().read(true).write(true).open(&log).unwrap();
        assert!(refused(&log).starts_with("it is a named pipe"), "nor does a reader make it a log");
        assert!(refused(&folder).starts_with("it is a folder"));
        let socket = folder.join("socket");
        let _bound = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert!(refused(&socket).starts_with("it is a socket"));
        assert!(LogFile::open(Path::new("/dev/null")).is_ok());
    }

    #[test]
    fn a_pipe_in_the_place_of_the_log_leaves_the_old_one_in_use_and_is_told_once() {
        let folder = folder();
        let (log, moved) = (folder.join("log"), folder.join("moved"));
        let out = Arc::new(LogWriter::new(LogFile::open(&log).unwrap(), LogFormat::Text, &DROPPED));
        fs::rename(&log, &moved).unwrap();
        pipe(&log);
        let mut line = LogLine(out.clone());
        line.write_all(b"one\n").unwrap();
        line.write_all(b"two\n").unwrap();
        let old = lines(&moved);
        assert_eq!((old.len(), old[1].as_str(), old[2].as_str()), (3, "one", "two"), "{old:?}");
        assert!(old[0].contains("cannot be begun anew: it is a named pipe"), "{old:?}");
        assert!(out.reopen_error().is_some());
    }
}
