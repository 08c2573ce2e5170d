//! Request bodies: the backend gets what the client sent, but for the fields that we set.

use axum::http::HeaderValue;
use bytes::Bytes;
use serde_json::{Map, Value};
use service::multipart::{FormPart, MultipartForm, is_multipart};

use super::first_line;
use crate::request::{
    UpstreamBody,
    image_request::{ImageBody, ImageRequest, ImageTask},
    text::TextBody,
};

const MAX_PIXELS: u64 = 4 << 20;
const MODEL: &str = "the/model \"x\"";

fn concat(body: &UpstreamBody) -> Bytes {
    body.chunks.concat().into()
}

fn object(body: &[u8]) -> Option<Map<String, Value>> {
    serde_json::from_slice(body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)).ok()
}

/// Sets these members, or removes them.
fn set(object: &mut Map<String, Value>, values: &[(&str, Option<&str>)]) {
    for (name, value) in values {
        match value {
            Some(value) => drop(object.insert((*name).to_owned(), (*value).into())),
            None => drop(object.remove(*name)),
        }
    }
}

/// JSON of the Images API, of chat and of embeddings.
pub fn json_request(data: &[u8]) {
    let body = Bytes::copy_from_slice(data);
    let sent = object(data);
    for task in [ImageTask::Generation, ImageTask::Edit] {
        for model in [Some(MODEL), None] {
            let Ok(read) = ImageBody::read(task, None, &body) else { continue };
            let _ = (read.asked(), ImageRequest::from_fields(task, read.fields(), None, MAX_PIXELS));
            let upstream = concat(&read.into_upstream(model));
            let again = ImageBody::read(task, None, &upstream).expect("a backend can read it");
            assert_eq!(again.fields().name("model"), Ok(model));
            if let Some(mut expected) = sent.clone() {
                set(&mut expected, &[("model", model), ("response_format", Some("b64_json"))]);
                assert_eq!(object(&upstream), Some(expected));
            }
        }
    }
    for model in [Some(MODEL), None] {
        let Ok(read) = TextBody::read(&body) else { continue };
        let upstream = concat(&read.into_upstream(model));
        let again = TextBody::read(&upstream);
        assert_eq!(again.as_ref().map(TextBody::model), Ok(model));
        if let Some(mut expected) = sent.clone() {
            set(&mut expected, &[("model", model)]);
            assert_eq!(object(&upstream), Some(expected));
        }
    }
}

/// Names, file names and contents of the parts.
fn parts<'a>(form: &'a MultipartForm, body: &'a [u8]) -> Vec<(&'a str, Option<&'a str>, &'a [u8])> {
    let part = |part: &'a FormPart| (&*part.name, part.file_name.as_deref(), &body[part.content.clone()]);
    form.parts.iter().map(part).collect()
}

/// The parts follow each other without a gap, each from its delimiter on.
fn check_spans(form: &MultipartForm, body: &[u8]) {
    let separator = format!("\r\n{}", form.delimiter);
    let ends = form.parts.iter().skip(1).map(|part| part.span.start);
    for (part, next) in form.parts.iter().zip(ends.chain(form.parts.last().map(|part| part.span.end))) {
        assert_eq!(part.span.end, next);
        assert!(
            part.span.start < part.content.start && part.content.end < part.span.end && !part.name.is_empty()
        );
        assert!(body[part.span.clone()].starts_with(form.delimiter.as_bytes()));
        assert!(body[part.content.end..].starts_with(separator.as_bytes()));
        assert!(memchr::memmem::find(&body[part.content.clone()], separator.as_bytes()).is_none());
    }
}

/// A form; the first line of the input is its `Content-Type`.
pub fn form_request(data: &[u8]) {
    let (content_type, body) = first_line(data);
    let Ok(content_type) = HeaderValue::from_bytes(content_type) else { return };
    let body = Bytes::copy_from_slice(body);
    let Ok(sent) = MultipartForm::parse(&content_type, &body, 128) else { return };
    check_spans(&sent, &body);
    if !is_multipart(&content_type) {
        return;
    }
    for model in [Some(MODEL), None] {
        let Ok(read) = ImageBody::read(ImageTask::Edit, Some(&content_type), &body) else { return };
        let _ = (read.asked(), ImageRequest::from_fields(ImageTask::Edit, read.fields(), None, MAX_PIXELS));
        let upstream = concat(&read.into_upstream(model));
        let received = MultipartForm::parse(&content_type, &upstream, 130).expect("a backend can read it");
        check_spans(&received, &upstream);
        let is_ours = |name: &str| ["model", "response_format"].contains(&name);
        let others = |form, body| -> Vec<_> {
            parts(form, body).into_iter().filter(|(name, ..)| !is_ours(name)).map(owned).collect()
        };
        assert_eq!(others(&received, &upstream), others(&sent, &body));
        let ours = |wanted: &str| -> Vec<_> {
            let all = parts(&received, &upstream).into_iter().filter(|(name, ..)| *name == wanted);
            all.map(|(_, _, content)| content.to_vec()).collect()
        };
        assert_eq!(ours("model"), model.iter().map(|model| model.as_bytes().to_vec()).collect::<Vec<_>>());
        assert_eq!(ours("response_format"), [b"b64_json".to_vec()]);
    }
}

fn owned((name, file, content): (&str, Option<&str>, &[u8])) -> (String, Option<String>, Vec<u8>) {
    (name.to_owned(), file.map(str::to_owned), content.to_vec())
}
