//! A backend's JSON answer, scanned as it comes. What is big in it, the pictures' text in `data[].b64_json` and in
//! `data:` addresses under `data[].url`, is handed on piece by piece. The rest is small: it is kept with a mark where
//! each picture was, and whether it is JSON at all is judged by who parses it at the end. Pure.

use std::io::Write;

use memchr::memchr2;

use super::escape::Escape;

/// What is kept besides the pictures.
const MAX_REST_BYTES: usize = 1 << 20;
/// Deeper than any JSON that is read: `serde_json` stops there.
const MAX_DEPTH: usize = 128;
/// A name is told by so many bytes: ours have at most eight letters, and an escaped one has six bytes.
const MAX_KEY_BYTES: usize = 64;
/// Begins an address that is its own content.
const DATA_SCHEME: &[u8] = b"data:";

/// How far the scan is.
#[derive(Debug, Default)]
pub(super) struct JsonScanner {
    rest: Vec<u8>,
    image_count: usize,
    /// The open brackets.
    open_brackets: Vec<u8>,
    /// Whether the next string is a name.
    expects_key: bool,
    /// Whether the answer's last name was `data`.
    in_data: bool,
    field: EntryField,
    state: ScanState,
}

/// What the last name in an entry of `data` was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum EntryField {
    Base64,
    Url,
    #[default]
    Other,
}

#[derive(Debug, Default)]
enum ScanState {
    /// Outside of strings.
    #[default]
    Outside,
    /// In a string that is kept, from there on.
    String { escaped: bool, from: usize },
    /// In a `url` of which so many letters are those of [`DATA_SCHEME`].
    Url { escape: Escape, matched: usize, from: usize },
    /// In a picture's text, of which something came or not.
    Image { escape: Escape, begun: bool },
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ScanEvent<'a> {
    /// A picture's text begins, in an address behind its `data:`.
    ImageStart { is_data_url: bool },
    /// Letters of it.
    Bytes(&'a [u8]),
    /// One that was written as an escape.
    EscapedByte(u8),
    /// It is over.
    ImageEnd,
}

/// Why the scan cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScanError {
    /// It is no JSON.
    NotJson,
    /// There is too much besides pictures.
    TooLong,
}

impl JsonScanner {
    /// What was kept. A picture is `"@N"` in it, or `"data:@N"`, `N` counting from 0.
    pub(super) fn into_rest(self) -> Vec<u8> {
        self.rest
    }

    /// The picture that a kept text marks.
    pub(super) fn image_index(text: &str) -> Option<usize> {
        text.strip_prefix('@')?.parse().ok()
    }

    /// The next thing in these bytes, which are taken from their front; none once they are used up.
    pub(super) fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<ScanEvent<'a>>, ScanError> {
        while let Some(&byte) = bytes.first() {
            let found = match &self.state {
                ScanState::Outside => {
                    *bytes = &bytes[1..];
                    self.between(byte);
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
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn between(&mut self, byte: u8) {
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
            b'"' => self.state = self.string(),
            _ => {}
        }
        self.rest.push(byte);
    }

    /// Where a string leads that begins here.
    fn string(&self) -> ScanState {
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

    /// Whether an entry of `data` is what is open.
    fn in_entry(&self) -> bool {
        self.in_data && self.open_brackets == b"{[{"
    }

    fn scan_string(&mut self, bytes: &mut &[u8]) {
        let ScanState::String { escaped, from } = &mut self.state else { return };
        let end = if *escaped { Some(0) } else { memchr2(b'"', b'\\', bytes) };
        // With the byte that ends the run: a quote, a backslash, or what one escapes.
        let (run, behind) = bytes.split_at(end.map_or(bytes.len(), |end| end + 1));
        *bytes = behind;
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

    /// A name ended: what it means for what comes.
    fn end_key(&mut self, from: usize) {
        let raw = &self.rest[from..];
        let name: String = if raw.len() <= MAX_KEY_BYTES {
            serde_json::from_slice(raw).unwrap_or_default()
        } else {
            String::new()
        };
        if self.open_brackets == b"{" {
            self.in_data = name == "data";
        } else if self.in_entry() {
            self.field = match name.as_str() {
                "b64_json" => EntryField::Base64,
                "url" => EntryField::Url,
                _ => EntryField::Other,
            };
        }
    }

    /// A byte of an address.
    fn scan_url(&mut self, byte: u8) -> Result<Option<ScanEvent<'static>>, ScanError> {
        let ScanState::Url { escape, matched: letters, from } = &mut self.state else { return Ok(None) };
        self.rest.push(byte);
        if byte == b'"' && *escape == Escape::None {
            self.state = ScanState::Outside;
            return Ok(None);
        }
        let Some(decoded) = escape.push(byte)? else { return Ok(None) };
        if decoded != DATA_SCHEME[*letters] {
            self.state = ScanState::String { escaped: false, from: *from };
            return Ok(None);
        }
        *letters += 1;
        if *letters < DATA_SCHEME.len() {
            return Ok(None);
        }
        self.rest.truncate(*from + 1); // but for the quote
        self.rest.extend_from_slice(DATA_SCHEME);
        Ok(Some(self.begin(true)))
    }

    fn begin(&mut self, address: bool) -> ScanEvent<'static> {
        let _ = write!(self.rest, "@{}", self.image_count);
        self.image_count += 1;
        self.state = ScanState::Image { escape: Escape::None, begun: true };
        ScanEvent::ImageStart { is_data_url: address }
    }

    fn scan_image<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<ScanEvent<'a>>, ScanError> {
        let ScanState::Image { escape, begun } = &mut self.state else { return Ok(None) };
        let in_escape = *escape != Escape::None;
        let run = if in_escape { 0 } else { memchr2(b'"', b'\\', bytes).unwrap_or(bytes.len()) };
        let ends = run == 0 && !in_escape && bytes[0] == b'"';
        if ends {
            let found = begun.then_some(ScanEvent::ImageEnd);
            self.rest.push(b'"');
            *bytes = &bytes[1..];
            self.state = ScanState::Outside;
            return Ok(found);
        }
        if !*begun {
            return Ok(Some(self.begin(false)));
        }
        let (text, behind) = bytes.split_at(run.max(1));
        *bytes = behind;
        if run > 0 {
            return Ok(Some(ScanEvent::Bytes(text)));
        }
        Ok(escape.push(text[0])?.map(ScanEvent::EscapedByte))
    }
}
