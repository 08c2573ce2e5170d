//! The fake's responses.

use serde_json::{Value, json};

use super::sse::SseStep;

/// An answer of the script.
#[derive(Debug, Clone)]
pub enum UpstreamReply {
    /// The requested images, in base64, with seeds.
    Images,
    /// A status, headers and a body.
    Respond(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// Images, but only once [`super::Upstream::release`] is called.
    Hold,
    /// The head of an answer, then a broken connection.
    Break,
    /// Server-sent events; what happens is counted as for a held request.
    Events(Vec<SseStep>),
}

impl UpstreamReply {
    /// JSON with a status.
    #[expect(clippy::needless_pass_by_value, reason = "tests write json!(…) here")]
    pub fn json(status: u16, body: Value) -> Self {
        Self::Respond(
            status,
            vec![("content-type", "application/json".to_owned())],
            body.to_string().into_bytes(),
        )
    }

    /// An error in the envelope.
    pub fn error(status: u16, code: &str, message: &str) -> Self {
        let error = json!({"message": message, "type": "server_error", "param": null, "code": code});
        Self::json(status, json!({"error": error, "detail": message}))
    }

    /// With a header.
    #[must_use]
    pub fn with_header(self, name: &'static str, value: &str) -> Self {
        match self {
            Self::Respond(status, mut headers, body) => {
                headers.push((name, value.to_owned()));
                Self::Respond(status, headers, body)
            }
            other => other,
        }
    }
}
