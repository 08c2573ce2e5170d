//! Scans a backend's JSON as it arrives. The large parts, the images' base64 in `data[].b64_json` and in `data:` URLs under
//! `data[].url`, are handed on piece by piece. The rest is small and kept, with a marker in place of each image; whether it
//! is valid JSON shows when it is parsed at the end. Pure.

use std::io::Write;

use memchr::memchr2;

use super::escape::{Escape, InvalidEscape};

/// Bytes kept besides the images.
const MAX_REST_BYTES: usize = 1 << 20;
/// `serde_json`'s own limit.
const MAX_DEPTH: usize = 128;
/// Longer than any key that matters: eight characters, each at most six bytes when escaped.
const MAX_KEY_BYTES: usize = 64;
pub(super) const DATA_SCHEME: &[u8] = b"data:";

#[derive(Debug, Default)]
pub(super) struct JsonScanner {
    rest: Vec<u8>,
    image_count: usize,
    open_brackets: Vec<u8>,
    /// Whether the next string is a key.
    expects_key: bool,
    /// Whether the last top-level key was `data`.
    in_data: bool,
    field: EntryField,
    state: ScanState,
}

/// The last key in an entry of `data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum EntryField {
    Base64,
    Url,
    #[default]
    Other,
}

#[derive(Debug, Default)]
enum ScanState {
    /// Outside of any string.
    #[default]
    Outside,
    /// In a string that is kept from this offset on.
    String { escaped: bool, from: usize },
    /// In a `url` whose first `matched` bytes are those of [`DATA_SCHEME`].
    Url { escape: Escape, matched: usize, from: usize },
    /// In an image's base64; `begun` once any of it has arrived.
    Image { escape: Escape, begun: bool },
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum ScanEvent<'a> {
    /// An image's base64 starts; in a `data:` URL, after its scheme.
    ImageStart { is_data_url: bool },
    /// Part of it.
    Bytes(&'a [u8]),
    /// One byte of it that was written as an escape.
    EscapedByte(u8),
    /// It ends.
    ImageEnd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScanError {
    NotJson,
    /// There is too much besides images.
    TooLong,
}

impl From<InvalidEscape> for ScanError {
    fn from(InvalidEscape: InvalidEscape) -> Self {
        Self::NotJson
    }
}

impl JsonScanner {
    /// What was kept. An image is `"@N"` in it, or `"data:@N"`, `N` counting from 0.
    pub(super) fn into_rest(self) -> Vec<u8> {
        self.rest
    }

    /// The image that a marker stands for, given without `data:`.
    pub(super) fn image_index(marker: &str) -> Option<usize> {
        marker.strip_prefix('@')?.parse().ok()
    }

    /// The next event; consumes bytes from the front, and returns `None` once all are consumed.
    pub(super) fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<ScanEvent<'a>>, ScanError> {
        while let Some(&byte) = bytes.first() {
            let event = match &self.state {
                ScanState::Outside => {
                    *bytes = &bytes[1..];
                    self.scan_outside(byte);
                    None
                }
                ScanState::String { .. } => {
                    self.scan_string(bytes);
                    None
                }
                ScanState::Url { .. } => {
                    *bytes = &bytes[1..];
                    self.scan_url(byte)?
                }
                ScanState::Image { .. } => self.scan_image(bytes)?,
            };
            if self.rest.len() > MAX_REST_BYTES || self.open_brackets.len() > MAX_DEPTH {
                return Err(ScanError::TooLong);
            }
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    fn scan_outside(&mut self, byte: u8) {
        match byte {
            b'{' | b'[' => {
                self.open_brackets.push(byte);
                self.expects_key = byte == b'{';
            }
            b'}' | b']' => {
                self.open_brackets.pop();
                self.expects_key = false;
            }
            b',' => self.expects_key = self.open_brackets.last() == Some(&b'{'),
            b':' => self.expects_key = false,
            b'"' => self.state = self.string_state(),
            _ => {}
        }
        self.rest.push(byte);
    }

    /// The state of a string that starts here.
    fn string_state(&self) -> ScanState {
        let from = self.rest.len();
        match self.field {
            EntryField::Base64 if self.in_entry() && !self.expects_key => {
                ScanState::Image { escape: Escape::None, begun: false }
            }
            EntryField::Url if self.in_entry() && !self.expects_key => {
                ScanState::Url { escape: Escape::None, matched: 0, from }
            }
            EntryField::Base64 | EntryField::Url | EntryField::Other => {
                ScanState::String { escaped: false, from }
            }
        }
    }

    /// Whether the innermost open object is an entry of `data`.
    fn in_entry(&self) -> bool {
        self.in_data && self.open_brackets == b"{[{"
    }

    fn scan_string(&mut self, bytes: &mut &[u8]) {
        let ScanState::String { escaped, from } = &mut self.state else { return };
        let end = if *escaped { Some(0) } else { memchr2(b'"', b'\\', bytes) };
        // Includes the byte that ends the run: a quote, a backslash, or the byte after one.
        let (run, rest) = bytes.split_at(end.map_or(bytes.len(), |end| end + 1));
        *bytes = rest;
        self.rest.extend_from_slice(run);
        let ends = end.is_some() && !*escaped;
        *escaped = ends && run.last() == Some(&b'\\');
        if ends && !*escaped {
            let from = *from;
            self.state = ScanState::Outside;
            if self.expects_key {
                self.end_key(from);
            }
        }
    }

    fn end_key(&mut self, from: usize) {
        let raw = &self.rest[from..];
        let key: String = if raw.len() <= MAX_KEY_BYTES {
            serde_json::from_slice(raw).unwrap_or_default()
        } else {
            String::new()
        };
        if self.open_brackets == b"{" {
            self.in_data = key == "data";
        } else if self.in_entry() {
            self.field = match key.as_str() {
                "b64_json" => EntryField::Base64,
                "url" => EntryField::Url,
                _ => EntryField::Other,
            };
        }
    }

    fn scan_url(&mut self, byte: u8) -> Result<Option<ScanEvent<'static>>, ScanError> {
        let ScanState::Url { escape, matched, from } = &mut self.state else { return Ok(None) };
        self.rest.push(byte);
        if byte == b'"' && *escape == Escape::None {
            self.state = ScanState::Outside;
            return Ok(None);
        }
        let Some(decoded) = escape.push(byte)? else { return Ok(None) };
        if decoded != DATA_SCHEME[*matched] {
            self.state = ScanState::String { escaped: false, from: *from };
            return Ok(None);
        }
        *matched += 1;
        if *matched < DATA_SCHEME.len() {
            return Ok(None);
        }
        self.rest.truncate(*from + 1); // keeps the opening quote
        self.rest.extend_from_slice(DATA_SCHEME);
        Ok(Some(self.begin_image(true)))
    }

    fn begin_image(&mut self, is_data_url: bool) -> ScanEvent<'static> {
        let _ = write!(self.rest, "@{}", self.image_count);
        self.image_count += 1;
        self.state = ScanState::Image { escape: Escape::None, begun: true };
        ScanEvent::ImageStart { is_data_url }
    }

    fn scan_image<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<ScanEvent<'a>>, ScanError> {
        let ScanState::Image { escape, begun } = &mut self.state else { return Ok(None) };
        let in_escape = *escape != Escape::None;
        let run = if in_escape { 0 } else { memchr2(b'"', b'\\', bytes).unwrap_or(bytes.len()) };
        let ends = run == 0 && !in_escape && bytes[0] == b'"';
        if ends {
            let event = begun.then_some(ScanEvent::ImageEnd);
            self.rest.push(b'"');
            *bytes = &bytes[1..];
            self.state = ScanState::Outside;
            return Ok(event);
        }
        if !*begun {
            return Ok(Some(self.begin_image(false)));
        }
        let (text, rest) = bytes.split_at(run.max(1));
        *bytes = rest;
        if run > 0 {
            return Ok(Some(ScanEvent::Bytes(text)));
        }
        Ok(escape.push(text[0])?.map(ScanEvent::EscapedByte))
    }
}
