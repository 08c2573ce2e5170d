//! A body that is one JSON object: a few of its members are written anew, all else travels byte for byte.

use axum::http::HeaderValue;
use bytes::Bytes;
use serde_json::Value;
use wire::openai::object::{JsonObject, ObjectLayout};

use super::UpstreamBody;

/// The body, and where its members of interest lie.
#[derive(Debug)]
pub(super) struct JsonBody {
    bytes: Bytes,
    layout: ObjectLayout,
}

impl JsonBody {
    /// The body that was read as this object.
    pub(super) fn new(bytes: &Bytes, object: &JsonObject<'_>) -> Self {
        Self { bytes: bytes.clone(), layout: object.layout() }
    }

    /// The body with these texts in it, or without where there is none.
    pub(super) fn into_upstream(self, overrides: &[(&str, Option<&str>)]) -> UpstreamBody {
        let quoted = |text: &str| Value::from(text).to_string();
        let values: Vec<_> = overrides.iter().map(|(name, text)| (*name, text.map(quoted))).collect();
        let (mut pieces, mut at) = (Vec::new(), 0);
        for (range, new) in self.layout.edits(&self.bytes, &values) {
            pieces.extend([self.bytes.slice(at..range.start), new.into()]);
            at = range.end;
        }
        pieces.push(self.bytes.slice(at..));
        pieces.retain(|piece: &Bytes| !piece.is_empty());
        UpstreamBody { content_type: HeaderValue::from_static("application/json"), chunks: pieces }
    }
}
