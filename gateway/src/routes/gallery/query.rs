//! The query of a list of images. Pure.

use percent_encoding::percent_decode_str;
use service::request_id;
use wire::openai::fields::FieldError;

use crate::store::{
    ImageName,
    cached_metadata::{CachedMetadata, SearchText},
};

const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 200;
/// Of `text` and `model`.
const MAX_TEXT_CHARS: usize = 500;

#[derive(Debug)]
pub(super) struct PageQuery {
    pub(super) limit: usize,
    pub(super) before: Option<ImageName>,
    pub(super) filter: ImageFilter,
}

/// Which images are asked for.
#[derive(Debug, Default)]
pub(super) struct ImageFilter {
    /// Only images that this request made.
    request_id: Option<String>,
    text: Option<SearchText>,
    model: Option<String>,
    /// Unix seconds, both included.
    from: Option<u64>,
    until: Option<u64>,
}

impl ImageFilter {
    /// Whether any image can fail to match.
    pub(super) fn is_set(&self) -> bool {
        let Self { request_id, text, model, from, until } = self;
        request_id.is_some() || text.is_some() || model.is_some() || from.is_some() || until.is_some()
    }

    pub(super) fn matches(&self, name: &ImageName, image: &CachedMetadata) -> bool {
        self.from.is_none_or(|from| name.unix() >= from)
            && self.until.is_none_or(|until| name.unix() <= until)
            && self.request_id.as_ref().is_none_or(|id| image.request_ids.contains(id))
            && self.model.as_ref().is_none_or(|model| image.is_of_model(model))
            && self.text.as_ref().is_none_or(|text| image.contains(text))
    }
}

impl PageQuery {
    pub(super) fn parse(query: &str) -> Result<Self, FieldError> {
        let mut page = Self { limit: DEFAULT_LIMIT, before: None, filter: ImageFilter::default() };
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            page.set(name, value)?;
        }
        Ok(page)
    }

    /// Only texts are decoded: the other values never need escapes. Empty texts and times count as absent, as a form sends
    /// them.
    fn set(&mut self, name: &str, value: &str) -> Result<(), FieldError> {
        let wrong = |expected: String| FieldError::new(name, format!("{name} must be {expected}."));
        let seconds = || {
            value.parse::<u64>().map_err(|_| wrong("a time in Unix seconds, such as 1736697234".to_owned()))
        };
        match name {
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
                self.limit = limit.ok_or_else(|| wrong(format!("between 1 and {MAX_LIMIT}")))?;
            }
            "before" => {
                let before = ImageName::parse(value);
                self.before = Some(before.ok_or_else(|| wrong("the name of a stored image".to_owned()))?);
            }
            "request_id" => {
                let id = Some(value).filter(|id| request_id::is_valid(id.as_bytes()));
                let id = id.ok_or_else(|| wrong("the X-Request-Id of a response".to_owned()))?;
                self.filter.request_id = Some(id.to_owned());
            }
            "text" | "model" => {
                let expected =
                    || wrong(format!("at most {MAX_TEXT_CHARS} characters of percent-encoded UTF-8"));
                let text = decode(value).ok_or_else(expected)?;
                let text = Some(text.trim()).filter(|text| !text.is_empty());
                if name == "text" {
                    self.filter.text = text.map(SearchText::new);
                } else {
                    self.filter.model = text.map(str::to_owned);
                }
            }
            "from" | "until" if value.is_empty() => {}
            "from" => self.filter.from = Some(seconds()?),
            "until" => self.filter.until = Some(seconds()?),
            _ => {}
        }
        Ok(())
    }
}

/// As pages encode a query, with `+` for a space.
fn decode(value: &str) -> Option<String> {
    let spaced = value.replace('+', " ");
    let text = percent_decode_str(&spaced).decode_utf8().ok()?;
    (text.chars().count() <= MAX_TEXT_CHARS).then(|| text.into_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::store::metadata::ImageMetadata;

    const NAME: &str = "1736697234_0123456789abcdef.png";

    fn parse(query: &str) -> PageQuery {
        PageQuery::parse(query).unwrap()
    }

    #[test]
    fn a_page_has_a_size_and_a_start() {
        let before = ImageName::parse(NAME);
        for (query, limit, before) in [
            ("", DEFAULT_LIMIT, None),
            ("limit=1&other=2", 1, None),
            (&*format!("before={NAME}&limit={MAX_LIMIT}"), MAX_LIMIT, before),
        ] {
            let page = parse(query);
            assert_eq!((page.limit, page.before, page.filter.is_set()), (limit, before, false), "{query}");
        }
        assert!(!parse("text=&model=%20&from=&until=").filter.is_set(), "as an empty form");
    }

    #[test]
    fn every_part_of_a_filter_must_match() {
        let image = |record: Value| -> CachedMetadata {
            serde_json::from_value::<ImageMetadata>(record).unwrap().into()
        };
        let cat =
            image(json!({"request_ids": ["r1", "r2"], "prompt": "A red <Cat> & more\nÄ", "model": "SDXL"}));
        let name = ImageName::parse(NAME).unwrap();
        for (query, matches) in [
            ("request_id=r2", true),
            ("request_id=r3", false),
            ("text=RED+%3Ccat%3E", true),
            ("text=red%20%3Ccat%3E%20%26", true),
            ("text=%C3%A4", true),
            ("text=dog", false),
            ("text=%25", false),
            ("model=sdxl", true),
            ("model=sd", false),
            ("from=1736697234&until=1736697234", true),
            ("from=1736697235", false),
            ("until=1736697233", false),
            ("text=cat&model=other", false),
            ("text=cat&model=sdxl&request_id=r1&from=1&until=9999999999", true),
        ] {
            let filter = parse(query).filter;
            assert!(filter.is_set());
            assert_eq!(filter.matches(&name, &cat), matches, "{query}");
        }
        let unknown = image(json!({}));
        assert!(parse("from=1").filter.matches(&name, &unknown));
        assert!(!parse("text=a").filter.matches(&name, &unknown));
    }

    #[test]
    fn a_wrong_parameter_is_named() {
        let long = format!("text={}", "x".repeat(MAX_TEXT_CHARS + 1));
        for (query, param) in [
            ("limit=0", "limit"),
            ("limit=201", "limit"),
            ("limit", "limit"),
            ("limit=ten", "limit"),
            ("before=", "before"),
            ("before=../.env", "before"),
            ("request_id=", "request_id"),
            ("request_id=a%20b", "request_id"),
            ("text=%ff", "text"),
            (&long, "text"),
            ("model=%C3", "model"),
            ("from=-1", "from"),
            ("until=tomorrow", "until"),
        ] {
            assert_eq!(PageQuery::parse(query).unwrap_err().param.as_deref(), Some(param), "{query}");
        }
    }
}
