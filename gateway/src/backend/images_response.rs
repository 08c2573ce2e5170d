//! Reading what is left of a backend's answer once its pictures were taken out: where each belongs, and which are at an
//! address on its own origin. No other address is ever fetched: a backend's JSON must not make us speak to anybody. Pure.

use reqwest::Url;
use serde_json::{Map, Value, value::RawValue};
use wire::openai::{
    fields::scalar,
    object::{Duplicates, JsonObject, ObjectLayout, for_each_element, with_str},
};

use super::{BackendError, receive::image_index};

/// Most pictures of one answer.
pub(super) const MAX_IMAGES: usize = 10;
/// What is kept of a picture's entry besides the picture.
const METADATA_FIELDS: [&str; 2] = ["seed", "revised_prompt"];

/// An answer, read.
#[derive(Debug)]
pub(super) struct ImagesResponse {
    /// The pictures, at least one.
    pub(super) entries: Vec<ImageEntry>,
    /// The other fields.
    pub(super) envelope: ResponseEnvelope,
}

/// The fields of an answer besides its pictures, as they came.
#[derive(Debug)]
pub(crate) struct ResponseEnvelope {
    json: Vec<u8>,
    layout: ObjectLayout,
    /// Whether it says when it was made.
    dated: bool,
}

/// Stands where the pictures go: no JSON has it in its text.
const DATA_PLACEHOLDER: char = '\0';

impl ResponseEnvelope {
    /// No fields.
    pub(crate) fn empty() -> Self {
        Self::parse(b"{}".to_vec()).expect("an object")
    }

    fn parse(json: Vec<u8>) -> Option<Self> {
        let object = object(&json, &["created", "data"])?;
        let created = object.get("created").map(RawValue::get);
        let dated = created.is_some_and(|created| created.parse::<u64>().is_ok());
        let layout = object.layout();
        Some(Self { json, layout, dated })
    }

    /// What stands before the list of pictures in an answer, and what behind. Where nothing says when it was made, this
    /// does, in unix seconds.
    pub(crate) fn split_at_data(&self, unix: u64) -> (String, String) {
        let mut values = vec![("data", Some(DATA_PLACEHOLDER.to_string()))];
        if !self.dated {
            values.push(("created", Some(unix.to_string())));
        }
        let answer = String::from_utf8(self.layout.apply(&self.json, &values)).expect("it was read as text");
        let (before, behind) = answer.split_once(DATA_PLACEHOLDER).expect("it was put in");
        (before.to_owned(), behind.to_owned())
    }
}

/// One entry of `data`.
#[derive(Debug)]
pub(super) struct ImageEntry {
    /// The picture, or where it is.
    pub(super) source: ImageSource,
    /// `seed` and `revised_prompt`.
    pub(super) metadata: Map<String, Value>,
}

/// Where a picture's bytes come from.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ImageSource {
    /// They came with the answer; this is their mark.
    Inline(usize),
    /// On the backend's own origin.
    Url(Url),
}

/// Reads the body of a 2xx.
pub(super) fn parse_images_response(body: Vec<u8>, base: &Url) -> Result<ImagesResponse, BackendError> {
    let unusable = |why: &str| BackendError::Unusable(why.to_owned());
    let Some(object) = object(&body, &["data"]) else {
        return Err(unusable("it answered 2xx with no JSON object"));
    };
    let mut entries = Vec::new();
    let take = |entry| {
        entries.push(read(entry, base));
        entries.len() <= MAX_IMAGES
    };
    if !object.get("data").is_some_and(|data| for_each_element(data, take)) {
        return Err(unusable("its answer has no list `data`"));
    }
    if entries.is_empty() || entries.len() > MAX_IMAGES {
        return Err(unusable("its answer has no pictures, or more than ten"));
    }
    let entries = entries.into_iter().collect::<Result<_, _>>().map_err(unusable)?;
    let rest =
        ResponseEnvelope::parse(body).ok_or_else(|| unusable("it answered 2xx with no JSON object"))?;
    Ok(ImagesResponse { entries, envelope: rest })
}

/// What the scan has left is short.
fn object<'a>(json: &'a [u8], names: &[&'static str]) -> Option<JsonObject<'a>> {
    JsonObject::parse_with(str::from_utf8(json).ok()?, names, Duplicates::KeepLast).ok()
}

fn read(entry: &RawValue, base: &Url) -> Result<ImageEntry, &'static str> {
    let names = ["b64_json", "url", METADATA_FIELDS[0], METADATA_FIELDS[1]];
    let entry = object(entry.get().as_bytes(), &names).ok_or("an entry is no object")?;
    let mark = |text: &str| (!text.is_empty()).then(|| image_index(text));
    let here = entry.get("b64_json").and_then(|text| with_str(text, mark)).flatten();
    let source = match (here, entry.text("url").filter(|url| !url.is_empty())) {
        (Some(mark), _) => ImageSource::Inline(mark.ok_or("a picture's base64 is damaged")?),
        (None, Some(url)) => match url.strip_prefix("data:") {
            Some(data) => {
                ImageSource::Inline(image_index(data).ok_or("a picture's data: address is damaged")?)
            }
            None => same_origin_url(&url, base)?,
        },
        (None, None) => return Err("an entry has neither `b64_json` nor `url`"),
    };
    let kept = METADATA_FIELDS
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), scalar(entry.get(name)?.get()).ok()?)));
    Ok(ImageEntry { source, metadata: kept.collect() })
}

