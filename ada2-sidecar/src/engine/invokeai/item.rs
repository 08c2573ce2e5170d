//! An item of InvokeAI's queue.

use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Clone, Deserialize)]
pub(super) struct QueueItem {
    #[serde(default, rename = "item_id")]
    id: Option<u64>,
    #[serde(default, rename = "batch_id")]
    batch_id: Option<String>,
    /// `pending`, `in_progress`, `completed`, `failed`, `canceled`.
    pub(super) status: String,
    /// With `failed`.
    #[serde(default)]
    pub(super) error_type: Option<String>,
    /// With `failed`.
    #[serde(default)]
    pub(super) error_message: Option<String>,
    /// The graph's results.
    #[serde(default)]
    pub(super) session: Value,
}

impl QueueItem {
    /// Whether it is this item of this batch. Item ids start again with a new database.
    pub(super) fn matches(&self, item: u64, batch: &str) -> bool {
        self.id.is_none_or(|actual| actual == item)
            && self.batch_id.as_deref().is_none_or(|actual| actual == batch)
    }

    /// The image that this node of our graph made.
    pub(super) fn image_name_of(&self, node: &str) -> Option<&str> {
        let prepared = self.session.get("prepared_source_mapping")?.as_object()?;
        let (id, _) = prepared.iter().find(|(_, source)| source.as_str() == Some(node))?;
        self.session.pointer(&format!("/results/{id}/image/image_name"))?.as_str()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_item_of_another_batch_is_another_item() {
        let item = |value| serde_json::from_value::<QueueItem>(value).unwrap().matches(7, "b");
        assert!(item(json!({"status": "completed", "item_id": 7, "batch_id": "b"})));
        assert!(item(json!({"status": "completed"})));
        assert!(!item(json!({"status": "completed", "item_id": 7, "batch_id": "c"})));
        assert!(!item(json!({"status": "completed", "item_id": 8, "batch_id": "b"})));
    }

    #[test]
    fn the_image_is_found_by_its_node() {
        let item: QueueItem = serde_json::from_value(json!({"status": "completed", "session": {
            "prepared_source_mapping": {"p1": "noise", "p2": "l2i"},
            "results": {"p2": {"image": {"image_name": "x.png"}, "type": "image_output"}}}}))
        .unwrap();
        assert_eq!(item.image_name_of("l2i"), Some("x.png"));
        assert_eq!(item.image_name_of("noise"), None);
    }
}
