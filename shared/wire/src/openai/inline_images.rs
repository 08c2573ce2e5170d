//! Images in JSON bodies: of edits, and of generations, which refuse them. Both programs parse them here, so that neither
//! accepts what the other refuses.

use serde_json::value::RawValue;

use super::{
    data_url::ImageUrl,
    fields::FieldError,
    object::{JsonObject, for_each_element},
};

/// The members of an edit's body that may hold images.
pub const EDIT_MEMBERS: &[&str] =
    &["image", "images", "image[]", "images[]", REFERENCE_MEMBER, "mask", MARKUP_MEMBER];
/// The members that may hold the images to edit: one of these pairs, in this order.
const IMAGE_MEMBERS: [[&str; 2]; 2] = [["image", "image[]"], ["images", "images[]"]];
/// Further images, after the others; used by some clients.
pub(super) const REFERENCE_MEMBER: &str = "ref_images";
/// The members with images of various clients that a generation must not have.
pub const GENERATION_MEMBERS: &[&str] =
    &["image", "images", "image[]", "mask", REFERENCE_MEMBER, MARKUP_MEMBER];
/// An image with marks that say what to change where, for which local models have no counterpart.
pub(super) const MARKUP_MEMBER: &str = "markup";
/// The name in OpenAI's own JSON form, for an error without any image.
const DEFAULT_MEMBER: &str = "images";
/// Images of one edit, as many as OpenAI accepts. Further ones are checked and counted, but their URLs are not kept, so that
/// a body of tiny URLs takes no more memory than its length.
const MAX_IMAGES: usize = 16;

/// The images of an edit.
#[derive(Debug)]
pub struct InlineImages<'a> {
    /// 1 to 16, in order.
    pub images: Vec<InlineImage<'a>>,
    /// The mask.
    pub mask: Option<ImageUrl<'a>>,
}

/// One of them.
#[derive(Debug, Clone, Copy)]
pub struct InlineImage<'a> {
    /// The member that it is in.
    pub param: &'static str,
    /// Its URL.
    pub url: ImageUrl<'a>,
}

impl<'a> InlineImages<'a> {
    /// Extracts them from a body that was parsed for [`EDIT_MEMBERS`]: `image` or `images` (or with `[]`), each a URL, an object
    /// with one, or a list of these; then those in `ref_images`; `mask` likewise. Only `data:` URLs are accepted.
    pub fn parse(object: &JsonObject<'a>) -> Result<Self, FieldError> {
        let present = |name: &'static str| Some((name, present_value(object, name)?));
        if present(MARKUP_MEMBER).is_some() {
            return Err(markup_not_supported());
        }
        let members = match IMAGE_MEMBERS.map(|pair| pair.iter().any(|name| present(name).is_some())) {
            [true, true] => return Err(either_not_both()),
            [true, false] => IMAGE_MEMBERS[0],
            [false, true] => IMAGE_MEMBERS[1],
            [false, false] => {
                let message = format!("{DEFAULT_MEMBER} is required: send the image to edit as a data: URL.");
                return Err(FieldError::new(DEFAULT_MEMBER, message));
            }
        };
        let (mut count, mut images) = (0, Vec::new());
        for (param, value) in members.into_iter().chain([REFERENCE_MEMBER]).filter_map(present) {
            let (len, urls) = image_urls(param, value)?;
            count += len;
            images.extend(urls.into_iter().map(|url| InlineImage { param, url }));
        }
        let first = images.first().map_or(DEFAULT_MEMBER, |image| image.param);
        check_count(first, count)?;
        let mask = match present_value(object, "mask").map(|mask| image_urls("mask", mask)).transpose()? {
            Some((1, masks)) => masks.first().copied(),
            Some(_) => return Err(FieldError::new("mask", "mask must be one image.")),
            None => None,
        };
        Ok(Self { images, mask })
    }
}

/// The error for images in both of these: other servers use one of them.
pub(super) fn either_not_both() -> FieldError {
    FieldError::new("images", "Send either image or images, not both.")
}

/// The error for marks: unused, they would be missing from the result.
pub(super) fn markup_not_supported() -> FieldError {
    let message = "markup is not supported: draw the marks into image itself and say in prompt what they mean, or send a \
                   mask that is transparent where to repaint.";
    FieldError::new(MARKUP_MEMBER, message)
}

/// Refuses more images than an edit may have.
pub(super) fn check_count(param: &str, count: usize) -> Result<(), FieldError> {
    if count <= MAX_IMAGES {
        return Ok(());
    }
    let message = format!("An edit takes at most {MAX_IMAGES} images, not {count}. Send fewer.");
    Err(FieldError::new(param, message))
}

