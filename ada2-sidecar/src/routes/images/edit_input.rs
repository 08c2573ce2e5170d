//! The input of an edit: a form with files, or JSON with `data:` URLs. File names and content types are ignored, because
//! clients get them wrong; the order of parts does not matter.

use axum::http::{HeaderMap, header};
use bytes::Bytes;
use service::{
    body::BufferedBody,
    multipart::{FormError, MultipartForm, is_multipart},
};
use tokio_util::sync::CancellationToken;
use wire::openai::{
    data_url::ImageUrl,
    fields::{FieldError, Fields},
    images::ImageSize,
    inline_images::{EDIT_MEMBERS, InlineImages, invalid_base64, is_image_part, is_reference_part},
    object::{JsonObject, bom_len},
};

use crate::{
    image_codec,
    images::{EditPlan, ImageRequest, Job, Limits, REQUEST_FIELDS, choice::ModelChoice},
    jobs::DecodeStep,
};

/// Room for a prompt of 32,000 characters and more.
const MAX_TEXT_BYTES: usize = 256 << 10;
/// More parts than any client sends.
const MAX_PARTS: usize = 64;

/// The parsed body.
#[derive(Debug)]
pub(super) struct EditForm {
    pub(super) fields: Fields,
    image: Bytes,
    mask: Option<Bytes>,
}

impl EditForm {
    pub(super) fn read(headers: &HeaderMap, body: &Bytes) -> Result<Self, FieldError> {
        // Like the gateway: whatever is not a form is read as JSON, because clients send no type, or text/plain.
        let Some(content_type) = headers.get(header::CONTENT_TYPE).filter(|kind| is_multipart(kind)) else {
            return Self::from_json(&body[bom_len(body)..]);
        };
        match MultipartForm::parse(content_type, body, MAX_PARTS) {
            Ok(form) => Self::from_parts(FormParts::collect(&form, body)?),
            Err(FormError::NotMultipart | FormError::NoBoundary) => {
                Err(body_error("The request body must be multipart/form-data with a boundary, or JSON."))
            }
            Err(error) => Err(body_error(&format!("The form cannot be read: {error}."))),
        }
    }

    /// Parts left blank count as absent.
    fn from_parts(parts: FormParts<'_>) -> Result<Self, FieldError> {
        let FormParts { fields, mut images, mut masks, reference_part } = parts;
        images.retain(|image| !image.is_empty());
        masks.retain(|mask| !mask.is_empty());
        if let Some(name) = reference_part.filter(|_| !images.is_empty()) {
            return Err(extra_image(name, "image", images.len() + 1));
        }
        if images.len() > 1 {
            return Err(too_many_images("image", images.len()));
        }
        let image = images
            .pop()
            .ok_or_else(|| FieldError::new("image", "image is required: send the image to start from."))?;
        if masks.len() > 1 {
            return Err(FieldError::new("mask", "mask is given twice."));
        }
        Ok(Self {
            fields,
            image: image_codec::strip_for_decoder(&image),
            mask: masks.pop().as_ref().map(image_codec::strip_for_decoder),
        })
    }

    /// `{"images": [{"image_url": "data:image/png;base64,…"}], "mask": {"image_url": …}, "prompt": …}`
    fn from_json(body: &[u8]) -> Result<Self, FieldError> {
        let object = JsonObject::parse(body, &[REQUEST_FIELDS, EDIT_MEMBERS].concat()).map_err(|error| {
            let error = FieldError::from(error);
            let hint =
                if error.param.is_none() { " A form (multipart/form-data) is accepted as well." } else { "" };
            FieldError { message: error.message + hint, ..error }
        })?;
        let InlineImages { param, other_param, count, images, mask } = InlineImages::parse(&object)?;
        if let Some(name) = other_param {
            return Err(extra_image(name, param, count));
        }
        if count > 1 {
            return Err(too_many_images(param, count));
        }
        let fields = Fields::from_object(&object, REQUEST_FIELDS)?;
        let decode = |param: &str, url: ImageUrl<'_>| {
            let content = url.decode().filter(|content| !content.is_empty());
            content
                .map(|content| image_codec::strip_for_decoder(&content.into()))
                .ok_or_else(|| invalid_base64(param))
        };
        let image = images.first().copied().expect("there is at least one");
        let mask = mask.map(|mask| decode("mask", mask)).transpose()?;
        Ok(Self { fields, image: decode(param, image)?, mask })
    }

    /// Reads the images' sizes from their headers.
    pub(super) fn measure(self) -> Result<EditImages, FieldError> {
        let Self { image, mask, .. } = self;
        let size = image_codec::upright_size("image", &image)?;
        let mask_size = mask.as_ref().map(|mask| image_codec::upright_size("mask", mask)).transpose()?;
        let is_large = [Some(size), mask_size].into_iter().flatten().any(image_codec::is_large);
        Ok(EditImages { image, mask, size, is_large })
    }
}

