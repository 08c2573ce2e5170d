//! Server-sent events, taken from a stream in whole events and byte for byte: what is taken, put together, is what came.
//! Comments between events are taken at once, because they keep connections alive. Pure.

use bytes::{Bytes, BytesMut};

/// Bytes of one event: a picture of the largest size in base64, and room.
const EVENT_LIMIT: usize = 64 << 20;

/// What has come and was not taken yet.
#[derive(Debug, Default)]
pub(super) struct Frames {
    come: BytesMut,
    /// How far line ends were looked for, so that no byte is looked at twice.
    looked: usize,
    /// Where the line begins that is looked at.
    line: usize,
    /// The last line ended with CR: an LF now belongs to it.
    after_cr: bool,
    /// An event has begun.
    inside: bool,
}

/// A piece of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// A comment or an empty line outside of events.
    Between(Bytes),
    /// An event with its empty line.
    Event(Event),
}

/// The lines of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event(pub(super) Bytes);

/// An event is longer than the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLong;

impl Frames {
    /// What came.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.come.extend_from_slice(bytes);
    }

    /// The next piece, if it is whole.
    pub(super) fn take(&mut self) -> Result<Option<Piece>, TooLong> {
        while let Some(end) = self.line_end() {
            let line = &self.come[self.line..end];
            let (empty, comment) = (line.iter().all(|byte| is_end(*byte)), line[0] == b':');
            self.line = end;
            self.looked = end;
            if self.inside && empty {
                self.inside = false;
                return Ok(Some(Piece::Event(Event(self.cut()))));
            }
            if !self.inside && (empty || comment) {
                return Ok(Some(Piece::Between(self.cut())));
            }
            self.inside = true;
        }
        if self.come.len() > EVENT_LIMIT { Err(TooLong) } else { Ok(None) }
    }

    /// Where the line ends that begins at `self.line`. One that ends with CR is whole without waiting for an LF; if that
    /// comes, it is a part of the same end.
    fn line_end(&mut self) -> Option<usize> {
        let first = *self.come.get(self.line)?;
        if std::mem::take(&mut self.after_cr) && first == b'\n' {
            if self.inside {
                self.line += 1;
                self.looked = self.looked.max(self.line);
                return self.line_end();
            }
            return Some(self.line + 1);
        }
        let Some(at) = self.come[self.looked..].iter().position(|byte| is_end(*byte)) else {
            self.looked = self.come.len();
            return None;
        };
        let at = self.looked + at;
        if self.come[at] == b'\n' {
            return Some(at + 1);
        }
        let crlf = self.come.get(at + 1) == Some(&b'\n');
        self.after_cr = !crlf;
        Some(at + 1 + usize::from(crlf))
    }

    fn cut(&mut self) -> Bytes {
        let piece = self.come.split_to(self.line).freeze();
        (self.line, self.looked) = (0, 0);
        piece
    }
}

const fn is_end(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

impl Event {
    /// Its name; empty if it has none.
    pub(super) fn name(&self) -> String {
        self.values("event").last().map(|name| String::from_utf8_lossy(name).into_owned()).unwrap_or_default()
    }

    /// Its data.
    pub(super) fn data(&self) -> Vec<u8> {
        let mut data = Vec::new();
        for line in self.values("data") {
            data.extend_from_slice(line);
            data.push(b'\n');
        }
        data.pop();
        data
    }

    fn values(&self, field: &str) -> impl Iterator<Item = &[u8]> {
        let bytes = self.0.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&self.0);
        bytes.split(|byte| is_end(*byte)).filter_map(move |line| {
            let value = line.strip_prefix(field.as_bytes())?.strip_prefix(b":")?;
            Some(value.strip_prefix(b" ").unwrap_or(value))
        })
    }
}

#[cfg(test)]
mod tests;