/// Refuses a generation with images, in a body that was parsed for [`GENERATION_MEMBERS`]: the client expects them to be
/// used.
pub fn reject_images(object: &JsonObject<'_>) -> Result<(), FieldError> {
    match GENERATION_MEMBERS.iter().find(|name| present_value(object, name).is_some()) {
        None => Ok(()),
        Some(&MARKUP_MEMBER) => Err(markup_not_supported()),
        Some(name) => {
            let message = format!(
                "{name} is not supported here: to edit an image, use POST /v1/images/edits with image and, optionally, mask."
            );
            Err(FieldError::new(name, message))
        }
    }
}

/// The error for a form at the generations route, which expects JSON.
pub fn form_not_accepted() -> FieldError {
    let message = "The request body must be one JSON object. To send images as a form (multipart/form-data), use \
                   POST /v1/images/edits.";
    FieldError { param: None, message: message.to_owned() }
}

/// A member's value, unless it is null, blank or an empty list.
fn present_value<'a>(object: &JsonObject<'a>, name: &str) -> Option<&'a RawValue> {
    let value = object.get(name)?;
    let text = value.get();
    let within = |open: char, close: char| text.strip_prefix(open)?.strip_suffix(close);
    let inner = within('"', '"').or_else(|| within('[', ']'));
    if inner.is_some_and(|inner| inner.trim().is_empty()) { None } else { Some(value) }
}

fn image_urls<'a>(param: &str, value: &'a RawValue) -> Result<(usize, Vec<ImageUrl<'a>>), FieldError> {
    let (mut count, mut retained, mut invalid) = (0, Vec::new(), None);
    let mut take = |value| {
        match image_url(value) {
            Some(url) if url.is_data() => {
                count += 1;
                if retained.len() < MAX_IMAGES {
                    retained.push(url);
                }
            }
            _ => invalid = Some(value),
        }
        invalid.is_none()
    };
    if !for_each_element(value, &mut take) {
        take(value);
    }
    match invalid {
        None => Ok((count, retained)),
        Some(value) => Err(not_inline(param, value)),
    }
}

fn image_url(value: &RawValue) -> Option<ImageUrl<'_>> {
    ImageUrl::from_value(value).or_else(|| ImageUrl::from_object(value))
}

fn not_inline(param: &str, value: &RawValue) -> FieldError {
    let has_file =
        JsonObject::from_value(value, &["file_id"]).is_some_and(|object| object.get("file_id").is_some());
    let why = if has_file { " there are no uploaded files here for file_id, and" } else { "" };
    let message = format!(
        "{param} must be a data: URL in base64 (\"data:image/png;base64,…\"), or an object with one as image_url:{why} \
         nothing is fetched."
    );
    FieldError::new(param, message)
}

