//! Forms: written by hand, byte by byte, and parsed.

use axum::http::{HeaderMap, header};
use bytes::Bytes;

/// Between the parts.
pub const BOUNDARY: &str = "589c68b319ae2df998f2976b8fc1e627";
/// The `Content-Type` for this boundary.
pub const KIND: &str = "multipart/form-data; boundary=589c68b319ae2df998f2976b8fc1e627";

/// A part: its header lines, then its content.
pub type RawPart<'a> = (&'a str, &'a [u8]);

/// The body.
pub fn form(parts: &[RawPart<'_>]) -> Vec<u8> {
    let mut body = Vec::new();
    for (head, content) in parts {
        body.extend(format!("--{BOUNDARY}\r\n{head}\r\n\r\n").as_bytes());
        body.extend_from_slice(content);
        body.extend(b"\r\n");
    }
    body.extend(format!("--{BOUNDARY}--\r\n").as_bytes());
    body
}

/// The head of a text.
pub fn text(name: &str) -> String {
    format!("Content-Disposition: form-data; name=\"{name}\"")
}

/// The head of a file.
pub fn file(name: &str, file: &str) -> String {
    format!("Content-Disposition: form-data; name=\"{name}\"; filename=\"{file}\"\r\nContent-Type: image/png")
}

/// A part of a form that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadedPart {
    /// Its name.
    pub name: String,
    /// Its file name.
    pub file: Option<String>,
    /// Its `Content-Type`.
    pub kind: Option<String>,
    /// Its content.
    pub bytes: Bytes,
}

/// The parts of a body; none if it is no form.
pub(crate) async fn read(headers: &HeaderMap, body: &Bytes) -> Vec<UploadedPart> {
    let mut parts = Vec::new();
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let Ok(boundary) = multer::parse_boundary(kind) else { return parts };
    let body = futures_util::stream::iter([Ok::<_, std::convert::Infallible>(body.clone())]);
    let mut reader = multer::Multipart::new(body, boundary);
    while let Ok(Some(field)) = reader.next_field().await {
        parts.push(UploadedPart {
            name: field.name().unwrap_or_default().to_owned(),
            file: field.file_name().map(str::to_owned),
            kind: field.content_type().map(ToString::to_string),
            bytes: field.bytes().await.unwrap_or_default(),
        });
    }
    parts
}
