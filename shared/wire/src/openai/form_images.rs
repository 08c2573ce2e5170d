//! Images of edits in forms. Both programs find them here, so that neither accepts what the other refuses.

use super::{
    fields::FieldError,
    inline_images::{MARKUP_MEMBER, REFERENCE_MEMBER, check_count, either_not_both, markup_not_supported},
};

/// A part of a form that holds an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FormImage {
    /// Its name without an index.
    pub param: &'static str,
    /// Its position among the form's parts.
    pub part: usize,
}

impl FormImage {
    /// Finds them in a form's parts, of which each is its name and its content: `image`, `image[]`, `image[0]` or the same in
    /// the plural, once or several times, in their order, or that of their indices; then those in `ref_images`. Empty parts
    /// count as absent, and so does an empty list of the latter. `markup` is an error.
    pub fn find<'a>(parts: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Result<Vec<Self>, FieldError> {
        let mut found = Vec::new();
        for (part, (name, content)) in parts.into_iter().enumerate() {
            if name == MARKUP_MEMBER && !content.is_empty() {
                return Err(markup_not_supported());
            }
            let Some((param, index)) = image_name(name) else { continue };
            let is_reference = param == REFERENCE_MEMBER;
            let is_empty_list = is_reference && matches!(content.trim_ascii(), b"" | b"[]" | b"null");
            if !content.is_empty() && !is_empty_list {
                found.push((is_reference, index, Self { param, part }));
            }
        }
        found.sort_by_key(|(is_reference, index, _)| (*is_reference, *index));
        let images: Vec<_> = found.into_iter().map(|(_, _, image)| image).collect();
        let has = |param: &str| images.iter().any(|image| image.param == param);
        match (has("image"), has("images")) {
            (true, true) => return Err(either_not_both()),
            (false, false) => {
                return Err(FieldError::new("image", "image is required: send the image to start from."));
            }
            _ => {}
        }
        check_count(images[0].param, images.len())?;
        Ok(images)
    }
}

/// The name without its index, and the index.
fn image_name(name: &str) -> Option<(&'static str, Option<u64>)> {
    let (name, index) = match name.split_once('[') {
        None => (name, ""),
        Some((name, index)) => (name, index.strip_suffix(']')?),
    };
    let param = ["image", "images", REFERENCE_MEMBER].into_iter().find(|param| *param == name)?;
    let is_index = index.bytes().all(|byte| byte.is_ascii_digit());
    is_index.then(|| (param, (!index.is_empty()).then(|| index.parse().unwrap_or(u64::MAX))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The images' names and positions.
    fn find(parts: &[(&str, &str)]) -> Result<Vec<(&'static str, usize)>, FieldError> {
        let images = FormImage::find(parts.iter().map(|(name, content)| (*name, content.as_bytes())))?;
        Ok(images.iter().map(|image| (image.param, image.part)).collect())
    }

    #[test]
    fn the_names_of_parts_with_images() {
        for name in ["image", "image[]", "image[0]", "image[12]", "images", "images[]", "images[1]"] {
            let param = if name.starts_with("images") { "images" } else { "image" };
            assert_eq!(find(&[("prompt", "p"), (name, "x")]), Ok(vec![(param, 1)]), "{name}");
        }
        for name in ["imagery", "image[x]", "image[0", "image0]", "Image", "imagess", "mask", "image_1", ""] {
            assert_eq!(find(&[(name, "x")]).unwrap_err().param.as_deref(), Some("image"), "{name}");
        }
        for name in ["ref_images", "ref_images[]", "ref_images[0]"] {
            assert_eq!(find(&[(name, "x"), ("image", "x")]), Ok(vec![("image", 1), ("ref_images", 0)]));
            assert_eq!(find(&[(name, "x")]).unwrap_err().param.as_deref(), Some("image"), "{name}");
        }
        assert_eq!(find(&[("ref_imagery", "x"), ("image", "x")]), Ok(vec![("image", 1)]));
    }

    #[test]
    fn their_order_is_that_of_the_parts_or_of_their_indices() {
        for (names, order) in [
            (["image", "image", "image"], [0, 1, 2]),
            (["image[]", "image", "image[]"], [0, 1, 2]),
            (["image[2]", "image[0]", "image[1]"], [1, 2, 0]),
            (["image[10]", "image[9]", "image"], [2, 1, 0]),
            (["ref_images", "image[1]", "image[0]"], [2, 1, 0]),
            (["image[99999999999999999999999]", "image[1]", "image[0]"], [2, 1, 0]),
        ] {
            let found = find(&names.map(|name| (name, "x"))).unwrap();
            assert_eq!(found.into_iter().map(|(_, part)| part).collect::<Vec<_>>(), order, "{names:?}");
        }
    }

    #[test]
    fn blank_parts_are_absent_and_one_too_many_is_refused() {
        for blank in ["", " \r\n", "[]", "null"] {
            let parts = [("image", ""), ("images", "x"), ("ref_images", blank)];
            assert_eq!(find(&parts), Ok(vec![("images", 1)]));
        }
        let both = find(&[("images[]", "x"), ("image", "x")]).unwrap_err();
        assert!(both.message.contains("not both"), "{both}");
        assert_eq!(find(&[("image", "x"), ("markup", "x")]), Err(markup_not_supported()));
        assert_eq!(find(&[("image", "x"), ("markup", "")]), Ok(vec![("image", 0)]));
        assert_eq!(find(&[("image[]", "x"); 16]).map(|images| images.len()), Ok(16));
        let mut parts = vec![("image[]", "x"); 16];
        parts.push(("ref_images", "x"));
        let error = find(&parts).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("image"));
        assert!(error.message.contains("at most 16 images, not 17"), "{error}");
    }
}
