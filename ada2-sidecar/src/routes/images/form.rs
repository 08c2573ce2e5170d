//! The body of an edit: a form with files, or JSON with `data:` addresses. File names and content types are ignored,
//! because clients lie in them; the order of the parts does not count.

use axum::http::{HeaderMap, header};
use bytes::Bytes;
use serde_json::value::RawValue;
use shared::{
    openai::{
        data_url::Address,
        fields::{FieldError, Fields},
        object::{Object, elements},
    },
    service::form::{Form, FormError, is_multipart},
};

use crate::{images::FIELDS, pictures::lean};

/// Bytes of a text: a prompt of 32,000 characters, and some.
const MAX_TEXT: usize = 256 << 10;
/// More parts than any client sends.
const MAX_PARTS: usize = 64;
/// The pictures of an edit in JSON.
const PICTURES: &[&str] = &["images", "image", "mask"];

/// An edit as it came.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) fields: Fields,
    pub(super) picture: Bytes,
    pub(super) mask: Option<Bytes>,
}

/// Reads the body.
pub(super) fn read(headers: &HeaderMap, body: &Bytes) -> Result<Upload, FieldError> {
    let neither = || whole("The request body must be multipart/form-data with a boundary, or JSON.");
    let content_type = headers.get(header::CONTENT_TYPE).ok_or_else(neither)?;
    let (fields, mut pictures, mut masks) = if is_multipart(content_type) {
        match Form::read(content_type, body, MAX_PARTS) {
            Ok(form) => parts(&form, body)?,
            Err(FormError::NotAForm | FormError::NoBoundary) => return Err(neither()),
            Err(error) => return Err(whole(&format!("The form cannot be read: {error}."))),
        }
    } else if content_type.as_bytes().starts_with(b"application/json") {
        json(body)?
    } else {
        return Err(neither());
    };
    if pictures.len() > 1 {
        return Err(FieldError::new("image", "image must be one picture: the graphs here take one."));
    }
    let picture = pictures.pop().filter(|picture| !picture.is_empty());
    let picture = picture
        .ok_or_else(|| FieldError::new("image", "image is required: send the picture to start from."))?;
    if masks.len() > 1 {
        return Err(FieldError::new("mask", "mask is given twice."));
    }
    let mask = masks.pop().filter(|mask| !mask.is_empty());
    Ok(Upload { fields, picture: lean(&picture), mask: mask.as_ref().map(lean) })
}

type Parts = (Fields, Vec<Bytes>, Vec<Bytes>);

fn parts(form: &Form, body: &Bytes) -> Result<Parts, FieldError> {
    let (mut texts, mut pictures, mut masks) = (Vec::new(), Vec::new(), Vec::new());
    for part in &form.parts {
        let (name, content) = (part.name.as_str(), part.content.clone());
        match name {
            "mask" => masks.push(body.slice(content)),
            _ if name == "image" || name.starts_with("image[") => pictures.push(body.slice(content)),
            // Files and texts that we do not know.
            _ if part.is_file || !FIELDS.contains(&name) => {}
            _ if content.len() > MAX_TEXT => {
                return Err(FieldError::new(name, format!("{name} must have at most {MAX_TEXT} bytes.")));
            }
            _ => {
                let text = str::from_utf8(&body[content]);
                texts
                    .push((name, text.map_err(|_| FieldError::new(name, format!("{name} must be UTF-8.")))?));
            }
        }
    }
    Ok((Fields::of_form(texts, FIELDS)?, pictures, masks))
}

/// `{"images": [{"image_url": "data:image/png;base64,…"}], "mask": {"image_url": …}, "prompt": …}`
fn json(body: &[u8]) -> Result<Parts, FieldError> {
    let object = Object::read(body, &[FIELDS, PICTURES].concat())?;
    let mut pictures = Vec::new();
    let mut take = |value| {
        pictures.push(picture("image", value));
        // The second is one too many, and one that cannot be had is one, too.
        pictures.len() < 2 && pictures.iter().all(Result::is_ok)
    };
    if !object.get("images").is_some_and(|images| elements(images, &mut take)) {
        object.get("image").map(take);
    }
    let pictures = pictures.into_iter().collect::<Result<_, _>>()?;
    let masks = object.get("mask").map(|mask| picture("mask", mask)).transpose()?;
    Ok((Fields::of_object(&object, FIELDS)?, pictures, masks.into_iter().collect()))
}

fn picture(param: &str, value: &RawValue) -> Result<Bytes, FieldError> {
    let address = Address::of(value).or_else(|| Address::in_object(value));
    let decode = |base64: &str| base64_simd::STANDARD.decode_to_vec(base64).ok();
    address.and_then(|address| address.decode(decode)).map(Bytes::from).ok_or_else(|| {
        let message =
            format!("{param} must come in the request, as a data: address in base64; nothing is fetched.");
        FieldError::new(param, message)
    })
}

