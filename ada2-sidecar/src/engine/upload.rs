//! An upload in the form that the engines take: multipart, with a file and a few fields.

use bytes::Bytes;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UploadForm {
    pub(super) content_type: String,
    pub(super) body: Bytes,
}

/// A PNG with this field name and file name, and further fields. Names are ours, never a client's.
pub(super) fn png_form(field: &str, file_name: &str, png: &[u8], fields: &[(&str, &str)]) -> UploadForm {
    // Random: no image contains it.
    let boundary = format!("ada2-{}", uuid::Uuid::new_v4().simple());
    let mut body = Vec::with_capacity(png.len() + 512);
    for (name, value) in fields {
        let part =
            format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        body.extend_from_slice(part.as_bytes());
    }
    let head = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"{field}\"; filename=\"{file_name}\"\r\n\
         Content-Type: image/png\r\n\r\n"
    );
    body.extend_from_slice(head.as_bytes());
    body.extend_from_slice(png);
    body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    UploadForm { content_type: format!("multipart/form-data; boundary={boundary}"), body: body.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_form_reader_reads_it_back() {
        let form = png_form("file", "a.png", b"\r\n--x\0", &[("type", "input")]);
        let boundary = multer::parse_boundary(&form.content_type).unwrap();
        let body = futures_util::stream::iter([Ok::<_, std::io::Error>(form.body)]);
        let mut parts = multer::Multipart::new(body, boundary);
        let value = parts.next_field().await.unwrap().unwrap();
        assert_eq!(value.name(), Some("type"));
        assert_eq!(value.text().await.unwrap(), "input");
        let file = parts.next_field().await.unwrap().unwrap();
        assert_eq!((file.name(), file.file_name()), (Some("file"), Some("a.png")));
        assert_eq!(file.bytes().await.unwrap(), b"\r\n--x\0"[..]);
        assert!(parts.next_field().await.unwrap().is_none());
    }
}
