//! A picture that comes in a JSON body: `{"image_url": "data:image/png;base64,…"}`, or the address alone. It is read
//! from the body's own text, so that megabytes of base64 are copied no more often than they must.

use serde_json::value::RawValue;

use super::object::{Object, with_text};

/// A picture's address as it lies in the body.
#[derive(Debug, Clone, Copy)]
pub struct Address<'a>(&'a RawValue);

impl<'a> Address<'a> {
    /// The address alone, a string.
    pub fn of(value: &'a RawValue) -> Option<Self> {
        value.get().starts_with('"').then_some(Self(value))
    }

    /// The one in an object. None where that names a file as well, or two addresses: others might take the other one.
    pub fn in_object(value: &'a RawValue) -> Option<Self> {
        let object = Object::within(value, &["image_url", "file_id"])?;
        if object.get("file_id").is_some() { None } else { Self::of(object.get("image_url")?) }
    }

    /// Whether it holds its own content: it begins with `data:`.
    pub fn is_data(self) -> bool {
        with_text(self.0, |address| address.starts_with("data:")) == Some(true)
    }

    /// What `decode` makes of the base64 in it; none where it is no `data:` address in base64.
    pub fn decode<T>(self, decode: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        with_text(self.0, |address| {
            let (_, base64) = address.strip_prefix("data:")?.split_once(";base64,")?;
            decode(base64)
        })
        .flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(json: &str) -> Option<String> {
        let value: &RawValue = serde_json::from_str(json).unwrap();
        Address::of(value).or_else(|| Address::in_object(value))?.decode(|base64| Some(base64.to_owned()))
    }

    #[test]
    fn only_content_in_base64_is_decoded_and_escapes_are_as_good_as_letters() {
        for json in [
            r#""data:image/png;base64,a/+=""#,
            r#""data:image\/png;base64,a\/+=""#,
            r#""\u0064ata:;base64,a\u002f+=""#,
            r#"{"image_url":"data:;base64,a/+="}"#,
            r#"{"x":[],"image\u005furl":"data:;base64,a/+=","file_id":null,"x":1}"#,
        ] {
            assert_eq!(decoded(json).as_deref(), Some("a/+="), "{json}");
        }
        for json in [
            "7",
            "{}",
            "[\"data:;base64,a\"]",
            r#""http://10.0.0.1/x.png""#,
            r#""data:,a""#,
            r#"{"image_url":{"image_url":"data:;base64,a"}}"#,
            r#"{"image_url":"data:;base64,a","file_id":"f"}"#,
            r#"{"image_url":"data:;base64,a","image_url":"data:;base64,b"}"#,
        ] {
            assert_eq!(decoded(json), None, "{json}");
        }
    }
}
