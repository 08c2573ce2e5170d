//! Typed access to a request's fields. Null counts as absent (SDKs send explicit nulls), and so does an empty text (forms have
//! no null, and web pages send blank fields). Only fields of interest are parsed; others cost nothing. A field of interest
//! that is given twice is refused: two parsers of the same bytes could use different values.

use std::fmt;

use serde_json::{Number, Value};

use super::object::{JsonObject, ObjectError};

/// Bytes of a name, such as a model's: longer than any file path.
pub const MAX_NAME_LEN: usize = 4096;
/// Bytes of a list that is read.
const MAX_LIST_LEN: usize = 16 << 10;

/// A request's fields: members of a JSON object, or texts of a form, whose numbers are texts, too.
#[derive(Debug, Clone, PartialEq)]
pub struct Fields(Vec<(&'static str, Value)>, FieldSource);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FieldSource {
    Json,
    Form,
}

/// An invalid field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// The field; `None` if the body is not a JSON object.
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

impl From<ObjectError> for FieldError {
    fn from(error: ObjectError) -> Self {
        match error {
            ObjectError::DuplicateKey(name) => Self::new(name, format!("{name} is given twice.")),
            ObjectError::Malformed(why) => {
                Self { param: None, message: format!("The request body must be one JSON object: {why}.") }
            }
        }
    }
}

impl Fields {
    /// Parses the fields of these names from a body, which must be one JSON object.
    pub fn parse(body: &[u8], names: &[&'static str]) -> Result<Self, FieldError> {
        Self::from_object(&JsonObject::parse(body, names)?, names)
    }

    /// The members of these names in an object.
    pub fn from_object(object: &JsonObject<'_>, names: &[&str]) -> Result<Self, FieldError> {
        let members = object.members.iter().filter(|member| names.contains(&member.name));
        let fields = members.map(|member| {
            let value = member_value(member.value.get()).map_err(|error| {
                let name = member.name;
                FieldError::new(name, format!("{name} must be valid JSON: {error}."))
            })?;
            let value = match value {
                Value::Number(number) => {
                    Value::Number(parse_number(member.value.get().trim()).unwrap_or(number))
                }
                value if is_blank(&value) => Value::Null,
                value => value,
            };
            Ok((member.name, value))
        });
        Ok(Self(fields.collect::<Result<_, FieldError>>()?, FieldSource::Json))
    }

    /// The texts of a form with these names, each at most once.
    pub fn from_form<'a>(
        texts: impl IntoIterator<Item = (&'a str, &'a str)>,
        names: &[&'static str],
    ) -> Result<Self, FieldError> {
        let mut fields: Vec<(&'static str, Value)> = Vec::new();
        for (name, text) in texts {
            let Some(name) = names.iter().copied().find(|other| *other == name) else { continue };
            if fields.iter().any(|(other, _)| *other == name) {
                return Err(FieldError::new(name, format!("{name} is given twice.")));
            }
            fields.push((name, if text.trim().is_empty() { Value::Null } else { text.into() }));
        }
        Ok(Self(fields, FieldSource::Form))
    }

    /// A number, which is text in a form.
    fn as_number(&self, value: &Value) -> Option<Number> {
        match (self.1, value) {
            (FieldSource::Form, Value::String(text)) => parse_number(text.trim()),
            (_, Value::Number(number)) => Some(number.clone()),
            _ => None,
        }
    }

    /// The value unless it is blank; objects and long lists are empty objects.
    pub fn value(&self, name: &str) -> Option<&Value> {
        let (_, value) = self.0.iter().find(|(other, _)| *other == name)?;
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

    /// A text of at most [`MAX_NAME_LEN`] bytes.
    pub fn name(&self, name: &str) -> Result<Option<&str>, FieldError> {
        match self.text(name)? {
            Some(text) if text.len() > MAX_NAME_LEN => {
                Err(FieldError::new(name, format!("{name} must have at most {MAX_NAME_LEN} bytes.")))
            }
            text => Ok(text),
        }
    }

    /// A list; in a form its JSON text.
    pub fn list(&self, name: &str) -> Result<Option<Vec<Value>>, FieldError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let list = match (self.1, value) {
            (FieldSource::Form, Value::String(text)) if text.len() <= MAX_LIST_LEN => {
                serde_json::from_str(text).ok()
            }
            (_, Value::Array(list)) => Some(list.clone()),
            _ => None,
        };
        let message = || format!("{name} must be a JSON list of at most {MAX_LIST_LEN} bytes.");
        list.map(Some).ok_or_else(|| FieldError::new(name, message()))
    }

    /// `true` or `false`; in a form also `True` (Python) and `1` (check boxes).
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, FieldError> {
        self.value(name)
            .map(|value| {
                match (self.1, value) {
                    (FieldSource::Form, Value::String(text)) => parse_form_bool(text),
                    _ => value.as_bool(),
                }
                .ok_or_else(|| FieldError::new(name, format!("{name} must be true or false.")))
            })
            .transpose()
    }

    /// An integer in `range`, which may be written as `20.0`: some languages have only floats.
    pub fn integer(
        &self,
        name: &str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<Option<u64>, FieldError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let integer = self.as_number(value).as_ref().and_then(as_integer);
        let in_range =
            integer.and_then(|integer| u64::try_from(integer).ok()).filter(|integer| range.contains(integer));
        in_range.map(Some).ok_or_else(|| {
            FieldError::new(
                name,
                format!("{name} must be a whole number from {} to {}.", range.start(), range.end()),
            )
        })
    }

    /// A seed up to `max`. `None` for a random one: absent or -1, as in most other servers.
    pub fn seed(&self, name: &str, max: u64) -> Result<Option<u64>, FieldError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        match self.as_number(value).as_ref().and_then(as_integer) {
            Some(-1) => Ok(None),
            Some(seed) if (0..=i128::from(max)).contains(&seed) => Ok(u64::try_from(seed).ok()),
            _ => Err(FieldError::new(
                name,
                format!("{name} must be a whole number from 0 to {max}, or -1 for a random one."),
            )),
        }
    }

    /// A number in `range`.
    pub fn number(
        &self,
        name: &str,
        range: std::ops::RangeInclusive<f64>,
    ) -> Result<Option<f64>, FieldError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let number = self.as_number(value).and_then(|number| number.as_f64());
        number.filter(|number| range.contains(number)).map(Some).ok_or_else(|| {
            FieldError::new(
                name,
                format!("{name} must be a number from {} to {}.", range.start(), range.end()),
            )
        })
    }

    /// The first of several names for the same field that is present.
    pub fn first_present<'a>(&self, names: &[&'a str]) -> &'a str {
        names.iter().copied().find(|name| self.value(name).is_some()).unwrap_or(names[0])
    }
}

