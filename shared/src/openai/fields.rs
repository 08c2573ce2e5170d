//! Reading a JSON request field by field, so that every refusal names the field. `null` is the same as absent
//! (SDKs send explicit nulls), unknown fields are ignored, and a duplicate key is refused: two readers of the
//! same bytes could otherwise decide on different values.

use std::fmt;

use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

/// A request's fields: one JSON object, or the texts of a form, in which numbers are text, too.
#[derive(Debug, Clone, PartialEq)]
pub struct Fields(Map<String, Value>, Kind);

/// Where the fields came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Json,
    Form,
}

/// What is wrong with the request, and in which field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// The field; none when the body as a whole is not a JSON object.
    pub param: Option<String>,
    /// What was expected.
    pub message: String,
}

impl FieldError {
    /// An error in this field.
    pub fn new(param: &str, message: impl Into<String>) -> Self {
        Self { param: Some(param.to_owned()), message: message.into() }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Fields {
    /// Reads a body. Fails on anything but one JSON object without duplicate keys.
    pub fn parse(body: &[u8]) -> Result<Self, FieldError> {
        let mut json = serde_json::Deserializer::from_slice(body);
        let map = json.deserialize_map(UniqueKeys).and_then(|map| json.end().map(|()| map));
        map.map(|map| Self(map, Kind::Json)).map_err(|error| FieldError {
            param: None,
            message: format!("The request body must be one JSON object: {error}."),
        })
    }

    /// The texts of a form. A name given twice is refused; an empty text is an absent field, as forms have no null.
    pub fn of_form(texts: impl IntoIterator<Item = (String, String)>) -> Result<Self, FieldError> {
        let mut map = Map::new();
        for (name, text) in texts {
            if map.contains_key(&name) {
                let shown: String = name.chars().take(64).collect();
                return Err(FieldError::new(&shown, format!("{shown} is given twice.")));
            }
            map.insert(name, if text.is_empty() { Value::Null } else { Value::String(text) });
        }
        Ok(Self(map, Kind::Form))
    }

    /// A value as JSON would have given it.
    fn typed<T: serde::de::DeserializeOwned>(&self, value: &Value) -> Option<T> {
        match (self.1, value) {
            (Kind::Form, Value::String(text)) => serde_json::from_str(text.trim()).ok(),
            _ => serde_json::from_value(value.clone()).ok(),
        }
    }

    /// The value as it came, for fields that are passed on.
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// Sets a field that is passed on.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }

    /// Drops a field that is not passed on.
    pub fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// The object as JSON text.
    pub fn to_bytes(&self) -> Vec<u8> {
        Value::Object(self.0.clone()).to_string().into_bytes()
    }

    /// A text.
    pub fn text(&self, name: &str) -> Result<Option<&str>, FieldError> {
        self.value(name)
            .map(|value| {
                value.as_str().ok_or_else(|| FieldError::new(name, format!("{name} must be a string.")))
            })
            .transpose()
    }

    /// `true` or `false`.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, FieldError> {
        self.value(name)
            .map(|value| {
                self.typed(value)
                    .ok_or_else(|| FieldError::new(name, format!("{name} must be true or false.")))
            })
            .transpose()
    }

    /// A whole number within `range`.
    pub fn integer(
        &self,
        name: &str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<Option<u64>, FieldError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        self.typed(value).filter(|number| range.contains(number)).map(Some).ok_or_else(|| {
            FieldError::new(
                name,
                format!("{name} must be a whole number from {} to {}.", range.start(), range.end()),
            )
        })
    }

    /// A number within `range`.
    pub fn number(
        &self,
        name: &str,
        range: std::ops::RangeInclusive<f64>,
    ) -> Result<Option<f64>, FieldError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        self.typed(value).filter(|number| range.contains(number)).map(Some).ok_or_else(|| {
            FieldError::new(
                name,
                format!("{name} must be a number from {} to {}.", range.start(), range.end()),
            )
        })
    }

    /// The one of several names for the same thing that is present; the first wins.
    pub fn first_of<'a>(&self, names: &[&'a str]) -> &'a str {
        names.iter().copied().find(|name| self.value(name).is_some()).unwrap_or(names[0])
    }
}

struct UniqueKeys;

impl<'de> Visitor<'de> for UniqueKeys {
    type Value = Map<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut map = Map::new();
        while let Some((key, value)) = access.next_entry::<String, Value>()? {
            if map.contains_key(&key) {
                let shown: String = key.chars().take(64).collect();
                return Err(de::Error::custom(format!("the key {shown:?} is given twice")));
            }
            map.insert(key, value);
        }
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_absent_and_unknown_is_ignored() {
        let fields = Fields::parse(br#"{"n":null,"odd":{"x":1}}"#).unwrap();
        assert_eq!(fields.integer("n", 1..=4), Ok(None));
        assert_eq!(fields.text("prompt"), Ok(None));
    }

    #[test]
    fn a_refusal_names_the_field_and_the_range() {
        let fields = Fields::parse(br#"{"n":5,"cfg_scale":"7","prompt":3,"steps":2.5}"#).unwrap();
        let error = fields.integer("n", 1..=4).unwrap_err();
        assert_eq!(error, FieldError::new("n", "n must be a whole number from 1 to 4."));
        assert_eq!(fields.number("cfg_scale", 1.0..=30.0).unwrap_err().param.as_deref(), Some("cfg_scale"));
        assert_eq!(fields.text("prompt").unwrap_err().message, "prompt must be a string.");
        assert!(fields.integer("steps", 1..=150).is_err());
    }

    #[test]
    fn a_forms_numbers_are_text_and_its_empty_texts_are_absent() {
        let form = |texts: &[(&str, &str)]| {
            Fields::of_form(texts.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())))
        };
        let fields =
            form(&[("n", "2"), ("cfg_scale", " 7.5"), ("stream", "true"), ("prompt", "7"), ("size", "")])
                .unwrap();
        assert_eq!(fields.integer("n", 1..=4), Ok(Some(2)));
        assert_eq!(fields.number("cfg_scale", 1.0..=30.0), Ok(Some(7.5)));
        assert_eq!(fields.flag("stream"), Ok(Some(true)));
        assert_eq!((fields.text("prompt"), fields.text("size")), (Ok(Some("7")), Ok(None)));
        for (name, text) in [("n", "2.5"), ("n", "x"), ("n", "9")] {
            assert!(form(&[(name, text)]).unwrap().integer("n", 1..=4).is_err(), "{text}");
        }
        assert_eq!(form(&[("n", "1"), ("n", "2")]).unwrap_err().param.as_deref(), Some("n"));
    }

    #[test]
    fn a_body_that_is_not_one_object_is_refused() {
        for body in ["", "[]", "1", "{", "{}x", "{\"a\":1,\"a\":2}", "\u{feff}{}"] {
            let error = Fields::parse(body.as_bytes()).unwrap_err();
            assert_eq!(error.param, None, "{body}");
            assert!(error.message.starts_with("The request body must be one JSON object"), "{error}");
        }
    }
}
