//! Forms written by hand, so that every byte is known.

/// Between the parts.
pub const BOUNDARY: &str = "589c68b319ae2df998f2976b8fc1e627";
/// The `Content-Type` that says so.
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
