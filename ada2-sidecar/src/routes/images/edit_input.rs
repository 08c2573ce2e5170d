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
    form_images::FormImage,
    images::ImageSize,
    inline_images::{EDIT_MEMBERS, InlineImages, invalid_base64},
    object::{JsonObject, bom_len},
};

use crate::{
    image_codec,
    images::{EditPlan, ImageRequest, Job, Limits, REQUEST_FIELDS, Task, choice::ModelChoice},
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
    /// In order; at least one.
    images: Vec<NamedImage>,
    mask: Option<Bytes>,
}

/// An image, and how errors name it.
#[derive(Debug)]
struct NamedImage {
    /// The field that it is in.
    param: &'static str,
    /// The field and, of several images, which one.
    label: String,
    bytes: Bytes,
}

impl NamedImage {
    fn new(param: &'static str, (nth, count): (usize, usize), bytes: &Bytes) -> Self {
        Self { param, label: image_label(param, nth, count), bytes: image_codec::strip_for_decoder(bytes) }
    }

    /// Reads the size from the header.
    fn measure(self) -> Result<MeasuredImage, FieldError> {
        let size = image_codec::upright_size(&self.label, &self.bytes)
            .map_err(|error| FieldError { param: Some(self.param.to_owned()), ..error })?;
        Ok(MeasuredImage { bytes: self.bytes, size })
    }
}

impl EditForm {
    pub(super) fn read(headers: &HeaderMap, body: &Bytes) -> Result<Self, FieldError> {
        // Like the gateway: whatever is not a form is read as JSON, because clients send no type, or text/plain.
        let Some(content_type) = headers.get(header::CONTENT_TYPE).filter(|kind| is_multipart(kind)) else {
            return Self::from_json(&body[bom_len(body)..]);
        };
        match MultipartForm::parse(content_type, body, MAX_PARTS) {
            Ok(form) => Self::from_form(&form, body),
            Err(FormError::NotMultipart | FormError::NoBoundary) => {
                Err(body_error("The request body must be multipart/form-data with a boundary, or JSON."))
            }
            Err(error) => Err(body_error(&format!("The form cannot be read: {error}."))),
        }
    }

    /// Parts left blank count as absent.
    fn from_form(form: &MultipartForm, body: &Bytes) -> Result<Self, FieldError> {
        let fields = text_fields(form, body)?;
        let parts = form.parts.iter().map(|part| (part.name.as_str(), &body[part.content.clone()]));
        let found = FormImage::find(parts)?;
        let images = found.iter().enumerate().map(|(nth, image)| {
            let content = body.slice(form.parts[image.part].content.clone());
            NamedImage::new(image.param, (nth, found.len()), &content)
        });
        let mut masks = form.parts.iter().filter(|part| part.name == "mask" && !part.content.is_empty());
        let mask = masks.next().map(|part| image_codec::strip_for_decoder(&body.slice(part.content.clone())));
        if masks.next().is_some() {
            return Err(FieldError::new("mask", "mask is given twice."));
        }
        Ok(Self { fields, images: images.collect(), mask })
    }

    /// `{"images": [{"image_url": "data:image/png;base64,…"}], "mask": {"image_url": …}, "prompt": …}`
    fn from_json(body: &[u8]) -> Result<Self, FieldError> {
        let object = JsonObject::parse(body, &[REQUEST_FIELDS, EDIT_MEMBERS].concat()).map_err(|error| {
            let error = FieldError::from(error);
            let hint =
                if error.param.is_none() { " A form (multipart/form-data) is accepted as well." } else { "" };
            FieldError { message: error.message + hint, ..error }
        })?;
        let InlineImages { images, mask } = InlineImages::parse(&object)?;
        let fields = Fields::from_object(&object, REQUEST_FIELDS)?;
        let decode = |label: &str, url: ImageUrl<'_>| {
            let content = url.decode().filter(|content| !content.is_empty());
            content.map(Bytes::from).ok_or_else(|| invalid_base64(label))
        };
        let count = images.len();
        let images = images.iter().enumerate().map(|(nth, image)| {
            let bytes = decode(&image_label(image.param, nth, count), image.url)
                .map_err(|error| FieldError { param: Some(image.param.to_owned()), ..error })?;
            Ok(NamedImage::new(image.param, (nth, count), &bytes))
        });
        let images = images.collect::<Result<_, FieldError>>()?;
        let mask = mask.map(|mask| decode("mask", mask)).transpose()?;
        Ok(Self { fields, images, mask: mask.as_ref().map(image_codec::strip_for_decoder) })
    }

    /// Reads the images' sizes from their headers.
    pub(super) fn measure(self) -> Result<EditImages, FieldError> {
        let Self { images, mask, .. } = self;
        let images = images.into_iter().map(NamedImage::measure).collect::<Result<Vec<_>, _>>()?;
        let mask_size = mask.as_ref().map(|mask| image_codec::upright_size("mask", mask)).transpose()?;
        let mut sizes = images.iter().map(|image| image.size).chain(mask_size);
        let is_large = sizes.any(image_codec::is_large);
        Ok(EditImages { images, mask, is_large })
    }
}

