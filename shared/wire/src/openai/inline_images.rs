//! The images that come in the JSON body of an edit, and those that come where none are taken. Both programs read them
//! here, so that neither takes what the other refuses.

use serde_json::value::RawValue;

use super::{
    data_url::ImageUrl,
    fields::FieldError,
    object::{JsonObject, for_each_element},
};

/// The members of an edit's body that hold images.
pub const EDIT_MEMBERS: &[&str] = &["image", "images", "image[]", "images[]", "ref_images", "mask"];
/// Those of them that may hold the image to edit; the first that does is meant, and what is in another is one more.
const IMAGE_MEMBERS: &[&str] = &["image", "images", "image[]", "images[]"];
/// Further images, with some clients.
const REFERENCE_MEMBER: &str = "ref_images";
/// The members that hold images with one client or another, and that a request for a new picture cannot have.
pub const GENERATION_MEMBERS: &[&str] = &["image", "images", "image[]", "mask", "ref_images"];
/// What stands where neither `image` nor `images` does: the name in OpenAI's own JSON form.
const DEFAULT_MEMBER: &str = "images";
/// Images whose addresses are kept: as many as OpenAI takes. Others are checked and counted, so that a body of tiny
/// addresses takes no more memory than its length.
const MAX_RETAINED: usize = 16;

/// The images of an edit.
#[derive(Debug)]
pub struct InlineImages<'a> {
    /// The member that they came in.
    pub param: &'static str,
    /// Another member that holds images as well.
    pub other_param: Option<&'static str>,
    /// How many there are in all: at least one.
    pub count: usize,
    /// The first of them.
    pub images: Vec<ImageUrl<'a>>,
    /// Where to repaint.
    pub mask: Option<ImageUrl<'a>>,
}

impl<'a> InlineImages<'a> {
    /// Reads them from a body that was read for [`EDIT_MEMBERS`]: `image` or `images` (or with `[]`), each an address, an object with
    /// one, or a list of these; `mask` likewise. An address must hold its content.
    pub fn parse(object: &JsonObject<'a>) -> Result<Self, FieldError> {
        if present_value(object, "image").is_some() && present_value(object, "images").is_some() {
            return Err(FieldError::new("images", "Send either image or images, not both."));
        }
        let mut members = IMAGE_MEMBERS.iter().filter_map(|name| Some((*name, present_value(object, name)?)));
        let (param, value) = members.next().ok_or_else(|| {
            let message = format!("{DEFAULT_MEMBER} is required: send the image to edit as a data: address.");
            FieldError::new(DEFAULT_MEMBER, message)
        })?;
        let (mut count, images) = image_urls(param, value)?;
        let mut beside = None;
        let references = present_value(object, REFERENCE_MEMBER).map(|value| (REFERENCE_MEMBER, value));
        for (name, value) in members.chain(references) {
            count += image_urls(name, value)?.0;
            beside.get_or_insert(name);
        }
        let mask = match present_value(object, "mask").map(|mask| image_urls("mask", mask)).transpose()? {
            Some((1, masks)) => masks.first().copied(),
            Some(_) => return Err(FieldError::new("mask", "mask must be one image.")),
            None => None,
        };
        Ok(Self { param, other_param: beside, count, images, mask })
    }
}

/// Refuses a request for a new picture that brings others along, in a body that was read for [`GENERATION_MEMBERS`]:
/// whoever sent them expects them to be used.
pub fn reject_images(object: &JsonObject<'_>) -> Result<(), FieldError> {
    match GENERATION_MEMBERS.iter().find(|name| present_value(object, name).is_some()) {
        None => Ok(()),
        Some(name) => {
            let message = format!(
                "{name} is not taken here: images are edited with POST /v1/images/edits, which takes image and mask."
            );
            Err(FieldError::new(name, message))
        }
    }
}

