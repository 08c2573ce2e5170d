//! The body of a request for words or numbers: one JSON object of which the gateway reads `model` alone. It passes byte
//! for byte but for that one value, so nothing is lost that another reader would find in it.

use std::{fmt, ops::Range};

use axum::http::HeaderValue;
use bytes::Bytes;
use serde::{
    Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;
use shared::openai::fields::FieldError;

use super::Sent;

const MODEL: &str = "model";

/// A body, read.
#[derive(Debug)]
pub(crate) struct TextBody {
    bytes: Bytes,
    /// Where its members begin, behind the brace.
    start: usize,
    /// Whether it has any.
    empty: bool,
    model: Option<Member>,
}

/// A member of the object, told by where it lies.
#[derive(Debug)]
struct Member {
    /// From the end of the member before it, or the object's start, to the end of its value.
    whole: Range<usize>,
    value: Range<usize>,
    /// What the value says; none where it is null.
    text: Option<String>,
}

impl TextBody {
    /// Reads a body. A model named twice is refused: the backend might take the other one.
    pub(crate) fn read(bytes: Bytes) -> Result<Self, FieldError> {
        let unreadable = |why: &dyn fmt::Display| FieldError {
            param: None,
            message: format!("The request body must be one JSON object: {why}."),
        };
        let mut json = serde_json::Deserializer::from_slice(&bytes);
        let members = json.deserialize_map(Members { body: &bytes });
        let Found { start, empty, mut models } =
            members.and_then(|found| json.end().map(|()| found)).map_err(|error| unreadable(&error))?;
        if models.len() > 1 {
            return Err(FieldError::new(MODEL, "model is given twice."));
        }
        let model = models.pop().map(|(whole, value)| member(&bytes, whole, value)).transpose()?;
        Ok(Self { bytes, start, empty, model })
    }

    /// The model that it names.
    pub(crate) fn model(&self) -> Option<&str> {
        self.model.as_ref()?.text.as_deref().filter(|model| !model.is_empty())
    }

    /// The body as the backend gets it; without a model, none is named.
    pub(crate) fn into_sent(self, model: Option<&str>) -> Sent {
        let content_type = HeaderValue::from_static("application/json");
        let cut = match (&self.model, model) {
            (None, None) => None,
            (Some(given), Some(_)) if given.text.as_deref() == model => None,
            (Some(given), Some(model)) => Some((given.value.clone(), quoted(model))),
            (Some(given), None) => Some((self.without(given), String::new())),
            (None, Some(model)) => {
                let comma = if self.empty { "" } else { "," };
                Some((self.start..self.start, format!("\"{MODEL}\":{}{comma}", quoted(model))))
            }
        };
        let pieces = match cut {
            None => vec![self.bytes],
            Some((range, text)) => {
                vec![self.bytes.slice(..range.start), text.into(), self.bytes.slice(range.end..)]
            }
        };
        Sent { content_type, pieces }
    }

    /// What goes with a member that goes: the comma before it, or behind it where it is the first.
    fn without(&self, member: &Member) -> Range<usize> {
        let Range { start, end } = member.whole;
        let behind = &self.bytes[end..];
        let comma = behind.iter().position(|byte| !byte.is_ascii_whitespace());
        match comma.filter(|at| start == self.start && behind[*at] == b',') {
            Some(at) => start..end + at + 1,
            None => start..end,
        }
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn member(body: &[u8], whole: Range<usize>, value: Range<usize>) -> Result<Member, FieldError> {
    let text = serde_json::from_slice(&body[value.clone()]);
    let text = text.map_err(|_| FieldError::new(MODEL, "model must be a string."))?;
    Ok(Member { whole, value, text })
}

/// Goes through an object whose values are left as they lie in the body.
struct Members<'a> {
    body: &'a [u8],
}

/// What is there.
struct Found {
    start: usize,
    empty: bool,
    /// The members called `model`: the whole, and the value.
    models: Vec<(Range<usize>, Range<usize>)>,
}

impl<'de> Visitor<'de> for Members<'de> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let start = self.body.iter().position(|byte| *byte == b'{').map_or(0, |brace| brace + 1);
        let (mut end, mut models) = (start, Vec::new());
        while let Some(name) = access.next_key::<String>()? {
            let value = access.next_value::<&'de RawValue>()?.get();
            // The value is a part of the body, so their addresses tell where.
            let at = value.as_ptr().addr() - self.body.as_ptr().addr();
            let before = std::mem::replace(&mut end, at + value.len());
            if name == MODEL {
                models.push((before..end, at..end));
            }
        }
        Ok(Found { start, empty: end == start, models })
    }
}

#[cfg(test)]
mod tests;