fn image_label(param: &str, nth: usize, count: usize) -> String {
    if count == 1 { param.to_owned() } else { format!("{param} (image {} of {count})", nth + 1) }
}

fn body_error(message: &str) -> FieldError {
    FieldError { param: None, message: message.to_owned() }
}

fn text_fields(form: &MultipartForm, body: &Bytes) -> Result<Fields, FieldError> {
    let mut texts = Vec::new();
    for part in &form.parts {
        let (name, content) = (part.name.as_str(), &body[part.content.clone()]);
        if part.file_name.is_some() || !REQUEST_FIELDS.contains(&name) {
            continue;
        }
        if content.len() > MAX_TEXT_BYTES {
            return Err(FieldError::new(name, format!("{name} must have at most {MAX_TEXT_BYTES} bytes.")));
        }
        let text =
            str::from_utf8(content).map_err(|_| FieldError::new(name, format!("{name} must be UTF-8.")))?;
        texts.push((name, text));
    }
    Fields::from_form(texts, REQUEST_FIELDS)
}

/// The uploaded files, still encoded.
#[derive(Debug)]
pub(super) struct EditImages {
    /// In order; at least one.
    images: Vec<MeasuredImage>,
    mask: Option<Bytes>,
    /// Whether decoding one of them takes much memory.
    is_large: bool,
}

#[derive(Debug)]
struct MeasuredImage {
    bytes: Bytes,
    /// Its size once it is upright.
    size: ImageSize,
}

/// What an edit starts from. The body counts against the budget until the images are decoded.
pub(super) struct EditInput {
    pub(super) images: EditImages,
    pub(super) body: BufferedBody,
}

impl EditInput {
    /// What the request asks for, as far as that is known before its images are decoded.
    pub(super) fn task(&self) -> Task {
        if self.images.mask.is_some() { Task::Inpaint } else { Task::Edit }
    }

    pub(super) fn plan(&self, request: &ImageRequest, choice: &ModelChoice, max_pixels: u64) -> EditPlan {
        let EditImages { images, mask, .. } = &self.images;
        let count = u8::try_from(images.len()).unwrap_or(u8::MAX);
        let kinds = (count, mask.is_some());
        EditPlan::new(request, choice, kinds, images[0].size, max_pixels, image_codec::output_size)
    }

