//! The record of an image, in a file next to it: `{name}.json`. It is never served as an image, is deleted with the
//! image, and counts towards the store's size. An image without a record has no known owner. Pure.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use service::text::prefix;

/// The suffix of a record's file name, after the image's.
pub(super) const EXTENSION: &str = ".json";
/// The names of what the store itself knows: no setting may have them.
const STORE_MEMBERS: [&str; 9] =
    ["owners", "request_ids", "request_id", "name", "url", "thumbnail", "bytes", "created", "content_type"];
/// Of a whole record.
const MAX_BYTES: usize = 64 << 10;
/// What goes first if a record is larger: it is the least interesting.
const FIRST_TO_GO: &str = "requested";
/// What is cut only when nothing else is left to leave out.
const TEXTS: [&str; 2] = ["prompt", "negative_prompt"];

/// What is recorded about a new image.
#[derive(Debug, Clone, Default)]
pub(crate) struct Provenance {
    /// The name under which its creator's token owns images; none where no token is required.
    pub(crate) owner: Option<String>,
    /// The request that it answered.
    pub(crate) request_id: Option<String>,
    /// How it was made.
    pub(crate) settings: Map<String, Value>,
}

impl Provenance {
    pub(super) fn is_empty(&self) -> bool {
        self.owner.is_none() && self.request_id.is_none() && self.settings.is_empty()
    }
}

/// A record. Fields of later versions are preserved.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageMetadata {
    /// Several if identical images were made in the same second.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) owners: Vec<String>,
    /// The requests that it answered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) request_ids: Vec<String>,
    /// How it was made, and all other fields.
    #[serde(flatten)]
    pub(crate) further: Map<String, Value>,
}

impl ImageMetadata {
    /// Adds another owner and request of the same image. Of its settings, those that are known stay; where it gets one more owner,
    /// only those that both asked for: neither is to learn the other's.
    pub(super) fn merge(&mut self, provenance: &Provenance) {
        let owner = provenance.owner.as_ref();
        let is_shared = !self.owners.is_empty() && owner.is_some_and(|owner| !self.owners.contains(owner));
        let add = |all: &mut Vec<String>, one: &Option<String>| {
            all.extend(one.iter().filter(|one| !all.contains(*one)).cloned().collect::<Vec<_>>());
        };
        add(&mut self.owners, &provenance.owner);
        add(&mut self.request_ids, &provenance.request_id);
        if is_shared {
            self.further.retain(|name, value| provenance.settings.get(name) == Some(value));
            return;
        }
        for (name, value) in &provenance.settings {
            if !STORE_MEMBERS.contains(&name.as_str()) && !value.is_null() {
                self.further.entry(name).or_insert_with(|| value.clone());
            }
        }
        self.shrink();
    }

    /// Leaves out what makes the record too large: what was requested, then the largest setting; of prompts, the second half.
    fn shrink(&mut self) {
        while json_len(self) > MAX_BYTES {
            if self.further.remove(FIRST_TO_GO).is_some() {
                continue;
            }
            let Some(name) = self.largest() else { return };
            let removed = self.further.remove(&name);
            if let Some(text) = removed.as_ref().and_then(Value::as_str).filter(|_| is_text(&name)) {
                let half = prefix(text, text.chars().count() / 2);
                if !half.is_empty() {
                    self.further.insert(name, half.into());
                }
            }
        }
    }

    fn largest(&self) -> Option<String> {
        self.further.iter().max_by_key(|(_, value)| json_len(value)).map(|(name, _)| name.clone())
    }

    /// The record without these owners. Their request ids stay: a record does not say which request was whose.
    pub(super) fn without_owners(&self, is_owner: &dyn Fn(&str) -> bool) -> Self {
        let owners = self.owners.iter().filter(|owner| !is_owner(owner)).cloned().collect();
        Self { owners, ..self.clone() }
    }
}

fn is_text(name: &str) -> bool {
    TEXTS.contains(&name)
}

