//! Parses what remains of a backend's JSON once its images are taken out: where each belongs, and which are at a URL on the
//! backend's own origin. No other URL is ever fetched: a backend's JSON must not make the gateway connect to anyone. Pure.

use reqwest::Url;
use serde_json::{Map, Value, value::RawValue};
use wire::openai::object::{Duplicates, JsonObject, ObjectLayout, for_each_element, with_str};

use super::scan::JsonScanner;
use crate::backend::{
    BackendError,
    image_metadata::{COMMON_FIELDS, IMAGE_FIELDS, common, metadata},
};

/// Most images in one response.
pub(super) const MAX_IMAGES: usize = 10;
#[derive(Debug)]
pub(super) struct ImagesResponse {
    /// At least one.
    pub(super) entries: Vec<ImageEntry>,
    pub(super) envelope: ResponseEnvelope,
}

/// The fields of a response besides its images, as they came.
#[derive(Debug)]
pub(crate) struct ResponseEnvelope {
    json: Vec<u8>,
    layout: ObjectLayout,
    has_created: bool,
    /// What it says of all images, to be recorded with each.
    pub(crate) common: Map<String, Value>,
}

/// Stands where the images go: valid JSON never contains it.
const DATA_PLACEHOLDER: char = '\0';

impl ResponseEnvelope {
    pub(crate) fn empty() -> Self {
        Self::parse(b"{}".to_vec()).expect("an object")
    }

    fn parse(json: Vec<u8>) -> Option<Self> {
        let object = object(&json, &[&["created", "data"], COMMON_FIELDS].concat())?;
        let created = object.get("created").map(RawValue::get);
        let has_created = created.is_some_and(|created| created.parse::<u64>().is_ok());
        let layout = object.layout();
        let common = common(&object);
        Some(Self { json, layout, has_created, common })
    }

    /// The text before and after the list of images. Adds `created`, in Unix seconds, if the backend sent none.
    pub(crate) fn split_at_data(&self, unix: u64) -> (String, String) {
        let mut values = vec![("data", Some(DATA_PLACEHOLDER.to_string()))];
        if !self.has_created {
            values.push(("created", Some(unix.to_string())));
        }
        let text =
            String::from_utf8(self.layout.apply(&self.json, &values)).expect("it was parsed from a string");
        let (before, after) = text.split_once(DATA_PLACEHOLDER).expect("it was just inserted");
        (before.to_owned(), after.to_owned())
    }
}

/// One entry of `data`.
#[derive(Debug)]
pub(super) struct ImageEntry {
    pub(super) source: ImageSource,
    pub(super) metadata: Map<String, Value>,
}

/// Where an image's bytes come from.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ImageSource {
    /// The response itself, at this marker.
    Inline(usize),
    /// A URL on the backend's own origin.
    Url(Url),
}

/// Parses the JSON of a 2xx, with markers in place of inline images.
pub(super) fn parse_images_response(body: Vec<u8>, base: &Url) -> Result<ImagesResponse, BackendError> {
    let unusable = |why: &str| BackendError::Unusable(why.to_owned());
    let Some(object) = object(&body, &["data"]) else {
        return Err(unusable("it returned 2xx without a JSON object"));
    };
    let mut entries = Vec::new();
    let collect = |entry| {
        entries.push(parse_entry(entry, base));
        entries.len() <= MAX_IMAGES
    };
    if !object.get("data").is_some_and(|data| for_each_element(data, collect)) {
        return Err(unusable("its response has no list `data`"));
    }
    if entries.is_empty() || entries.len() > MAX_IMAGES {
        return Err(unusable("its response has no images, or more than ten"));
    }
    let entries = entries.into_iter().collect::<Result<_, _>>().map_err(unusable)?;
    let envelope =
        ResponseEnvelope::parse(body).ok_or_else(|| unusable("it returned 2xx without a JSON object"))?;
    Ok(ImagesResponse { entries, envelope })
}

/// The scanner leaves little, so a duplicate key does no harm: the last one counts.
fn object<'a>(json: &'a [u8], names: &[&'static str]) -> Option<JsonObject<'a>> {
    JsonObject::parse_with(str::from_utf8(json).ok()?, names, Duplicates::KeepLast).ok()
}

fn parse_entry(entry: &RawValue, base: &Url) -> Result<ImageEntry, &'static str> {
    let names = [&["b64_json", "url"], IMAGE_FIELDS].concat();
    let entry = object(entry.get().as_bytes(), &names).ok_or("an entry is not an object")?;
    let index = |text: &str| (!text.is_empty()).then(|| JsonScanner::image_index(text));
    let inline = entry.get("b64_json").and_then(|text| with_str(text, index)).flatten();
    let source = match (inline, entry.text("url").filter(|url| !url.is_empty())) {
        (Some(index), _) => ImageSource::Inline(index.ok_or("an image's base64 is damaged")?),
        (None, Some(url)) => match url.strip_prefix("data:") {
            Some(data) => {
                ImageSource::Inline(JsonScanner::image_index(data).ok_or("an image's data: URL is damaged")?)
            }
            None => same_origin_url(&url, base)?,
        },
        (None, None) => return Err("an entry has neither `b64_json` nor `url`"),
    };
    Ok(ImageEntry { source, metadata: metadata(&entry) })
}

