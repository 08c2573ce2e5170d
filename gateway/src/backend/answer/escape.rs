//! A JSON string's escapes, letter by letter. Pure.

use super::scan::ScanFault;

/// Stands for every letter that is none of ASCII: in what is read here, it is only ever wrong.
const FOREIGN: u8 = 0xFF;

/// Where in an escape the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Escape {
    /// In none.
    #[default]
    None,
    /// Behind the backslash.
    Begun,
    /// In `\uXXXX`, of which so many digits came, with this value.
    Code { digits: u8, value: u16 },
}

impl Escape {
    /// Takes the next byte of a string; gives the letter that it completes.
    pub(super) fn take(&mut self, byte: u8) -> Result<Option<u8>, ScanFault> {
        let (next, letter) = match (*self, byte) {
            (Self::None, b'\\') => (Self::Begun, None),
            (Self::None, byte) => (Self::None, Some(byte)),
            (Self::Begun, b'u') => (Self::Code { digits: 0, value: 0 }, None),
            (Self::Begun, byte) => (Self::None, Some(short(byte)?)),
            (Self::Code { digits, value }, byte) => {
                let digit = char::from(byte).to_digit(16).ok_or(ScanFault::NotJson)?;
                let value = value << 4 | u16::try_from(digit).unwrap_or_default();
                match digits {
                    3 => (Self::None, Some(u8::try_from(value).ok().filter(u8::is_ascii).unwrap_or(FOREIGN))),
                    _ => (Self::Code { digits: digits + 1, value }, None),
                }
            }
        };
        *self = next;
        Ok(letter)
    }
}

fn short(byte: u8) -> Result<u8, ScanFault> {
    match byte {
        b'"' | b'\\' | b'/' => Ok(byte),
        b'b' => Ok(8),
        b'f' => Ok(12),
        b'n' => Ok(b'\n'),
        b'r' => Ok(b'\r'),
        b't' => Ok(b'\t'),
        _ => Err(ScanFault::NotJson),
    }
}