fn json_len(value: &impl Serialize) -> usize {
    serde_json::to_vec(value).map_or(0, |json| json.len())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with(settings: &Value) -> Provenance {
        let settings = settings.as_object().unwrap().clone();
        Provenance { owner: Some("alice".to_owned()), request_id: Some("r1".to_owned()), settings }
    }

    fn record(settings: &Value) -> Value {
        let mut metadata = ImageMetadata::default();
        metadata.merge(&with(settings));
        serde_json::to_value(metadata).unwrap()
    }

    #[test]
    fn a_setting_is_never_taken_for_what_the_store_knows() {
        let settings = json!({"owners": ["bob"], "request_ids": 7, "name": "x", "url": "http://evil.example", "bytes": 1,
            "created": 0, "content_type": "text/html", "thumbnail": "x", "request_id": "x", "steps": 9, "none": null});
        assert_eq!(record(&settings), json!({"owners": ["alice"], "request_ids": ["r1"], "steps": 9}));
    }

    #[test]
    fn the_settings_that_are_known_stay_and_others_are_added() {
        let earlier = r#"{"owners":["alice"],"steps":9,"later":{"a":1}}"#;
        let mut metadata: ImageMetadata = serde_json::from_str(earlier).unwrap();
        metadata.merge(&with(&json!({"steps": 7, "seed": 1})));
        let expected =
            json!({"owners": ["alice"], "request_ids": ["r1"], "steps": 9, "seed": 1, "later": {"a": 1}});
        assert_eq!(serde_json::to_value(&metadata).unwrap(), expected);
    }

    #[test]
    fn of_an_image_of_two_owners_neither_learns_what_only_the_other_asked_for() {
        let bobs =
            r#"{"owners":["bob"],"request_ids":["r0"],"prompt":"p","negative_prompt":"secret","steps":9}"#;
        for (settings, left) in [
            (json!({"prompt": "p", "negative_prompt": "bad", "seed": 1}), json!({"prompt": "p"})),
            (json!({}), json!({})),
        ] {
            let mut metadata: ImageMetadata = serde_json::from_str(bobs).unwrap();
            metadata.merge(&with(&settings));
            assert_eq!((metadata.owners.len(), metadata.request_ids.len()), (2, 2));
            assert_eq!(Value::Object(metadata.further), left);
        }
    }

    #[test]
    fn a_large_record_loses_what_was_requested_then_the_largest_of_the_rest() {
        let long = |length: usize| "x".repeat(length);
        for (settings, left) in [
            (json!({"prompt": long(60_000), "requested": {"a": 1}}), &["prompt", "requested"][..]),
            (
                json!({"prompt": long(60_000), "requested": {"a": long(9_000)}, "seed": 1}),
                &["prompt", "seed"],
            ),
            (
                json!({"prompt": long(60_000), "graph": long(9_000), "requested": 1, "seed": 1}),
                &["graph", "prompt", "seed"],
            ),
            (json!({"prompt": long(4_000), "graph": long(70_000), "seed": 1}), &["prompt", "seed"]),
            (json!({"prompt": long(60_000), "negative_prompt": long(9_000)}), &["negative_prompt", "prompt"]),
            (
                json!({"prompt": "\u{1}".repeat(32_000), "negative_prompt": "\u{1F408}".repeat(32_000)}),
                &TEXTS,
            ),
        ] {
            let record = record(&settings);
            assert!(json_len(&record) <= MAX_BYTES);
            let mut names: Vec<_> = record.as_object().unwrap().keys().map(String::as_str).collect();
            names.retain(|name| !STORE_MEMBERS.contains(name));
            let mut left = left.to_vec();
            left.sort_unstable();
            assert_eq!(names, left);
            let (whole, kept) = (&settings["prompt"], record["prompt"].as_str().unwrap());
            assert!(whole.as_str().unwrap().starts_with(kept) && kept.len() >= 4_000);
        }
    }
}
