//! A picture's base64, decoded as it comes; where it is cut does not matter. Forgiving as browsers are: white space is
//! passed over, and the padding may be missing. Pure.

use base64_simd::{STANDARD_NO_PAD, forgiving_decode_to_vec};

/// Letters of an address before its content, such as `image/png;base64`.
const MAX_PREFIX_BYTES: usize = 256;
const DATA_SCHEME: &[u8] = b"data:";

/// A text, as far as it came.
#[derive(Debug)]
pub(super) struct Base64Decoder {
    prefix: Prefix,
    /// The last one to four letters: padding can only be among the last four.
    carry: Vec<u8>,
    /// What is decoded and was not taken.
    out: Vec<u8>,
}

/// What is before the base64.
#[derive(Debug)]
enum Prefix {
    /// Nothing, or the begin of an address: too few letters came.
    Undecided(Vec<u8>),
    /// An address, up to its comma.
    DataUrl(Vec<u8>),
    /// All came.
    Done,
}

/// It is not base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DecodeError(pub(super) &'static str);

const NOT_BASE64: DecodeError = DecodeError("a picture's base64 is damaged");
const NOT_IN_BASE64: DecodeError = DecodeError("a picture's data: address is not in base64");

impl Base64Decoder {
    /// Of a text that begins here, in an address behind its `data:`.
    pub(super) fn new(address: bool) -> Self {
        let head = if address { Prefix::DataUrl(Vec::new()) } else { Prefix::Undecided(Vec::new()) };
        Self { prefix: head, carry: Vec::with_capacity(8), out: Vec::new() }
    }

    /// What is decoded so far, if it is so many bytes.
    pub(super) fn take(&mut self, least: usize) -> Option<Vec<u8>> {
        (self.out.len() >= least).then(|| std::mem::take(&mut self.out))
    }

    /// The next letter, which was written as an escape.
    pub(super) fn push_byte(&mut self, byte: u8) -> Result<(), DecodeError> {
        if byte.is_ascii_whitespace() { Ok(()) } else { self.push(&[byte]) }
    }

    /// The next letters.
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

    /// What is left, once all letters came.
    pub(super) fn finish(mut self) -> Result<Vec<u8>, DecodeError> {
        match std::mem::replace(&mut self.prefix, Prefix::Done) {
            Prefix::Undecided(prefix) => self.decode(&prefix)?,
            Prefix::DataUrl(_) => return Err(NOT_IN_BASE64),
            Prefix::Done => {}
        }
        // White space that was not written as an escape is no JSON.
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
        let stripped: Vec<u8> = all.clone().filter(|letter| *letter != b' ').collect();
        if stripped.len() == all.count() {
            return Err(NOT_BASE64);
        }
        self.carry.clear();
        self.decode_strict(&stripped).ok_or(NOT_BASE64)
    }

    /// Decodes all but the last letters, and changes the carry only where that goes well.
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
