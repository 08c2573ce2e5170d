//! The body of a request: read for what the gateway decides on, and written again for the backend. Of a picture request
//! only the model and the form of the pictures change, of any other ([`text`]) the model alone; whatever else the caller
//! sent travels as it came. Pure.

pub(crate) mod demand;
mod form;
mod json;
pub(crate) mod text;

use axum::http::HeaderValue;
use bytes::Bytes;
use service::form::is_multipart;
use wire::openai::{
    fields::{FieldError, Fields},
    inline_images::{EDIT_MEMBERS, GENERATION_MEMBERS, InlineImages, form_at_generations, refuse_images},
    object::{Object, before_json},
};

use self::{
    demand::{FIELDS, Task},
    form::Form,
    json::Json,
};

/// What the backend is always asked for: the pictures are stored here in any case.
const BASE64: &str = "b64_json";
const WANTED: &str = "a picture is edited with multipart/form-data, with at least the parts `image` and `prompt`, \
                      or with a JSON object with `images` (or `image`) and `prompt`";

/// A body, read.
#[derive(Debug)]
pub(crate) struct Payload {
    fields: Fields,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Form(Form),
    Json(Json),
}

/// A body, to be sent.
#[derive(Debug)]
pub(crate) struct Sent {
    /// Its `Content-Type`.
    pub(crate) content_type: HeaderValue,
    /// Its bytes, in order.
    pub(crate) pieces: Vec<Bytes>,
}

impl Payload {
    /// Reads a body. Pictures are made from JSON, and edited from a form or from JSON.
    pub(crate) fn read(
        task: Task,
        content_type: Option<&HeaderValue>,
        body: &Bytes,
    ) -> Result<Self, FieldError> {
        match (task, content_type.filter(|kind| is_multipart(kind))) {
            (Task::Generation, Some(_)) => Err(form_at_generations()),
            (Task::Generation, None) => Self::generation(&json_of(body)),
            (Task::Edit, None) => Self::edit(&json_of(body)),
            (Task::Edit, Some(kind)) => {
                let (form, fields) = Form::read(kind, body)?;
                Ok(Self { fields, body: Body::Form(form) })
            }
        }
    }

    fn generation(body: &Bytes) -> Result<Self, FieldError> {
        let object = Object::read(body, &[FIELDS, GENERATION_MEMBERS].concat())?;
        refuse_images(&object)?;
        Self::of_object(body, &object)
    }

    /// Images are in the request itself: neither we nor the backend fetch for a caller.
    fn edit(body: &Bytes) -> Result<Self, FieldError> {
        let object = Object::read(body, &[FIELDS, EDIT_MEMBERS].concat());
        let object = object.map_err(|error| match FieldError::from(error) {
            FieldError { param: None, message } => unreadable(&message),
            named => named,
        })?;
        InlineImages::read(&object)?;
        Self::of_object(body, &object)
    }

    fn of_object(body: &Bytes, object: &Object<'_>) -> Result<Self, FieldError> {
        Ok(Self { fields: Fields::of_object(object, FIELDS)?, body: Body::Json(Json::of(body, object)) })
    }

    /// The fields that policy reads, whichever way they came.
    pub(crate) fn fields(&self) -> &Fields {
        &self.fields
    }

    /// The body as the backend gets it; without a model, none is named.
    pub(crate) fn into_sent(self, model: Option<&str>) -> Sent {
        let texts = [("model", model), ("response_format", Some(BASE64))];
        match self.body {
            Body::Form(form) => form.into_sent(&texts),
            Body::Json(json) => json.into_sent(&texts),
        }
    }
}

/// A JSON body as it is read and goes on: other readers than ours know no byte order mark.
fn json_of(body: &Bytes) -> Bytes {
    body.slice(before_json(body)..)
}

fn unreadable(why: &str) -> FieldError {
    FieldError { param: None, message: format!("{why} Expected: {WANTED}.") }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_key_given_twice_is_named_whatever_the_route() {
        let body = Bytes::from_static(br#"{"prompt":"a","model":"b","model":"c"}"#);
        let json = HeaderValue::from_static("application/json");
        for task in [Task::Generation, Task::Edit] {
            let told = Payload::read(task, Some(&json), &body).unwrap_err();
            assert_eq!(told, FieldError::new("model", "model is given twice."), "{task:?}");
        }
        let chat = text::TextBody::read(&body).unwrap_err();
        assert_eq!(chat, FieldError::new("model", "model is given twice."));
    }

    fn edit(body: &Value) -> Result<Payload, FieldError> {
        Payload::read(Task::Edit, None, &body.to_string().into())
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
            let sent = edit(&body).unwrap().into_sent(None).pieces.concat();
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
            (Task::Generation, r#"{ "prompt":"p", "n":1.0 }"#.to_owned()),
            (Task::Edit, format!(r#"{{ "prompt":"p", "image":"{data}" }}"#)),
        ] {
            let read = |text: String| Payload::read(task, None, &text.into()).unwrap().into_sent(Some("m"));
            let sent = read(format!("\u{feff}{body}"));
            let expected = body.replacen('{', "{\"model\":\"m\",\"response_format\":\"b64_json\",", 1);
            assert_eq!(String::from_utf8(sent.pieces.concat()).unwrap(), expected);
            let twice = format!("\u{feff}\u{feff}{body}");
            assert_eq!(Payload::read(task, None, &twice.into()).unwrap_err().param, None);
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
            let error = Payload::read(Task::Generation, kind, &body.to_string().into()).unwrap_err();
            assert_eq!(error.param.as_deref(), param, "{body}");
            assert!(error.message.contains("/v1/images/edits"), "{error}");
        }
        let blank = json!({"prompt": "p", "image": null, "mask": "", "images": []});
        assert!(Payload::read(Task::Generation, None, &blank.to_string().into()).is_ok());
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
        let sent = Payload::read(Task::Generation, None, &body.into()).unwrap().into_sent(None);
        let expected = body.replacen('{', "{\"response_format\":\"b64_json\",", 1);
        assert_eq!(String::from_utf8(sent.pieces.concat()).unwrap(), expected);
        for twice in FIELDS {
            let body = format!(r#"{{"prompt":"p","{twice}":null,"{twice}":null}}"#);
            assert!(Payload::read(Task::Generation, None, &body.into()).is_err(), "{twice}");
        }
    }

    #[test]
    fn only_model_and_form_change_in_json() {
        let body = json!({"prompt": "p", "model": "a", "odd": [1, null], "response_format": "url"});
        let sent = |model| {
            let read = Payload::read(Task::Generation, None, &body.to_string().into()).unwrap();
            let sent = read.into_sent(model);
            assert_eq!(sent.content_type, "application/json");
            serde_json::from_slice::<Value>(&sent.pieces.concat()).unwrap()
        };
        let mut expected = body.clone();
        expected["response_format"] = json!("b64_json");
        assert_eq!(sent(Some("a")), expected);
        expected.as_object_mut().unwrap().remove("model");
        assert_eq!(sent(None), expected);
    }
}
