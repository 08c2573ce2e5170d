//! What must hold of the images' records; see [`crate::fuzzing`].

use serde_json::Value;

use super::{
    cached_metadata::CachedMetadata,
    metadata::{ImageMetadata, Provenance},
};

/// A record: read, written and read again it is the same; settings from a backend never make it too long.
pub fn record(data: &[u8]) {
    let Ok(record) = serde_json::from_slice::<ImageMetadata>(data) else { return };
    let written = serde_json::to_vec(&record).expect("a record is JSON");
    let again: ImageMetadata = serde_json::from_slice(&written).expect("it was just written");
    let has_float = record.further.values().any(has_float);
    assert!(has_float || again == record, "{again:?}, not {record:?}");
    let provenance = Provenance {
        owner: Some("alice".to_owned()),
        request_id: Some("r1".to_owned()),
        settings: record.further.clone(),
    };
    let mut fresh = ImageMetadata::default();
    fresh.merge(&provenance);
    assert_eq!((fresh.owners.len(), fresh.request_ids.len()), (1, 1));
    assert!(serde_json::to_vec(&fresh).is_ok_and(|json| json.len() <= 64 << 10), "too long");
    let mut twice = fresh.clone();
    twice.merge(&provenance);
    assert_eq!((twice.owners.len(), twice.request_ids.len()), (1, 1));
    let summary = CachedMetadata::from(record).summary();
    assert!(serde_json::to_vec(&summary).is_ok_and(|json| json.len() <= 8 << 10), "{summary:?}");
}

/// Their last digit may change.
fn has_float(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(items) => items.iter().any(has_float),
        Value::Object(members) => members.values().any(has_float),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}
