//! The store's contents in memory, so that its directory need not be read for every request. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::{Deref, DerefMut},
    sync::{Arc, PoisonError},
};

use service::sync::{Mutex, MutexGuard};

use super::{ImageName, cached_metadata::CachedMetadata, metadata::ImageMetadata};

/// Every image, oldest first.
#[derive(Debug, Default)]
pub(super) struct ImageIndex {
    images: BTreeMap<ImageName, IndexEntry>,
    bytes: u64,
    /// The names that changed since a scan of the directory began, if one is going on.
    changed: Option<BTreeSet<ImageName>>,
}

/// An image. Its record is read only when needed.
#[derive(Debug, Clone, Default)]
pub(super) struct IndexEntry {
    pub(super) image_size: u64,
    /// The size of its record; 0 if it has none.
    pub(super) metadata_size: u64,
    /// The record, once it was read.
    metadata: Option<Arc<CachedMetadata>>,
}

/// Which images a list has.
pub(crate) type Filter<'a> = &'a dyn Fn(&ImageName, &CachedMetadata) -> bool;

impl IndexEntry {
    /// As found in the directory.
    pub(super) fn new(image_size: u64, metadata_size: u64) -> Self {
        Self { image_size, metadata_size, metadata: None }
    }

    /// None if it was not read; an image without one needs no reading.
    pub(super) fn metadata(&self) -> Option<Arc<CachedMetadata>> {
        if self.metadata_size == 0 { Some(Arc::default()) } else { self.metadata.clone() }
    }

    /// Whether it has a record that was not read.
    pub(super) fn is_unread(&self) -> bool {
        self.metadata_size > 0 && self.metadata.is_none()
    }

    /// What is known of its record.
    pub(super) fn known(&self) -> Option<&CachedMetadata> {
        self.metadata.as_deref()
    }

    pub(super) fn total_size(&self) -> u64 {
        self.image_size + self.metadata_size
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct StoreTotals {
    pub(crate) images: usize,
    /// Of images and records.
    pub(crate) bytes: u64,
}

impl ImageIndex {
    pub(super) fn insert(&mut self, name: ImageName, entry: IndexEntry) {
        self.note(&name);
        self.bytes += entry.total_size();
        self.bytes -= self.images.insert(name, entry).map_or(0, |before| before.total_size());
    }

    pub(super) fn remove(&mut self, name: &ImageName) {
        self.note(name);
        self.bytes -= self.images.remove(name).map_or(0, |before| before.total_size());
    }

    fn note(&mut self, name: &ImageName) {
        if let Some(changed) = &mut self.changed {
            changed.insert(name.clone());
        }
    }

    /// Sets an image's record, if the image is still there.
    pub(super) fn set_metadata(&mut self, name: &ImageName, size: u64, metadata: Option<ImageMetadata>) {
        if let Some(entry) = self.images.get(name) {
            let metadata = metadata.map(|metadata| Arc::new(metadata.into()));
            let entry = IndexEntry { metadata_size: size, metadata, ..entry.clone() };
            self.insert(name.clone(), entry);
        }
    }

    /// Sets an image's record after it was read, unless another one was written meanwhile.
    pub(super) fn fill_metadata(&mut self, name: &ImageName, metadata: Arc<CachedMetadata>) {
        if let Some(entry) = self.images.get_mut(name).filter(|entry| entry.metadata.is_none()) {
            entry.metadata = Some(metadata);
        }
    }

    /// Adds an image, or updates its size.
    pub(super) fn upsert(&mut self, name: &ImageName, image_size: u64) {
        let existing = self.images.get(name).cloned().unwrap_or_default();
        self.insert(name.clone(), IndexEntry { image_size, ..existing });
    }

    /// Images whose records were not read yet.
    pub(super) fn without_metadata(&self) -> Vec<ImageName> {
        let unread = self.images.iter().filter(|(_, entry)| entry.is_unread());
        unread.map(|(name, _)| name.clone()).collect()
    }

    /// From now on, what changes wins over what the scan finds.
    pub(super) fn begin_scan(&mut self) {
        self.changed = Some(BTreeSet::new());
    }

    /// An index of the images that a scan found, and of those that came meanwhile. It keeps the records which were read already.
    pub(super) fn rebuilt(&self, found: impl Iterator<Item = (ImageName, IndexEntry)>) -> Self {
        let is_changed =
            |name: &ImageName| self.changed.as_ref().is_some_and(|changed| changed.contains(name));
        let with_metadata = |(name, entry): (ImageName, IndexEntry)| {
            let old = self.images.get(&name).filter(|old| old.metadata_size == entry.metadata_size);
            let metadata = old.and_then(|old| old.metadata.clone());
            (name, IndexEntry { metadata, ..entry })
        };
        let unchanged = found.filter(|(name, _)| !is_changed(name)).map(with_metadata);
        let changed = self.changed.iter().flatten();
        let changed = changed.filter_map(|name| Some((name.clone(), self.images.get(name)?.clone())));
        unchanged.chain(changed).collect()
    }

    pub(super) fn totals(&self) -> StoreTotals {
        StoreTotals { images: self.images.len(), bytes: self.bytes }
    }

    pub(super) fn oldest(&self) -> Option<&ImageName> {
        self.images.keys().next()
    }

    /// The newest images that are older than `before`.
    pub(super) fn page(&self, before: Option<&ImageName>, limit: usize) -> Vec<(ImageName, IndexEntry)> {
        let named = |(name, entry): (&ImageName, &IndexEntry)| (name.clone(), entry.clone());
        match before {
            Some(before) => self.images.range(..before).rev().take(limit).map(named).collect(),
            None => self.images.iter().rev().take(limit).map(named).collect(),
        }
    }
}

/// The index, and its totals apart: async threads read them, and must not wait for whoever holds the index.
#[derive(Debug, Default)]
pub(super) struct SharedIndex {
    index: Mutex<ImageIndex>,
    totals: Mutex<StoreTotals>,
}

/// The index, locked. When dropped, it publishes the totals.
#[derive(Debug)]
pub(super) struct LockedIndex<'a> {
    index: MutexGuard<'a, ImageIndex>,
    totals: &'a Mutex<StoreTotals>,
}

impl SharedIndex {
    pub(super) fn lock(&self) -> LockedIndex<'_> {
        let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        LockedIndex { index, totals: &self.totals }
    }