/// The error for an image with invalid base64.
pub fn invalid_base64(param: &str) -> FieldError {
    FieldError::new(param, format!("{param} is a data: URL with invalid base64."))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const DATA: &str = "data:image/png;base64,aGk=";

    fn parse(body: &Value) -> Result<(&'static str, usize, bool), FieldError> {
        let text = body.to_string();
        let object = JsonObject::parse(text.as_bytes(), EDIT_MEMBERS).unwrap();
        InlineImages::parse(&object).map(|parsed| {
            let all = parsed.images.iter().map(|image| image.url).chain(parsed.mask);
            assert!(all.map(ImageUrl::decode).all(|content| content.as_deref() == Some(b"hi")));
            (parsed.images[0].param, parsed.images.len(), parsed.mask.is_some())
        })
    }

    #[test]
    fn every_notation_of_an_image() {
        let object = json!({"image_url": DATA});
        for way in [json!(DATA), object.clone(), json!([DATA]), json!([object])] {
            for name in ["image", "images"] {
                assert_eq!(parse(&json!({name: way})), Ok((name, 1, false)), "{name} {way}");
                assert_eq!(parse(&json!({name: DATA, "mask": way})), Ok((name, 1, true)), "mask {way}");
            }
        }
        assert_eq!(parse(&json!({"image": [DATA, object, DATA]})), Ok(("image", 3, false)));
        assert_eq!(parse(&json!({"images": vec![DATA; 16]})), Ok(("images", 16, false)));
        for blank in [json!(null), json!(""), json!(" "), json!([])] {
            assert_eq!(
                parse(&json!({"image": blank, "images": DATA, "mask": blank})),
                Ok(("images", 1, false))
            );
            assert_eq!(parse(&json!({"image": blank})).unwrap_err().param.as_deref(), Some("images"));
        }
    }

    #[test]
    fn the_images_of_all_members_count_in_order() {
        let parse_all = |body: Value| {
            let text = body.to_string();
            let object = JsonObject::parse(text.as_bytes(), EDIT_MEMBERS).unwrap();
            let parsed = InlineImages::parse(&object)?;
            let content = |image: &InlineImage<'_>| String::from_utf8(image.url.decode().unwrap()).unwrap();
            Ok(parsed.images.iter().map(|image| (image.param, content(image))).collect::<Vec<_>>())
        };
        let address = |text: &str| {
            format!("data:image/png;base64,{}", base64_simd::STANDARD.encode_to_string(text.as_bytes()))
        };
        let [a, b, c] = ["a", "b", "c"].map(address);
        let found = |images: [(&'static str, &str); 3]| {
            Ok::<_, FieldError>(images.map(|(param, content)| (param, content.to_owned())).to_vec())
        };
        for name in ["ref_images", "image[]"] {
            let body = json!({name: [b, {"image_url": c}], "image": a});
            assert_eq!(parse_all(body), found([("image", "a"), (name, "b"), (name, "c")]), "{name}");
            assert_eq!(parse_all(json!({"image": a, name: []})).map(|images| images.len()), Ok(1));
            let remote = parse_all(json!({"image": a, name: "http://x/y.png"})).unwrap_err();
            assert_eq!(remote.param.as_deref(), Some(name));
        }
        let plural = json!({"ref_images": c, "images[]": b, "images": [a]});
        assert_eq!(parse_all(plural), found([("images", "a"), ("images[]", "b"), ("ref_images", "c")]));
        assert_eq!(parse_all(json!({"ref_images": a})).unwrap_err().param.as_deref(), Some("images"));
    }

    #[test]
    fn one_too_many_is_refused_with_the_number() {
        for (body, param, count) in [
            (json!({"images": vec![DATA; 17]}), "images", 17),
            (json!({"image": vec![DATA; 40]}), "image", 40),
            (json!({"image[]": vec![DATA; 16], "ref_images": DATA}), "image[]", 17),
        ] {
            let error = parse(&body).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param));
            assert!(error.message.contains(&format!("at most 16 images, not {count}")), "{error}");
        }
        assert_eq!(parse(&json!({"image": vec![DATA; 15], "ref_images": DATA})), Ok(("image", 16, false)));
        let invalid = [vec![json!(DATA); 40], vec![json!(7)]].concat();
        assert!(parse(&json!({"images": invalid})).unwrap_err().message.contains("nothing is fetched"));
    }

    #[test]
    fn other_urls_are_refused_and_not_fetched() {
        let file = json!({"file_id": "file-1"});
        for value in [
            json!("http://10.0.0.1/x.png"),
            json!("file:///etc/passwd"),
            json!("data:,hi"),
            json!("aGk="),
            json!({"image_url": "https://x.example/x.png"}),
            json!({"image_url": DATA, "file_id": "f"}),
            json!({}),
            json!(7),
            json!([DATA, 7]),
            json!([[DATA]]),
            json!([""]),
            file.clone(),
        ] {
            for (name, body) in [
                ("image", json!({"image": value})),
                ("images", json!({"images": value})),
                ("mask", json!({"image": DATA, "mask": value})),
            ] {
                let error = parse(&body).unwrap_err();
                assert_eq!(error.param.as_deref(), Some(name), "{body}");
                assert!(error.message.contains("nothing is fetched"), "{error}");
            }
        }
        assert!(parse(&json!({"images": [file]})).unwrap_err().message.contains("file_id"));
        for (one, other) in [("image", "images"), ("image", "images[]"), ("image[]", "images")] {
            let both = parse(&json!({one: DATA, other: [DATA]})).unwrap_err();
            assert!(both.message.contains("not both"), "{both}");
        }
        for value in [json!(DATA), json!({"image_url": DATA}), json!({"file_id": "f"}), json!([DATA])] {
            let error = parse(&json!({"image": DATA, "markup": value})).unwrap_err();
            assert_eq!(error, markup_not_supported(), "{value}");
        }
        assert_eq!(parse(&json!({"image": DATA, "markup": null})), Ok(("image", 1, false)));
        let masks = parse(&json!({"image": DATA, "mask": [DATA, DATA]})).unwrap_err();
        assert_eq!(masks, FieldError::new("mask", "mask must be one image."));
    }

    #[test]
    fn an_image_in_a_generation_is_refused_with_the_right_route() {
        let refused = |body: Value| {
            let text = body.to_string();
            reject_images(&JsonObject::parse(text.as_bytes(), GENERATION_MEMBERS).unwrap()).err()
        };
        assert_eq!(refused(json!({"prompt": "p", "markup": DATA})), Some(markup_not_supported()));
        for name in GENERATION_MEMBERS.iter().filter(|name| **name != MARKUP_MEMBER) {
            for value in [json!(DATA), json!([DATA]), json!({"image_url": DATA}), json!("http://x/y.png")] {
                let error = refused(json!({"prompt": "p", *name: value})).unwrap();
                assert_eq!(error.param.as_deref(), Some(*name));
                assert!(error.message.contains("/v1/images/edits"), "{error}");
            }
            for blank in [json!(null), json!(""), json!([])] {
                assert_eq!(refused(json!({"prompt": "p", *name: blank})), None, "{name} {blank}");
            }
        }
        assert_eq!(refused(json!({"prompt": "p", "init_image": DATA})), None);
    }
}
