//! An image request: its body, JSON or a form, and the fields that the gateway decides on. Everything else is for the
//! backend and passed on untouched.

use axum::http::HeaderValue;
use bytes::Bytes;
use service::multipart::is_multipart;
use wire::openai::{
    fields::{FieldError, Fields},
    images::ImageSize,
    inline_images::{EDIT_MEMBERS, GENERATION_MEMBERS, InlineImages, form_not_accepted, reject_images},
    object::{Duplicates, JsonObject, ObjectError},
};

use super::{
    JsonBody, UpstreamBody,
    asked::{AskedSettings, SETTING_FIELDS},
    form::MultipartForm,
    strip_bom, unreadable_body,
};
use crate::config::ResponseFormat;

/// The fields that the gateway reads; all others are for the backend.
pub(crate) const REQUEST_FIELDS: &[&str] =
    &["prompt", "stream", "n", "response_format", "model", "size", "seed"];
const MAX_IMAGES: u64 = 10;

/// Always requested from the backend: the gateway stores the images in any case.
const BASE64: &str = "b64_json";

/// Both need the capability `images`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ImageTask {
    Generation,
    Edit,
}

impl ImageTask {
    /// Its path below `/v1`, both here and on the backend.
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Generation => "images/generations",
            Self::Edit => "images/edits",
        }
    }

    /// What records and lists call it.
    pub(crate) const fn name(self, has_mask: bool) -> &'static str {
        match self {
            Self::Generation => "generate",
            Self::Edit if has_mask => "inpaint",
            Self::Edit => "edit",
        }
    }

    /// The name of the event that ends its stream.
    pub(crate) const fn completed_event(self) -> &'static str {
        match self {
            Self::Generation => "image_generation.completed",
            Self::Edit => "image_edit.completed",
        }
    }
}

/// What an image request asks for.
#[derive(Debug)]
pub(crate) struct ImageRequest {
    pub task: ImageTask,
    /// The class or legacy name in `X-Backend`.
    pub backend: Option<String>,
    pub model: Option<String>,
    pub prompt: String,
    pub count: u64,
    /// `None` leaves it to the backend.
    pub size: Option<ImageSize>,
    pub seed: Option<u64>,
    pub response_format: Option<ResponseFormat>,
    pub stream: bool,
}

/// Why a request's body is rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// A field is missing, of the wrong type or out of range.
    Field(FieldError),
    /// `size` is malformed or too large.
    Size(String),
}

impl From<FieldError> for Malformed {
    fn from(error: FieldError) -> Self {
        Self::Field(error)
    }
}

impl ImageRequest {
    pub(crate) fn from_fields(
        task: ImageTask,
        fields: &Fields,
        backend: Option<String>,
        max_pixels: u64,
    ) -> Result<Self, Malformed> {
        let prompt = fields
            .text("prompt")?
            .ok_or_else(|| FieldError::new("prompt", "prompt is required: describe the image."))?;
        let stream = fields.boolean("stream")?.unwrap_or(false);
        let count = fields.integer("n", 1..=MAX_IMAGES)?.unwrap_or(1);
        if stream && count > 1 {
            return Err(FieldError::new("n", "n must be 1 with stream.").into());
        }
        let response_format = match fields.text("response_format")? {
            None => None,
            Some(text) => Some(ResponseFormat::parse(text).ok_or_else(|| {
                FieldError::new("response_format", "response_format must be \"url\" or \"b64_json\".")
            })?),
        };
        Ok(Self {
            task,
            backend,
            model: fields.name("model")?.map(str::to_owned),
            prompt: prompt.to_owned(),
            count,
            size: size(fields, max_pixels)?,
            // The backend checks its range.
            seed: fields.seed("seed", u64::MAX).ok().flatten(),
            response_format,
            stream,
        })
    }
}

fn size(fields: &Fields, max_pixels: u64) -> Result<Option<ImageSize>, Malformed> {
    let malformed = || {
        Malformed::Size("size must be \"auto\" or \"WIDTHxHEIGHT\", for example \"1024x1024\".".to_owned())
    };
    let text = match fields.value("size") {
        None => return Ok(None),
        Some(value) => value.as_str().ok_or_else(malformed)?,
    };
    if text == "auto" {
        return Ok(None);
    }
    let size = ImageSize::parse(text).ok_or_else(malformed)?;
    if size.pixels() > max_pixels {
        let pixels = size.pixels();
        return Err(Malformed::Size(format!(
            "size {size} has {pixels} pixels; at most {max_pixels} are allowed."
        )));
    }
    Ok(Some(size))
}

