//! Decodes the escapes of a JSON string, byte by byte. Pure.

/// Stands for every character outside ASCII: base64 and URLs contain none.
const NON_ASCII: u8 = 0xFF;

/// The position within an escape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Escape {
    /// Outside of any.
    #[default]
    None,
    /// After the backslash.
    Backslash,
    /// In `\uXXXX`, after so many digits with this value.
    Unicode { digits: u8, value: u16 },
}

/// The string is not valid JSON.
#[derive(Debug)]
pub(super) struct InvalidEscape;

impl Escape {
    /// Reads the next byte of a string; returns the character that it completes.
    pub(super) fn push(&mut self, byte: u8) -> Result<Option<u8>, InvalidEscape> {
        let (next, decoded) = match (*self, byte) {
            (Self::None, b'\\') => (Self::Backslash, None),
            (Self::None, byte) => (Self::None, Some(byte)),
            (Self::Backslash, b'u') => (Self::Unicode { digits: 0, value: 0 }, None),
            (Self::Backslash, byte) => (Self::None, Some(unescape(byte)?)),
            (Self::Unicode { digits, value }, byte) => {
                let digit = char::from(byte).to_digit(16).ok_or(InvalidEscape)?;
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

fn unescape(byte: u8) -> Result<u8, InvalidEscape> {
    match byte {
        b'"' | b'\\' | b'/' => Ok(byte),
        b'b' => Ok(8),
        b'f' => Ok(12),
        b'n' => Ok(b'\n'),
        b'r' => Ok(b'\r'),
        b't' => Ok(b'\t'),
        _ => Err(InvalidEscape),
    }
}
