//! `multipart/form-data`: its parts are read for what policy decides on and kept as they lie in the body, so that they
//! can be sent on byte for byte.

use std::convert::Infallible;

use axum::http::HeaderValue;
use bytes::Bytes;
use futures_util::{FutureExt, stream};
use multer::{Field, Multipart};
use shared::openai::fields::{FieldError, Fields};

use super::{Sent, unreadable};

/// Parts of one form: 16 pictures, a mask, every field there is, and room.
const MOST_PARTS: usize = 128;
/// Texts that policy reads or that mean nothing when given twice. Two readers of one form could decide on different
/// ones.
const TEXTS: [&str; 9] =
    ["model", "prompt", "n", "size", "response_format", "stream", "partial_images", "seed", "user"];
/// A form.
#[derive(Debug)]
pub(super) struct Form {
    content_type: HeaderValue,
    /// What stands before each part: two dashes and the boundary.
    delimiter: Bytes,
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    name: String,
    /// What is in it, if it is one of [`TEXTS`].
    text: Option<String>,
    /// Whether there is anything in it.
    filled: bool,
    /// From its delimiter to the next.
    bytes: Bytes,
}

impl Form {
    /// Reads a form, and the fields that policy decides on.
    pub(super) fn read(content_type: &HeaderValue, body: &Bytes) -> Result<(Self, Fields), FieldError> {
        let boundary = content_type.to_str().ok().and_then(|kind| multer::parse_boundary(kind).ok());
        let boundary = boundary
            .filter(|boundary| !boundary.is_empty())
            .ok_or_else(|| unreadable("Content-Type is no multipart/form-data with a boundary."))?;
        let delimiter = Bytes::from(format!("--{boundary}"));
        let parts = read_parts(body, &delimiter, boundary)?;
        let form = Self { content_type: content_type.clone(), delimiter, parts };
        form.check()?;
        let fields = form.fields()?;
        Ok((form, fields))
    }

    fn check(&self) -> Result<(), FieldError> {
        for name in TEXTS.into_iter().chain(["mask"]) {
            if self.parts.iter().filter(|part| part.name == name).count() > 1 {
                return Err(FieldError::new(name, format!("{name} is given twice.")));
            }
        }
        if !self.parts.iter().any(|part| part.filled && is_image(&part.name)) {
            return Err(FieldError::new("image", "image must be a part with a picture, or several of them."));
        }
        Ok(())
    }

    /// What a JSON object with these fields gives.
    fn fields(&self) -> Result<Fields, FieldError> {
        Fields::of_form(self.parts.iter().filter_map(|part| Some((part.name.clone(), part.text.clone()?))))
    }

    /// The form with these texts in it, or without where there is none; every other part is as it was.
    pub(super) fn into_sent(self, texts: &[(&str, Option<&str>)]) -> Sent {
        let mut texts = texts.to_vec();
        let mut pieces = Vec::with_capacity(self.parts.len() + texts.len() + 1);
        for part in self.parts {
            match texts.iter().position(|(name, _)| *name == part.name) {
                None => pieces.push(part.bytes),
                Some(at) => match texts.remove(at) {
                    (_, Some(text)) if part.text.as_deref() == Some(text) => pieces.push(part.bytes),
                    (name, Some(text)) => pieces.push(text_part(&self.delimiter, name, text)),
                    (_, None) => {}
                },
            }
        }
        let added = texts.into_iter().filter_map(|(name, text)| Some((name, text?)));
        pieces.extend(added.map(|(name, text)| text_part(&self.delimiter, name, text)));
        pieces.push([&self.delimiter[..], b"--\r\n"].concat().into());
        Sent { content_type: self.content_type, pieces }
    }
}

/// `image`, `image[]`, `image[0]`.
fn is_image(name: &str) -> bool {
    let Some(index) = name.strip_prefix("image") else { return false };
    let inner = index.strip_prefix('[').and_then(|index| index.strip_suffix(']'));
    index.is_empty() || inner.is_some_and(|inner| inner.bytes().all(|byte| byte.is_ascii_digit()))
}

fn text_part(delimiter: &Bytes, name: &str, text: &str) -> Bytes {
    let head = format!("\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n");
    [&delimiter[..], head.as_bytes()].concat().into()
}

fn read_parts(body: &Bytes, delimiter: &Bytes, boundary: String) -> Result<Vec<Part>, FieldError> {
    let whole = stream::iter([Ok::<_, Infallible>(body.clone())]);
    let mut reader = Multipart::new(whole, boundary);
    // Before the first delimiter stands what no reader reads.
    let mut at = body.windows(delimiter.len()).position(|bytes| bytes == &delimiter[..]).unwrap_or(0);
    let mut parts = Vec::new();
    while let Some(field) = ready(reader.next_field())? {
        if parts.len() == MOST_PARTS {
            return Err(unreadable(&format!("The form has more than {MOST_PARTS} parts.")));
        }
        let headers = field.headers().len();
        let (mut part, length) = read_part(field)?;
        let end = span(&body[at..], delimiter, headers, length).ok_or_else(badly_framed)?;
        part.bytes = body.slice(at..at + end);
        parts.push(part);
        at += end;
    }
    Ok(parts)
}

/// One part but for where it lies, and how long its content is.
fn read_part(mut field: Field<'_>) -> Result<(Part, usize), FieldError> {
    let name = field.name().filter(|name| !name.is_empty()).ok_or_else(badly_framed)?.to_owned();
    let is_text = TEXTS.contains(&name.as_str());
    if is_text && field.file_name().is_some() {
        return Err(FieldError::new(&name, format!("{name} must be a text, not a file.")));
    }
    let (mut length, mut text) = (0, Vec::new());
    while let Some(chunk) = ready(field.chunk())? {
        length += chunk.len();
        if is_text {
            text.extend_from_slice(&chunk);
        }
    }
    let not_utf8 = |_| FieldError::new(&name, format!("{name} must be a text in UTF-8."));
    let text = if is_text { Some(String::from_utf8(text).map_err(not_utf8)?) } else { None };
    Ok((Part { name, text, filled: length > 0, bytes: Bytes::new() }, length))
}

/// The bytes are all there: a reader that waits for more has met the end too early.
fn ready<T>(step: impl Future<Output = multer::Result<T>>) -> Result<T, FieldError> {
    step.now_or_never().and_then(Result::ok).ok_or_else(badly_framed)
}

fn badly_framed() -> FieldError {
    unreadable("The form is cut off or badly framed, or a part has no name or one header twice.")
}

/// How long the part is that begins here with its delimiter, up to the next delimiter. The reader has told the number of
/// headers and of bytes, not the place. None where they do not fit: then others might read something else.
fn span(bytes: &[u8], delimiter: &[u8], headers: usize, length: usize) -> Option<usize> {
    let padded = bytes.strip_prefix(delimiter)?;
    let padding = padded.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let head = padded[padding..].strip_prefix(b"\r\n")?;
    let head_length = head.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let lines = head[..head_length].windows(2).filter(|bytes| bytes == b"\r\n").count() + 1;
    let rest = head.get(head_length + 4 + length..)?;
    let framed = lines == headers && rest.strip_prefix(b"\r\n")?.starts_with(delimiter);
    framed.then(|| bytes.len() - rest.len() + 2)
}

#[cfg(test)]
mod tests;
