//! Parses a JSON object for a few members of interest, in one pass. They are found as positions in the text; nothing is kept of
//! the others, however many. So parsing needs no more memory than the text.

mod edit;

use std::{fmt, ops::Range};

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

pub use self::edit::ObjectLayout;

/// A parsed object.
#[derive(Debug)]
pub struct JsonObject<'a> {
    /// Where its members start, after the brace.
    pub start: usize,
    /// How many members it has in all.
    pub len: usize,
    /// The members of interest, in the order of the text.
    pub members: Vec<ObjectMember<'a>>,
}

/// A member of an object.
#[derive(Debug)]
pub struct ObjectMember<'a> {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: &'a RawValue,
    /// Its position, from the end of the previous member, or the object's start, to the end of its value.
    pub span: Range<usize>,
    /// The position of its value.
    pub value_span: Range<usize>,
}

/// How to treat a member of interest that is given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duplicates {
    /// As an error.
    Reject,
    /// As an error, but of these names the last one counts, and only that is kept.
    RejectBut(&'static [&'static str]),
    /// The last one counts, as in most parsers. All are kept, so the text must be short.
    KeepLast,
}

/// Why a text is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectError {
    /// It is not one JSON object.
    Malformed(String),
    /// This member of interest is given twice: two parsers could use different values.
    DuplicateKey(&'static str),
}

impl fmt::Display for ObjectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(why) => f.write_str(why),
            Self::DuplicateKey(name) => write!(f, "the key {name:?} is given twice"),
        }
    }
}

impl<'a> JsonObject<'a> {
    /// Parses a text for the members of these names.
    pub fn parse(text: &'a [u8], names: &[&'static str]) -> Result<Self, ObjectError> {
        let text = str::from_utf8(text).map_err(|error| ObjectError::Malformed(error.to_string()))?;
        Self::parse_with(text, names, Duplicates::Reject)
    }

    /// The same with a rule for duplicates.
    pub fn parse_with(
        text: &'a str,
        names: &[&'static str],
        duplicates: Duplicates,
    ) -> Result<Self, ObjectError> {
        let mut duplicate = None;
        let mut json = serde_json::Deserializer::from_str(text);
        let parsed =
            json.deserialize_map(ObjectVisitor { text, names, duplicates, duplicate_key: &mut duplicate });
        parsed.and_then(|object| json.end().map(|()| object)).map_err(|error| {
            duplicate.map_or_else(|| ObjectError::Malformed(error.to_string()), ObjectError::DuplicateKey)
        })
    }

    /// Parses a value that may be an object.
    pub fn from_value(value: &'a RawValue, names: &[&'static str]) -> Option<Self> {
        Self::parse_with(value.get(), names, Duplicates::Reject).ok()
    }

    /// A member's value, unless it is null.
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        let member = self.members.iter().rfind(|member| member.name == name)?;
        Some(member.value).filter(|value| value.get() != "null")
    }

    /// A member's value if it is a string.
    pub fn text(&self, name: &str) -> Option<String> {
        with_str(self.get(name)?, str::to_owned)
    }
}

/// Some editors and shells put it at the start of UTF-8 text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The length of the byte order mark at the start of a body. RFC 8259 lets parsers ignore it, and forbids sending one, so it is
/// not passed on.
pub fn bom_len(body: &[u8]) -> usize {
    if body.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 }
}

/// Calls `read` with a value that is a string, without a copy if it has no escapes; `None` for any other value.
pub fn with_str<T>(value: &RawValue, read: impl FnOnce(&str) -> T) -> Option<T> {
    serde_json::Deserializer::from_str(value.get()).deserialize_str(StrVisitor(read)).ok()
}

/// Calls `each` for the elements of a list until it returns false; returns false if the value is not a list.
pub fn for_each_element<'a>(value: &'a RawValue, each: impl FnMut(&'a RawValue) -> bool) -> bool {
    value.get().starts_with('[')
        && serde_json::Deserializer::from_str(value.get()).deserialize_seq(ElementsVisitor(each)).is_ok()
}

struct StrVisitor<F>(F);

impl<T, F: FnOnce(&str) -> T> Visitor<'_> for StrVisitor<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok((self.0)(text))
    }
}

struct ObjectVisitor<'a, 'n> {
    text: &'a str,
    names: &'n [&'static str],
    duplicates: Duplicates,
    duplicate_key: &'n mut Option<&'static str>,
}

impl<'de> Visitor<'de> for ObjectVisitor<'de, '_> {
    type Value = JsonObject<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let start = self.text.find('{').map_or(0, |brace| brace + 1);
        let mut object = JsonObject { start, len: 0, members: Vec::new() };
        let mut end = start;
        while let Some(name) = access.next_key_seed(KeySeed(self.names))? {
            let value = access.next_value::<&'de RawValue>()?;
            // The value is a slice of the text.
            let at = value.get().as_ptr().addr() - self.text.as_ptr().addr();
            let before = std::mem::replace(&mut end, at + value.get().len());
            object.len += 1;
            let Some(name) = name else { continue };
            let earlier = object.members.iter().position(|member| member.name == name);
            match (earlier, self.duplicates) {
                (Some(at), Duplicates::RejectBut(names)) if names.contains(&name) => {
                    object.members.remove(at);
                }
                (Some(_), Duplicates::Reject | Duplicates::RejectBut(_)) => {
                    *self.duplicate_key = Some(name);
                    return Err(de::Error::custom("given twice"));
                }
                (Some(_), Duplicates::KeepLast) | (None, _) => {}
            }
            object.members.push(ObjectMember { name, value, span: before..end, value_span: at..end });
        }
        Ok(object)
    }
}

