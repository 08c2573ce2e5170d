//! What must hold of the queries of lists; see [`crate::fuzzing`].

use super::query::PageQuery;
use crate::{middleware::auth::is_page_path, store::ImageName};

/// Queries, names of images, paths of the page: what is accepted names nothing outside its folder.
pub fn list_query(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok(page) = PageQuery::parse(text) {
        assert!((1..=200).contains(&page.limit));
    }
    if let Some(name) = ImageName::parse(text) {
        assert_eq!(name.as_str(), text);
        assert!(text.len() < 40 && !text.contains(['/', '\\', '\0', '%']) && name.hash().len() == 16);
    }
    if is_page_path(text) {
        assert!(!text.starts_with(['/', '.']) && !text.contains("..") && !text.contains("/."));
    }
}
