//! Images in JSON bodies: of edits, and of generations, which refuse them. Both programs parse them here, so that neither
//! accepts what the other refuses.

use serde_json::value::RawValue;

use super::{
    data_url::ImageUrl,
    fields::FieldError,
    object::{JsonObject, for_each_element},
};

/// The members of an edit's body that may hold images.
pub const EDIT_MEMBERS: &[&str] = &["image", "images", "image[]", "images[]", "ref_images", "mask"];
/// The members that may hold the image to edit: the first one that does counts; those in the others are further images.
const IMAGE_MEMBERS: &[&str] = &["image", "images", "image[]", "images[]"];
/// Further images; used by some clients.
const REFERENCE_MEMBER: &str = "ref_images";
/// The members with images of various clients that a generation must not have.
pub const GENERATION_MEMBERS: &[&str] = &["image", "images", "image[]", "mask", "ref_images"];
/// The name in OpenAI's own JSON form, for an error without any image.
const DEFAULT_MEMBER: &str = "images";
/// Images whose URLs are kept: as many as OpenAI accepts. Further ones are checked and counted, so that a body of tiny URLs
/// takes no more memory than its length.
const MAX_RETAINED: usize = 16;

/// The images of an edit.
#[derive(Debug)]
pub struct InlineImages<'a> {
    /// The member that they are in.
    pub param: &'static str,
    /// Another member that has images as well.
    pub other_param: Option<&'static str>,
    /// How many there are, at least one.
    pub count: usize,
    /// The first of them, up to a limit.
    pub images: Vec<ImageUrl<'a>>,
    /// The mask.
    pub mask: Option<ImageUrl<'a>>,
}

impl<'a> InlineImages<'a> {
    /// Extracts them from a body that was parsed for [`EDIT_MEMBERS`]: `image` or `images` (or with `[]`), each a URL, an object
    /// with one, or a list of these; `mask` likewise. Only `data:` URLs are accepted.
    pub fn parse(object: &JsonObject<'a>) -> Result<Self, FieldError> {
        if present_value(object, "image").is_some() && present_value(object, "images").is_some() {
            return Err(FieldError::new("images", "Send either image or images, not both."));
        }
        let mut members = IMAGE_MEMBERS.iter().filter_map(|name| Some((*name, present_value(object, name)?)));
        let (param, value) = members.next().ok_or_else(|| {
            let message = format!("{DEFAULT_MEMBER} is required: send the image to edit as a data: URL.");
            FieldError::new(DEFAULT_MEMBER, message)
        })?;
        let (mut count, images) = image_urls(param, value)?;
        let mut other_param = None;
        let references = present_value(object, REFERENCE_MEMBER).map(|value| (REFERENCE_MEMBER, value));
        for (name, value) in members.chain(references) {
            count += image_urls(name, value)?.0;
            other_param.get_or_insert(name);
        }
        let mask = match present_value(object, "mask").map(|mask| image_urls("mask", mask)).transpose()? {
            Some((1, masks)) => masks.first().copied(),
            Some(_) => return Err(FieldError::new("mask", "mask must be one image.")),
            None => None,
        };
        Ok(Self { param, other_param, count, images, mask })
    }
}

/// Refuses a generation with images, in a body that was parsed for [`GENERATION_MEMBERS`]: the client expects them to be
/// used.
pub fn reject_images(object: &JsonObject<'_>) -> Result<(), FieldError> {
    match GENERATION_MEMBERS.iter().find(|name| present_value(object, name).is_some()) {
        None => Ok(()),
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

/// Whether a part of a form holds an image to edit: `image`, `image[]`, `image[0]`, and the same in the plural.
pub fn is_image_part(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("image") else { return false };
    let index = rest.strip_prefix('s').unwrap_or(rest);
    let inner = index.strip_prefix('[').and_then(|index| index.strip_suffix(']'));
    index.is_empty() || inner.is_some_and(|inner| inner.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether a part of a form holds further images: `ref_images`, and the same with `[]`.
pub fn is_reference_part(name: &str) -> bool {
    name.strip_prefix(REFERENCE_MEMBER).is_some_and(|index| is_image_part(&format!("image{index}")))
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
                if retained.len() < MAX_RETAINED {
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
            let all = parsed.images.iter().chain(&parsed.mask);
            assert!(all.map(|url| url.decode()).all(|content| content.as_deref() == Some(b"hi")));
            (parsed.param, parsed.count, parsed.mask.is_some())
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
        assert_eq!(parse(&json!({"images": vec![DATA; 40]})), Ok(("images", 40, false)));
        for blank in [json!(null), json!(""), json!(" "), json!([])] {
            assert_eq!(
                parse(&json!({"image": blank, "images": DATA, "mask": blank})),
                Ok(("images", 1, false))
            );
            assert_eq!(parse(&json!({"image": blank})).unwrap_err().param.as_deref(), Some("images"));
        }
    }

    #[test]
    fn no_image_is_overlooked_in_any_member() {
        let parse_all = |body: Value| {
            let text = body.to_string();
            let object = JsonObject::parse(text.as_bytes(), EDIT_MEMBERS).unwrap();
            InlineImages::parse(&object).map(|parsed| (parsed.param, parsed.other_param, parsed.count))
        };
        for name in ["ref_images", "image[]", "images[]"] {
            assert_eq!(parse_all(json!({"image": DATA, name: [DATA, DATA]})), Ok(("image", Some(name), 3)));
            assert_eq!(parse_all(json!({"image": DATA, name: []})), Ok(("image", None, 1)));
            let remote = parse_all(json!({"image": DATA, name: "http://x/y.png"})).unwrap_err();
            assert_eq!(remote.param.as_deref(), Some(name));
        }
        assert_eq!(parse_all(json!({"image[]": DATA})), Ok(("image[]", None, 1)));
        assert_eq!(parse_all(json!({"ref_images": DATA})).unwrap_err().param.as_deref(), Some("images"));
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
        let both = parse(&json!({"image": DATA, "images": [DATA]})).unwrap_err();
        assert!(both.message.contains("not both"), "{both}");
        let masks = parse(&json!({"image": DATA, "mask": [DATA, DATA]})).unwrap_err();
        assert_eq!(masks, FieldError::new("mask", "mask must be one image."));
    }

    #[test]
    fn an_image_in_a_generation_is_refused_with_the_right_route() {
        let refused = |body: Value| {
            let text = body.to_string();
            reject_images(&JsonObject::parse(text.as_bytes(), GENERATION_MEMBERS).unwrap()).err()
        };
        for name in GENERATION_MEMBERS {
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

    #[test]
    fn the_form_parts_with_images() {
        for name in ["image", "image[]", "image[0]", "image[12]", "images", "images[]", "images[1]"] {
            assert!(is_image_part(name), "{name}");
        }
        for name in ["imagery", "image[x]", "image[0", "Image", "imagess", "mask", "image_1", ""] {
            assert!(!is_image_part(name), "{name}");
        }
        assert!(is_reference_part("ref_images") && is_reference_part("ref_images[0]"));
        assert!(!is_reference_part("ref_imagery") && !is_reference_part("image"));
    }
}
