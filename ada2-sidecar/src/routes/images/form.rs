//! The body of an edit: a form with files, or JSON with `data:` addresses. File names and content types are ignored,
//! because clients lie in them; the order of the parts does not count.

use axum::http::{HeaderMap, header};
use bytes::Bytes;
use service::multipart::{FormError, MultipartForm, is_multipart};
use wire::openai::{
    data_url::ImageUrl,
    fields::{FieldError, Fields},
    inline_images::{EDIT_MEMBERS, InlineImages, invalid_base64, is_image_part, is_reference_part},
    object::{JsonObject, bom_len},
};

use crate::{image_codec::strip_for_decoder, images::REQUEST_FIELDS};

/// Bytes of a text: a prompt of 32,000 characters, and some.
const MAX_TEXT: usize = 256 << 10;
/// More parts than any client sends.
const MAX_PARTS: usize = 64;

/// An edit as it came.
#[derive(Debug)]
pub(super) struct EditForm {
    pub(super) fields: Fields,
    pub(super) image: Bytes,
    pub(super) mask: Option<Bytes>,
}

/// Reads the body.
pub(super) fn read(headers: &HeaderMap, body: &Bytes) -> Result<EditForm, FieldError> {
    let neither = || body_error("The request body must be multipart/form-data with a boundary, or JSON.");
    // As the gateway does, whatever else the type may be called: clients send none, or text/plain.
    let Some(content_type) = headers.get(header::CONTENT_TYPE).filter(|kind| is_multipart(kind)) else {
        return parse_json(&body[bom_len(body)..]);
    };
    match MultipartForm::parse(content_type, body, MAX_PARTS) {
        Ok(form) => from_parts(collect_parts(&form, body)?),
        Err(FormError::NotMultipart | FormError::NoBoundary) => Err(neither()),
        Err(error) => Err(body_error(&format!("The form cannot be read: {error}."))),
    }
}

/// Of a form: what was left blank is not there.
fn from_parts(
    FormParts { fields, mut images, mut masks, extra_image_field: reference }: FormParts<'_>,
) -> Result<EditForm, FieldError> {
    images.retain(|image| !image.is_empty());
    masks.retain(|mask| !mask.is_empty());
    if let Some(name) = reference.filter(|_| !images.is_empty()) {
        return Err(extra_image(name, "image", images.len() + 1));
    }
    if images.len() > 1 {
        return Err(too_many_images("image", images.len()));
    }
    let image = images
        .pop()
        .ok_or_else(|| FieldError::new("image", "image is required: send the picture to start from."))?;
    if masks.len() > 1 {
        return Err(FieldError::new("mask", "mask is given twice."));
    }
    Ok(EditForm {
        fields,
        image: strip_for_decoder(&image),
        mask: masks.pop().as_ref().map(strip_for_decoder),
    })
}

fn too_many_images(param: &str, count: usize) -> FieldError {
    FieldError::new(param, format!("{param} must be one picture, not {count}: the graphs here take one."))
}

fn extra_image(param: &str, beside: &str, count: usize) -> FieldError {
    let message = format!(
        "{param} is one picture more beside {beside}, {count} in all: the graphs here take one. Leave {param} out."
    );
    FieldError::new(param, message)
}

struct FormParts<'a> {
    fields: Fields,
    images: Vec<Bytes>,
    masks: Vec<Bytes>,
    /// A part that holds a further picture.
    extra_image_field: Option<&'a str>,
}

fn collect_parts<'a>(form: &'a MultipartForm, body: &Bytes) -> Result<FormParts<'a>, FieldError> {
    let (mut texts, mut images, mut masks, mut reference) = (Vec::new(), Vec::new(), Vec::new(), None);
    for part in &form.parts {
        let (name, content) = (part.name.as_str(), part.content.clone());
        match name {
            "mask" => masks.push(body.slice(content)),
            _ if is_image_part(name) => images.push(body.slice(content)),
            _ if is_reference_part(name) => {
                let is_blank = matches!(body[content].trim_ascii(), b"" | b"[]" | b"null");
                reference = reference.or((!is_blank).then_some(name));
            }
            // Files and texts that we do not know.
            _ if part.is_file || !REQUEST_FIELDS.contains(&name) => {}
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
    Ok(FormParts {
        fields: Fields::from_form(texts, REQUEST_FIELDS)?,
        images,
        masks,
        extra_image_field: reference,
    })
}

/// `{"images": [{"image_url": "data:image/png;base64,…"}], "mask": {"image_url": …}, "prompt": …}`
fn parse_json(body: &[u8]) -> Result<EditForm, FieldError> {
    let object = JsonObject::parse(body, &[REQUEST_FIELDS, EDIT_MEMBERS].concat()).map_err(|error| {
        let error = FieldError::from(error);
        let hint = if error.param.is_none() { " A form (multipart/form-data) is taken as well." } else { "" };
        FieldError { message: error.message + hint, ..error }
    })?;
    let InlineImages { param, other_param: beside, count, images, mask } = InlineImages::parse(&object)?;
    if let Some(name) = beside {
        return Err(extra_image(name, param, count));
    }
    if count > 1 {
        return Err(too_many_images(param, count));
    }
    let fields = Fields::from_object(&object, REQUEST_FIELDS)?;
    let decode = |param: &str, address: ImageUrl<'_>| {
        let content = address.decode().filter(|content| !content.is_empty());
        content.map(|content| strip_for_decoder(&content.into())).ok_or_else(|| invalid_base64(param))
    };
    let image = images.first().copied().expect("there is at least one");
    let mask = mask.map(|mask| decode("mask", mask)).transpose()?;
    Ok(EditForm { fields, image: decode(param, image)?, mask })
}