fn is_blank(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.trim().is_empty())
}

fn parse_form_bool(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

fn as_integer(number: &Number) -> Option<i128> {
    number.as_u64().map(i128::from).or_else(|| number.as_i64().map(i128::from))
}

/// The integer that a decimal text equals exactly, in any notation: `8`, `8.0`, `0.8e1`. A float is not exact beyond 2^53.
pub fn exact_integer(text: &str) -> Option<i128> {
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (before, after) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = [before, after].concat();
    if before.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let significant = digits.trim_end_matches('0');
    if significant.is_empty() {
        return Some(0);
    }
    let zeros = i64::try_from(digits.len() - significant.len()).ok()?;
    let exponent = exponent.parse::<i32>().ok().map(i64::from)? - i64::try_from(after.len()).ok()? + zeros;
    let scale = 10_i128.checked_pow(u32::try_from(exponent).ok()?)?;
    significant.parse::<i128>().ok()?.checked_mul(scale)?.checked_mul(sign)
}

/// A number, as an integer if it equals one.
fn parse_number(text: &str) -> Option<Number> {
    let number: Number = serde_json::from_str(text).ok()?;
    let Some(exact) = exact_integer(text) else { return Some(number) };
    let integer = u64::try_from(exact).map(Number::from).or_else(|_| i64::try_from(exact).map(Number::from));
    Some(integer.unwrap_or(number))
}

/// A list of at most [`MAX_LIST_LEN`] bytes, or a scalar.
fn member_value(json: &str) -> serde_json::Result<Value> {
    if json.starts_with('[') && json.len() <= MAX_LIST_LEN {
        return serde_json::from_str(json);
    }
    // A longer list must not pass for an empty one.
    Ok(match scalar(json)? {
        Value::Array(_) => Value::Object(serde_json::Map::new()),
        value => value,
    })
}

/// A scalar value; lists and objects are returned empty.
pub fn scalar(json: &str) -> serde_json::Result<Value> {
    match json.as_bytes().first() {
        Some(b'[') => Ok(Value::Array(Vec::new())),
        Some(b'{') => Ok(Value::Object(serde_json::Map::new())),
        _ => serde_json::from_str(json),
    }
}

#[cfg(test)]
mod tests;