    /// Never waits for the index.
    pub(super) fn totals(&self) -> StoreTotals {
        *self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deref for LockedIndex<'_> {
    type Target = ImageIndex;

    fn deref(&self) -> &ImageIndex {
        &self.index
    }
}

impl DerefMut for LockedIndex<'_> {
    fn deref_mut(&mut self) -> &mut ImageIndex {
        &mut self.index
    }
}

impl Drop for LockedIndex<'_> {
    fn drop(&mut self) {
        *self.totals.lock().unwrap_or_else(PoisonError::into_inner) = self.index.totals();
    }
}

impl FromIterator<(ImageName, IndexEntry)> for ImageIndex {
    fn from_iter<T: IntoIterator<Item = (ImageName, IndexEntry)>>(images: T) -> Self {
        let mut index = Self::default();
        images.into_iter().for_each(|(name, entry)| index.insert(name, entry));
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
    fn the_total_follows_every_change() {
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
    fn pages_are_ordered_from_the_newest_by_number() {
        let index: ImageIndex =
            [9, 10, 100, 11].map(|unix| (name(unix), IndexEntry::new(unix, 0))).into_iter().collect();
        let page = |before: Option<u64>, limit| {
            let page = index.page(before.map(name).as_ref(), limit);
            page.into_iter().map(|(_, entry)| entry.image_size).collect::<Vec<_>>()
        };
        assert_eq!(page(None, 3), [100, 11, 10]);
        assert_eq!(page(Some(10), 3), [9]);
        assert_eq!(page(Some(50), 9), [11, 10, 9], "`before` need not exist");
        assert_eq!(page(Some(9), 3), [0; 0]);
    }

    #[test]
    fn what_changes_while_the_directory_is_read_is_not_lost() {
        let entry = |bytes| IndexEntry::new(bytes, 0);
        let mut index: ImageIndex = [1, 2, 3].map(|unix| (name(unix), entry(1))).into_iter().collect();
        index.begin_scan();
        index.insert(name(9), entry(7));
        index.remove(&name(1));
        // Found before the first was removed and the last was added; the third is gone.
        let mut index = index.rebuilt([1, 2].map(|unix| (name(unix), entry(1))).into_iter());
        let left = |index: &ImageIndex| {
            index.page(None, 9).into_iter().map(|(name, _)| name.unix()).collect::<Vec<_>>()
        };
        assert_eq!((left(&index), index.totals()), (vec![9, 2], StoreTotals { images: 2, bytes: 8 }));
        index.begin_scan();
        let index = index.rebuilt([(name(2), entry(1))].into_iter());
        assert_eq!(left(&index), [2], "it was deleted by hand");
    }
}
