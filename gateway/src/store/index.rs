//! What is in the store, so that nobody has to walk its folder for it. Pure.

use std::{collections::BTreeMap, sync::Arc};

use super::{ImageName, metadata::ImageMetadata};

/// Every picture and what is known of it, oldest first.
#[derive(Debug, Default)]
pub(super) struct ImageIndex {
    images: BTreeMap<ImageName, IndexEntry>,
    bytes: u64,
}

/// A picture. What its record says is read only once somebody wants to know.
#[derive(Debug, Clone, Default)]
pub(super) struct IndexEntry {
    /// Its size.
    pub(super) image_size: u64,
    /// The size of its record; 0 if it has none.
    pub(super) metadata_size: u64,
    /// What that says, if it was read.
    metadata: Option<Arc<CachedMetadata>>,
}

/// What lists are made by.
#[derive(Debug, Default)]
pub(crate) struct CachedMetadata {
    /// Who made it.
    pub(crate) owners: Box<[String]>,
    /// The requests that it answered.
    pub(crate) request_ids: Box<[String]>,
}

impl CachedMetadata {
    /// What a record says of it.
    pub(super) fn from_metadata(record: ImageMetadata) -> Self {
        Self { owners: record.owners.into(), request_ids: record.request_ids.into() }
    }
}

impl IndexEntry {
    /// As found in the folder.
    pub(super) fn new(bytes: u64, record: u64) -> Self {
        Self { image_size: bytes, metadata_size: record, metadata: None }
    }

    fn total_size(&self) -> u64 {
        self.image_size + self.metadata_size
    }
}

/// What is in the store, in two figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct StoreTotals {
    /// Pictures.
    pub(crate) images: usize,
    /// Their bytes together, and those of what is kept beside them.
    pub(crate) bytes: u64,
}

impl ImageIndex {
    pub(super) fn insert(&mut self, name: ImageName, entry: IndexEntry) {
        self.bytes += entry.total_size();
        self.bytes -= self.images.insert(name, entry).map_or(0, |before| before.total_size());
    }

    pub(super) fn remove(&mut self, name: &ImageName) {
        self.bytes -= self.images.remove(name).map_or(0, |before| before.total_size());
    }

    /// Notes what the record of a picture says, if the picture is still there.
    pub(super) fn set_metadata(&mut self, name: &ImageName, bytes: u64, record: Option<ImageMetadata>) {
        if let Some(entry) = self.images.get(name) {
            let known = record.map(|record| Arc::new(CachedMetadata::from_metadata(record)));
            let entry = IndexEntry { metadata_size: bytes, metadata: known, ..entry.clone() };
            self.insert(name.clone(), entry);
        }
    }

    /// A picture got its name, maybe once more.
    pub(super) fn upsert(&mut self, name: &ImageName, bytes: u64) {
        let known = self.images.get(name).cloned().unwrap_or_default();
        self.insert(name.clone(), IndexEntry { image_size: bytes, ..known });
    }

    /// Pictures whose records nobody has read yet, and the records' sizes.
    pub(super) fn without_metadata(&self) -> Vec<(ImageName, u64)> {
        let unread =
            |(_, entry): &(&ImageName, &IndexEntry)| entry.metadata_size > 0 && entry.metadata.is_none();
        self.images.iter().filter(unread).map(|(name, entry)| (name.clone(), entry.metadata_size)).collect()
    }

    /// The pictures that somebody wants of those whose records were read, newest first.
    pub(super) fn matching(
        &self,
        predicate: &dyn Fn(&CachedMetadata) -> bool,
    ) -> Vec<(ImageName, IndexEntry)> {
        let nothing = CachedMetadata::default();
        let is_wanted =
            |(_, entry): &(&ImageName, &IndexEntry)| predicate(entry.metadata.as_deref().unwrap_or(&nothing));
        self.images
            .iter()
            .rev()
            .filter(is_wanted)
            .map(|(name, entry)| (name.clone(), entry.clone()))
            .collect()
    }

    /// The same pictures as found anew; what was read of them stays known.
    pub(super) fn rebuilt(&self, found: impl Iterator<Item = (ImageName, IndexEntry)>) -> Self {
        let known = |(name, entry): (ImageName, IndexEntry)| {
            let before = self.images.get(&name).filter(|before| before.metadata_size == entry.metadata_size);
            let known = before.and_then(|before| before.metadata.clone());
            (name, IndexEntry { metadata: known, ..entry })
        };
        found.map(known).collect()
    }

    pub(super) fn totals(&self) -> StoreTotals {
        StoreTotals { images: self.images.len(), bytes: self.bytes }
    }

    pub(super) fn oldest(&self) -> Option<&ImageName> {
        self.images.keys().next()
    }

    /// The newest ones that are older than `before`.
    pub(super) fn page(&self, before: Option<&ImageName>, limit: usize) -> Vec<(ImageName, u64)> {
        let newest_first = |(name, entry): (&ImageName, &IndexEntry)| (name.clone(), entry.image_size);
        match before {
            Some(before) => self.images.range(..before).rev().take(limit).map(newest_first).collect(),
            None => self.images.iter().rev().take(limit).map(newest_first).collect(),
        }
    }
}

impl FromIterator<(ImageName, IndexEntry)> for ImageIndex {
    fn from_iter<T: IntoIterator<Item = (ImageName, IndexEntry)>>(pictures: T) -> Self {
        let mut index = Self::default();
        pictures.into_iter().for_each(|(name, entry)| index.insert(name, entry));
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(unix: u64) -> ImageName {
        ImageName::parse(&format!("{unix}_0123456789abcdef.png")).unwrap()
    }

    #[test]
    fn the_sum_follows_every_change() {
        let entry = |bytes| IndexEntry::new(bytes, 1);
        let mut index: ImageIndex = [(name(1), entry(10)), (name(2), entry(20))].into_iter().collect();
        index.insert(name(3), entry(5));
        index.insert(name(3), entry(7));
        index.remove(&name(1));
        index.remove(&name(1));
        assert_eq!(index.totals(), StoreTotals { images: 2, bytes: 29 });
        index.set_metadata(&name(3), 3, None);
        index.set_metadata(&name(9), 3, None);
        assert_eq!(index.totals(), StoreTotals { images: 2, bytes: 31 });
        assert_eq!(index.oldest(), Some(&name(2)));
    }

    #[test]
    fn pages_go_from_the_newest_by_number_to_the_oldest() {
        let index: ImageIndex =
            [9, 10, 100, 11].map(|unix| (name(unix), IndexEntry::new(unix, 0))).into_iter().collect();
        let page = |before: Option<u64>, most| {
            let page = index.page(before.map(name).as_ref(), most);
            page.into_iter().map(|(_, unix)| unix).collect::<Vec<_>>()
        };
        assert_eq!(page(None, 3), [100, 11, 10]);
        assert_eq!(page(Some(10), 3), [9]);
        assert_eq!(page(Some(50), 9), [11, 10, 9], "the place counts, not the picture");
        assert_eq!(page(Some(9), 3), [0; 0]);
    }
}
