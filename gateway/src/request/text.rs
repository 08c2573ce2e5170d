//! The body of a request for words or numbers: one JSON object of which the gateway reads `model` alone. It passes byte
//! for byte but for that one value, so nothing is lost that another reader would find in it.

use bytes::Bytes;
use wire::openai::{
    fields::{FieldError, Fields},
    object::{Object, before_json},
};

use super::{Json, Sent};

const MODEL: &str = "model";

/// A body, read.
#[derive(Debug)]
pub(crate) struct TextBody {
    json: Json,
    model: Option<String>,
}

impl TextBody {
    /// Reads a body. A model named twice is refused: the backend might take the other one.
    pub(crate) fn read(bytes: &Bytes) -> Result<Self, FieldError> {
        let bytes = &bytes.slice(before_json(bytes)..);
        let object = Object::read(bytes, &[MODEL])?;
        let model = Fields::of_object(&object, &[MODEL])?.name(MODEL)?.map(str::to_owned);
        Ok(Self { json: Json::of(bytes, &object), model })
    }

    /// The model that it names.
    pub(crate) fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// The body as the backend gets it; without a model, none is named.
    pub(crate) fn into_sent(self, model: Option<&str>) -> Sent {
        self.json.into_sent(&[(MODEL, model)])
    }
}

#[cfg(test)]
mod tests;