/// The body of an image request.
#[derive(Debug)]
pub(crate) struct ImageBody {
    fields: Fields,
    asked: AskedSettings,
    body: BodyFormat,
}

#[derive(Debug)]
enum BodyFormat {
    Form(MultipartForm),
    Json(JsonBody),
}

impl ImageBody {
    /// Reads a body: JSON, or for edits also a form.
    pub(crate) fn read(
        task: ImageTask,
        content_type: Option<&HeaderValue>,
        body: &Bytes,
    ) -> Result<Self, FieldError> {
        match (task, content_type.filter(|value| is_multipart(value))) {
            (ImageTask::Generation, Some(_)) => Err(form_not_accepted()),
            (ImageTask::Generation, None) => Self::generation(&strip_bom(body)),
            (ImageTask::Edit, None) => Self::edit(&strip_bom(body)),
            (ImageTask::Edit, Some(content_type)) => {
                let (form, fields) = MultipartForm::read(content_type, body)?;
                Ok(Self { fields, asked: form.asked(), body: BodyFormat::Form(form) })
            }
        }
    }

    fn generation(body: &Bytes) -> Result<Self, FieldError> {
        let names = [REQUEST_FIELDS, SETTING_FIELDS, GENERATION_MEMBERS].concat();
        let object = parse_object(body, &names)?;
        reject_images(&object)?;
        Self::from_object(body, &object, false)
    }

    /// Images are in the request itself: neither the gateway nor the backend fetches a URL for a client.
    fn edit(body: &Bytes) -> Result<Self, FieldError> {
        let names = [REQUEST_FIELDS, SETTING_FIELDS, EDIT_MEMBERS].concat();
        let object = parse_object(body, &names).map_err(|error| match FieldError::from(error) {
            FieldError { param: None, message } => unreadable_body(&message),
            error => error,
        })?;
        let images = InlineImages::parse(&object)?;
        Self::from_object(body, &object, images.mask.is_some())
    }

    fn from_object(body: &Bytes, object: &JsonObject<'_>, has_mask: bool) -> Result<Self, FieldError> {
        let asked = AskedSettings::read(&|name| Fields::from_object(object, &[name]).ok());
        Ok(Self {
            fields: Fields::from_object(object, REQUEST_FIELDS)?,
            asked: AskedSettings { has_mask, ..asked },
            body: BodyFormat::Json(JsonBody::new(body, object)),
        })
    }

    pub(crate) fn fields(&self) -> &Fields {
        &self.fields
    }

    /// What is recorded of the request.
    pub(crate) fn asked(&self) -> AskedSettings {
        self.asked.clone()
    }

    /// The body for the backend. Without a model the field is removed.
    pub(crate) fn into_upstream(self, model: Option<&str>) -> UpstreamBody {
        let overrides = [("model", model), ("response_format", Some(BASE64))];
        match self.body {
            BodyFormat::Form(form) => form.into_upstream(&overrides),
            BodyFormat::Json(json) => json.into_upstream(&overrides),
        }
    }
}

