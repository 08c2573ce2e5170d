//! Writes log lines. A full disk or a pipe without a reader costs lines and nothing else: no error reaches the logging library,
//! which would report it on standard error. When lines can be written again, one says how many are missing.

use std::{
    fmt,
    io::{ErrorKind, Write},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tracing_subscriber::fmt::{
    format::Writer,
    time::{FormatTime, SystemTime},
};

use super::LogFormat;

/// Where log lines go.
pub(super) trait LogSink: Write {
    /// Reopens the sink if a rotation has moved it. Called before each line.
    fn check_rotation(&mut self) -> SinkChange {
        SinkChange::Unchanged
    }

    /// Why the sink cannot be reopened, as long as that lasts.
    fn reopen_error(&self) -> Option<String> {
        None
    }
}

impl LogSink for std::io::Stderr {}

impl<S: LogSink + ?Sized> LogSink for Box<S> {
    fn check_rotation(&mut self) -> SinkChange {
        (**self).check_rotation()
    }

    fn reopen_error(&self) -> Option<String> {
        (**self).reopen_error()
    }
}

/// The result of a check for a rotation.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SinkChange {
    Unchanged,
    Reopened,
    /// Why; to be logged.
    ReopenFailed(String),
}

/// Writes lines to a sink, and counts those it drops.
pub(super) struct LogWriter<W> {
    output: Mutex<OutputState<W>>,
    format: LogFormat,
    dropped: &'static AtomicU64,
}

/// The writer of one event.
#[derive(Debug)]
pub(super) struct LogLine<W>(pub(super) Arc<LogWriter<W>>);

struct OutputState<W> {
    writer: W,
    /// Lines dropped since the last one that was written.
    missing: u64,
    /// The last one was written in part.
    has_partial_line: bool,
}

impl<W: LogSink> LogWriter<W> {
    pub(super) fn new(writer: W, format: LogFormat, dropped: &'static AtomicU64) -> Self {
        Self {
            output: Mutex::new(OutputState { writer, missing: 0, has_partial_line: false }),
            format,
            dropped,
        }
    }

    /// Writes to another sink from now on, which also gets the notice about missing lines.
    pub(super) fn replace_sink(&self, writer: W) {
        let output = &mut *self.lock_output();
        (output.writer, output.has_partial_line) = (writer, false);
    }

    /// Checks for a rotation without a line to write.
    pub(super) fn check_rotation(&self) {
        self.lock_output().check_rotation(self.format);
    }

    /// Why the sink cannot be reopened.
    pub(super) fn reopen_error(&self) -> Option<String> {
        self.lock_output().writer.reopen_error()
    }

    fn lock_output(&self) -> MutexGuard<'_, OutputState<W>> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, line: &[u8]) {
        let output = &mut *self.lock_output();
        output.check_rotation(self.format);
        if output.missing > 0
            && output.write_line(format_notice(self.format, MISSING, Some(output.missing)).as_bytes())
        {
            output.missing = 0;
        }
        // Nothing is written before the notice: it stands where the lines are missing.
        if output.missing > 0 || !output.write_line(line) {
            output.missing += 1;
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl<W> fmt::Debug for LogWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogWriter").field("format", &self.format).finish_non_exhaustive()
    }
}