/// What is said of a form at the route for new pictures, which takes JSON.
pub fn form_not_accepted() -> FieldError {
    let message = "The request body must be one JSON object. A form (multipart/form-data) is taken by \
                   POST /v1/images/edits, which edits the images in it.";
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
            Some(address) if address.is_data() => {
                count += 1;
                if retained.len() < MAX_RETAINED {
                    retained.push(address);
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
    let why = if has_file { " no files are kept here for file_id to name, and" } else { "" };
    let message = format!(
        "{param} must come in the request itself, as a data: address in base64 (\"data:image/png;base64,…\") or an object \
         with one as image_url:{why} nothing is fetched."
    );
    FieldError::new(param, message)
}

/// What is said of an image whose base64 cannot be decoded.
pub fn invalid_base64(param: &str) -> FieldError {
    FieldError::new(param, format!("{param} is a data: address whose base64 is damaged."))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const DATA: &str = "data:image/png;base64,aGk=";

    fn read(body: &Value) -> Result<(&'static str, usize, bool), FieldError> {
        let text = body.to_string();
        let object = JsonObject::parse(text.as_bytes(), EDIT_MEMBERS).unwrap();
        InlineImages::parse(&object).map(|read| {
            let all = read.images.iter().chain(&read.mask);
            assert!(all.map(|address| address.decode()).all(|content| content.as_deref() == Some(b"hi")));
            (read.param, read.count, read.mask.is_some())
        })
    }

    #[test]
    fn every_way_to_write_an_image() {
        let object = json!({"image_url": DATA});
        for way in [json!(DATA), object.clone(), json!([DATA]), json!([object])] {
            for name in ["image", "images"] {
                assert_eq!(read(&json!({name: way})), Ok((name, 1, false)), "{name} {way}");
                assert_eq!(read(&json!({name: DATA, "mask": way})), Ok((name, 1, true)), "mask {way}");
            }
        }
        assert_eq!(read(&json!({"image": [DATA, object, DATA]})), Ok(("image", 3, false)));
        assert_eq!(read(&json!({"images": vec![DATA; 40]})), Ok(("images", 40, false)));
        for blank in [json!(null), json!(""), json!(" "), json!([])] {
            assert_eq!(
                read(&json!({"image": blank, "images": DATA, "mask": blank})),
                Ok(("images", 1, false))
            );
            assert_eq!(read(&json!({"image": blank})).unwrap_err().param.as_deref(), Some("images"));
        }
    }

    #[test]
    fn no_image_is_overlooked_whatever_member_it_came_in() {
        let beside = |body: Value| {
            let text = body.to_string();
            let object = JsonObject::parse(text.as_bytes(), EDIT_MEMBERS).unwrap();
            InlineImages::parse(&object).map(|read| (read.param, read.other_param, read.count))
        };
        for name in ["ref_images", "image[]", "images[]"] {
            assert_eq!(beside(json!({"image": DATA, name: [DATA, DATA]})), Ok(("image", Some(name), 3)));
            assert_eq!(beside(json!({"image": DATA, name: []})), Ok(("image", None, 1)));
            let elsewhere = beside(json!({"image": DATA, name: "http://x/y.png"})).unwrap_err();
            assert_eq!(elsewhere.param.as_deref(), Some(name));
        }
        assert_eq!(beside(json!({"image[]": DATA})), Ok(("image[]", None, 1)));
        assert_eq!(beside(json!({"ref_images": DATA})).unwrap_err().param.as_deref(), Some("images"));
    }

    #[test]
    fn what_does_not_come_in_the_request_is_named_and_not_fetched() {
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
                let error = read(&body).unwrap_err();
                assert_eq!(error.param.as_deref(), Some(name), "{body}");
                assert!(error.message.contains("nothing is fetched"), "{error}");
            }
        }
        assert!(read(&json!({"images": [file]})).unwrap_err().message.contains("file_id"));
        let both = read(&json!({"image": DATA, "images": [DATA]})).unwrap_err();
        assert!(both.message.contains("not both"), "{both}");
        let masks = read(&json!({"image": DATA, "mask": [DATA, DATA]})).unwrap_err();
        assert_eq!(masks, FieldError::new("mask", "mask must be one image."));
    }

    #[test]
    fn an_image_at_the_route_for_new_pictures_is_refused_with_the_right_route() {
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
    fn the_parts_that_hold_images() {
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