/// The fields that are only recorded may be repeated, as all that is for the backend alone.
fn parse_object<'a>(body: &'a [u8], names: &[&'static str]) -> Result<JsonObject<'a>, ObjectError> {
    let text = str::from_utf8(body).map_err(|error| ObjectError::Malformed(error.to_string()))?;
    JsonObject::parse_with(text, names, Duplicates::RejectBut(SETTING_FIELDS))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::request::text::TextBody;

    fn parse(body: &str) -> Result<ImageRequest, Malformed> {
        ImageRequest::from_fields(
            ImageTask::Generation,
            &Fields::parse(body.as_bytes(), REQUEST_FIELDS)?,
            None,
            2_000_000,
        )
    }

    #[test]
    fn a_minimal_request_asks_for_one_image() {
        let request = parse(r#"{"prompt":"a cat","model":null,"n":null,"stream":false}"#).unwrap();
        assert_eq!(
            (request.count, request.size, request.model, request.response_format),
            (1, None, None, None)
        );
    }

    #[test]
    fn the_request_fields_are_read() {
        let request = parse(
            r#"{"prompt":"p","model":"sd","n":10,"size":"512x768","response_format":"b64_json","seed":7,"steps":9}"#,
        )
        .unwrap();
        assert_eq!((request.count, request.size), (10, Some(ImageSize::new(512, 768))));
        assert_eq!(
            (request.model.as_deref(), request.response_format),
            (Some("sd"), Some(ResponseFormat::Base64))
        );
        assert_eq!(request.seed, Some(7));
        let floats = parse(r#"{"prompt":"p","n":2.0,"seed":18446744073709551615}"#).unwrap();
        assert_eq!((floats.count, floats.seed), (2, Some(u64::MAX)));
        let blank =
            parse(r#"{"prompt":"p","model":"","n":"","size":"","seed":"","response_format":"","stream":""}"#);
        let blank = blank.unwrap();
        assert_eq!((blank.count, blank.size, blank.model, blank.response_format), (1, None, None, None));
        assert!(!request.stream && parse(r#"{"prompt":"p","stream":true}"#).unwrap().stream);
    }

    #[test]
    fn an_error_names_the_field() {
        for (body, param) in [
            ("{}", Some("prompt")),
            (r#"{"prompt":" "}"#, Some("prompt")),
            (r#"{"prompt":""}"#, Some("prompt")),
            (r#"{"prompt":"p","n":1.5}"#, Some("n")),
            (r#"{"prompt":7}"#, Some("prompt")),
            (r#"{"prompt":"p","n":0}"#, Some("n")),
            (r#"{"prompt":"p","n":11}"#, Some("n")),
            (r#"{"prompt":"p","n":"2"}"#, Some("n")),
            (r#"{"prompt":"p","model":[]}"#, Some("model")),
            (r#"{"prompt":"p","stream":true,"n":2}"#, Some("n")),
            (r#"{"prompt":"p","stream":"yes"}"#, Some("stream")),
            (r#"{"prompt":"p","response_format":"png"}"#, Some("response_format")),
            (r#"{"prompt":"p","prompt":"q"}"#, Some("prompt")),
            ("[]", None),
        ] {
            match parse(body) {
                Err(Malformed::Field(error)) => assert_eq!(error.param.as_deref(), param, "{body}"),
                other => panic!("{body}: {other:?}"),
            }
        }
    }

    #[test]
    fn sizes_are_auto_or_within_the_pixel_limit() {
        assert_eq!(parse(r#"{"prompt":"p","size":"auto"}"#).unwrap().size, None);
        assert!(parse(r#"{"prompt":"p","size":"2000x1000"}"#).is_ok());
        for size in ["\"2000x1001\"", "\"big\"", "\"0x8\"", "512"] {
            let body = format!(r#"{{"prompt":"p","size":{size}}}"#);
            assert!(matches!(parse(&body), Err(Malformed::Size(_))), "{body}");
        }
    }

    #[test]
    fn a_duplicate_key_is_named_on_every_route() {
        let body = Bytes::from_static(br#"{"prompt":"a","model":"b","model":"c"}"#);
        let json = HeaderValue::from_static("application/json");
        for task in [ImageTask::Generation, ImageTask::Edit] {
            let error = ImageBody::read(task, Some(&json), &body).unwrap_err();
            assert_eq!(error, FieldError::new("model", "model is given twice."), "{task:?}");
        }
        let chat = TextBody::read(&body).unwrap_err();
        assert_eq!(chat, FieldError::new("model", "model is given twice."));
    }

    fn edit(body: &Value) -> Result<ImageBody, FieldError> {
        ImageBody::read(ImageTask::Edit, None, &body.to_string().into())
    }

    #[test]
    fn images_in_json_are_data_urls_and_nothing_else() {
        let data = "data:image/png;base64,aGk=";
        for body in [
            json!({"images": [{"image_url": data}], "mask": {"image_url": data}}),
            json!({"images": data}),
            json!({"images": [data], "mask": data}),
            json!({"image": data, "images": null}),
        ] {
            let sent = edit(&body).unwrap().into_upstream(None).chunks.concat();
            let expected = body.to_string().replacen('{', "{\"response_format\":\"b64_json\",", 1);
            assert_eq!(String::from_utf8(sent).unwrap(), expected);
        }
        for (body, param) in [
            (json!({}), "images"),
            (json!({"images": []}), "images"),
            (json!({"images": [{"image_url": "https://evil.example/x.png"}]}), "images"),
            (json!({"images": [{"image_url": "file:///etc/passwd"}]}), "images"),
            (json!({"images": [{"image_url": data}, {"file_id": "f"}]}), "images"),
            (json!({"images": [{"image_url": data, "file_id": "f"}]}), "images"),
            (json!({"images": [{"image_url": data}], "mask": {"file_id": "f"}}), "mask"),
        ] {
            assert_eq!(edit(&body).unwrap_err().param.as_deref(), Some(param), "{body}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_skipped_and_not_forwarded() {
        let data = "data:image/png;base64,aGk=";
        for (task, body) in [
            (ImageTask::Generation, r#"{ "prompt":"p", "n":1.0 }"#.to_owned()),
            (ImageTask::Edit, format!(r#"{{ "prompt":"p", "image":"{data}" }}"#)),
        ] {
            let read =
                |text: String| ImageBody::read(task, None, &text.into()).unwrap().into_upstream(Some("m"));
            let sent = read(format!("\u{feff}{body}"));
            let expected = body.replacen('{', "{\"model\":\"m\",\"response_format\":\"b64_json\",", 1);
            assert_eq!(String::from_utf8(sent.chunks.concat()).unwrap(), expected);
            let twice = format!("\u{feff}\u{feff}{body}");
            assert_eq!(ImageBody::read(task, None, &twice.into()).unwrap_err().param, None);
        }
    }

    #[test]
    fn a_generation_takes_no_images() {
        let form = HeaderValue::from_static("multipart/form-data; boundary=XX");
        for (content_type, body, param) in [
            (None, json!({"prompt": "p", "image": "data:image/png;base64,aGk="}), Some("image")),
            (None, json!({"prompt": "p", "ref_images": ["x"]}), Some("ref_images")),
            (Some(&form), json!({}), None),
        ] {
            let error =
                ImageBody::read(ImageTask::Generation, content_type, &body.to_string().into()).unwrap_err();
            assert_eq!(error.param.as_deref(), param, "{body}");
            assert!(error.message.contains("/v1/images/edits"), "{error}");
        }
        let blank = json!({"prompt": "p", "image": null, "mask": "", "images": []});
        assert!(ImageBody::read(ImageTask::Generation, None, &blank.to_string().into()).is_ok());
    }

    #[test]
    fn an_unreadable_edit_names_both_formats() {
        let error = edit(&json!([])).unwrap_err();
        assert_eq!(error.param, None);
        assert!(error.message.contains("multipart/form-data") && error.message.contains("JSON"), "{error}");
    }

    #[test]
    fn other_fields_pass_byte_for_byte_and_may_be_duplicated() {
        let body = r#"{ "odd":1.0,"odd":[{"":0}],"prompt":"p\u0021","steps":1,"steps":2, "n":1 }"#;
        let sent = ImageBody::read(ImageTask::Generation, None, &body.into()).unwrap().into_upstream(None);
        let expected = body.replacen('{', "{\"response_format\":\"b64_json\",", 1);
        assert_eq!(String::from_utf8(sent.chunks.concat()).unwrap(), expected);
        for twice in REQUEST_FIELDS {
            let body = format!(r#"{{"prompt":"p","{twice}":null,"{twice}":null}}"#);
            assert!(ImageBody::read(ImageTask::Generation, None, &body.into()).is_err(), "{twice}");
        }
    }

    #[test]
    fn only_model_and_response_format_change_in_json() {
        let body = json!({"prompt": "p", "model": "a", "odd": [1, null], "response_format": "url"});
        let sent = |model| {
            let read = ImageBody::read(ImageTask::Generation, None, &body.to_string().into()).unwrap();
            let sent = read.into_upstream(model);
            assert_eq!(sent.content_type, "application/json");
            serde_json::from_slice::<Value>(&sent.chunks.concat()).unwrap()
        };
        let mut expected = body.clone();
        expected["response_format"] = json!("b64_json");
        assert_eq!(sent(Some("a")), expected);
        expected.as_object_mut().unwrap().remove("model");
        assert_eq!(sent(None), expected);
    }
}
