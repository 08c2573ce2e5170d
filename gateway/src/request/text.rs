//! The body of a request for words or numbers: one JSON object of which the gateway reads `model` alone. It passes byte
//! for byte but for that one value, so nothing is lost that another reader would find in it.

use bytes::Bytes;
use wire::openai::{
    fields::{FieldError, Fields},
    object::{JsonObject, bom_len},
};

use super::{JsonBody, UpstreamBody};

const MODEL: &str = "model";

/// A body, read.
#[derive(Debug)]
pub(crate) struct TextBody {
    json: JsonBody,
    model: Option<String>,
}

impl TextBody {
    /// Reads a body. A model named twice is refused: the backend might take the other one.
    pub(crate) fn read(bytes: &Bytes) -> Result<Self, FieldError> {
        let bytes = &bytes.slice(bom_len(bytes)..);
        let object = JsonObject::parse(bytes, &[MODEL])?;
        let model = Fields::from_object(&object, &[MODEL])?.name(MODEL)?.map(str::to_owned);
        Ok(Self { json: JsonBody::new(bytes, &object), model })
    }

    /// The model that it names.
    pub(crate) fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// The body as the backend gets it; without a model, none is named.
    pub(crate) fn into_upstream(self, model: Option<&str>) -> UpstreamBody {
        self.json.into_upstream(&[(MODEL, model)])
    }
}

#[cfg(test)]
mod tests;
