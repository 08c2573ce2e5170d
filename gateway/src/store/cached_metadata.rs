//! What is kept in memory of a record, so that lists are filtered and shown without the disk. Its texts are cut: a picture
//! takes at most some 4 KiB, whatever its prompt. Pure.

use memchr::memmem;
use serde_json::{Map, Value};
use service::text::prefix;

use super::metadata::ImageMetadata;

/// Characters of the prompt in a list.
const PROMPT_CHARS: usize = 300;
/// Bytes of the text that is searched. What is longer is not found.
const SEARCH_BYTES: usize = 2 << 10;
/// Bytes of a longer name are left out.
const NAME_BYTES: usize = 256;

/// The parts of a record that lists are filtered by and show.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct CachedMetadata {
    pub(crate) owners: Box<[String]>,
    pub(crate) request_ids: Box<[String]>,
    /// Model, prompt and negative prompt in lower case.
    search: Box<str>,
    prompt: Option<Box<str>>,
    model: Option<Box<str>>,
    size: Option<Box<str>>,
    seed: Option<u64>,
    steps: Option<u64>,
    duration_seconds: Option<f64>,
}

impl From<ImageMetadata> for CachedMetadata {
    fn from(metadata: ImageMetadata) -> Self {
        let ImageMetadata { owners, request_ids, further } = metadata;
        let text = |name: &str| further.get(name).and_then(Value::as_str);
        let name = |name: &str| text(name).filter(|text| text.len() <= NAME_BYTES).map(Box::from);
        let whole = |name: &str| further.get(name).and_then(Value::as_u64);
        let model: Option<Box<str>> = name("model");
        let searched = [model.as_deref(), text("prompt"), text("negative_prompt")];
        let searched: Vec<_> = searched.into_iter().flatten().map(searchable).collect();
        Self {
            search: cut(&searched.join("\n"), SEARCH_BYTES).into(),
            prompt: text("prompt").map(|prompt| prefix(prompt, PROMPT_CHARS).into()),
            model,
            size: name("size"),
            seed: whole("seed"),
            steps: whole("steps"),
            duration_seconds: further.get("duration_seconds").and_then(Value::as_f64),
            owners: owners.into(),
            request_ids: request_ids.into(),
        }
    }
}

impl CachedMetadata {
    /// What a list shows of it, as far as it is known.
    pub(crate) fn summary(&self) -> Map<String, Value> {
        let text = |text: &Option<Box<str>>| text.as_deref().map(Value::from);
        let entries = [
            ("prompt", text(&self.prompt)),
            ("model", text(&self.model)),
            ("size", text(&self.size)),
            ("seed", self.seed.map(Value::from)),
            ("steps", self.steps.map(Value::from)),
            ("duration_seconds", self.duration_seconds.map(Value::from)),
        ];
        entries.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }

    /// Whether this text is in its prompts or its model's name.
    pub(crate) fn contains(&self, text: &SearchText) -> bool {
        text.0.find(self.search.as_bytes()).is_some()
    }

    /// Whether it was made with this model, in any case.
    pub(crate) fn is_of_model(&self, model: &str) -> bool {
        self.model.as_deref().is_some_and(|own| own == model || lower_case(own).eq(lower_case(model)))
    }
}

/// A text to search for, in any case.
#[derive(Debug)]
pub(crate) struct SearchText(memmem::Finder<'static>);

impl SearchText {
    pub(crate) fn new(text: &str) -> Self {
        Self(memmem::Finder::new(&searchable(text)).into_owned())
    }
}

fn searchable(text: &str) -> String {
    text.to_lowercase()
}

/// Without allocation: it is called for every image.
fn lower_case(text: &str) -> impl Iterator<Item = char> {
    text.chars().flat_map(char::to_lowercase)
}

/// At most so many bytes, without half a character.
fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cached(record: &Value) -> CachedMetadata {
        serde_json::from_value::<ImageMetadata>(record.clone()).unwrap().into()
    }

    #[test]
    fn a_text_is_found_in_prompts_and_model_in_any_case() {
        let image =
            cached(&json!({"prompt": "A Red C\u{c4}T", "negative_prompt": "Blurry", "model": "SDXL Base",
            "scheduler": "euler"}));
        for (text, found) in [
            ("red", true),
            ("RED c\u{e4}t", true),
            ("sdxl", true),
            ("blur", true),
            ("euler", false),
            ("base a red", false),
            ("dog", false),
        ] {
            assert_eq!(image.contains(&SearchText::new(text)), found, "{text}");
        }
        for (model, same) in [("sdxl base", true), ("SDXL Base", true), ("sdxl", false), ("", false)] {
            assert_eq!(image.is_of_model(model), same, "{model}");
        }
        let unknown = cached(&json!({"owners": ["a"]}));
        assert!(!unknown.contains(&SearchText::new("a")) && !unknown.is_of_model(""));
    }

    #[test]
    fn a_list_shows_what_is_known_and_of_its_type() {
        let all = json!({"prompt": "p", "model": "m", "size": "8x8", "seed": 7, "steps": 9, "duration_seconds": 1.5});
        assert_eq!(Value::Object(cached(&all).summary()), all);
        let other = json!({"prompt": ["p"], "model": {}, "size": 8, "seed": "7", "steps": -1, "duration_seconds": "x"});
        assert_eq!(Value::Object(cached(&other).summary()), json!({}));
    }

    #[test]
    fn long_texts_take_little_memory() {
        let long = "\u{1F408}".repeat(32_000);
        let image = cached(&json!({"prompt": format!("{long}end"), "negative_prompt": long, "model": long,
            "size": "x".repeat(9_000)}));
        assert_eq!(image.summary()["prompt"].as_str().unwrap().chars().count(), PROMPT_CHARS);
        assert_eq!(image.summary().len(), 1);
        let bytes = image.search.len() + image.prompt.as_deref().map_or(0, str::len);
        assert!(bytes <= SEARCH_BYTES + 4 * PROMPT_CHARS, "{bytes}");
        assert!(image.contains(&SearchText::new("\u{1F408}")) && !image.contains(&SearchText::new("end")));
    }
}
