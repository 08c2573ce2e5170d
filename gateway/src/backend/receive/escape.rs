//! A JSON string's escapes, letter by letter. Pure.

use super::scan::ScanError;

/// Stands for every letter that is none of ASCII: in what is read here, it is only ever wrong.
const NON_ASCII: u8 = 0xFF;

/// Where in an escape the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Escape {
    /// In none.
    #[default]
    None,
    /// Behind the backslash.
    Backslash,
    /// In `\uXXXX`, of which so many digits came, with this value.
    Unicode { digits: u8, value: u16 },
}

impl Escape {
    /// Takes the next byte of a string; gives the letter that it completes.
    pub(super) fn push(&mut self, byte: u8) -> Result<Option<u8>, ScanError> {
        let (next, decoded) = match (*self, byte) {
            (Self::None, b'\\') => (Self::Backslash, None),
            (Self::None, byte) => (Self::None, Some(byte)),
            (Self::Backslash, b'u') => (Self::Unicode { digits: 0, value: 0 }, None),
            (Self::Backslash, byte) => (Self::None, Some(unescape(byte)?)),
            (Self::Unicode { digits, value }, byte) => {
                let digit = char::from(byte).to_digit(16).ok_or(ScanError::NotJson)?;
                let value = value << 4 | u16::try_from(digit).unwrap_or_default();
                match digits {
                    3 => {
                        (Self::None, Some(u8::try_from(value).ok().filter(u8::is_ascii).unwrap_or(NON_ASCII)))
                    }
                    _ => (Self::Unicode { digits: digits + 1, value }, None),
                }
            }
        };
        *self = next;
        Ok(decoded)
    }
}

fn unescape(byte: u8) -> Result<u8, ScanError> {
    match byte {
        b'"' | b'\\' | b'/' => Ok(byte),
        b'b' => Ok(8),
        b'f' => Ok(12),
        b'n' => Ok(b'\n'),
        b'r' => Ok(b'\r'),
        b't' => Ok(b'\t'),
        _ => Err(ScanError::NotJson),
    }
}