    pub(super) fn into_decode_step(
        self,
        request: ImageRequest,
        choice: ModelChoice,
        plan: EditPlan,
        limits: Limits,
    ) -> DecodeStep {
        let Self { images: EditImages { images, mask, is_large }, body } = self;
        let run = Box::new(move |planned: Job, cancel: &CancellationToken| {
            let bytes = images.iter().map(|image| &image.bytes);
            let source = image_codec::prepare(bytes, mask.as_deref(), &plan, cancel);
            drop((images, body));
            planned.with_source(source?, &request, &choice, plan, limits)
        });
        DecodeStep { is_large, run }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

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
        let choice = ModelChoice { name: "n".into(), model, preset: None, loras: Arc::default() };
        let job = Job::warm_up(choice.clone());
        let uploaded = MeasuredImage { bytes: image.clone(), size };
        let images = EditImages { images: vec![uploaded], mask: None, is_large: false };
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

    fn contents(form: &EditForm) -> Vec<&[u8]> {
        form.images.iter().map(|image| &image.bytes[..]).collect()
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
                (contents(&upload), upload.mask.as_deref()),
                (vec![&b"PIXELS"[..]], Some(&b"MASK"[..])),
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
        assert_eq!(param(&[prompt, ("name=\"images\"", "X"), image]).as_deref(), Some("images"));
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
    fn several_images_are_read_in_order() {
        let part = |name| format!("name=\"{name}\"; filename=\"a\"");
        let (image, list, further) = (part("image"), part("image[]"), part("ref_images[]"));
        for (parts, expected) in [
            (vec![(&list, "A"), (&list, "B"), (&list, "C")], vec!["A", "B", "C"]),
            (vec![(&further, "C"), (&image, "A"), (&image, "B")], vec!["A", "B", "C"]),
            (vec![(&image, "A"), (&further, ""), (&further, "[]")], vec!["A"]),
        ] {
            let parts: Vec<_> = parts.into_iter().map(|(head, content)| (head.as_str(), content)).collect();
            let expected: Vec<_> = expected.iter().map(|content| content.as_bytes()).collect();
            assert_eq!(contents(&form(&parts).unwrap()), expected, "{parts:?}");
        }
        let body = r#"{"image":["data:;base64,QQ==",{"image_url":"data:;base64,Qg=="}],"ref_images":"data:;base64,Qw=="}"#;
        assert_eq!(contents(&read_as("application/json", body).unwrap()), [b"A", b"B", b"C"]);
        let many = vec![(list.as_str(), "X"); 17];
        assert!(form(&many).unwrap_err().message.contains("at most 16 images, not 17"));
        assert_eq!(contents(&form(&many[1..]).unwrap()).len(), 16);
    }

    #[test]
    fn an_error_says_which_image() {
        let size = ImageSize::new(64, 64);
        let png = ProceduralImage { label: "test", prompt: "a", seed: 1, size }.to_png();
        let png = format!("data:;base64,{}", base64_simd::STANDARD.encode_to_string(png));
        let measured = |rest: &str| {
            let body = format!(r#"{{"prompt":"a","image":["{png}",{rest}}}"#);
            read_as("application/json", &body).and_then(EditForm::measure).unwrap_err()
        };
        for (rest, param, text) in [
            (r#""data:;base64,QQ=="]"#, "image", "image (image 2 of 2) must be a PNG"),
            (r#""data:;base64,QQ==!"]"#, "image", "image (image 2 of 2) is a data: URL with invalid base64"),
            (
                &format!(r#""{png}"],"ref_images":["data:;base64,QQ=="]"#),
                "ref_images",
                "ref_images (image 3 of 3)",
            ),
        ] {
            let error = measured(rest);
            assert_eq!(error.param.as_deref(), Some(param));
            assert!(error.message.contains(text), "{error}");
        }
    }

    #[test]
    fn an_invalid_image_is_named() {
        let good = r#"{"image_url":"data:;base64,UElY"}"#;
        for (images, message) in [
            (format!("[{good},7,{good}]"), "nothing is fetched"),
            (format!("[7,{good}]"), "nothing is fetched"),
            ("[]".to_owned(), "is required"),
            (format!("[{good},7]"), "nothing is fetched"),
        ] {
            let error = read_as("application/json", &format!("{{\"images\":{images}}}")).unwrap_err();
            assert!(error.message.contains(message), "{images}: {error}");
        }
        let escaped = read_as("application/json", r#"{"image":"data:image\/png;base64,\/\/\/\/"}"#).unwrap();
        assert_eq!(contents(&escaped), [b"\xff\xff\xff"]);
    }

    #[test]
    fn blank_parts_count_as_absent() {
        let image = ("name=\"image\"; filename=\"a\"", "X");
        let empty = ("name=\"image\"; filename=\"\"", "");
        let mask = ("name=\"mask\"; filename=\"\"", "");
        let upload = form(&[empty, image, mask, ("name=\"seed\"", ""), ("name=\"n\"", "2.0")]).unwrap();
        assert_eq!((contents(&upload), upload.mask.as_ref()), (vec![&b"X"[..]], None));
        assert_eq!(upload.fields.seed("seed", 9), Ok(None));
        assert_eq!(upload.fields.integer("n", 1..=4), Ok(Some(2)));
    }

    #[test]
    fn json_is_read_under_any_content_type_and_with_a_byte_order_mark() {
        let body = r#"{"prompt":"a","foo":1,"foo":2,"image":"data:image/png;base64,UE\nlY"}"#;
        for kind in ["application/json", "Application/JSON; charset=utf-8", "text/json", "text/plain"] {
            for body in [body.to_owned(), format!("\u{feff}{body}")] {
                assert_eq!(contents(&read_as(kind, &body).unwrap()), [b"PIX"], "{kind} {body}");
            }
        }
        assert_eq!(contents(&EditForm::read(&HeaderMap::new(), &body.into()).unwrap()), [b"PIX"]);
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
        assert_eq!((contents(&upload), upload.mask.as_deref()), (vec![&b"PIX"[..]], Some(&b"M"[..])));
        for image in [r#"{"image_url":"http://10.0.0.1/x.png"}"#, r#"{"file_id":"f"}"#, "\"x\"", "{}"] {
            let error = read_as("application/json", &format!("{{\"images\":[{image}]}}")).unwrap_err();
            assert!(
                error.param.as_deref() == Some("images") && error.message.contains("nothing is fetched"),
                "{error}"
            );
        }
    }
}
