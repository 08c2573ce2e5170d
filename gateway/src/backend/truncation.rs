//! Whether a response that ends with its connection was cut off. With `Content-Length` or chunked encoding the HTTP library
//! knows; without either (Python's servers speak HTTP/1.0, `Connection: close`) a backend that was killed looks like one that
//! is done, and only the content tells them apart. Pure; no byte is changed.

use axum::http::{HeaderMap, StatusCode, header};
use memchr::memchr2;
use wire::openai::object::{JsonObject, for_each_element};

/// Bytes of one event that are searched for an end mark. Events that carry one have a few hundred; a stream with a longer
/// event counts as complete.
const MAX_EVENT_BYTES: usize = 1 << 20;

/// What shows that a response was cut off.
#[derive(Debug)]
pub(super) enum Truncation {
    /// Its framing shows it, or nothing does.
    Framing,
    /// An event stream without an end mark.
    Events(EndMark),
    /// JSON with open brackets.
    Json(JsonNesting),
}

impl Truncation {
    /// `headers` are those left by `check_framing`.
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

    pub(super) fn observe(&mut self, bytes: &[u8]) {
        match self {
            Self::Framing => {}
            Self::Events(mark) => mark.observe(bytes),
            Self::Json(nesting) => nesting.observe(bytes),
        }
    }

    /// Called when the connection is closed: what is missing, for the log, if the response was cut off.
    pub(super) fn finish(&mut self) -> Option<&'static str> {
        match self {
            Self::Framing => None,
            Self::Events(mark) => (!mark.finish()).then_some(
                "the connection closed in the middle of a stream (no [DONE], finish_reason or error); check the backend's \
                 log for a crash or an out-of-memory kill",
            ),
            Self::Json(nesting) => nesting.is_open().then_some(
                "the connection closed in the middle of a JSON text; check the backend's log for a crash or an \
                 out-of-memory kill",
            ),
        }
    }
}

/// A compressed response is not examined.
fn is_encoded(headers: &HeaderMap) -> bool {
    let identity = |value: &[u8]| value.trim_ascii().eq_ignore_ascii_case(b"identity");
    headers.get_all(header::CONTENT_ENCODING).iter().any(|coding| !identity(coding.as_bytes()))
}

/// The `Content-Type` without its parameters, in lower case.
fn media_type(headers: &HeaderMap) -> String {
    let line = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    line.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Finds what ends a stream of chat or completion events: `[DONE]`, a `finish_reason` that is not null, an error. Reads each
/// byte once and keeps one event.
#[derive(Debug, Default)]
pub(super) struct EndMark {
    found: bool,
    /// An event exceeded the limit, and may have contained the end mark.
    gave_up: bool,
    /// The current line, without its end.
    line: Vec<u8>,
    /// The event's data lines so far, each with a line end.
    data: Vec<u8>,
    data_lines: usize,
    /// The last line ended with CR: an LF that follows belongs to it.
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

    /// Data is examined line by line, as many clients do, because some servers omit the empty line between events.
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
        // A single line was examined when it arrived.
        self.found |= self.data_lines > 1 && is_end_mark(&self.data);
        self.data.clear();
        self.data_lines = 0;
    }

    /// Whether an end mark has, or may have, arrived. The last line may lack its line end.
    fn finish(&mut self) -> bool {
        if !self.found && !self.gave_up {
            self.end_line();
            self.end_event();
        }
        self.found || self.gave_up
    }
}

/// The value of a line that sets this field.
fn field<'a>(line: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
    let value = line.strip_prefix(name.as_bytes())?.strip_prefix(b":")?;
    Some(value.strip_prefix(b" ").unwrap_or(value))
}

/// Whether an event with this data ends a stream. Decided by its JSON members: a model's text may contain anything.
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

/// Nesting depth after the last byte of a JSON text.
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
