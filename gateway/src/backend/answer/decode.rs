//! A picture's base64, decoded as it comes; where it is cut does not matter. Forgiving as browsers are: white space is
//! passed over, and the padding may be missing. Pure.

use base64_simd::{STANDARD_NO_PAD, forgiving_decode_to_vec};

/// Letters of an address before its content, such as `image/png;base64`.
const LONGEST_HEAD: usize = 256;
const DATA: &[u8] = b"data:";

/// A text, as far as it came.
#[derive(Debug)]
pub(super) struct Decoder {
    head: Head,
    /// The last one to four letters: padding can only be among the last four.
    carry: Vec<u8>,
    /// What is decoded and was not taken.
    out: Vec<u8>,
}

/// What is before the base64.
#[derive(Debug)]
enum Head {
    /// Nothing, or the begin of an address: too few letters came.
    Untold(Vec<u8>),
    /// An address, up to its comma.
    Address(Vec<u8>),
    /// All came.
    Over,
}

/// It is not base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Damaged(pub(super) &'static str);

const NOT_BASE64: Damaged = Damaged("a picture's base64 is damaged");
const NOT_IN_BASE64: Damaged = Damaged("a picture's data: address is not in base64");

impl Decoder {
    /// Of a text that begins here, in an address behind its `data:`.
    pub(super) fn new(address: bool) -> Self {
        let head = if address { Head::Address(Vec::new()) } else { Head::Untold(Vec::new()) };
        Self { head, carry: Vec::with_capacity(8), out: Vec::new() }
    }

    /// What is decoded so far, if it is so many bytes.
    pub(super) fn take(&mut self, least: usize) -> Option<Vec<u8>> {
        (self.out.len() >= least).then(|| std::mem::take(&mut self.out))
    }

    /// The next letter, which was written as an escape.
    pub(super) fn letter(&mut self, letter: u8) -> Result<(), Damaged> {
        if letter.is_ascii_whitespace() { Ok(()) } else { self.text(&[letter]) }
    }

    /// The next letters.
    pub(super) fn text(&mut self, mut text: &[u8]) -> Result<(), Damaged> {
        if let Head::Untold(letters) = &mut self.head {
            let (first, rest) = text.split_at(text.len().min(DATA.len() - letters.len()));
            letters.extend_from_slice(first);
            text = rest;
            if letters == DATA {
                self.head = Head::Address(Vec::new());
            } else if letters.len() == DATA.len() || !DATA.starts_with(letters) {
                let letters = std::mem::take(letters);
                self.head = Head::Over;
                self.base64(&letters)?;
            } else {
                return Ok(());
            }
        }
        if let Head::Address(letters) = &mut self.head {
            let comma = text.iter().position(|letter| *letter == b',');
            letters.extend_from_slice(&text[..comma.unwrap_or(text.len())]);
            let Some(comma) = comma else {
                return if letters.len() > LONGEST_HEAD { Err(NOT_IN_BASE64) } else { Ok(()) };
            };
            if !letters.ends_with(b";base64") {
                return Err(NOT_IN_BASE64);
            }
            self.head = Head::Over;
            text = &text[comma + 1..];
        }
        self.base64(text)
    }

    /// What is left, once all letters came.
    pub(super) fn finish(mut self) -> Result<Vec<u8>, Damaged> {
        match std::mem::replace(&mut self.head, Head::Over) {
            Head::Untold(letters) => self.base64(&letters)?,
            Head::Address(_) => return Err(NOT_IN_BASE64),
            Head::Over => {}
        }
        // White space that was not written as an escape is no JSON.
        if self.carry.iter().any(u8::is_ascii_control) {
            return Err(NOT_BASE64);
        }
        self.out.extend(forgiving_decode_to_vec(&self.carry).map_err(|_| NOT_BASE64)?);
        Ok(self.out)
    }

    fn base64(&mut self, text: &[u8]) -> Result<(), Damaged> {
        let decoded = self.out.len();
        if self.strict(text).is_some() {
            return Ok(());
        }
        self.out.truncate(decoded);
        let all = self.carry.iter().chain(text).copied();
        let letters: Vec<u8> = all.clone().filter(|letter| *letter != b' ').collect();
        if letters.len() == all.count() {
            return Err(NOT_BASE64);
        }
        self.carry.clear();
        self.strict(&letters).ok_or(NOT_BASE64)
    }

    /// Decodes all but the last letters, and changes the carry only where that goes well.
    fn strict(&mut self, text: &[u8]) -> Option<()> {
        let all = self.carry.len() + text.len();
        if all <= 4 {
            self.carry.extend_from_slice(text);
            return Some(());
        }
        let kept = (all - 1) % 4 + 1;
        let (mut text, last) = text.split_at(text.len().checked_sub(kept)?);
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
