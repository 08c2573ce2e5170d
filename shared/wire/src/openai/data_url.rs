//! An image in a JSON body: `{"image_url": "data:image/png;base64,…"}`, or the URL alone. It borrows from the body's text, so
//! that megabytes of base64 are not copied.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use serde_json::value::RawValue;

use super::object::{JsonObject, with_str};

/// An image's URL, as JSON text of the body.
#[derive(Debug, Clone, Copy)]
pub struct ImageUrl<'a>(&'a RawValue);

impl<'a> ImageUrl<'a> {
    /// A URL that is a JSON string.
    pub fn from_value(value: &'a RawValue) -> Option<Self> {
        value.get().starts_with('"').then_some(Self(value))
    }

    /// The URL in an object. `None` if that has a file as well, or two URLs: another parser might use the other one.
    pub fn from_object(value: &'a RawValue) -> Option<Self> {
        let object = JsonObject::from_value(value, &["image_url", "file_id"])?;
        if object.get("file_id").is_some() { None } else { Self::from_value(object.get("image_url")?) }
    }

    /// Whether it is a `data:` URL in base64.
    pub fn is_data(self) -> bool {
        with_str(self.0, |address| base64_payload(address).is_some()) == Some(true)
    }

    /// Its content; `None` if it is not a valid `data:` URL in base64.
    pub fn decode(self) -> Option<Vec<u8>> {
        with_str(self.0, |address| decode(base64_payload(address)?)).flatten()
    }
}

/// What follows the comma in `data:image/png;base64,…`, parsed as browsers do.
fn base64_payload(address: &str) -> Option<&str> {
    let address = address.trim_ascii_start();
    let (scheme, rest) = address.split_at_checked("data:".len())?;
    if !scheme.eq_ignore_ascii_case("data:") {
        return None;
    }
    let (head, base64) = rest.split_once(',')?;
    let (_, encoding) = head.rsplit_once(';')?;
    encoding.trim_ascii().eq_ignore_ascii_case("base64").then_some(base64)
}

/// Decodes lenient base64: with line breaks, without padding, in the URL-safe alphabet, or percent-encoded. Linear in the
/// length.
fn decode(base64: &str) -> Option<Vec<u8>> {
    if !base64.bytes().any(|byte| matches!(byte, b'%' | b'-' | b'_')) {
        return base64_simd::forgiving_decode_to_vec(base64.as_bytes()).ok();
    }
    let mut bytes = Cow::from(percent_decode_str(base64)).into_owned();
    for byte in &mut bytes {
        match *byte {
            b'-' => *byte = b'+',
            b'_' => *byte = b'/',
            _ => {}
        }
    }
    base64_simd::forgiving_decode_to_vec(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(json: &str) -> Option<Vec<u8>> {
        let value: &RawValue = serde_json::from_str(json).unwrap();
        let address = ImageUrl::from_value(value).or_else(|| ImageUrl::from_object(value))?;
        let decoded = address.decode();
        assert!(decoded.is_none() || address.is_data(), "{json}");
        decoded
    }

    #[test]
    fn only_base64_content_is_decoded_and_percent_escapes_are_accepted() {
        for json in [
            r#""data:image/png;base64,a/+=""#,
            r#""data:image\/png;base64,a\/+=""#,
            r#""\u0064ata:;base64,a\u002f+=""#,
            r#"{"image_url":"data:;base64,a/+="}"#,
            r#"{"x":[],"image\u005furl":"data:;base64,a/+=","file_id":null,"x":1}"#,
        ] {
            assert_eq!(decoded(json).as_deref(), Some(&b"\x6b\xff"[..]), "{json}");
        }
        for json in [
            "7",
            "{}",
            "[\"data:;base64,a\"]",
            r#""http://10.0.0.1/x.png""#,
            r#""data:,aGk=""#,
            r#""data:image/png,aGk=""#,
            r#""data:base64,aGk=""#,
            r#""dat\u00e4:;base64,aGk=""#,
            r#""aGk=""#,
            r#"{"image_url":{"image_url":"data:;base64,aGk="}}"#,
            r#"{"image_url":"data:;base64,aGk=","file_id":"f"}"#,
            r#"{"image_url":"data:;base64,aGk=","image_url":"data:;base64,b"}"#,
        ] {
            assert_eq!(decoded(json), None, "{json}");
        }
    }

    #[test]
    fn a_data_url_is_told_from_any_other() {
        for (text, is_data) in [
            ("data:image/png;base64,aGk=", true),
            ("data:image/png,aGk=", false),
            ("http://10.0.0.1/x.png", false),
            ("", false),
        ] {
            let json = format!("\"{text}\"");
            let value: &RawValue = serde_json::from_str(&json).unwrap();
            assert_eq!(ImageUrl::from_value(value).unwrap().is_data(), is_data, "{text}");
        }
    }

    #[test]
    fn base64_is_parsed_as_browsers_do() {
        for text in [
            "data:;base64,aGk_-w==",
            "data:;base64,aGk/+w",
            "data:;base64,aGk_-w",
            "data:;base64,aG\\r\\nk/\\n+w\\t= =\\n",
            "data:;base64, aGk_\\n-w",
            "data:;base64,aGk%2F%2Bw%3D%3D",
            "DATA:image/png;charset=x;BASE64,aGk/+w==",
            " data:;base64 ,aGk/+w==",
        ] {
            assert_eq!(decoded(&format!("\"{text}\"")).as_deref(), Some(&b"hi?\xfb"[..]), "{text}");
        }
        for text in ["aGk/+w=", "aGk/+w===", "a", "aGk!", "aG=k", "aGk/+w==x", "aGk/%zz"] {
            assert_eq!(decoded(&format!("\"data:;base64,{text}\"")), None, "{text}");
        }
    }

    #[test]
    fn line_breaks_are_skipped_in_linear_time() {
        let begin = std::time::Instant::now();
        for text in [r"AA\nA".repeat(2 << 20), r"\n_".repeat(2 << 20), "%41".repeat(2 << 20)] {
            assert!(decoded(&format!("\"data:;base64,{text}\"")).is_some());
        }
        assert!(begin.elapsed() < std::time::Duration::from_secs(5), "{:?}", begin.elapsed());
    }
}