fn too_many_images(param: &str, count: usize) -> FieldError {
    FieldError::new(
        param,
        format!("{param} must be one image, not {count}: these graphs take a single input image."),
    )
}

fn extra_image(param: &str, other_param: &str, count: usize) -> FieldError {
    let message = format!(
        "{param} is an extra image beside {other_param}, {count} in all: these graphs take a single input image. \
         Leave {param} out."
    );
    FieldError::new(param, message)
}

fn body_error(message: &str) -> FieldError {
    FieldError { param: None, message: message.to_owned() }
}

struct FormParts<'a> {
    fields: Fields,
    images: Vec<Bytes>,
    masks: Vec<Bytes>,
    /// The name of a part with an additional image.
    reference_part: Option<&'a str>,
}

impl<'a> FormParts<'a> {
    fn collect(form: &'a MultipartForm, body: &Bytes) -> Result<Self, FieldError> {
        let (mut texts, mut images, mut masks, mut reference_part) =
            (Vec::new(), Vec::new(), Vec::new(), None);
        for part in &form.parts {
            let (name, content) = (part.name.as_str(), part.content.clone());
            match name {
                "mask" => masks.push(body.slice(content)),
                _ if is_image_part(name) => images.push(body.slice(content)),
                _ if is_reference_part(name) => {
                    let is_blank = matches!(body[content].trim_ascii(), b"" | b"[]" | b"null");
                    reference_part = reference_part.or((!is_blank).then_some(name));
                }
                _ if part.is_file || !REQUEST_FIELDS.contains(&name) => {}
                _ if content.len() > MAX_TEXT_BYTES => {
                    let message = format!("{name} must have at most {MAX_TEXT_BYTES} bytes.");
                    return Err(FieldError::new(name, message));
                }
                _ => {
                    let text = str::from_utf8(&body[content])
                        .map_err(|_| FieldError::new(name, format!("{name} must be UTF-8.")))?;
                    texts.push((name, text));
                }
            }
        }
        Ok(Self { fields: Fields::from_form(texts, REQUEST_FIELDS)?, images, masks, reference_part })
    }
}

/// The uploaded files, still encoded.
pub(super) struct EditImages {
    image: Bytes,
    mask: Option<Bytes>,
    /// The image's size once it is upright.
    size: ImageSize,
    /// Whether decoding takes much memory.
    is_large: bool,
}

/// What an edit starts from. The body counts against the budget until the images are decoded.
pub(super) struct EditInput {
    pub(super) images: EditImages,
    pub(super) body: BufferedBody,
}

impl EditInput {
    pub(super) fn plan(&self, request: &ImageRequest, choice: &ModelChoice, max_pixels: u64) -> EditPlan {
        let original = self.images.size;
        let default_size = image_codec::output_size(original, max_pixels);
        let source_size = if original.pixels() > max_pixels { default_size } else { original };
        EditPlan::new(request, choice, self.images.mask.is_some(), source_size, default_size)
    }

