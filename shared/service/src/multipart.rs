//! Parses a complete `multipart/form-data` body into the names and positions of its parts. Nothing is copied or searched twice,
//! so the time is linear in the length. What two parsers could understand differently is refused.

mod part_headers;
#[cfg(test)]
mod tests;

use std::{fmt, ops::Range};

use axum::http::HeaderValue;
use memchr::memmem::{self, Finder};

/// Bytes of a boundary: RFC 2046, section 5.1.1.
const MAX_BOUNDARY: usize = 70;
/// Bytes of a `Content-Type` with one.
const MAX_CONTENT_TYPE: usize = 1024;
/// Bytes of a part's head: a file name in any encoding, and some more lines.
const MAX_HEAD: usize = 8192;

/// A parsed form.
#[derive(Debug)]
pub struct MultipartForm {
    /// Two dashes and the boundary.
    pub delimiter: String,
    /// In order.
    pub parts: Vec<FormPart>,
}

/// A part of a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormPart {
    /// Its name, never empty.
    pub name: String,
    /// Its file name; `None` if it is no file.
    pub file_name: Option<String>,
    /// From its delimiter to the next.
    pub span: Range<usize>,
    /// Its content.
    pub content: Range<usize>,
}

/// Why a form is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FormError {
    /// The `Content-Type` is another.
    NotMultipart,
    /// The `Content-Type` has no boundary.
    NoBoundary,
    /// The boundary is too long.
    BoundaryTooLong,
    /// More parts than this.
    TooManyParts(usize),
    /// A part's head is too long, or does not end.
    HeaderTooLong,
    /// A part's head is malformed or ambiguous.
    InvalidHeader,
    /// It is truncated, or its parts are not delimited.
    Malformed,
}

impl fmt::Display for FormError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotMultipart => f.write_str("Content-Type is not multipart/form-data"),
            Self::NoBoundary => f.write_str("Content-Type has no boundary"),
            Self::BoundaryTooLong => {
                write!(f, "the boundary in Content-Type has more than {MAX_BOUNDARY} bytes")
            }
            Self::TooManyParts(most) => write!(f, "it has more than {most} parts"),
            Self::HeaderTooLong => write!(f, "the head of a part has more than {MAX_HEAD} bytes"),
            Self::InvalidHeader => f.write_str("a part has no name, or has a header twice"),
            Self::Malformed => f.write_str("it is truncated or malformed"),
        }
    }
}

/// Whether this is any `multipart/…`.
pub fn is_multipart(content_type: &HeaderValue) -> bool {
    let kind = content_type.as_bytes().get(.."multipart/".len());
    kind.is_some_and(|kind| kind.eq_ignore_ascii_case(b"multipart/"))
}

impl MultipartForm {
    /// Parses a body of at most so many parts.
    pub fn parse(content_type: &HeaderValue, body: &[u8], max_parts: usize) -> Result<Self, FormError> {
        let delimiter = format!("--{}", boundary(content_type)?);
        let separator = format!("\r\n{delimiter}");
        let separator = Finder::new(&separator);
        let mut at = first_delimiter(body, &delimiter, &separator).ok_or(FormError::Malformed)?;
        let mut parts = Vec::new();
        loop {
            let rest = at + delimiter.len();
            if body[rest..].starts_with(b"--") {
                return Ok(Self { delimiter, parts });
            }
            if parts.len() == max_parts {
                return Err(FormError::TooManyParts(max_parts));
            }
            let head = rest + body[rest..].iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
            let head =
                head + if body[head..].starts_with(b"\r\n") { 2 } else { return Err(FormError::Malformed) };
            let window = &body[head..body.len().min(head + MAX_HEAD)];
            let length = memmem::find(window, b"\r\n\r\n").ok_or(if window.len() == MAX_HEAD {
                FormError::HeaderTooLong
            } else {
                FormError::Malformed
            })?;
            let (name, file_name) = part_headers::parse(&window[..length]).ok_or(FormError::InvalidHeader)?;
            let start = head + length + 4;
            let end = start + separator.find(&body[start..]).ok_or(FormError::Malformed)?;
            let next = end + 2;
            parts.push(FormPart { name, file_name, span: at..next, content: start..end });
            at = next;
        }
    }
}

fn boundary(content_type: &HeaderValue) -> Result<String, FormError> {
    let text = content_type.to_str().map_err(|_| FormError::NotMultipart)?;
    if text.len() > MAX_CONTENT_TYPE {
        return Err(if is_multipart(content_type) {
            FormError::BoundaryTooLong
        } else {
            FormError::NotMultipart
        });
    }
    match multer::parse_boundary(text) {
        Ok(boundary) if boundary.len() > MAX_BOUNDARY => Err(FormError::BoundaryTooLong),
        Ok(boundary) if !boundary.is_empty() => Ok(boundary),
        Ok(_) | Err(multer::Error::NoBoundary) => Err(FormError::NoBoundary),
        Err(_) => Err(FormError::NotMultipart),
    }
}

/// The first delimiter starts a line; the preamble before it is ignored.
fn first_delimiter(body: &[u8], delimiter: &str, separator: &Finder<'_>) -> Option<usize> {
    if body.starts_with(delimiter.as_bytes()) { Some(0) } else { Some(separator.find(body)? + 2) }
}
