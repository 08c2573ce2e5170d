//! A `multipart/form-data` body: the gateway reads the fields that it decides on and passes every other part on byte for byte.

use axum::http::HeaderValue;
use bytes::Bytes;
use service::multipart::{self, FormPart};
use wire::openai::{
    fields::{FieldError, Fields},
    form_images::FormImage,
};

use super::{UpstreamBody, asked::AskedSettings, unreadable_body};

/// 16 images, a mask, and every field there is, with room to spare.
const MAX_PARTS: usize = 128;
/// Text fields that may occur only once: of two, the backend might use the other one.
const TEXT_FIELDS: [&str; 8] =
    ["model", "prompt", "n", "size", "response_format", "stream", "partial_images", "seed"];

#[derive(Debug)]
pub(super) struct MultipartForm {
    content_type: HeaderValue,
    body: Bytes,
    /// Precedes each part: two dashes and the boundary.
    delimiter: String,
    parts: Vec<FormPart>,
}

impl MultipartForm {
    /// Parses a form; returns it with the fields that the gateway decides on.
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
        self.images()?;
        Ok(())
    }

    fn images(&self) -> Result<Vec<FormImage>, FieldError> {
        let contents = self.parts.iter().map(|part| (part.name.as_str(), &self.body[part.content.clone()]));
        FormImage::find(contents)
    }

    /// What is recorded of it.
    pub(super) fn asked(&self) -> AskedSettings {
        let part = |name| self.parts.iter().rfind(|part| part.name == name);
        let images = self.images().unwrap_or_default();
        AskedSettings {
            references: images.iter().filter_map(|image| self.parts[image.part].file_name.clone()).collect(),
            has_mask: part("mask").is_some_and(|mask| !mask.content.is_empty()),
            ..AskedSettings::read(&|name| {
                Fields::from_form([(name, self.text(part(name)?).ok()?)], &[name]).ok()
            })
        }
    }

    /// The same fields as from a JSON object.
    fn fields(&self) -> Result<Fields, FieldError> {
        let texts = self.parts.iter().filter(|part| TEXT_FIELDS.contains(&part.name.as_str()));
        let texts = texts.map(|part| Ok((part.name.as_str(), self.text(part)?)));
        Fields::from_form(texts.collect::<Result<Vec<_>, FieldError>>()?, &TEXT_FIELDS)
    }

    fn text(&self, part: &FormPart) -> Result<&str, FieldError> {
        let name = &part.name;
        if part.file_name.is_some() {
            return Err(FieldError::new(name, format!("{name} must be text, not a file.")));
        }
        str::from_utf8(&self.body[part.content.clone()])
            .map_err(|_| FieldError::new(name, format!("{name} must be UTF-8 text.")))
    }

    /// Replaces these text parts, and removes those that are `None`; every other part stays as it is.
    pub(super) fn into_upstream(self, overrides: &[(&str, Option<&str>)]) -> UpstreamBody {
        let Self { content_type, body, delimiter, parts } = self;
        let mut texts = overrides.to_vec();
        let mut chunks = Vec::with_capacity(parts.len() + texts.len() + 1);
        for part in parts {
            let raw = body.slice(part.span);
            match texts.iter().position(|(name, _)| *name == part.name) {
                None => chunks.push(raw),
                Some(index) => match texts.remove(index) {
                    (_, Some(text)) if body[part.content] == *text.as_bytes() => chunks.push(raw),
                    (name, Some(text)) => chunks.push(text_part(&delimiter, name, text)),
                    (_, None) => {}
                },
            }
        }
        let added = texts.into_iter().filter_map(|(name, text)| Some((name, text?)));
        chunks.extend(added.map(|(name, text)| text_part(&delimiter, name, text)));
        chunks.push(format!("{delimiter}--\r\n").into());
        UpstreamBody { content_type, chunks }
    }
}

fn text_part(delimiter: &str, name: &str, text: &str) -> Bytes {
    format!("{delimiter}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n").into()
}

#[cfg(test)]
mod tests;
