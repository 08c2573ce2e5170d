//! YAML whose scalars keep the text that they were written with: a token `0012` is `0012`, and not the number 12.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};
use serde_saphyr::{Spanned, options::NonFiniteFloatPolicy};

use super::yaml_error_message;

/// Reads a YAML text, or says what is wrong with it, where, and without quoting it. What YAML takes for a number or a
/// boolean is one here only where it is written as JSON writes it (`12`, `true`); anything else (`0012`, `1.50`, `1e3`,
/// `yes`) is the text. [`scalar_text`] gives the text of each, [`super::whole_number`] and [`super::number`] read numbers.
pub fn yaml_value(text: &str) -> Result<Value, String> {
    let text = text.trim_start_matches('\u{feff}');
    // A text such as `1e999` is too large for a number, which does not matter where it is a token.
    let options = serde_saphyr::options! { non_finite_float_policy: NonFiniteFloatPolicy::PassThrough };
    let read: Option<Spanned<YamlNode>> =
        serde_saphyr::from_str_with_options(text, options).map_err(|error| yaml_error_message(&error))?;
    Ok(read.map_or(Value::Null, |node| to_value(node, text)))
}

/// The text of a scalar, as it was written; `None` of what is none.
pub fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A document's parts as the parser tells them.
enum YamlNode {
    Null,
    Text(String),
    /// Taken for a number or a boolean, by this value.
    Typed(Value),
    List(Vec<Spanned<YamlNode>>),
    Map(Vec<(String, Spanned<YamlNode>)>),
}

fn to_value(node: Spanned<YamlNode>, document: &str) -> Value {
    // Of an alias, where it was defined.
    let span = node.defined.span();
    match node.value {
        YamlNode::Null => Value::Null,
        YamlNode::Text(text) => Value::String(text),
        YamlNode::Typed(value) => {
            let written =
                slice(document, span).filter(|written| scalar_text(&value).as_deref() != Some(written));
            match written {
                Some(text) => text.into(),
                None => value,
            }
        }
        YamlNode::List(items) => items.into_iter().map(|item| to_value(item, document)).collect(),
        YamlNode::Map(entries) => {
            let entries = entries.into_iter().map(|(name, value)| (name, to_value(value, document)));
            Value::Object(entries.collect::<Map<_, _>>())
        }
    }
}

fn slice(document: &str, span: serde_saphyr::Span) -> Option<&str> {
    let start = usize::try_from(span.byte_offset()?).ok()?;
    let length = usize::try_from(span.byte_len()?).ok()?;
    document.get(start..start.checked_add(length)?).map(str::trim).filter(|text| !text.is_empty())
}

impl<'de> Deserialize<'de> for YamlNode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(YamlNodeVisitor)
    }
}

struct YamlNodeVisitor;

impl<'de> Visitor<'de> for YamlNodeVisitor {
    type Value = YamlNode;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YAML")
    }

    fn visit_unit<E>(self) -> Result<YamlNode, E> {
        Ok(YamlNode::Null)
    }

    fn visit_none<E>(self) -> Result<YamlNode, E> {
        Ok(YamlNode::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<YamlNode, E> {
        Ok(YamlNode::Typed(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<YamlNode, E> {
        Ok(YamlNode::Typed(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<YamlNode, E> {
        Ok(YamlNode::Typed(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<YamlNode, E> {
        Ok(YamlNode::Typed(Number::from_f64(value).map_or(Value::Null, Value::Number)))
    }

    fn visit_str<E>(self, text: &str) -> Result<YamlNode, E> {
        Ok(YamlNode::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<YamlNode, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(YamlNode::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<YamlNode, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(YamlNode::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SCALARS: &[&str] = &[
        "0012345678901234",
        "0012",
        "012",
        "-012",
        "+12",
        "1e3",
        "6e1234567",
        "1E+3",
        "0x10",
        "0o17",
        "0b11",
        "1_000",
        "12:30",
        "2024-01-02",
        "2024-01-02T03:04:05Z",
        "yes",
        "no",
        "on",
        "off",
        "y",
        "True",
        "FALSE",
        "1.50",
        "1.",
        ".5",
        "007.5",
        ".inf",
        "-.INF",
        ".nan",
        "12345678901234567890123456789",
        "0.1000000000000000055511151231257827",
        "1.0.0",
        "12",
        "1.5",
        "true",
        "-3",
        "18446744073709551615",
    ];

    #[test]
    fn scalars_keep_their_source_text() {
        for &text in SCALARS {
            for yaml in [
                format!("k: {text}"),
                format!("k: {text}  # comment"),
                format!("{{k: {text}}}"),
                format!("\u{feff}k: {text}\r\n"),
                format!("k: '{text}'"),
                format!("k: \"{text}\""),
                format!("ü: ä\nk: {text}\nz: 1"),
                format!("k: &a {text}\nl: *a"),
                format!("k:\n  {text}\n"),
                format!("k: !!str {text}"),
                format!("a: &b {{k: {text}}}\n<<: *b"),
                format!("k: |-\n  {text}"),
            ] {
                let read = yaml_value(&yaml).unwrap();
                assert_eq!(scalar_text(&read["k"]).as_deref(), Some(text), "{yaml:?}: {read}");
                if yaml.ends_with("*a") {
                    assert_eq!(scalar_text(&read["l"]).as_deref(), Some(text), "{yaml:?}: {read}");
                }
            }
            let list = yaml_value(&format!("- {text}\n- [{text}, {text}]\n")).unwrap();
            for value in [&list[0], &list[1][0], &list[1][1]] {
                assert_eq!(scalar_text(value).as_deref(), Some(text), "{list}");
            }
            let key = yaml_value(&format!("{text}: x")).unwrap();
            assert_eq!(key[text], "x", "a name is a text, too: {key}");
        }
    }

    #[test]
    fn json_scalars_keep_their_type_and_an_empty_value_is_null() {
        let read = yaml_value("a: 12\nb: -1.5\nc: true\nd: ~\ne: null\nf:\ng: 'true'\nh: []\ni: {}\nj: '~'")
            .unwrap();
        let expected = json!({"a": 12, "b": -1.5, "c": true, "d": null, "e": null, "f": null, "g": "true", "h": [], "i": {}, "j": "~"});
        assert_eq!(read, expected);
        for nothing in ["", " \n", "# comment\n", "---\n", "~"] {
            assert_eq!(yaml_value(nothing), Ok(Value::Null), "{nothing:?}");
        }
        assert_eq!(scalar_text(&read["d"]), None);
    }

    #[test]
    fn yaml_errors_have_a_position() {
        for (text, expected) in [
            ("a: 1\na: 2", "line 2, column 1: a key is given twice"),
            ("a: [1", "line 1"),
            ("a: 1\n---\nb: 2", "more than one document"),
            ("a: *b", "line 1"),
        ] {
            let message = yaml_value(text).unwrap_err();
            assert!(message.contains(expected), "{text:?}: {message}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_input_panics_and_a_plain_scalar_round_trips(text in "[ -~\n]{0,40}", scalar in "[0-9a-fA-F_.+-]{1,24}") {
            let _ = yaml_value(&text);
            if let Ok(read) = yaml_value(&format!("k: {scalar}")) && let Some(parsed) = scalar_text(&read["k"]) {
                proptest::prop_assert_eq!(parsed, scalar);
            }
        }
    }
}
