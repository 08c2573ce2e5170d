//! The writer under the log. A full disk or a pipe that nobody reads costs lines and nothing else: no error reaches the
//! logging library, which would complain on standard error. Once lines go out again, one says how many are missing.

use std::{
    fmt,
    io::{ErrorKind, Write},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tracing_subscriber::fmt::{
    format::Writer,
    time::{FormatTime, SystemTime},
};

use super::Format;

/// Where lines go.
pub(super) struct Lines<W> {
    out: Mutex<Out<W>>,
    format: Format,
    dropped: &'static AtomicU64,
}

/// One line on its way; the logging library makes one an event.
#[derive(Debug)]
pub(super) struct Line<W>(pub(super) Arc<Lines<W>>);

struct Out<W> {
    writer: W,
    /// Lines dropped since the last one that went out.
    missing: u64,
    /// The last one went out in part.
    torn: bool,
}

impl<W: Write> Lines<W> {
    /// Writes to `writer` and adds to `dropped`.
    pub(super) fn new(writer: W, format: Format, dropped: &'static AtomicU64) -> Self {
        Self { out: Mutex::new(Out { writer, missing: 0, torn: false }), format, dropped }
    }

    /// Lines go there from now on; what is missing is told there.
    pub(super) fn write_to(&self, writer: W) {
        let out = &mut *self.out.lock().unwrap_or_else(PoisonError::into_inner);
        (out.writer, out.torn) = (writer, false);
    }

    fn write(&self, line: &[u8]) {
        let out = &mut *self.out.lock().unwrap_or_else(PoisonError::into_inner);
        if out.missing > 0 && out.put(note(self.format, out.missing).as_bytes()) {
            out.missing = 0;
        }
        // Before the note nothing else goes out: it stands where the lines are missing.
        if out.missing > 0 || !out.put(line) {
            out.missing += 1;
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl<W> fmt::Debug for Lines<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").field("format", &self.format).finish_non_exhaustive()
    }
}

impl<W: Write> Write for Line<W> {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.write(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<W: Write> Out<W> {
    /// Whether it went out whole.
    fn put(&mut self, line: &[u8]) -> bool {
        let ended = if self.torn { [b"\n", line].concat() } else { line.to_vec() };
        let mut rest = ended.as_slice();
        while !rest.is_empty() {
            match self.writer.write(rest) {
                Ok(0) => return false,
                Ok(count) => {
                    rest = rest.get(count..).unwrap_or_default();
                    self.torn = !rest.is_empty();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }
}

/// The line about missing lines. It looks like the library's own, which cannot be asked from here.
fn note(format: Format, missing: u64) -> String {
    const WORDS: &str = "log lines were dropped: they could not be written";
    let mut time = String::new();
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    match format {
        Format::Text => format!("{time}  WARN {WORDS} lines={missing}\n"),
        Format::Json => {
            let line = serde_json::json!({
                "timestamp": time, "level": "WARN", "message": WORDS, "lines": missing,
            });
            format!("{line}\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn what_cannot_be_written_is_counted_and_told_once_when_it_can_be_again() {
        static DROPPED: AtomicU64 = AtomicU64::new(0);
        let disk = Disk::default();
        let mut line = Line(Arc::new(Lines::new(disk.clone(), Format::Text, &DROPPED)));
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
        let mut line = Line(Arc::new(Lines::new(disk.clone(), Format::Json, &DROPPED)));
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
        let full = std::fs::File::options().append(true).open("/dev/full").unwrap();
        let mut line = Line(Arc::new(Lines::new(full, Format::Text, &DROPPED)));
        line.write_all(b"lost\n").unwrap();
        assert_eq!(DROPPED.load(Ordering::Relaxed), 1);
    }
}
