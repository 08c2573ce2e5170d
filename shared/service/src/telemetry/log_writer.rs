//! The writer under the log. A full disk or a pipe that nobody reads costs lines and nothing else: no error reaches the
//! logging library, which would complain on standard error. Once lines go out again, one says how many are missing.

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

/// Where a line's bytes go.
pub(super) trait LogSink: Write {
    /// Sees before a line whether they must go elsewhere from now on.
    fn check_rotation(&mut self) -> SinkChange {
        SinkChange::Unchanged
    }

    /// Why they do not go where they should, while that is so.
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

/// What a look before a line found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SinkChange {
    /// All is as it was.
    Unchanged,
    /// A new file was begun.
    Reopened,
    /// It could not be, which is to be told.
    ReopenFailed(String),
}

/// Where lines go.
pub(super) struct LogWriter<W> {
    output: Mutex<OutputState<W>>,
    format: LogFormat,
    dropped: &'static AtomicU64,
}

/// One line on its way; the logging library makes one an event.
#[derive(Debug)]
pub(super) struct LogLine<W>(pub(super) Arc<LogWriter<W>>);

struct OutputState<W> {
    writer: W,
    /// Lines dropped since the last one that went out.
    missing: u64,
    /// The last one went out in part.
    has_partial_line: bool,
}

impl<W: LogSink> LogWriter<W> {
    /// Writes to `writer` and adds to `dropped`.
    pub(super) fn new(writer: W, format: LogFormat, dropped: &'static AtomicU64) -> Self {
        Self {
            output: Mutex::new(OutputState { writer, missing: 0, has_partial_line: false }),
            format,
            dropped,
        }
    }

    /// Lines go there from now on; what is missing is told there.
    pub(super) fn replace_sink(&self, writer: W) {
        let out = &mut *self.lock_output();
        (out.writer, out.has_partial_line) = (writer, false);
    }

    /// Sees whether lines must go elsewhere, while there is none.
    pub(super) fn check_rotation(&self) {
        self.lock_output().check_rotation(self.format);
    }

    /// Why lines do not go where they should.
    pub(super) fn reopen_error(&self) -> Option<String> {
        self.lock_output().writer.reopen_error()
    }

    fn lock_output(&self) -> MutexGuard<'_, OutputState<W>> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, line: &[u8]) {
        let out = &mut *self.lock_output();
        out.check_rotation(self.format);
        if out.missing > 0
            && out.write_line(format_notice(self.format, MISSING, Some(out.missing)).as_bytes())
        {
            out.missing = 0;
        }
        // Before the note nothing else goes out: it stands where the lines are missing.
        if out.missing > 0 || !out.write_line(line) {
            out.missing += 1;
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl<W> fmt::Debug for LogWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").field("format", &self.format).finish_non_exhaustive()
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

    /// Whether it went out whole.
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

/// A line of our own, such as the one about missing lines. It looks like the library's, which cannot be asked from here.
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

    /// Takes what there is room for, then fails as a full disk does.
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
            let (kept, room) = &mut *self.0.lock().unwrap();
            let count = bytes.len().min(*room);
            if count == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            kept.extend_from_slice(&bytes[..count]);
            *room -= count;
            Ok(count)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl LogSink for Disk {}

    #[test]
    fn what_cannot_be_written_is_counted_and_told_once_when_it_can_be_again() {
        static DROPPED: AtomicU64 = AtomicU64::new(0);
        let disk = Disk::default();
        let mut line = LogLine(Arc::new(LogWriter::new(disk.clone(), LogFormat::Text, &DROPPED)));
        disk.make_room(6);
        line.write_all(b"first\n").unwrap();
        line.write_all(b"second\n").expect("no error reaches the caller");
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
    fn half_a_line_is_ended_before_the_next_and_json_stays_json() {
        static DROPPED: AtomicU64 = AtomicU64::new(0);
        let disk = Disk::default();
        let mut line = LogLine(Arc::new(LogWriter::new(disk.clone(), LogFormat::Json, &DROPPED)));
        disk.make_room(4);
        line.write_all(b"{\"a\":1}\n").unwrap();
        disk.make_room(1 << 20);
        line.write_all(b"{\"b\":2}\n").unwrap();
        let lines = disk.lines();
        assert_eq!((lines[0].as_str(), lines[2].as_str()), ("{\"a\"", "{\"b\":2}"));
        let note: serde_json::Value = serde_json::from_str(&lines[1]).unwrap();
        assert_eq!((&note["level"], &note["lines"]), (&"WARN".into(), &1.into()));
        assert!(note["timestamp"].is_string() && note["message"].is_string());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_device_is_survived() {
        static DROPPED: AtomicU64 = AtomicU64::new(0);
        let full = LogFile::open(std::path::Path::new("/dev/full")).unwrap();
        let mut line = LogLine(Arc::new(LogWriter::new(full, LogFormat::Text, &DROPPED)));
        line.write_all(b"lost\n").unwrap();
        assert_eq!(DROPPED.load(Ordering::Relaxed), 1);
    }
}
