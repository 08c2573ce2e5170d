//! What must hold of the bodies of edits; see [`crate::fuzzing`].

use axum::http::{HeaderMap, HeaderValue, header};
use bytes::Bytes;

use super::edit_input::EditForm;

/// A form or JSON; the first line of the input is its `Content-Type`.
pub fn edit_form(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let Ok(content_type) = HeaderValue::from_bytes(&data[..end]) else { return };
    let body = Bytes::copy_from_slice(data.get(end + 1..).unwrap_or_default());
    let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, content_type)]);
    match EditForm::read(&headers, &body) {
        Ok(form) => {
            let _ = (form.fields.text("prompt"), form.fields.integer("n", 1..=4));
            let _ = form.measure();
        }
        Err(error) => assert!(error.message.len() < 4 << 10, "it quotes little: {error}"),
    }
}
