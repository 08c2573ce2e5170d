//! A backend's JSON answer, scanned as it comes. What is big in it, the pictures' text in `data[].b64_json` and in
//! `data:` addresses under `data[].url`, is handed on piece by piece. The rest is small: it is kept with a mark where
//! each picture was, and whether it is JSON at all is judged by who parses it at the end. Pure.

use std::io::Write;

use memchr::memchr2;

use super::escape::Escape;

/// What is kept besides the pictures.
const REST_LIMIT: usize = 1 << 20;
/// Deeper than any JSON that is read: `serde_json` stops there.
const DEEPEST: usize = 128;
/// A name is told by so many bytes: ours have at most eight letters, and an escaped one has six bytes.
const LONGEST_NAME: usize = 64;
/// Begins an address that is its own content.
const DATA: &[u8] = b"data:";

/// How far the scan is.
#[derive(Debug, Default)]
pub(super) struct Scan {
    rest: Vec<u8>,
    pictures: usize,
    /// The open brackets.
    open: Vec<u8>,
    /// Whether the next string is a name.
    at_name: bool,
    /// Whether the answer's last name was `data`.
    in_data: bool,
    slot: Slot,
    place: Place,
}

/// What the last name in an entry of `data` was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Slot {
    Base64,
    Url,
    #[default]
    Other,
}

#[derive(Debug, Default)]
enum Place {
    /// Outside of strings.
    #[default]
    Between,
    /// In a string that is kept, from there on.
    Kept { escaped: bool, from: usize },
    /// In a `url` of which so many letters are those of [`DATA`].
    Address { escape: Escape, letters: usize, from: usize },
    /// In a picture's text, of which something came or not.
    Picture { escape: Escape, begun: bool },
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// A picture's text begins, in an address behind its `data:`.
    Begin { address: bool },
    /// Letters of it.
    Text(&'a [u8]),
    /// One that was written as an escape.
    Letter(u8),
    /// It is over.
    End,
}

/// Why the scan cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScanFault {
    /// It is no JSON.
    NotJson,
    /// There is too much besides pictures.
    TooLong,
}

impl Scan {
    /// What was kept. A picture is `"@N"` in it, or `"data:@N"`, `N` counting from 0.
    pub(super) fn into_rest(self) -> Vec<u8> {
        self.rest
    }

    /// The picture that a kept text marks.
    pub(super) fn marked(text: &str) -> Option<usize> {
        text.strip_prefix('@')?.parse().ok()
    }

    /// The next thing in these bytes, which are taken from their front; none once they are used up.
    pub(super) fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Found<'a>>, ScanFault> {
        while let Some(&byte) = bytes.first() {
            let found = match &self.place {
                Place::Between => {
                    *bytes = &bytes[1..];
                    self.between(byte);
                    None
                }
                Place::Kept { .. } => {
                    self.kept(bytes);
                    None
                }
                Place::Address { .. } => {
                    *bytes = &bytes[1..];
                    self.address(byte)?
                }
                Place::Picture { .. } => self.picture(bytes)?,
            };
            if self.rest.len() > REST_LIMIT || self.open.len() > DEEPEST {
                return Err(ScanFault::TooLong);
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
                self.open.push(byte);
                self.at_name = byte == b'{';
            }
            b'}' | b']' => {
                self.open.pop();
                self.at_name = false;
            }
            b',' => self.at_name = self.open.last() == Some(&b'{'),
            b':' => self.at_name = false,
            b'"' => self.place = self.string(),
            _ => {}
        }
        self.rest.push(byte);
    }

    /// Where a string leads that begins here.
    fn string(&self) -> Place {
        let from = self.rest.len();
        match self.slot {
            Slot::Base64 if self.in_entry() && !self.at_name => {
                Place::Picture { escape: Escape::None, begun: false }
            }
            Slot::Url if self.in_entry() && !self.at_name => {
                Place::Address { escape: Escape::None, letters: 0, from }
            }
            Slot::Base64 | Slot::Url | Slot::Other => Place::Kept { escaped: false, from },
        }
    }

    /// Whether an entry of `data` is what is open.
    fn in_entry(&self) -> bool {
        self.in_data && self.open == b"{[{"
    }

    fn kept(&mut self, bytes: &mut &[u8]) {
        let Place::Kept { escaped, from } = &mut self.place else { return };
        let end = if *escaped { Some(0) } else { memchr2(b'"', b'\\', bytes) };
        // With the byte that ends the run: a quote, a backslash, or what one escapes.
        let (run, behind) = bytes.split_at(end.map_or(bytes.len(), |end| end + 1));
        *bytes = behind;
        self.rest.extend_from_slice(run);
        let ends = end.is_some() && !*escaped;
        *escaped = ends && run.last() == Some(&b'\\');
        if ends && !*escaped {
            let from = *from;
            self.place = Place::Between;
            if self.at_name {
                self.named(from);
            }
        }
    }

    /// A name ended: what it means for what comes.
    fn named(&mut self, from: usize) {
        let raw = &self.rest[from..];
        let name: String = if raw.len() <= LONGEST_NAME {
            serde_json::from_slice(raw).unwrap_or_default()
        } else {
            String::new()
        };
        if self.open == b"{" {
            self.in_data = name == "data";
        } else if self.in_entry() {
            self.slot = match name.as_str() {
                "b64_json" => Slot::Base64,
                "url" => Slot::Url,
                _ => Slot::Other,
            };
        }
    }

    /// A byte of an address.
    fn address(&mut self, byte: u8) -> Result<Option<Found<'static>>, ScanFault> {
        let Place::Address { escape, letters, from } = &mut self.place else { return Ok(None) };
        self.rest.push(byte);
        if byte == b'"' && *escape == Escape::None {
            self.place = Place::Between;
            return Ok(None);
        }
        let Some(letter) = escape.take(byte)? else { return Ok(None) };
        if letter != DATA[*letters] {
            self.place = Place::Kept { escaped: false, from: *from };
            return Ok(None);
        }
        *letters += 1;
        if *letters < DATA.len() {
            return Ok(None);
        }
        self.rest.truncate(*from + 1); // but for the quote
        self.rest.extend_from_slice(DATA);
        Ok(Some(self.begin(true)))
    }

    fn begin(&mut self, address: bool) -> Found<'static> {
        let _ = write!(self.rest, "@{}", self.pictures);
        self.pictures += 1;
        self.place = Place::Picture { escape: Escape::None, begun: true };
        Found::Begin { address }
    }

    fn picture<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Found<'a>>, ScanFault> {
        let Place::Picture { escape, begun } = &mut self.place else { return Ok(None) };
        let in_escape = *escape != Escape::None;
        let run = if in_escape { 0 } else { memchr2(b'"', b'\\', bytes).unwrap_or(bytes.len()) };
        let ends = run == 0 && !in_escape && bytes[0] == b'"';
        if ends {
            let found = begun.then_some(Found::End);
            self.rest.push(b'"');
            *bytes = &bytes[1..];
            self.place = Place::Between;
            return Ok(found);
        }
        if !*begun {
            return Ok(Some(self.begin(false)));
        }
        let (text, behind) = bytes.split_at(run.max(1));
        *bytes = behind;
        if run > 0 {
            return Ok(Some(Found::Text(text)));
        }
        Ok(escape.take(text[0])?.map(Found::Letter))
    }
}
