//! The body of a request for text or embeddings: a JSON object of which the gateway reads only `model`. All else is passed on
//! byte for byte.

use bytes::Bytes;
use wire::openai::{
    fields::{FieldError, Fields},
    object::JsonObject,
};

use super::{JsonBody, UpstreamBody, strip_bom};

const MODEL: &str = "model";

#[derive(Debug)]
pub(crate) struct TextBody {
    json: JsonBody,
    model: Option<String>,
}

impl TextBody {
    /// Reads a body. A duplicate `model` is rejected: the backend might use the other one.
    pub(crate) fn read(bytes: &Bytes) -> Result<Self, FieldError> {
        let bytes = &strip_bom(bytes);
        let object = JsonObject::parse(bytes, &[MODEL])?;
        let model = Fields::from_object(&object, &[MODEL])?.name(MODEL)?.map(str::to_owned);
        Ok(Self { json: JsonBody::new(bytes, &object), model })
    }

    pub(crate) fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// The body for the backend. Without a model the field is removed.
    pub(crate) fn into_upstream(self, model: Option<&str>) -> UpstreamBody {
        self.json.into_upstream(&[(MODEL, model)])
    }
}

#[cfg(test)]
mod tests;