/// Which of the names of interest a key is.
struct KeySeed<'n>(&'n [&'static str]);

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Option<&'static str>;

    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<Self::Value, D::Error> {
        key.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = Option<&'static str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().copied().find(|name| *name == key))
    }
}

struct ElementsVisitor<F>(F);

impl<'de, F: FnMut(&'de RawValue) -> bool> Visitor<'de> for ElementsVisitor<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut access: A) -> Result<(), A::Error> {
        while let Some(element) = access.next_element()? {
            if !(self.0)(element) {
                while access.next_element::<IgnoredAny>()?.is_some() {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<JsonObject<'_>, ObjectError> {
        JsonObject::parse(text.as_bytes(), &["a", "b"])
    }

    #[test]
    fn a_text_is_a_string_and_a_byte_order_mark_has_three_bytes() {
        let object = parse(r#"{"a":"x\u0079","b":7}"#).unwrap();
        assert_eq!((object.text("a").as_deref(), object.text("b")), (Some("xy"), None));
        assert_eq!((bom_len(b"\xef\xbb\xbf{}"), bom_len(b"{}")), (3, 0));
    }

    #[test]
    fn members_of_interest_are_found_by_position() {
        let text = r#" { "x" : [1] , "\u0061" : {"a":2} ,"b":null , "x":0, "x":0}"#;
        let object = parse(text).unwrap();
        assert_eq!((object.len, &text[..object.start]), (5, " {"));
        let members: Vec<_> = object.members.iter().map(|member| (member.name, member.value.get())).collect();
        assert_eq!(members, [("a", r#"{"a":2}"#), ("b", "null")]);
        let [a, b] = &object.members[..] else { panic!("{object:?}") };
        assert_eq!(&text[a.span.clone()], r#" , "\u0061" : {"a":2}"#);
        assert_eq!((&text[b.value_span.clone()], &text[b.span.clone()]), ("null", r#" ,"b":null"#));
        assert!(object.get("b").is_none() && object.get("x").is_none());
        assert_eq!(JsonObject::from_value(a.value, &["a"]).unwrap().get("a").unwrap().get(), "2");
    }

    #[test]
    fn only_members_of_interest_must_be_unique() {
        assert_eq!(parse(r#"{"a":1,"x":0,"\u0061":1}"#).unwrap_err(), ObjectError::DuplicateKey("a"));
        for text in ["", "[]", "1", "{", "{}x", "\u{feff}{}", "{\"a\"}", "{\"x\":01}", "{\"x\":[}"] {
            assert!(matches!(parse(text), Err(ObjectError::Malformed(_))), "{text}");
        }
        assert!(JsonObject::parse(b"{\"x\":\"\xff\"}", &[]).is_err());
        let last =
            JsonObject::parse_with(r#"{"a":1,"b":3,"a":2}"#, &["a", "b"], Duplicates::KeepLast).unwrap();
        assert_eq!(last.get("a").unwrap().get(), "2");
        let lenient =
            |text: &'static str| JsonObject::parse_with(text, &["a", "b"], Duplicates::RejectBut(&["a"]));
        let replaced = lenient(r#"{"a":1,"b":3,"a":2}"#).unwrap();
        assert_eq!((replaced.get("a").unwrap().get(), replaced.members.len(), replaced.len), ("2", 2, 3));
        assert_eq!(lenient(r#"{"a":1,"b":3,"b":2}"#).unwrap_err(), ObjectError::DuplicateKey("b"));
    }

    #[test]
    fn other_members_are_discarded() {
        let deep = format!("{{\"x\":{}{},\"a\":1}}", "[".repeat(100_000), "]".repeat(100_000));
        let object = parse(&deep).unwrap();
        assert_eq!((object.len, object.members.len(), object.members.capacity()), (2, 1, 4));
        let many: Vec<_> = (0..100_000).map(|nth| format!("\"{nth}\":0")).collect();
        let many = format!("{{{},\"b\":2}}", many.join(","));
        let object = parse(&many).unwrap();
        assert_eq!((object.len, object.members.len(), object.members.capacity()), (100_001, 1, 4));
    }

    #[test]
    fn a_list_is_visited_until_the_callback_stops() {
        let object = parse(r#"{"a":[1, {"x":[2]} ,"3"],"b":{}}"#).unwrap();
        let mut visited = Vec::new();
        let list = object.get("a").unwrap();
        assert!(for_each_element(list, |element| {
            visited.push(element.get());
            visited.len() < 2
        }));
        assert_eq!(visited, ["1", r#"{"x":[2]}"#]);
        assert!(!for_each_element(object.get("b").unwrap(), |_| true));
    }
}
