//! Values that stand in a workflow itself: what a class says of them, coercion as Python does it, and the recorded
//! words for what is wrong.

use serde_json::{Value, json};

use super::{graph::CLASSES, refusal::error};

/// More names than this are not listed in an error.
const LISTED: usize = 20;

/// `[type, options]` of an input, both forms of choice included.
pub(super) fn spec(class: &str, name: &str) -> Value {
    let inputs = &CLASSES[class]["input"];
    ["required", "optional"]
        .iter()
        .map(|kind| &inputs[kind][name])
        .find(|spec| !spec.is_null())
        .cloned()
        .unwrap_or_default()
}

/// The value as the node gets it, or the error.
pub(super) fn check(name: &str, spec: &Value, value: &Value) -> Result<Value, Value> {
    let choices = spec[0].as_array().or_else(|| spec[1]["options"].as_array());
    if let Some(choices) = choices.filter(|_| spec[0] != "COMFY_DYNAMICCOMBO_V3") {
        return if choices.contains(value) {
            Ok(value.clone())
        } else {
            Err(not_in_list(name, spec, choices, value))
        };
    }
    let number = match spec[0].as_str() {
        Some("INT") => whole(value).map(Number::Whole),
        Some("FLOAT") => float(value).map(Number::Float),
        _ => return Ok(value.clone()),
    };
    let Some(number) = number else { return Err(not_a_number(name, spec, value)) };
    let limit = |kind: &str| spec[1].get(kind).and_then(|limit| number.like(limit));
    let coerced = number.to_json().unwrap_or_else(|| value.clone());
    let extra = json!({"input_name": name, "input_config": spec, "received_value": coerced});
    let outside = |kind: &str, how: &str, than: &Number| {
        let message = format!("Value {} {how} of {}", number.text(), than.text());
        error(kind, &message, name, &extra)
    };
    if let Some(min) = limit("min").filter(|min| number.below(min)) {
        return Err(outside("value_smaller_than_min", "smaller than min", &min));
    }
    if let Some(max) = limit("max").filter(|max| max.below(&number)) {
        return Err(outside("value_bigger_than_max", "bigger than max", &max));
    }
    Ok(coerced)
}

/// A Python number. Whole ones are wide enough for one more than the largest seed.
enum Number {
    Whole(i128),
    Float(f64),
}

impl Number {
    fn like(&self, limit: &Value) -> Option<Self> {
        match self {
            Self::Whole(_) => whole(limit).map(Self::Whole),
            Self::Float(_) => float(limit).map(Self::Float),
        }
    }

    fn below(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Whole(low), Self::Whole(high)) => low < high,
            (Self::Float(low), Self::Float(high)) => low < high,
            _ => false,
        }
    }

    /// As Python prints it.
    fn text(&self) -> String {
        match self {
            Self::Whole(number) => number.to_string(),
            Self::Float(number) => format!("{number:?}"),
        }
    }

    /// None if it is too large for JSON as we write it.
    fn to_json(&self) -> Option<Value> {
        match self {
            Self::Whole(number) => serde_json::to_value(number).ok(),
            Self::Float(number) => Some(json!(number)),
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "128 bits hold one more than the largest seed")]
fn whole(value: &Value) -> Option<i128> {
    match value {
        Value::String(text) => text.trim().parse().ok(),
        Value::Bool(truth) => Some(i128::from(*truth)),
        Value::Number(number) => {
            number.as_i128().or_else(|| number.as_f64().map(|number| number.trunc() as i128))
        }
        _ => None,
    }
}

fn float(value: &Value) -> Option<f64> {
    match value {
        Value::String(text) => text.trim().parse().ok(),
        Value::Bool(truth) => Some(f64::from(u8::from(*truth))),
        other => other.as_f64(),
    }
}

fn not_a_number(name: &str, spec: &Value, value: &Value) -> Value {
    let kind = spec[0].as_str().unwrap_or_default();
    let (plain, quoted) = match value {
        Value::String(text) => (text.clone(), format!("'{text}'")),
        other => (other.to_string(), other.to_string()),
    };
    let why = match kind {
        "INT" => format!("invalid literal for int() with base 10: {quoted}"),
        _ => format!("could not convert string to float: {quoted}"),
    };
    let message = format!("Failed to convert an input value to a {kind} value");
    let extra =
        json!({"input_name": name, "input_config": spec, "received_value": value, "exception_message": why});
    error("invalid_input_type", &message, &format!("{name}, {plain}, {why}"), &extra)
}

fn not_in_list(name: &str, spec: &Value, choices: &[Value], value: &Value) -> Value {
    let plain = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let quoted: Vec<String> =
        choices.iter().map(|one| format!("'{}'", one.as_str().unwrap_or_default())).collect();
    let (list, config) = if choices.len() > LISTED {
        (format!("(list of length {})", choices.len()), Value::Null)
    } else {
        (format!("[{}]", quoted.join(", ")), spec.clone())
    };
    let extra = json!({"input_name": name, "input_config": config, "received_value": value});
    error("value_not_in_list", "Value not in list", &format!("{name}: '{plain}' not in {list}"), &extra)
}