fn same_origin_url(text: &str, base: &Url) -> Result<ImageSource, &'static str> {
    let url = base.join(text).map_err(|_| "an image's URL cannot be parsed")?;
    let same = url.origin() == base.origin() && url.username().is_empty() && url.password().is_none();
    if same { Ok(ImageSource::Url(url)) } else { Err("an image's URL is not on the backend's own origin") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::image_metadata::MAX_SETTINGS_BYTES;
    use serde_json::json;

    fn entries(data: &Value) -> Result<Vec<ImageSource>, String> {
        let base = "http://ada2:7860/v1".parse().unwrap();
        match parse_images_response(json!({"created": 1, "data": data}).to_string().into_bytes(), &base) {
            Ok(parsed) => Ok(parsed.entries.into_iter().map(|entry| entry.source).collect()),
            Err(BackendError::Unusable(why)) => Err(why),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn images_come_in_three_ways() {
        let read = entries(&json!([
            {"b64_json": "@0", "url": null},
            {"url": "data:@1"},
            {"url": "/outputs/1.png"},
            {"url": "/@0"},
            {"url": "http://ada2:7860/2.png"},
        ]));
        let at = |url: &str| ImageSource::Url(url.parse().unwrap());
        let inline = ImageSource::Inline;
        assert_eq!(
            read,
            Ok(vec![
                inline(0),
                inline(1),
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
    fn anything_but_a_list_of_images_is_unusable() {
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
    fn settings_are_passed_on_if_they_are_a_short_object() {
        let of = |settings: &Value| {
            let body = json!({"data": [{"b64_json": "@0", "seed": 7, "settings": settings}]}).to_string();
            let parsed = parse_images_response(body.into_bytes(), &"http://a".parse().unwrap()).unwrap();
            Value::Object(parsed.entries[0].metadata.clone())
        };
        let settings = json!({"model": "m", "cfg_scale": 3.5, "loras": [{"name": "l", "weight": 1.0}]});
        assert_eq!(of(&settings), json!({"seed": 7, "settings": settings}));
        let long = json!({"prompt": "x".repeat(MAX_SETTINGS_BYTES)});
        for unusable in [json!(null), json!([]), json!("m"), json!(7), long] {
            assert_eq!(of(&unusable), json!({"seed": 7}));
        }
    }

    #[test]
    fn seed_prompt_and_the_other_fields_are_kept() {
        let body = json!({"created": 1, "size": "8x8",
            "data": [{"b64_json": "@0", "seed": 7, "revised_prompt": null, "other": 1}]});
        let parsed =
            parse_images_response(body.to_string().into_bytes(), &"http://a".parse().unwrap()).unwrap();
        assert_eq!(Value::Object(parsed.entries[0].metadata.clone()), json!({"seed": 7}));
        let completed = |envelope: &ResponseEnvelope| {
            let (before, after) = envelope.split_at_data(9);
            serde_json::from_str::<Value>(&format!("{before}[]{after}")).unwrap()
        };
        assert_eq!(completed(&parsed.envelope), json!({"created": 1, "size": "8x8", "data": []}));
        assert_eq!(completed(&ResponseEnvelope::empty()), json!({"created": 9, "data": []}));
        let envelope = |json: &str| ResponseEnvelope::parse(json.as_bytes().to_vec());
        let unusual = envelope(r#"{"x":[{"":0}], "data":[1], "created":null,"y":1.0}"#).unwrap();
        assert_eq!(completed(&unusual), json!({"created": 9, "data": [], "x": [{"": 0}], "y": 1.0}));
        assert_eq!(unusual.split_at_data(9).1, r#", "created":9,"y":1.0}"#);
        let twice = envelope(r#"{"data":[{"b64_json":"@0"}],"x":0,"data":[],"created":2}"#).unwrap();
        assert_eq!(twice.split_at_data(9), (r#"{"x":0,"data":"#.to_owned(), r#","created":2}"#.to_owned()));
        assert!(envelope("[]").is_none());
    }
}
