//! What a backend says of an image besides its bytes, in a response or in an event. Pure.

use serde_json::{Map, Value};
use wire::openai::{fields::scalar, object::JsonObject};

/// The fields of an entry that are passed on besides its image.
const METADATA_FIELDS: [&str; 2] = ["seed", "revised_prompt"];
/// How an image was made: an object, which is passed on as well.
const SETTINGS_FIELD: &str = "settings";
/// What a response says of all its images.
pub(super) const COMMON_FIELDS: &[&str] = &["size", "ignored"];
/// What a backend says of an image besides its bytes: in an event all of it is in one object.
pub(super) const IMAGE_FIELDS: &[&str] =
    &[METADATA_FIELDS[0], METADATA_FIELDS[1], SETTINGS_FIELD, COMMON_FIELDS[0], COMMON_FIELDS[1]];
/// Larger ones are left out.
pub(super) const MAX_SETTINGS_BYTES: usize = 16 << 10;
/// Larger ones are not recorded.
const MAX_COMMON_BYTES: usize = 4 << 10;

/// What an entry says of its image, parsed for [`IMAGE_FIELDS`].
pub(super) fn metadata(entry: &JsonObject<'_>) -> Map<String, Value> {
    let metadata = METADATA_FIELDS
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), scalar(entry.get(name)?.get()).ok()?)));
    let settings = settings(entry).map(|settings| (SETTINGS_FIELD.to_owned(), settings));
    metadata.chain(settings).collect()
}

/// What a response says of all its images, parsed for [`COMMON_FIELDS`].
pub(super) fn common(object: &JsonObject<'_>) -> Map<String, Value> {
    let short = |name: &&str| object.get(name).filter(|value| value.get().len() <= MAX_COMMON_BYTES);
    let read = |name: &&str| Some(((*name).to_owned(), serde_json::from_str(short(name)?.get()).ok()?));
    COMMON_FIELDS.iter().filter_map(read).collect()
}

/// What an event says of its image, parsed for [`IMAGE_FIELDS`].
pub(super) fn event_metadata(event: &JsonObject<'_>) -> Map<String, Value> {
    let mut all = metadata(event);
    all.extend(common(event));
    all
}

fn settings(entry: &JsonObject<'_>) -> Option<Value> {
    let text = entry.get(SETTINGS_FIELD)?.get();
    if text.len() > MAX_SETTINGS_BYTES {
        return None;
    }
    serde_json::from_str(text).ok().map(Value::Object)
}