impl<W: LogSink> Write for LogLine<W> {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.write(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<W: LogSink> OutputState<W> {
    fn check_rotation(&mut self, format: LogFormat) {
        match self.writer.check_rotation() {
            SinkChange::Unchanged => {}
            SinkChange::Reopened => self.has_partial_line = false,
            SinkChange::ReopenFailed(message) => {
                self.write_line(format_notice(format, &message, None).as_bytes());
            }
        }
    }

    /// Whether the whole line was written.
    fn write_line(&mut self, line: &[u8]) -> bool {
        let ended = if self.has_partial_line { [b"\n", line].concat() } else { line.to_vec() };
        let mut rest = ended.as_slice();
        while !rest.is_empty() {
            match self.writer.write(rest) {
                Ok(0) => return false,
                Ok(count) => {
                    rest = rest.get(count..).unwrap_or_default();
                    self.has_partial_line = !rest.is_empty();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }
}

const MISSING: &str = "log lines were dropped: they could not be written";

/// A log line of our own, in the library's format: its formatter cannot be called from here.
fn format_notice(format: LogFormat, message: &str, missing: Option<u64>) -> String {
    let mut time = String::new();
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    match format {
        LogFormat::Text => {
            let count = missing.map_or_else(String::new, |missing| format!(" lines={missing}"));
            format!("{time}  WARN {message}{count}\n")
        }
        LogFormat::Json => {
            let mut line = serde_json::json!({"timestamp": time, "level": "WARN", "message": message});
            if let Some(missing) = missing {
                line["lines"] = missing.into();
            }
            format!("{line}\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::log_file::LogFile, *};

    /// Accepts as many bytes as there is room, then fails like a full disk.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(Vec<u8>, usize)>>);

    impl Disk {
        fn make_room(&self, bytes: usize) {
            self.0.lock().unwrap().1 = bytes;
        }

        fn lines(&self) -> Vec<String> {
            String::from_utf8(self.0.lock().unwrap().0.clone()).unwrap().lines().map(str::to_owned).collect()
        }
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let (written, room) = &mut *self.0.lock().unwrap();
            let count = bytes.len().min(*room);
            if count == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            written.extend_from_slice(&bytes[..count]);
            *room -= count;
            Ok(count)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl LogSink for Disk {}

    #[test]
    fn dropped_lines_are_counted_and_reported_once_when_writing_works_again() {
        static DROPPED: AtomicU64 = AtomicU64::new(0);
        let disk = Disk::default();
        let mut line = LogLine(Arc::new(LogWriter::new(disk.clone(), LogFormat::Text, &DROPPED)));
        disk.make_room(6);
        line.write_all(b"first\n").unwrap();
        line.write_all(b"second\n").expect("no error is returned");
        line.write_all(b"third\n").unwrap();
        assert_eq!(DROPPED.load(Ordering::Relaxed), 2);
        assert_eq!(disk.lines(), ["first"]);
        disk.make_room(1 << 20);
        line.write_all(b"fourth\n").unwrap();
        line.write_all(b"fifth\n").unwrap();
        let lines = disk.lines();
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert!(
            lines[1].ends_with("Z  WARN log lines were dropped: they could not be written lines=2"),
            "{lines:?}"
        );
        assert_eq!((lines[2].as_str(), lines[3].as_str()), ("fourth", "fifth"));
        assert_eq!(DROPPED.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_partial_line_is_terminated_before_the_next() {
        static DROPPED: AtomicU64 = AtomicU64::new(0);
        let disk = Disk::default();
        let mut line = LogLine(Arc::new(LogWriter::new(disk.clone(), LogFormat::Json, &DROPPED)));
        disk.make_room(4);
        line.write_all(b"{\"a\":1}\n").unwrap();
        disk.make_room(1 << 20);
        line.write_all(b"{\"b\":2}\n").unwrap();
        let lines = disk.lines();
        assert_eq!((lines[0].as_str(), lines[2].as_str()), ("{\"a\"", "{\"b\":2}"));
        let notice: serde_json::Value = serde_json::from_str(&lines[1]).unwrap();
        assert_eq!((&notice["level"], &notice["lines"]), (&"WARN".into(), &1.into()));
        assert!(notice["timestamp"].is_string() && notice["message"].is_string());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_device_is_no_error() {
        static DROPPED: AtomicU64 = AtomicU64::new(0);
        let full = LogFile::open(std::path::Path::new("/dev/full")).unwrap();
        let mut line = LogLine(Arc::new(LogWriter::new(full, LogFormat::Text, &DROPPED)));
        line.write_all(b"lost\n").unwrap();
        assert_eq!(DROPPED.load(Ordering::Relaxed), 1);
    }
}
