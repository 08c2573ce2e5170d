//! A request's body, read for what the gateway decides on, and rewritten for the backend. Of an image request only the model
//! and the response format change, of any other ([`text`]) only the model; all else is passed on byte for byte. Pure.

pub(crate) mod asked;
mod form;
pub(crate) mod image_request;
pub(crate) mod text;

use axum::http::HeaderValue;
use bytes::Bytes;
use serde_json::Value;
use wire::openai::{
    fields::FieldError,
    object::{JsonObject, ObjectLayout, bom_len},
};

const EXPECTED_EDIT: &str = "multipart/form-data with at least `image` and `prompt`, or a JSON object with `images` (or `image`) \
                             and `prompt`";

/// A body for the backend.
#[derive(Debug)]
pub(crate) struct UpstreamBody {
    pub(crate) content_type: HeaderValue,
    pub(crate) chunks: Vec<Bytes>,
}

/// A JSON object of which a few members are replaced, and all else stays byte for byte.
#[derive(Debug)]
struct JsonBody {
    bytes: Bytes,
    layout: ObjectLayout,
}

impl JsonBody {
    /// `bytes` are those that `object` was parsed from.
    fn new(bytes: &Bytes, object: &JsonObject<'_>) -> Self {
        Self { bytes: bytes.clone(), layout: object.layout() }
    }

    /// Replaces these members by strings; `None` removes the member.
    fn into_upstream(self, overrides: &[(&str, Option<&str>)]) -> UpstreamBody {
        let quoted = |text: &str| Value::from(text).to_string();
        let values: Vec<_> = overrides.iter().map(|(name, text)| (*name, text.map(quoted))).collect();
        let (mut chunks, mut position) = (Vec::new(), 0);
        for (range, new) in self.layout.edits(&self.bytes, &values) {
            chunks.extend([self.bytes.slice(position..range.start), new.into()]);
            position = range.end;
        }
        chunks.push(self.bytes.slice(position..));
        chunks.retain(|chunk: &Bytes| !chunk.is_empty());
        UpstreamBody { content_type: HeaderValue::from_static("application/json"), chunks }
    }
}

/// Most JSON parsers reject a byte order mark, so none is passed on.
fn strip_bom(body: &Bytes) -> Bytes {
    body.slice(bom_len(body)..)
}

/// An edit's body that is neither a form nor a JSON object.
fn unreadable_body(why: &str) -> FieldError {
    FieldError { param: None, message: format!("{why} Expected: {EXPECTED_EDIT}.") }
}
