//! The body of a request: read for what the gateway decides on, and written again for the backend. Of a picture request
//! only the model and the form of the pictures change, of any other ([`text`]) the model alone; whatever else the caller
//! sent travels as it came. Pure.

mod form;
pub(crate) mod image_request;
mod json;
pub(crate) mod text;

use axum::http::HeaderValue;
use bytes::Bytes;
use service::multipart::is_multipart;
use wire::openai::{
    fields::{FieldError, Fields},
    inline_images::{EDIT_MEMBERS, GENERATION_MEMBERS, InlineImages, form_not_accepted, reject_images},
    object::{JsonObject, bom_len},
};

use self::{
    form::MultipartForm,
    image_request::{FIELDS, ImageTask},
    json::JsonBody,
};

/// What the backend is always asked for: the pictures are stored here in any case.
const BASE64: &str = "b64_json";
const EXPECTED_EDIT: &str = "a picture is edited with multipart/form-data, with at least the parts `image` and `prompt`, \
                      or with a JSON object with `images` (or `image`) and `prompt`";

/// A body, read.
#[derive(Debug)]
pub(crate) struct ImageBody {
    fields: Fields,
    body: BodyFormat,
}

#[derive(Debug)]
enum BodyFormat {
    Form(MultipartForm),
    Json(JsonBody),
}

/// A body, to be sent.
#[derive(Debug)]
pub(crate) struct UpstreamBody {
    /// Its `Content-Type`.
    pub(crate) content_type: HeaderValue,
    /// Its bytes, in order.
    pub(crate) chunks: Vec<Bytes>,
}

impl ImageBody {
    /// Reads a body. Pictures are made from JSON, and edited from a form or from JSON.
    pub(crate) fn read(
        task: ImageTask,
        content_type: Option<&HeaderValue>,
        body: &Bytes,
    ) -> Result<Self, FieldError> {
        match (task, content_type.filter(|kind| is_multipart(kind))) {
            (ImageTask::Generation, Some(_)) => Err(form_not_accepted()),
            (ImageTask::Generation, None) => Self::generation(&strip_bom(body)),
            (ImageTask::Edit, None) => Self::edit(&strip_bom(body)),
            (ImageTask::Edit, Some(kind)) => {
                let (form, fields) = MultipartForm::read(kind, body)?;
                Ok(Self { fields, body: BodyFormat::Form(form) })
            }
        }
    }

    fn generation(body: &Bytes) -> Result<Self, FieldError> {
        let object = JsonObject::parse(body, &[FIELDS, GENERATION_MEMBERS].concat())?;
        reject_images(&object)?;
        Self::from_object(body, &object)
    }

    /// Images are in the request itself: neither we nor the backend fetch for a caller.
    fn edit(body: &Bytes) -> Result<Self, FieldError> {
        let object = JsonObject::parse(body, &[FIELDS, EDIT_MEMBERS].concat());
        let object = object.map_err(|error| match FieldError::from(error) {
            FieldError { param: None, message } => unreadable_body(&message),
            named => named,
        })?;
        InlineImages::parse(&object)?;
        Self::from_object(body, &object)
    }

    fn from_object(body: &Bytes, object: &JsonObject<'_>) -> Result<Self, FieldError> {
        Ok(Self {
            fields: Fields::from_object(object, FIELDS)?,
            body: BodyFormat::Json(JsonBody::new(body, object)),
        })
    }

    /// The fields that policy reads, whichever way they came.
    pub(crate) fn fields(&self) -> &Fields {
        &self.fields
    }

    /// The body as the backend gets it; without a model, none is named.
    pub(crate) fn into_upstream(self, model: Option<&str>) -> UpstreamBody {
        let overrides = [("model", model), ("response_format", Some(BASE64))];
        match self.body {
            BodyFormat::Form(form) => form.into_upstream(&overrides),
            BodyFormat::Json(json) => json.into_upstream(&overrides),
        }
    }
}

/// A JSON body as it is read and goes on: other readers than ours know no byte order mark.
fn strip_bom(body: &Bytes) -> Bytes {
    body.slice(bom_len(body)..)
}

fn unreadable_body(why: &str) -> FieldError {
    FieldError { param: None, message: format!("{why} Expected: {EXPECTED_EDIT}.") }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_key_given_twice_is_named_whatever_the_route() {
        let body = Bytes::from_static(br#"{"prompt":"a","model":"b","model":"c"}"#);
        let json = HeaderValue::from_static("application/json");
        for task in [ImageTask::Generation, ImageTask::Edit] {
            let told = ImageBody::read(task, Some(&json), &body).unwrap_err();
            assert_eq!(told, FieldError::new("model", "model is given twice."), "{task:?}");
        }
        let chat = text::TextBody::read(&body).unwrap_err();
        assert_eq!(chat, FieldError::new("model", "model is given twice."));
    }

    fn edit(body: &Value) -> Result<ImageBody, FieldError> {
        ImageBody::read(ImageTask::Edit, None, &body.to_string().into())
    }

    #[test]
    fn pictures_in_json_are_data_addresses_and_nothing_else() {
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
    fn a_byte_order_mark_is_passed_over_and_does_not_go_on() {
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
    fn images_are_no_part_of_a_new_picture() {
        let form = HeaderValue::from_static("multipart/form-data; boundary=XX");
        for (kind, body, param) in [
            (None, json!({"prompt": "p", "image": "data:image/png;base64,aGk="}), Some("image")),
            (None, json!({"prompt": "p", "ref_images": ["x"]}), Some("ref_images")),
            (Some(&form), json!({}), None),
        ] {
            let error = ImageBody::read(ImageTask::Generation, kind, &body.to_string().into()).unwrap_err();
            assert_eq!(error.param.as_deref(), param, "{body}");
            assert!(error.message.contains("/v1/images/edits"), "{error}");
        }
        let blank = json!({"prompt": "p", "image": null, "mask": "", "images": []});
        assert!(ImageBody::read(ImageTask::Generation, None, &blank.to_string().into()).is_ok());
    }

    #[test]
    fn what_can_be_read_neither_way_is_told_both() {
        let error = edit(&json!([])).unwrap_err();
        assert_eq!(error.param, None);
        assert!(error.message.contains("multipart/form-data") && error.message.contains("JSON"), "{error}");
    }

    #[test]
    fn what_policy_does_not_read_passes_byte_for_byte_and_may_come_twice() {
        let body = r#"{ "odd":1.0,"odd":[{"":0}],"prompt":"p\u0021","steps":1,"steps":2, "n":1 }"#;
        let sent = ImageBody::read(ImageTask::Generation, None, &body.into()).unwrap().into_upstream(None);
        let expected = body.replacen('{', "{\"response_format\":\"b64_json\",", 1);
        assert_eq!(String::from_utf8(sent.chunks.concat()).unwrap(), expected);
        for twice in FIELDS {
            let body = format!(r#"{{"prompt":"p","{twice}":null,"{twice}":null}}"#);
            assert!(ImageBody::read(ImageTask::Generation, None, &body.into()).is_err(), "{twice}");
        }
    }

    #[test]
    fn only_model_and_form_change_in_json() {
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
