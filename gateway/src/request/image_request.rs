//! What a request asks for: read once from its fields, and checked for what the gateway decides on. Everything else
//! in the body is the backend's business and passes untouched (see `payload`).

use wire::openai::{
    fields::{FieldError, Fields},
    images::ImageSize,
};

use crate::config::ResponseFormat;

/// The fields that are read.
pub(crate) const FIELDS: &[&str] = &["prompt", "stream", "n", "response_format", "model", "size", "seed"];
/// Most pictures of one request.
const MAX_IMAGES: u64 = 10;

/// What is done for a picture request; both are the capability `images`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ImageTask {
    /// A picture is made from words.
    Generation,
    /// Pictures are changed.
    Edit,
}

impl ImageTask {
    /// Its path behind `/v1`, with us and with the backend.
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Generation => "images/generations",
            Self::Edit => "images/edits",
        }
    }

    /// The name of the last event of its stream.
    pub(crate) const fn completed_event(self) -> &'static str {
        match self {
            Self::Generation => "image_generation.completed",
            Self::Edit => "image_edit.completed",
        }
    }
}

/// A picture request.
#[derive(Debug)]
pub(crate) struct ImageRequest {
    /// What is to be done.
    pub task: ImageTask,
    /// The class or legacy name in `X-Backend`.
    pub backend: Option<String>,
    /// The model by its name in the request.
    pub model: Option<String>,
    /// The prompt.
    pub prompt: String,
    /// How many pictures.
    pub count: u64,
    /// Their size; none leaves it to the backend.
    pub size: Option<ImageSize>,
    /// The seed, where the request has one.
    pub seed: Option<u64>,
    /// How they are wanted.
    pub response_format: Option<ResponseFormat>,
    /// Whether events are wanted as they happen.
    pub stream: bool,
}

/// Why a request's body is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// A field is missing, of the wrong type or out of range.
    Field(FieldError),
    /// `size` cannot be read or is too large.
    Size(String),
}

impl From<FieldError> for Malformed {
    fn from(error: FieldError) -> Self {
        Self::Field(error)
    }
}

impl ImageRequest {
    /// Reads the fields of a picture request.
    pub(crate) fn from_fields(
        task: ImageTask,
        fields: &Fields,
        backend: Option<String>,
        max_pixels: u64,
    ) -> Result<Self, Malformed> {
        let prompt = fields
            .text("prompt")?
            .ok_or_else(|| FieldError::new("prompt", "prompt is required: say what the picture shows."))?;
        let stream = fields.boolean("stream")?.unwrap_or(false);
        let count = fields.integer("n", 1..=MAX_IMAGES)?.unwrap_or(1);
        if stream && count > 1 {
            return Err(FieldError::new("n", "n must be 1 with stream.").into());
        }
        let delivery = match fields.text("response_format")? {
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
            // Its range is the backend's business.
            seed: fields.seed("seed", u64::MAX).ok().flatten(),
            response_format: delivery,
            stream,
        })
    }
}

fn size(fields: &Fields, max_pixels: u64) -> Result<Option<ImageSize>, Malformed> {
    let wrong = || {
        Malformed::Size("size must be \"auto\" or \"WIDTHxHEIGHT\", for example \"1024x1024\".".to_owned())
    };
    let text = match fields.value("size") {
        None => return Ok(None),
        Some(value) => value.as_str().ok_or_else(wrong)?,
    };
    if text == "auto" {
        return Ok(None);
    }
    let size = ImageSize::parse(text).ok_or_else(wrong)?;
    if size.pixels() > max_pixels {
        let pixels = size.pixels();
        return Err(Malformed::Size(format!(
            "size {size} has {pixels} pixels; at most {max_pixels} are allowed."
        )));
    }
    Ok(Some(size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(body: &str) -> Result<ImageRequest, Malformed> {
        ImageRequest::from_fields(
            ImageTask::Generation,
            &Fields::parse(body.as_bytes(), FIELDS)?,
            None,
            2_000_000,
        )
    }

    #[test]
    fn the_least_request_asks_for_one_picture() {
        let demand = of(r#"{"prompt":"a cat","model":null,"n":null,"stream":false}"#).unwrap();
        assert_eq!((demand.count, demand.size, demand.model, demand.response_format), (1, None, None, None));
    }

    #[test]
    fn what_is_decided_on_is_read() {
        let demand = of(
            r#"{"prompt":"p","model":"sd","n":10,"size":"512x768","response_format":"b64_json","seed":7,"steps":9}"#,
        )
        .unwrap();
        assert_eq!((demand.count, demand.size), (10, Some(ImageSize::new(512, 768))));
        assert_eq!(
            (demand.model.as_deref(), demand.response_format),
            (Some("sd"), Some(ResponseFormat::Base64))
        );
        assert_eq!(demand.seed, Some(7));
        let floats = of(r#"{"prompt":"p","n":2.0,"seed":18446744073709551615}"#).unwrap();
        assert_eq!((floats.count, floats.seed), (2, Some(u64::MAX)));
        let blank =
            of(r#"{"prompt":"p","model":"","n":"","size":"","seed":"","response_format":"","stream":""}"#);
        let blank = blank.unwrap();
        assert_eq!((blank.count, blank.size, blank.model, blank.response_format), (1, None, None, None));
        assert!(!demand.stream && of(r#"{"prompt":"p","stream":true}"#).unwrap().stream);
    }

    #[test]
    fn a_refusal_names_the_field() {
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
            match of(body) {
                Err(Malformed::Field(error)) => assert_eq!(error.param.as_deref(), param, "{body}"),
                other => panic!("{body}: {other:?}"),
            }
        }
    }

    #[test]
    fn sizes_are_auto_or_within_the_pixel_bound() {
        assert_eq!(of(r#"{"prompt":"p","size":"auto"}"#).unwrap().size, None);
        assert!(of(r#"{"prompt":"p","size":"2000x1000"}"#).is_ok());
        for size in ["\"2000x1001\"", "\"big\"", "\"0x8\"", "512"] {
            let body = format!(r#"{{"prompt":"p","size":{size}}}"#);
            assert!(matches!(of(&body), Err(Malformed::Size(_))), "{body}");
        }
    }
}