fn body_error(message: &str) -> FieldError {
    FieldError { param: None, message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(parts: &[(&str, &str)]) -> Result<EditForm, FieldError> {
        let part = |(head, body): &(&str, &str)| {
            format!("--xyz\r\nContent-Disposition: form-data; {head}\r\n\r\n{body}\r\n")
        };
        let text: String = parts.iter().map(part).chain(["--xyz--\r\n".to_owned()]).collect();
        read_as("multipart/form-data; boundary=xyz", &text)
    }

    fn read_as(content_type: &str, body: &str) -> Result<EditForm, FieldError> {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, content_type.parse().unwrap())]);
        read(&headers, &body.to_owned().into())
    }

    #[test]
    fn every_clients_spelling_of_the_parts() {
        for name in ["image", "image[]", "image[0]", "images", "images[]"] {
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
                (&upload.image[..], upload.mask.as_deref()),
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
    fn a_picture_is_never_overlooked() {
        let image = ("name=\"image\"; filename=\"a\"", "X");
        for name in ["ref_images", "ref_images[]"] {
            let part = format!("name=\"{name}\"; filename=\"a\"");
            let error = form(&[image, (&part, "Y")]).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(name));
            assert!(error.message.contains("2 in all: the graphs here take one"), "{error}");
            assert!(form(&[image, (&part, "")]).is_ok() && form(&[image, (&part, "[]")]).is_ok());
        }
        let data = "data:;base64,UElY";
        for name in ["ref_images", "image[]"] {
            let body = format!(r#"{{"prompt":"a","image":"{data}","{name}":["{data}"]}}"#);
            let error = read_as("application/json", &body).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(name));
            assert!(error.message.contains("2 in all: the graphs here take one"), "{error}");
        }
    }

    #[test]
    fn a_picture_too_many_is_refused_and_one_that_will_not_do_before_that() {
        let good = r#"{"image_url":"data:;base64,UElY"}"#;
        for (images, says) in [
            (format!("[{good},{good}]"), "must be one picture"),
            (format!("[{good},7,{good}]"), "nothing is fetched"),
            (format!("[7,{good}]"), "nothing is fetched"),
            ("[]".to_owned(), "is required"),
            (format!("[{good},7]"), "nothing is fetched"),
        ] {
            let error = read_as("application/json", &format!("{{\"images\":{images}}}")).unwrap_err();
            assert!(error.message.contains(says), "{images}: {error}");
        }
        let escaped = read_as("application/json", r#"{"image":"data:image\/png;base64,\/\/\/\/"}"#).unwrap();
        assert_eq!(&escaped.image[..], b"\xff\xff\xff");
    }

    #[test]
    fn what_was_left_blank_is_not_there() {
        let image = ("name=\"image\"; filename=\"a\"", "X");
        let empty = ("name=\"image\"; filename=\"\"", "");
        let mask = ("name=\"mask\"; filename=\"\"", "");
        let upload = form(&[empty, image, mask, ("name=\"seed\"", ""), ("name=\"n\"", "2.0")]).unwrap();
        assert_eq!((&upload.image[..], upload.mask), (&b"X"[..], None));
        assert_eq!(upload.fields.seed("seed", 9), Ok(None));
        assert_eq!(upload.fields.integer("n", 1..=4), Ok(Some(2)));
    }

    #[test]
    fn json_is_read_whatever_it_is_called_and_with_a_byte_order_mark() {
        let body = r#"{"prompt":"a","foo":1,"foo":2,"image":"data:image/png;base64,UE\nlY"}"#;
        for kind in ["application/json", "Application/JSON; charset=utf-8", "text/json", "text/plain"] {
            for body in [body.to_owned(), format!("\u{feff}{body}")] {
                assert_eq!(&read_as(kind, &body).unwrap().image[..], b"PIX", "{kind} {body}");
            }
        }
        assert_eq!(&read(&HeaderMap::new(), &body.into()).unwrap().image[..], b"PIX");
        for damaged in ["data:;base64,", "data:;base64,UElY!"] {
            let error = read_as("application/json", &format!(r#"{{"image":"{damaged}"}}"#)).unwrap_err();
            assert!(
                error.param.as_deref() == Some("image") && error.message.contains("invalid base64"),
                "{error}"
            );
        }
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
        assert_eq!((&upload.image[..], upload.mask.as_deref()), (&b"PIX"[..], Some(&b"M"[..])));
        for image in [r#"{"image_url":"http://10.0.0.1/x.png"}"#, r#"{"file_id":"f"}"#, "\"x\"", "{}"] {
            let error = read_as("application/json", &format!("{{\"images\":[{image}]}}")).unwrap_err();
            assert!(
                error.param.as_deref() == Some("images") && error.message.contains("nothing is fetched"),
                "{error}"
            );
        }
    }
}
