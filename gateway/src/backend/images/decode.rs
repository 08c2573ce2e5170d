//! Decodes an image's base64 as it arrives, in chunks of any size. As forgiving as browsers are: white space is skipped, and
//! the padding may be missing. Pure.

use base64_simd::{STANDARD_NO_PAD, forgiving_decode_to_vec};

use super::scan::DATA_SCHEME;

/// Bytes of a `data:` URL before its content, such as `image/png;base64`.
const MAX_PREFIX_BYTES: usize = 256;

#[derive(Debug)]
pub(super) struct Base64Decoder {
    prefix: Prefix,
    /// The last one to four characters: only these can be padding.
    carry: Vec<u8>,
    /// Decoded, and not yet taken.
    out: Vec<u8>,
}

/// What precedes the base64.
#[derive(Debug)]
enum Prefix {
    /// Nothing, or the start of a `data:` URL: too few bytes have arrived to decide.
    Undecided(Vec<u8>),
    /// A `data:` URL, up to its comma.
    DataUrl(Vec<u8>),
    /// All of it has arrived.
    Done,
}

/// The text is not base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DecodeError(pub(super) &'static str);

const NOT_BASE64: DecodeError = DecodeError("an image's base64 is damaged");
const NOT_IN_BASE64: DecodeError = DecodeError("an image's data: URL is not in base64");

impl Base64Decoder {
    /// For a text from its start, or for a `data:` URL after its scheme.
    pub(super) fn new(is_data_url: bool) -> Self {
        let prefix = if is_data_url { Prefix::DataUrl(Vec::new()) } else { Prefix::Undecided(Vec::new()) };
        Self { prefix, carry: Vec::with_capacity(8), out: Vec::new() }
    }

    /// Takes what is decoded so far, if that is at least so many bytes.
    pub(super) fn take(&mut self, min: usize) -> Option<Vec<u8>> {
        (self.out.len() >= min).then(|| std::mem::take(&mut self.out))
    }

    /// Decodes one byte that was written as a JSON escape.
    pub(super) fn push_byte(&mut self, byte: u8) -> Result<(), DecodeError> {
        if byte.is_ascii_whitespace() { Ok(()) } else { self.push(&[byte]) }
    }

    /// Decodes the next bytes.
    pub(super) fn push(&mut self, mut text: &[u8]) -> Result<(), DecodeError> {
        if let Prefix::Undecided(prefix) = &mut self.prefix {
            let (first, rest) = text.split_at(text.len().min(DATA_SCHEME.len() - prefix.len()));
            prefix.extend_from_slice(first);
            text = rest;
            if prefix == DATA_SCHEME {
                self.prefix = Prefix::DataUrl(Vec::new());
            } else if prefix.len() == DATA_SCHEME.len() || !DATA_SCHEME.starts_with(prefix) {
                let prefix = std::mem::take(prefix);
                self.prefix = Prefix::Done;
                self.decode(&prefix)?;
            } else {
                return Ok(());
            }
        }
        if let Prefix::DataUrl(prefix) = &mut self.prefix {
            let comma = text.iter().position(|byte| *byte == b',');
            prefix.extend_from_slice(&text[..comma.unwrap_or(text.len())]);
            let Some(comma) = comma else {
                return if prefix.len() > MAX_PREFIX_BYTES { Err(NOT_IN_BASE64) } else { Ok(()) };
            };
            if !prefix.ends_with(b";base64") {
                return Err(NOT_IN_BASE64);
            }
            self.prefix = Prefix::Done;
            text = &text[comma + 1..];
        }
        self.decode(text)
    }

    /// Decodes the end of the text.
    pub(super) fn finish(mut self) -> Result<Vec<u8>, DecodeError> {
        match std::mem::replace(&mut self.prefix, Prefix::Done) {
            Prefix::Undecided(prefix) => self.decode(&prefix)?,
            Prefix::DataUrl(_) => return Err(NOT_IN_BASE64),
            Prefix::Done => {}
        }
        // JSON allows no control characters in strings but as escapes, and those were skipped.
        if self.carry.iter().any(u8::is_ascii_control) {
            return Err(NOT_BASE64);
        }
        self.out.extend(forgiving_decode_to_vec(&self.carry).map_err(|_| NOT_BASE64)?);
        Ok(self.out)
    }

    fn decode(&mut self, text: &[u8]) -> Result<(), DecodeError> {
        let decoded = self.out.len();
        if self.decode_strict(text).is_some() {
            return Ok(());
        }
        self.out.truncate(decoded);
        let all = self.carry.iter().chain(text).copied();
        let stripped: Vec<u8> = all.clone().filter(|byte| *byte != b' ').collect();
        if stripped.len() == all.count() {
            return Err(NOT_BASE64);
        }
        self.carry.clear();
        self.decode_strict(&stripped).ok_or(NOT_BASE64)
    }

    /// Decodes all but the last one to four bytes; on failure `carry` is unchanged.
    fn decode_strict(&mut self, text: &[u8]) -> Option<()> {
        let all = self.carry.len() + text.len();
        if all <= 4 {
            self.carry.extend_from_slice(text);
            return Some(());
        }
        let carry_len = (all - 1) % 4 + 1;
        let (mut text, last) = text.split_at(text.len().checked_sub(carry_len)?);
        if !self.carry.is_empty() {
            let (first, rest) = text.split_at(4 - self.carry.len());
            let quad = [&self.carry, first].concat();
            STANDARD_NO_PAD.decode_append(&quad, &mut self.out).ok()?;
            text = rest;
        }
        STANDARD_NO_PAD.decode_append(text, &mut self.out).ok()?;
        self.carry.clear();
        self.carry.extend_from_slice(last);
        Some(())
    }
}
