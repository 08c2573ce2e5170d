//! Reading a request field by field, so that every refusal names the field. `null` is the same as absent (SDKs send
//! explicit nulls). Only the fields that somebody decides on are read: others are ignored, and cost nothing. One of
//! those that is given twice is refused: two readers of the same bytes could otherwise decide on different values.

use std::fmt;

use serde_json::Value;

use super::object::Object;

/// Bytes of a name, such as a model's: longer than any path to one.
pub const MAX_NAME: usize = 4096;

/// A request's fields: members of one JSON object, or the texts of a form, in which numbers are text, too.
#[derive(Debug, Clone, PartialEq)]
pub struct Fields(Vec<(&'static str, Value)>, Kind);

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
    /// Reads a body for the fields of these names. Fails on anything but one JSON object.
    pub fn parse(body: &[u8], names: &[&'static str]) -> Result<Self, FieldError> {
        Self::of_object(&Object::read(body, names)?, names)
    }

    /// The members of these names in an object.
    pub fn of_object(object: &Object<'_>, names: &[&str]) -> Result<Self, FieldError> {
        let members = object.members.iter().filter(|member| names.contains(&member.name));
        let fields = members.map(|member| {
            let value = scalar(member.value.get()).map_err(|error| {
                let name = member.name;
                FieldError::new(name, format!("{name} must be JSON that can be read: {error}."))
            })?;
            Ok((member.name, value))
        });
        Ok(Self(fields.collect::<Result<_, FieldError>>()?, Kind::Json))
    }

    /// The texts of a form that have these names. One of them given twice is refused; an empty text is an absent field,
    /// as forms have no null.
    pub fn of_form<'a>(
        texts: impl IntoIterator<Item = (&'a str, &'a str)>,
        names: &[&'static str],
    ) -> Result<Self, FieldError> {
        let mut fields: Vec<(&'static str, Value)> = Vec::new();
        for (name, text) in texts {
            let Some(name) = names.iter().copied().find(|known| *known == name) else { continue };
            if fields.iter().any(|(known, _)| *known == name) {
                return Err(FieldError::new(name, format!("{name} is given twice.")));
            }
            fields.push((name, if text.is_empty() { Value::Null } else { text.into() }));
        }
        Ok(Self(fields, Kind::Form))
    }

    /// A value as JSON would have given it.
    fn typed<T: serde::de::DeserializeOwned>(&self, value: &Value) -> Option<T> {
        match (self.1, value) {
            (Kind::Form, Value::String(text)) => serde_json::from_str(text.trim()).ok(),
            _ => serde_json::from_value(value.clone()).ok(),
        }
    }

    /// The value as it came; of a list or an object no more than that it is one.
    pub fn value(&self, name: &str) -> Option<&Value> {
        let (_, value) = self.0.iter().find(|(known, _)| *known == name)?;
        Some(value).filter(|value| !value.is_null())
    }

    /// A text.
    pub fn text(&self, name: &str) -> Result<Option<&str>, FieldError> {
        self.value(name)
            .map(|value| {
                value.as_str().ok_or_else(|| FieldError::new(name, format!("{name} must be a string.")))
            })
            .transpose()
    }

    /// A text that names something: of at most [`MAX_NAME`] bytes.
    pub fn name(&self, name: &str) -> Result<Option<&str>, FieldError> {
        match self.text(name)? {
            Some(text) if text.len() > MAX_NAME => {
                Err(FieldError::new(name, format!("{name} must have at most {MAX_NAME} bytes.")))
            }
            text => Ok(text),
        }
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

/// A value that can be decided on or told again. What is in a list or an object is not looked at.
pub fn scalar(json: &str) -> serde_json::Result<Value> {
    match json.as_bytes().first() {
        Some(b'[') => Ok(Value::Array(Vec::new())),
        Some(b'{') => Ok(Value::Object(serde_json::Map::new())),
        _ => serde_json::from_str(json),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &[&str] = &["n", "prompt", "cfg_scale", "steps", "stream", "size", "a"];

    fn parse(body: &str) -> Result<Fields, FieldError> {
        Fields::parse(body.as_bytes(), NAMES)
    }

    #[test]
    fn null_is_absent_and_unknown_is_ignored() {
        let fields = parse(r#"{"n":null,"odd":{"x":1}}"#).unwrap();
        assert_eq!(fields.integer("n", 1..=4), Ok(None));
        assert_eq!(fields.text("prompt"), Ok(None));
    }

    #[test]
    fn a_refusal_names_the_field_and_the_range() {
        let fields = parse(r#"{"n":5,"cfg_scale":"7","prompt":3,"steps":2.5}"#).unwrap();
        let error = fields.integer("n", 1..=4).unwrap_err();
        assert_eq!(error, FieldError::new("n", "n must be a whole number from 1 to 4."));
        assert_eq!(fields.number("cfg_scale", 1.0..=30.0).unwrap_err().param.as_deref(), Some("cfg_scale"));
        assert_eq!(fields.text("prompt").unwrap_err().message, "prompt must be a string.");
        assert!(fields.integer("steps", 1..=150).is_err());
    }

    #[test]
    fn a_forms_numbers_are_text_and_its_empty_texts_are_absent() {
        let form = |texts: &[(&str, &str)]| Fields::of_form(texts.iter().copied(), NAMES);
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
        assert!(form(&[("odd", "1"), ("odd", "2")]).is_ok());
    }

    #[test]
    fn a_body_that_is_not_one_object_is_refused() {
        for body in ["", "[]", "1", "{", "{}x", "\u{feff}{}"] {
            let error = parse(body).unwrap_err();
            assert_eq!(error.param, None, "{body}");
            assert!(error.message.starts_with("The request body must be one JSON object"), "{error}");
        }
    }

    #[test]
    fn of_what_is_not_decided_on_nothing_is_kept() {
        let body = r#"{"odd":{"a":[1]},"n":[{"":0},{"":0}],"odd":2,"prompt":{"x":[0]},"a":"x"}"#;
        let fields = parse(body).unwrap();
        assert_eq!(fields.value("n"), Some(&Value::Array(Vec::new())));
        assert_eq!(fields.value("odd"), None);
        assert!(fields.integer("n", 1..=4).is_err() && fields.text("prompt").is_err());
        assert_eq!(fields.text("a"), Ok(Some("x")));
        for body in [r#"{"n":1e999}"#, r#"{"n":"\ud800"}"#] {
            assert_eq!(parse(body).unwrap_err().param.as_deref(), Some("n"), "{body}");
        }
    }

    #[test]
    fn a_name_is_not_a_book() {
        let of = |length: usize| parse(&format!("{{\"a\":\"{}\"}}", "x".repeat(length))).unwrap();
        assert!(of(MAX_NAME).name("a").unwrap().is_some());
        assert_eq!(of(MAX_NAME + 1).name("a").unwrap_err().param.as_deref(), Some("a"));
    }
}
