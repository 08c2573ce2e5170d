//! The body of a request: read for what the gateway decides on, and written again for the backend. Of a picture request
//! only the model and the form of the pictures change, of any other ([`text`]) the model alone; whatever else the caller
//! sent travels as it came. Pure.

mod form;
pub(crate) mod text;

use axum::http::HeaderValue;
use bytes::Bytes;
use serde_json::Value;
use shared::openai::fields::{FieldError, Fields};

use self::form::Form;
use crate::policy::demand::Task;

/// What the backend is always asked for: the pictures are stored here in any case.
const BASE64: &str = "b64_json";
const WANTED: &str = "a picture is edited with multipart/form-data, with at least the parts `image` and `prompt`, \
                      or with a JSON object with `images` and `prompt`";

/// A body, read.
#[derive(Debug)]
pub(crate) struct Payload {
    fields: Fields,
    /// The parts; none where the body is JSON.
    form: Option<Form>,
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
        if task == Task::Generation {
            return Ok(Self { fields: Fields::parse(body)?, form: None });
        }
        if let Some(kind) = content_type.filter(|kind| is_multipart(kind)) {
            let (form, fields) = Form::read(kind, body)?;
            return Ok(Self { fields, form: Some(form) });
        }
        let fields = Fields::parse(body).map_err(|error| unreadable(&error.message))?;
        only_data_addresses(&fields)?;
        Ok(Self { fields, form: None })
    }

    /// The fields that policy reads, whichever way they came.
    pub(crate) fn fields(&self) -> &Fields {
        &self.fields
    }

    /// The body as the backend gets it; without a model, none is named.
    pub(crate) fn into_sent(self, model: Option<&str>) -> Sent {
        let Self { mut fields, form } = self;
        if let Some(form) = form {
            return form.into_sent(&[("model", model), ("response_format", Some(BASE64))]);
        }
        fields.set("response_format", BASE64);
        match model {
            Some(model) => fields.set("model", model),
            None => fields.remove("model"),
        }
        Sent {
            content_type: HeaderValue::from_static("application/json"),
            pieces: vec![fields.to_bytes().into()],
        }
    }
}

fn is_multipart(content_type: &HeaderValue) -> bool {
    let head = content_type.as_bytes().get(.."multipart/".len());
    head.is_some_and(|head| head.eq_ignore_ascii_case(b"multipart/"))
}

fn unreadable(why: &str) -> FieldError {
    FieldError { param: None, message: format!("{why} Expected: {WANTED}.") }
}

/// In the JSON form, pictures are in the request itself: neither we nor the backend fetch for a caller.
fn only_data_addresses(fields: &Fields) -> Result<(), FieldError> {
    let wrong = |name: &str, what: &str| {
        let message = format!(
            "{name} must be {what} with `image_url`, a data: address; nothing is fetched from elsewhere."
        );
        FieldError::new(name, message)
    };
    let images = fields.value("images").and_then(Value::as_array).filter(|images| !images.is_empty());
    if !images.is_some_and(|images| images.iter().all(is_data)) {
        return Err(wrong("images", "a list of objects"));
    }
    match fields.value("mask") {
        Some(mask) if !is_data(mask) => Err(wrong("mask", "an object")),
        _ => Ok(()),
    }
}

fn is_data(picture: &Value) -> bool {
    let elsewhere = !picture["file_id"].is_null();
    !elsewhere && picture["image_url"].as_str().is_some_and(|address| address.starts_with("data:"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn edit(body: &Value) -> Result<Payload, FieldError> {
        Payload::read(Task::Edit, None, &body.to_string().into())
    }

    #[test]
    fn pictures_in_json_are_data_addresses_and_nothing_else() {
        let data = "data:image/png;base64,aGk=";
        assert!(edit(&json!({"images": [{"image_url": data}], "mask": {"image_url": data}})).is_ok());
        for (body, param) in [
            (json!({}), "images"),
            (json!({"images": []}), "images"),
            (json!({"images": data}), "images"),
            (json!({"images": [data]}), "images"),
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
    fn what_can_be_read_neither_way_is_told_both() {
        let error = edit(&json!([])).unwrap_err();
        assert_eq!(error.param, None);
        assert!(error.message.contains("multipart/form-data") && error.message.contains("JSON"), "{error}");
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
