//! Whether an answer whose end is the end of its connection was cut off. With `Content-Length` or chunks the HTTP library
//! tells; without either (HTTP/1.0 as Python's servers speak it, `Connection: close`) a backend that was killed in the
//! middle looks like one that is done, and only the content tells the two apart. Pure; no byte is changed.

use axum::http::{HeaderMap, StatusCode, header};
use memchr::memchr2;
use wire::openai::object::{JsonObject, for_each_element};

/// Bytes of one event that are kept to look for an end mark. The events that carry one have some hundred; whether a longer one
/// does, nobody knows, and such a stream counts as whole.
const MAX_EVENT_BYTES: usize = 1 << 20;

/// What can tell of an answer that it was cut off.
#[derive(Debug)]
pub(super) enum Truncation {
    /// Its framing, or nothing.
    Framing,
    /// The end mark that is missing in a stream of events.
    Events(EndMark),
    /// The brackets that are open in a JSON text.
    Json(JsonNesting),
}

impl Truncation {
    /// Of an answer with this head, as its framing was settled.
    pub(super) fn for_response(status: StatusCode, headers: &HeaderMap) -> Self {
        let has = |name| headers.contains_key(name);
        let framed = has(header::CONTENT_LENGTH) || has(header::TRANSFER_ENCODING);
        if framed || status == StatusCode::NO_CONTENT || is_encoded(headers) {
            return Self::Framing;
        }
        match media_type(headers).as_str() {
            "text/event-stream" => Self::Events(EndMark::default()),
            "application/json" => Self::Json(JsonNesting::default()),
            _ => Self::Framing,
        }
    }

    /// These bytes passed.
    pub(super) fn observe(&mut self, bytes: &[u8]) {
        match self {
            Self::Framing => {}
            Self::Events(mark) => mark.observe(bytes),
            Self::Json(nesting) => nesting.observe(bytes),
        }
    }

    /// The connection was closed: what is missing, for the log, if the answer was cut off.
    pub(super) fn finish(&mut self) -> Option<&'static str> {
        match self {
            Self::Framing => None,
            Self::Events(mark) => (!mark.finish()).then_some(
                "it closed the connection in the middle of a stream (no [DONE], no finish_reason and no error came); look \
                 in its log for a crash or a lack of memory",
            ),
            Self::Json(nesting) => nesting.is_open().then_some(
                "it closed the connection in the middle of a JSON text; look in its log for a crash or a lack of memory",
            ),
        }
    }
}

/// What is compressed is not looked into.
fn is_encoded(headers: &HeaderMap) -> bool {
    let identity = |value: &[u8]| value.trim_ascii().eq_ignore_ascii_case(b"identity");
    headers.get_all(header::CONTENT_ENCODING).iter().any(|coding| !identity(coding.as_bytes()))
}

/// The `Content-Type` without its parameters, in lower case.
fn media_type(headers: &HeaderMap) -> String {
    let line = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    line.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Looks for what ends a stream of chat or completion events: `[DONE]`, a `finish_reason` that is not null, an error. It
/// reads each byte once and keeps one event.
#[derive(Debug, Default)]
pub(super) struct EndMark {
    found: bool,
    /// An event was longer than the limit, and may have been one: nothing is looked at any more.
    gave_up: bool,
    /// The line that is coming, without its end.
    line: Vec<u8>,
    /// The event's lines of data so far, each with a line end.
    data: Vec<u8>,
    /// How many they are.
    data_lines: usize,
    /// The last line ended with CR: an LF now belongs to it.
    after_cr: bool,
}

impl EndMark {
    fn observe(&mut self, mut bytes: &[u8]) {
        while !self.found && !self.gave_up && !bytes.is_empty() {
            if std::mem::take(&mut self.after_cr) && bytes[0] == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let Some(end) = memchr2(b'\n', b'\r', bytes) else { return self.extend_line(bytes) };
            self.extend_line(&bytes[..end]);
            self.after_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            self.end_line();
        }
    }

    fn extend_line(&mut self, bytes: &[u8]) {
        let comment = self.line.first().or(bytes.first()) == Some(&b':');
        if comment {
            if self.line.is_empty() {
                self.line.extend(bytes.first());
            }
        } else if self.line.len() + self.data.len() + bytes.len() <= MAX_EVENT_BYTES {
            self.line.extend_from_slice(bytes);
        } else {
            self.gave_up = true;
            (self.line, self.data) = (Vec::new(), Vec::new());
        }
    }

    fn end_line(&mut self) {
        let mut line = std::mem::take(&mut self.line);
        if line.is_empty() {
            self.end_event();
        } else {
            self.read_line(&line);
        }
        line.clear();
        self.line = line;
    }

    /// Servers that leave out the empty line between events are read by line, as many clients read them.
    fn read_line(&mut self, line: &[u8]) {
        if let Some(data) = field(line, "data") {
            self.found = is_end_mark(data);
            self.data.extend_from_slice(data);
            self.data.push(b'\n');
            self.data_lines += 1;
        } else if field(line, "event") == Some(b"error") {
            self.found = true;
        }
    }

    fn end_event(&mut self) {
        // The only line was looked at when it came.
        self.found |= self.data_lines > 1 && is_end_mark(&self.data);
        self.data.clear();
        self.data_lines = 0;
    }

    /// Whether one has, or may have, come by the end of the stream. The last line may lack its end.
    fn finish(&mut self) -> bool {
        if !self.found && !self.gave_up {
            self.end_line();
            self.end_event();
        }
        self.found || self.gave_up
    }
}

/// The value of a line if it gives this field.
fn field<'a>(line: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
    let value = line.strip_prefix(name.as_bytes())?.strip_prefix(b":")?;
    Some(value.strip_prefix(b" ").unwrap_or(value))
}

/// Whether an event with this data ends a stream. By the members of its JSON: words that only look like one are what
/// models write.
fn is_end_mark(data: &[u8]) -> bool {
    if data.trim_ascii() == b"[DONE]" {
        return true;
    }
    let Ok(chunk) = JsonObject::parse(data, &["choices", "error", "finish_reason"]) else { return false };
    let mut finished = chunk.get("error").or_else(|| chunk.get("finish_reason")).is_some();
    if let Some(choices) = chunk.get("choices") {
        for_each_element(choices, |choice| {
            let choice = JsonObject::from_value(choice, &["finish_reason"]);
            finished |= choice.is_some_and(|choice| choice.get("finish_reason").is_some());
            !finished
        });
    }
    finished
}

/// How deep inside a JSON text the last byte was.
#[derive(Debug, Default)]
pub(super) struct JsonNesting {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl JsonNesting {
    fn observe(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = self.in_string,
                b'"' => self.in_string = !self.in_string,
                b'{' | b'[' if !self.in_string => self.depth += 1,
                b'}' | b']' if !self.in_string => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
    }

    const fn is_open(&self) -> bool {
        self.depth > 0 || self.in_string
    }
}

#[cfg(test)]
mod tests;