/// A picture's bytes by its `b64_json`, in which some servers write a data: address.
pub(super) fn decode_base64(text: &str) -> Result<Vec<u8>, &'static str> {
    let text = text.strip_prefix("data:").and_then(data_url_payload).unwrap_or(text);
    base64_simd::forgiving_decode_to_vec(text.as_bytes()).map_err(|_| "a picture's base64 is damaged")
}

/// What follows `;base64,`.
fn data_url_payload(data: &str) -> Option<&str> {
    data.split_once(',').filter(|(head, _)| head.ends_with(";base64")).map(|(_, payload)| payload)
}

fn same_origin_url(text: &str, base: &Url) -> Result<ImageSource, &'static str> {
    let url = base.join(text).map_err(|_| "a picture's address cannot be read")?;
    let same = url.origin() == base.origin() && url.username().is_empty() && url.password().is_none();
    if same {
        Ok(ImageSource::Url(url))
    } else {
        Err("a picture's address is not on the backend's own origin")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entries(data: &Value) -> Result<Vec<ImageSource>, String> {
        let base = "http://ada2:7860/v1".parse().unwrap();
        match parse_images_response(json!({"created": 1, "data": data}).to_string().into_bytes(), &base) {
            Ok(unpacked) => Ok(unpacked.entries.into_iter().map(|entry| entry.source).collect()),
            Err(BackendError::Unusable(why)) => Err(why),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn pictures_come_in_three_ways() {
        let read = entries(&json!([
            {"b64_json": "@0", "url": null},
            {"url": "data:@1"},
            {"url": "/outputs/1.png"},
            {"url": "/@0"},
            {"url": "http://ada2:7860/2.png"},
        ]));
        let at = |url: &str| ImageSource::Url(url.parse().unwrap());
        let here = ImageSource::Inline;
        assert_eq!(
            read,
            Ok(vec![
                here(0),
                here(1),
                at("http://ada2:7860/outputs/1.png"),
                at("http://ada2:7860/@0"),
                at("http://ada2:7860/2.png")
            ])
        );
    }

    #[test]
    fn no_other_origin_is_ever_a_source() {
        for url in [
            "http://evil.example/x.png",
            "http://ada2:7861/x.png",
            "https://ada2:7860/x.png",
            "//evil.example/x.png",
            "file:///etc/passwd",
            "http://me:pass@ada2:7860/x.png",
            "data:image/png,plain",
        ] {
            assert!(entries(&json!([{ "url": url }])).is_err(), "{url}");
        }
    }

    #[test]
    fn what_is_no_list_of_pictures_is_unusable() {
        for data in [json!([]), json!({}), json!([{}]), json!([7]), json!([{"b64_json": "%%"}]), json!(null)]
        {
            assert!(entries(&data).is_err(), "{data}");
        }
        assert!(entries(&json!(vec![json!({"b64_json": "@0"}); 11])).is_err());
        let base = "http://a".parse().unwrap();
        for body in ["", "<html>", "[]", "{}"] {
            assert!(parse_images_response(body.as_bytes().to_vec(), &base).is_err(), "{body}");
        }
    }

    #[test]
    fn seed_prompt_and_the_answers_other_fields_are_kept() {
        let body = json!({"created": 1, "size": "8x8",
            "data": [{"b64_json": "@0", "seed": 7, "revised_prompt": null, "other": 1}]});
        let unpacked =
            parse_images_response(body.to_string().into_bytes(), &"http://a".parse().unwrap()).unwrap();
        assert_eq!(Value::Object(unpacked.entries[0].metadata.clone()), json!({"seed": 7}));
        let answered = |rest: &ResponseEnvelope| {
            let (before, behind) = rest.split_at_data(9);
            serde_json::from_str::<Value>(&format!("{before}[]{behind}")).unwrap()
        };
        assert_eq!(answered(&unpacked.envelope), json!({"created": 1, "size": "8x8", "data": []}));
        assert_eq!(answered(&ResponseEnvelope::empty()), json!({"created": 9, "data": []}));
        let rest = |json: &str| ResponseEnvelope::parse(json.as_bytes().to_vec());
        let odd = rest(r#"{"x":[{"":0}], "data":[1], "created":null,"y":1.0}"#).unwrap();
        assert_eq!(answered(&odd), json!({"created": 9, "data": [], "x": [{"": 0}], "y": 1.0}));
        assert_eq!(odd.split_at_data(9).1, r#", "created":9,"y":1.0}"#);
        let twice = rest(r#"{"data":[{"b64_json":"@0"}],"x":0,"data":[],"created":2}"#).unwrap();
        assert_eq!(twice.split_at_data(9), (r#"{"x":0,"data":"#.to_owned(), r#","created":2}"#.to_owned()));
        assert!(rest("[]").is_none());
    }
}
