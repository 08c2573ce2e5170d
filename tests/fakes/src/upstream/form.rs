//! What came in a form.

use std::convert::Infallible;

use axum::http::{HeaderMap, header};
use bytes::Bytes;
use serde_json::{Map, Value};

/// One part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadedPart {
    /// Its name.
    pub name: String,
    /// Its file name.
    pub file: Option<String>,
    /// Its `Content-Type`.
    pub kind: Option<String>,
    /// What is in it.
    pub bytes: Bytes,
}

/// The parts of a body; none if it is no form.
#[derive(Debug, Default)]
pub(super) struct UploadedForm {
    pub(super) parts: Vec<UploadedPart>,
}

impl UploadedForm {
    /// The texts, as JSON would have them as far as the fake reads them.
    pub(super) fn texts(&self) -> Option<Value> {
        let texts = self.parts.iter().filter(|part| part.file.is_none()).map(|part| {
            let text = String::from_utf8_lossy(&part.bytes).into_owned();
            let number = text.parse::<u64>().ok().filter(|_| matches!(part.name.as_str(), "n" | "seed"));
            (part.name.clone(), number.map_or(Value::String(text), Value::from))
        });
        (!self.parts.is_empty()).then(|| Value::Object(texts.collect::<Map<_, _>>()))
    }
}

pub(super) async fn read(headers: &HeaderMap, body: &Bytes) -> UploadedForm {
    let mut form = UploadedForm::default();
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let Ok(boundary) = multer::parse_boundary(kind) else { return form };
    let whole = futures_util::stream::iter([Ok::<_, Infallible>(body.clone())]);
    let mut reader = multer::Multipart::new(whole, boundary);
    while let Ok(Some(field)) = reader.next_field().await {
        form.parts.push(UploadedPart {
            name: field.name().unwrap_or_default().to_owned(),
            file: field.file_name().map(str::to_owned),
            kind: field.content_type().map(ToString::to_string),
            bytes: field.bytes().await.unwrap_or_default(),
        });
    }
    form
}