    pub(super) fn into_decode_step(
        self,
        request: ImageRequest,
        choice: ModelChoice,
        plan: EditPlan,
        limits: Limits,
    ) -> DecodeStep {
        let Self { images: EditImages { image, mask, is_large, .. }, body } = self;
        let run = Box::new(move |planned: Job, cancel: &CancellationToken| {
            let source = image_codec::prepare(&image, mask.as_deref(), plan.size, cancel);
            drop(body);
            planned.with_source(source?, &request, &choice, plan, limits)
        });
        DecodeStep { is_large, run }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use picture::painter::ProceduralImage;
    use service::body::{BodyBudget, BudgetOwner};

    use super::*;
    use crate::images::models::{EngineModel, SD_1};

    #[tokio::test]
    async fn a_body_counts_until_its_image_is_decoded() {
        let budget = BodyBudget::new(1 << 20, 1 << 20);
        let size = ImageSize::new(64, 64);
        let image: Bytes = ProceduralImage { label: "test", prompt: "a", seed: 1, size }.to_png().into();
        let owner = BudgetOwner::Token("me".to_owned());
        let body = budget.read(&owner, &HeaderMap::new(), Body::from(image.clone())).await.unwrap();
        let fields = Fields::parse(br#"{"prompt":"a"}"#, REQUEST_FIELDS).unwrap();
        let limits = Limits { max_n: 1, max_pixels: 1 << 20, max_seed: 9, schedulers: &[] };
        let request = ImageRequest::read(&fields, limits).unwrap();
        let model = Some(EngineModel::in_process("k", "n", &SD_1));
        let choice = ModelChoice { name: "n".into(), model, preset: None };
        let job = Job::warm_up(choice.clone());
        let images = EditImages { image: image.clone(), mask: None, size, is_large: false };
        let input = EditInput { images, body };
        let plan = input.plan(&request, &choice, limits.max_pixels);
        let decode = input.into_decode_step(request, choice, plan, limits);
        assert_eq!(budget.held(), image.len());
        (decode.run)(job, &CancellationToken::new()).unwrap();
        assert_eq!(budget.held(), 0);
    }

    fn form(parts: &[(&str, &str)]) -> Result<EditForm, FieldError> {
        let part = |(head, body): &(&str, &str)| {
            format!("--xyz\r\nContent-Disposition: form-data; {head}\r\n\r\n{body}\r\n")
        };
        let text: String = parts.iter().map(part).chain(["--xyz--\r\n".to_owned()]).collect();
        read_as("multipart/form-data; boundary=xyz", &text)
    }

    fn read_as(content_type: &str, body: &str) -> Result<EditForm, FieldError> {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, content_type.parse().unwrap())]);
        EditForm::read(&headers, &body.to_owned().into())
    }

    #[test]
    fn part_names_are_accepted_as_clients_spell_them() {
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
    fn a_missing_or_repeated_part_is_named() {
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
    fn an_extra_image_is_never_ignored() {
        let image = ("name=\"image\"; filename=\"a\"", "X");
        for name in ["ref_images", "ref_images[]"] {
            let part = format!("name=\"{name}\"; filename=\"a\"");
            let error = form(&[image, (&part, "Y")]).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(name));
            assert!(error.message.contains("2 in all: these graphs take a single input image"), "{error}");
            assert!(form(&[image, (&part, "")]).is_ok() && form(&[image, (&part, "[]")]).is_ok());
        }
        let data = "data:;base64,UElY";
        for name in ["ref_images", "image[]"] {
            let body = format!(r#"{{"prompt":"a","image":"{data}","{name}":["{data}"]}}"#);
            let error = read_as("application/json", &body).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(name));
            assert!(error.message.contains("2 in all: these graphs take a single input image"), "{error}");
        }
    }

    #[test]
    fn an_invalid_image_is_reported_before_too_many() {
        let good = r#"{"image_url":"data:;base64,UElY"}"#;
        for (images, message) in [
            (format!("[{good},{good}]"), "must be one image"),
            (format!("[{good},7,{good}]"), "nothing is fetched"),
            (format!("[7,{good}]"), "nothing is fetched"),
            ("[]".to_owned(), "is required"),
            (format!("[{good},7]"), "nothing is fetched"),
        ] {
            let error = read_as("application/json", &format!("{{\"images\":{images}}}")).unwrap_err();
            assert!(error.message.contains(message), "{images}: {error}");
        }
        let escaped = read_as("application/json", r#"{"image":"data:image\/png;base64,\/\/\/\/"}"#).unwrap();
        assert_eq!(&escaped.image[..], b"\xff\xff\xff");
    }

    #[test]
    fn blank_parts_count_as_absent() {
        let image = ("name=\"image\"; filename=\"a\"", "X");
        let empty = ("name=\"image\"; filename=\"\"", "");
        let mask = ("name=\"mask\"; filename=\"\"", "");
        let upload = form(&[empty, image, mask, ("name=\"seed\"", ""), ("name=\"n\"", "2.0")]).unwrap();
        assert_eq!((&upload.image[..], upload.mask), (&b"X"[..], None));
        assert_eq!(upload.fields.seed("seed", 9), Ok(None));
        assert_eq!(upload.fields.integer("n", 1..=4), Ok(Some(2)));
    }

    #[test]
    fn json_is_read_under_any_content_type_and_with_a_byte_order_mark() {
        let body = r#"{"prompt":"a","foo":1,"foo":2,"image":"data:image/png;base64,UE\nlY"}"#;
        for kind in ["application/json", "Application/JSON; charset=utf-8", "text/json", "text/plain"] {
            for body in [body.to_owned(), format!("\u{feff}{body}")] {
                assert_eq!(&read_as(kind, &body).unwrap().image[..], b"PIX", "{kind} {body}");
            }
        }
        assert_eq!(&EditForm::read(&HeaderMap::new(), &body.into()).unwrap().image[..], b"PIX");
        for damaged in ["data:;base64,", "data:;base64,UElY!"] {
            let error = read_as("application/json", &format!(r#"{{"image":"{damaged}"}}"#)).unwrap_err();
            assert!(
                error.param.as_deref() == Some("image") && error.message.contains("invalid base64"),
                "{error}"
            );
        }
    }

    #[test]
    fn unknown_parts_may_repeat_and_boundaries_have_a_maximum_length() {
        let image = ("name=\"image\"; filename=\"a\"", "X");
        assert!(form(&[image, ("name=\"foo\"", "1"), ("name=\"foo\"", "2")]).is_ok());
        let long = format!("multipart/form-data; boundary={}", "b".repeat(71));
        assert!(read_as(&long, "").unwrap_err().message.contains("boundary"));
    }

    #[test]
    fn json_carries_its_images_and_nothing_is_fetched() {
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