fn whole(message: &str) -> FieldError {
    FieldError { param: None, message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(parts: &[(&str, &str)]) -> Result<Upload, FieldError> {
        let part = |(head, body): &(&str, &str)| {
            format!("--xyz\r\nContent-Disposition: form-data; {head}\r\n\r\n{body}\r\n")
        };
        let text: String = parts.iter().map(part).chain(["--xyz--\r\n".to_owned()]).collect();
        read_as("multipart/form-data; boundary=xyz", &text)
    }

    fn read_as(content_type: &str, body: &str) -> Result<Upload, FieldError> {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, content_type.parse().unwrap())]);
        read(&headers, &body.to_owned().into())
    }

    #[test]
    fn every_clients_spelling_of_the_parts() {
        for name in ["image", "image[]", "image[0]"] {
            let file = format!(
                "name=\"{name}\"; filename=\"/home/me/secret.png\"\r\nContent-Type: application/octet-stream"
            );
            let upload = form(&[
                (&file, "PIXELS"),
                ("name=\"mask\"; filename=\"m\"", "MASK"),
                ("name=\"prompt\"\r\nContent-Type: text/plain; charset=\"utf-8\"", "a cat"),
                ("name=\"n\"", "2"),
                ("name=\"other\"; filename=\"x\"", "?"),
            ])
            .unwrap();
            assert_eq!(
                (&upload.picture[..], upload.mask.as_deref()),
                (&b"PIXELS"[..], Some(&b"MASK"[..])),
                "{name}"
            );
            assert_eq!(upload.fields.integer("n", 1..=4), Ok(Some(2)));
        }
    }

    #[test]
    fn what_is_missing_or_too_much_is_named() {
        let prompt = ("name=\"prompt\"", "a");
        let image = ("name=\"image[]\"; filename=\"a\"", "X");
        let param = |parts: &[(&str, &str)]| form(parts).unwrap_err().param;
        assert_eq!(param(&[prompt]).as_deref(), Some("image"));
        assert_eq!(param(&[prompt, image, image]).as_deref(), Some("image"));
        assert_eq!(param(&[prompt, prompt, image]).as_deref(), Some("prompt"));
        let mask = ("name=\"mask\"; filename=\"a\"", "X");
        assert_eq!(param(&[image, mask, mask]).as_deref(), Some("mask"));
        for (content_type, body) in
            [("text/plain", "x"), ("multipart/form-data", "x"), ("multipart/form-data; boundary=xyz", "--x")]
        {
            assert_eq!(read_as(content_type, body).unwrap_err().param, None, "{content_type}");
        }
    }

    #[test]
    fn the_first_picture_that_will_not_do_is_the_last_that_is_looked_at() {
        let good = r#"{"image_url":"data:;base64,UElY"}"#;
        for (images, says) in [
            (format!("[{good},{good}]"), "must be one picture"),
            (format!("[{good},7,{good}]"), "nothing is fetched"),
            (format!("[7,{good}]"), "nothing is fetched"),
            ("[]".to_owned(), "is required"),
            (good.to_owned(), "is required"),
        ] {
            let error = read_as("application/json", &format!("{{\"images\":{images}}}")).unwrap_err();
            assert!(error.message.contains(says), "{images}: {error}");
        }
        let escaped = read_as("application/json", r#"{"image":"data:image\/png;base64,\/\/\/\/"}"#).unwrap();
        assert_eq!(&escaped.picture[..], b"\xff\xff\xff");
    }

    #[test]
    fn what_nobody_reads_may_come_twice_and_a_boundary_is_bounded() {
        let image = ("name=\"image\"; filename=\"a\"", "X");
        assert!(form(&[image, ("name=\"foo\"", "1"), ("name=\"foo\"", "2")]).is_ok());
        let long = format!("multipart/form-data; boundary={}", "b".repeat(71));
        assert!(read_as(&long, "").unwrap_err().message.contains("boundary"));
    }

    #[test]
    fn json_brings_its_pictures_along_and_nothing_is_fetched() {
        let body = r#"{"prompt":"a","images":[{"image_url":"data:image/png;base64,UElY"}],"mask":{"image_url":"data:;base64,TQ=="}}"#;
        let upload = read_as("application/json", body).unwrap();
        assert_eq!((&upload.picture[..], upload.mask.as_deref()), (&b"PIX"[..], Some(&b"M"[..])));
        for image in [r#"{"image_url":"http://10.0.0.1/x.png"}"#, r#"{"file_id":"f"}"#, "\"x\"", "{}"] {
            let error = read_as("application/json", &format!("{{\"images\":[{image}]}}")).unwrap_err();
            assert!(
                error.param.as_deref() == Some("image") && error.message.contains("nothing is fetched"),
                "{error}"
            );
        }
    }
}
