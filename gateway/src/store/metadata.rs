//! The record of an image, in a file next to it: `{name}.json`. It is never served as an image, is deleted with the
//! image, and counts towards the store's size. An image without a record has no known owner. Pure.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The suffix of a record's file name, after the image's.
pub(super) const EXTENSION: &str = ".json";

/// What is recorded about a new image.
#[derive(Debug, Clone, Default)]
pub(crate) struct Provenance {
    /// The name under which its creator's token owns images; none where no token is required.
    pub(crate) owner: Option<String>,
    /// The request that it answered.
    pub(crate) request_id: Option<String>,
}

impl Provenance {
    pub(super) const fn is_empty(&self) -> bool {
        self.owner.is_none() && self.request_id.is_none()
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
    /// All other fields.
    #[serde(flatten)]
    pub(crate) further: Map<String, Value>,
}

impl ImageMetadata {
    /// Adds another owner and request of the same image.
    pub(super) fn merge(&mut self, provenance: &Provenance) {
        let add = |all: &mut Vec<String>, one: &Option<String>| {
            all.extend(one.iter().filter(|one| !all.contains(*one)).cloned().collect::<Vec<_>>());
        };
        add(&mut self.owners, &provenance.owner);
        add(&mut self.request_ids, &provenance.request_id);
    }

    /// The record without these owners. Their request ids stay: a record does not say which request was whose.
    pub(super) fn without_owners(&self, is_owner: &dyn Fn(&str) -> bool) -> Self {
        let owners = self.owners.iter().filter(|owner| !is_owner(owner)).cloned().collect();
        Self { owners, ..self.clone() }
    }
}
