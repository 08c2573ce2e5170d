//! `multipart/form-data`: its parts are read for what policy decides on and kept as they lie in the body, so that they
//! can be sent on byte for byte.

use axum::http::HeaderValue;
use bytes::Bytes;
use service::multipart::{self, FormPart};
use wire::openai::{
    fields::{FieldError, Fields},
    inline_images::is_image_part,
};

use super::{UpstreamBody, unreadable_body};

/// Parts of one form: 16 pictures, a mask, every field there is, and room.
const MAX_PARTS: usize = 128;
/// Texts that policy reads or that mean nothing when given twice. Two readers of one form could decide on different
/// ones.
const TEXT_FIELDS: [&str; 8] =
    ["model", "prompt", "n", "size", "response_format", "stream", "partial_images", "seed"];

/// A form.
#[derive(Debug)]
pub(super) struct MultipartForm {
    content_type: HeaderValue,
    body: Bytes,
    /// What stands before each part: two dashes and the boundary.
    delimiter: String,
    parts: Vec<FormPart>,
}

impl MultipartForm {
    /// Reads a form, and the fields that policy decides on.
    pub(super) fn read(content_type: &HeaderValue, body: &Bytes) -> Result<(Self, Fields), FieldError> {
        let multipart::MultipartForm { delimiter, parts } =
            multipart::MultipartForm::parse(content_type, body, MAX_PARTS)
                .map_err(|error| unreadable_body(&format!("The form cannot be read: {error}.")))?;
        let form = Self { content_type: content_type.clone(), body: body.clone(), delimiter, parts };
        form.check()?;
        let fields = form.fields()?;
        Ok((form, fields))
    }

    fn check(&self) -> Result<(), FieldError> {
        for name in TEXT_FIELDS.into_iter().chain(["mask"]) {
            if self.parts.iter().filter(|part| part.name == name).count() > 1 {
                return Err(FieldError::new(name, format!("{name} is given twice.")));
            }
        }
        if !self.parts.iter().any(|part| !part.content.is_empty() && is_image_part(&part.name)) {
            return Err(FieldError::new("image", "image must be a part with a picture, or several of them."));
        }
        Ok(())
    }

    /// What a JSON object with these fields gives.
    fn fields(&self) -> Result<Fields, FieldError> {
        let texts = self.parts.iter().filter(|part| TEXT_FIELDS.contains(&part.name.as_str()));
        let texts = texts.map(|part| Ok((part.name.as_str(), self.text(part)?)));
        Fields::from_form(texts.collect::<Result<Vec<_>, FieldError>>()?, &TEXT_FIELDS)
    }

    fn text(&self, part: &FormPart) -> Result<&str, FieldError> {
        let name = &part.name;
        if part.is_file {
            return Err(FieldError::new(name, format!("{name} must be a text, not a file.")));
        }
        str::from_utf8(&self.body[part.content.clone()])
            .map_err(|_| FieldError::new(name, format!("{name} must be a text in UTF-8.")))
    }

    /// The form with these texts in it, or without where there is none; every other part is as it was.
    pub(super) fn into_upstream(self, overrides: &[(&str, Option<&str>)]) -> UpstreamBody {
        let Self { content_type, body, delimiter, parts } = self;
        let mut texts = overrides.to_vec();
        let mut pieces = Vec::with_capacity(parts.len() + texts.len() + 1);
        for part in parts {
            let raw = body.slice(part.span);
            match texts.iter().position(|(name, _)| *name == part.name) {
                None => pieces.push(raw),
                Some(at) => match texts.remove(at) {
                    (_, Some(text)) if body[part.content] == *text.as_bytes() => pieces.push(raw),
                    (name, Some(text)) => pieces.push(text_part(&delimiter, name, text)),
                    (_, None) => {}
                },
            }
        }
        let added = texts.into_iter().filter_map(|(name, text)| Some((name, text?)));
        pieces.extend(added.map(|(name, text)| text_part(&delimiter, name, text)));
        pieces.push(format!("{delimiter}--\r\n").into());
        UpstreamBody { content_type, chunks: pieces }
    }
}

fn text_part(delimiter: &str, name: &str, text: &str) -> Bytes {
    format!("{delimiter}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n").into()
}

#[cfg(test)]
mod tests;
