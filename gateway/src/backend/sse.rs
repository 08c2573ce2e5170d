//! Splits a stream into server-sent events without changing a byte. Comments between events are returned at once, because they
//! keep connections alive. Pure.

use bytes::{Bytes, BytesMut};

/// An image of the largest size in base64, with room to spare.
const MAX_EVENT_BYTES: usize = 64 << 20;

/// Holds what has arrived of the next item.
#[derive(Debug, Default)]
pub(super) struct SseDecoder {
    buffer: BytesMut,
    /// How far line ends were searched for, so that no byte is searched twice.
    scanned: usize,
    /// Where the current line starts.
    line_start: usize,
    /// The last line ended with CR: an LF that follows belongs to it.
    after_cr: bool,
    in_event: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SseItem {
    /// A comment or an empty line outside of events.
    Comment(Bytes),
    /// An event including the empty line that ends it.
    Event(SseEvent),
}

/// The lines of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SseEvent(pub(super) Bytes);

/// An event exceeds the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EventTooLong;

impl SseDecoder {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next item, if it is complete.
    pub(super) fn next_item(&mut self) -> Result<Option<SseItem>, EventTooLong> {
        while let Some(end) = self.line_end() {
            let line = &self.buffer[self.line_start..end];
            let (empty, comment) = (line.iter().all(|byte| is_line_end(*byte)), line[0] == b':');
            self.line_start = end;
            self.scanned = end;
            if self.in_event && empty {
                self.in_event = false;
                return Ok(Some(SseItem::Event(SseEvent(self.split_item()))));
            }
            if !self.in_event && (empty || comment) {
                return Ok(Some(SseItem::Comment(self.split_item())));
            }
            self.in_event = true;
        }
        if self.buffer.len() > MAX_EVENT_BYTES { Err(EventTooLong) } else { Ok(None) }
    }

    /// Where the current line ends. A CR ends it without waiting for an LF; an LF that arrives later belongs to the same line
    /// end.
    fn line_end(&mut self) -> Option<usize> {
        let first = *self.buffer.get(self.line_start)?;
        if std::mem::take(&mut self.after_cr) && first == b'\n' {
            if self.in_event {
                self.line_start += 1;
                self.scanned = self.scanned.max(self.line_start);
                return self.line_end();
            }
            return Some(self.line_start + 1);
        }
        let Some(at) = self.buffer[self.scanned..].iter().position(|byte| is_line_end(*byte)) else {
            self.scanned = self.buffer.len();
            return None;
        };
        let at = self.scanned + at;
        if self.buffer[at] == b'\n' {
            return Some(at + 1);
        }
        let crlf = self.buffer.get(at + 1) == Some(&b'\n');
        self.after_cr = !crlf;
        Some(at + 1 + usize::from(crlf))
    }

    fn split_item(&mut self) -> Bytes {
        let item = self.buffer.split_to(self.line_start).freeze();
        (self.line_start, self.scanned) = (0, 0);
        item
    }
}

const fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

impl SseEvent {
    /// Empty if it has none.
    pub(super) fn name(&self) -> String {
        self.field_values("event")
            .last()
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .unwrap_or_default()
    }

    pub(super) fn data(&self) -> Vec<u8> {
        let mut data = Vec::new();
        for line in self.field_values("data") {
            data.extend_from_slice(line);
            data.push(b'\n');
        }
        data.pop();
        data
    }

    fn field_values(&self, field: &str) -> impl Iterator<Item = &[u8]> {
        let bytes = self.0.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&self.0);
        bytes.split(|byte| is_line_end(*byte)).filter_map(move |line| {
            let value = line.strip_prefix(field.as_bytes())?.strip_prefix(b":")?;
            Some(value.strip_prefix(b" ").unwrap_or(value))
        })
    }
}

#[cfg(test)]
mod tests;
