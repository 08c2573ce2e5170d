//! What must hold of the images' records; see [`crate::fuzzing`].

use super::{
    cached_metadata::CachedMetadata,
    metadata::{ImageMetadata, Provenance},
};

/// A record: read, written and read again it is the same; settings from a backend never make it too long.
pub fn record(data: &[u8]) {
    let Ok(record) = serde_json::from_slice::<ImageMetadata>(data) else { return };
    let written = serde_json::to_vec(&record).expect("a record is JSON");
    let again: ImageMetadata = serde_json::from_slice(&written).expect("it was just written");
    assert_eq!(again, record);
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
