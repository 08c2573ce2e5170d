//! The body of an edit: a form with files, or JSON with `data:` addresses. File names and content types are ignored,
//! because clients lie in them; the order of the parts does not count.

use axum::http::{HeaderMap, header};
use bytes::Bytes;
use futures_util::stream;
use multer::{Constraints, Multipart, SizeLimit};
use serde_json::Value;
use shared::openai::fields::{FieldError, Fields};

/// Bytes of a text: a prompt of 32,000 characters, and some.
const MAX_TEXT: u64 = 256 << 10;
/// More parts than any client sends.
const MAX_PARTS: usize = 64;

/// An edit as it came.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) fields: Fields,
    pub(super) picture: Bytes,
    pub(super) mask: Option<Bytes>,
}

/// Reads the body.
pub(super) async fn read(headers: &HeaderMap, body: &Bytes) -> Result<Upload, FieldError> {
    let content_type =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (fields, mut pictures, mut masks) = match multer::parse_boundary(content_type) {
        Ok(boundary) => parts(boundary, body).await?,
        Err(_) if content_type.starts_with("application/json") => json(body)?,
        Err(_) => {
            return Err(whole("The request body must be multipart/form-data with a boundary, or JSON."));
        }
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
    Ok(Upload { fields, picture, mask: masks.pop().filter(|mask| !mask.is_empty()) })
}

type Parts = (Fields, Vec<Bytes>, Vec<Bytes>);

async fn parts(boundary: String, body: &Bytes) -> Result<Parts, FieldError> {
    let limits = SizeLimit::new().whole_stream(body.len() as u64);
    let whole_body = stream::iter([Ok::<_, std::convert::Infallible>(body.clone())]);
    let mut multipart =
        Multipart::with_constraints(whole_body, boundary, Constraints::new().size_limit(limits));
    let (mut texts, mut pictures, mut masks) = (Vec::new(), Vec::new(), Vec::new());
    let broken = |error: multer::Error| whole(&format!("The form cannot be read: {error}."));
    while let Some(part) = multipart.next_field().await.map_err(broken)? {
        if texts.len() + pictures.len() + masks.len() >= MAX_PARTS {
            return Err(whole(&format!("The form has more than {MAX_PARTS} parts.")));
        }
        let Some(name) = part.name().map(str::to_owned) else { continue };
        let is_file = part.file_name().is_some();
        let bytes = part.bytes().await.map_err(broken)?;
        match name.as_str() {
            "mask" => masks.push(bytes),
            _ if name == "image" || name.starts_with("image[") => pictures.push(bytes),
            // Files that we do not know, as unknown fields.
            _ if is_file => {}
            _ if bytes.len() as u64 > MAX_TEXT => {
                return Err(FieldError::new(&name, format!("{name} must have at most {MAX_TEXT} bytes.")));
            }
            _ => {
                let text = String::from_utf8(bytes.to_vec());
                texts.push((
                    name.clone(),
                    text.map_err(|_| FieldError::new(&name, format!("{name} must be UTF-8.")))?,
                ));
            }
        }
    }
    Ok((Fields::of_form(texts)?, pictures, masks))
}

/// `{"images": [{"image_url": "data:image/png;base64,…"}], "mask": {"image_url": …}, "prompt": …}`
fn json(body: &[u8]) -> Result<Parts, FieldError> {
    let mut fields = Fields::parse(body)?;
    let images = match (fields.value("images"), fields.value("image")) {
        (Some(Value::Array(images)), _) => images.clone(),
        (_, Some(image)) => vec![image.clone()],
        _ => Vec::new(),
    };
    let pictures = images.iter().map(|image| picture("image", image)).collect::<Result<_, _>>()?;
    let mask = fields.value("mask").map(|mask| picture("mask", mask)).transpose()?;
    for name in ["images", "image", "mask"] {
        fields.remove(name);
    }
    Ok((fields, pictures, mask.into_iter().collect()))
}

fn picture(param: &str, value: &Value) -> Result<Bytes, FieldError> {
    let address = value.as_str().or_else(|| value.get("image_url")?.as_str()).unwrap_or_default();
    let base64 =
        address.strip_prefix("data:").and_then(|data| data.split_once(";base64,")).map(|(_, base64)| base64);
    let bytes = base64.and_then(|base64| base64_simd::STANDARD.decode_to_vec(base64).ok());
    bytes.map(Bytes::from).ok_or_else(|| {
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

    async fn form(parts: &[(&str, &str)]) -> Result<Upload, FieldError> {
        let part = |(head, body): &(&str, &str)| {
            format!("--xyz\r\nContent-Disposition: form-data; {head}\r\n\r\n{body}\r\n")
        };
        let text: String = parts.iter().map(part).chain(["--xyz--\r\n".to_owned()]).collect();
        read_as("multipart/form-data; boundary=xyz", &text).await
    }

    async fn read_as(content_type: &str, body: &str) -> Result<Upload, FieldError> {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, content_type.parse().unwrap())]);
        read(&headers, &body.to_owned().into()).await
    }

    #[tokio::test]
    async fn every_clients_spelling_of_the_parts() {
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
            .await
            .unwrap();
            assert_eq!(
                (&upload.picture[..], upload.mask.as_deref()),
                (&b"PIXELS"[..], Some(&b"MASK"[..])),
                "{name}"
            );
            assert_eq!(upload.fields.integer("n", 1..=4), Ok(Some(2)));
        }
    }

    #[tokio::test]
    async fn what_is_missing_or_too_much_is_named() {
        let prompt = ("name=\"prompt\"", "a");
        let image = ("name=\"image[]\"; filename=\"a\"", "X");
        let param = async |parts: &[(&str, &str)]| form(parts).await.unwrap_err().param;
        assert_eq!(param(&[prompt]).await.as_deref(), Some("image"));
        assert_eq!(param(&[prompt, image, image]).await.as_deref(), Some("image"));
        assert_eq!(param(&[prompt, prompt, image]).await.as_deref(), Some("prompt"));
        let mask = ("name=\"mask\"; filename=\"a\"", "X");
        assert_eq!(param(&[image, mask, mask]).await.as_deref(), Some("mask"));
        for (content_type, body) in
            [("text/plain", "x"), ("multipart/form-data", "x"), ("multipart/form-data; boundary=xyz", "--x")]
        {
            assert_eq!(read_as(content_type, body).await.unwrap_err().param, None, "{content_type}");
        }
    }

    #[tokio::test]
    async fn json_brings_its_pictures_along_and_nothing_is_fetched() {
        let body = r#"{"prompt":"a","images":[{"image_url":"data:image/png;base64,UElY"}],"mask":{"image_url":"data:;base64,TQ=="}}"#;
        let upload = read_as("application/json", body).await.unwrap();
        assert_eq!((&upload.picture[..], upload.mask.as_deref()), (&b"PIX"[..], Some(&b"M"[..])));
        for image in [r#"{"image_url":"http://10.0.0.1/x.png"}"#, r#"{"file_id":"f"}"#, "\"x\"", "{}"] {
            let error = read_as("application/json", &format!("{{\"images\":[{image}]}}")).await.unwrap_err();
            assert!(
                error.param.as_deref() == Some("image") && error.message.contains("nothing is fetched"),
                "{error}"
            );
        }
    }
}
