//! Listing and deleting images, by request or by retention. Everything here blocks.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::MetadataExt,
    sync::{Arc, PoisonError},
};

use super::{
    ImageName,
    cached_metadata::CachedMetadata,
    changes,
    disk::{ImageFile, ImageStore},
    index::{Filter, IndexEntry, StoreTotals},
    metadata::{EXTENSION, ImageMetadata},
    retention::{RetentionPolicy, ScannedImage},
};

/// So many images are taken from the index at a time.
const PART: usize = 1000;

#[derive(Debug)]
pub(crate) struct ListedImage {
    pub(crate) name: ImageName,
    pub(crate) size: u64,
    /// By the first bytes.
    pub(crate) mime: &'static str,
    pub(crate) metadata: Arc<CachedMetadata>,
}

/// A part of a list.
#[derive(Debug)]
pub(crate) struct ImagePage {
    /// Newest first.
    pub(crate) images: Vec<ListedImage>,
    /// Whether there are older ones.
    pub(crate) has_more: bool,
    /// Of all that match, whatever their age.
    pub(crate) totals: StoreTotals,
}

impl ImageStore {
    /// Images older than `before` that match, newest first. With a filter, every record that was not read yet is read first;
    /// without one, only those of the page.
    pub(crate) fn page(
        &self,
        filter: Option<Filter<'_>>,
        before: Option<&ImageName>,
        limit: usize,
    ) -> io::Result<ImagePage> {
        let (mut before, mut images, mut totals) = (before.cloned(), Vec::new(), None);
        loop {
            // One more than requested, to see whether there are more.
            let wanted = limit + 1 - images.len();
            let (found, matching) = if let Some(filter) = filter {
                self.matching(filter, before.as_ref(), wanted)?
            } else {
                let index = self.index();
                (index.page(before.as_ref(), wanted), index.totals())
            };
            let totals: &mut StoreTotals = totals.get_or_insert(matching);
            let Some((last, _)) = found.last() else {
                return Ok(ImagePage { images, has_more: false, totals: *totals });
            };
            before = Some(last.clone());
            for (name, entry) in found {
                let found = match self.find(&name)? {
                    None => self.find_or_forget(&name)?,
                    found => found,
                };
                match found {
                    Some(_) if images.len() == limit => {
                        return Ok(ImagePage { images, has_more: true, totals: *totals });
                    }
                    Some(ImageFile { mime, .. }) => {
                        let metadata = self.metadata_of(&name, &entry)?;
                        images.push(ListedImage { name, size: entry.image_size, mime, metadata });
                    }
                    // Deleted meanwhile.
                    None => {
                        totals.images -= 1;
                        totals.bytes -= entry.total_size();
                    }
                }
            }
        }
    }

    /// Forgets an image that is gone, unless it was just stored again.
    fn find_or_forget(&self, name: &ImageName) -> io::Result<Option<ImageFile>> {
        let _names = self.lock_names();
        let found = self.find(name)?;
        if found.is_none() {
            self.index().remove(name);
        }
        Ok(found)
    }

    /// The newest images older than `before` that match, and the totals of all that match. Whoever stores an image meanwhile
    /// waits for no search.
    fn matching(
        &self,
        filter: Filter<'_>,
        before: Option<&ImageName>,
        limit: usize,
    ) -> io::Result<(Vec<(ImageName, IndexEntry)>, StoreTotals)> {
        let (mut page, mut totals, mut last) = (Vec::new(), StoreTotals::default(), None);
        let unknown = CachedMetadata::default();
        loop {
            let mut part = self.index().page(last.as_ref(), PART);
            if part.iter().any(|(_, entry)| entry.is_unread()) {
                self.read_records()?;
                part = self.index().page(last.as_ref(), PART);
            }
            let Some((oldest, _)) = part.last() else { return Ok((page, totals)) };
            last = Some(oldest.clone());
            for (name, entry) in part {
                if !filter(&name, entry.known().unwrap_or(&unknown)) {
                    continue;
                }
                totals.images += 1;
                totals.bytes += entry.total_size();
                if page.len() < limit && before.is_none_or(|before| name < *before) {
                    page.push((name, entry));
                }
            }
        }
    }

    fn metadata_of(&self, name: &ImageName, entry: &IndexEntry) -> io::Result<Arc<CachedMetadata>> {
        if let Some(metadata) = entry.metadata() {
            return Ok(metadata);
        }
        let metadata = Arc::new(CachedMetadata::from(self.read_metadata(name)?));
        self.index().fill_metadata(name, metadata.clone());
        Ok(metadata)
    }

    /// Reads the records that were not read yet. Concurrent calls wait.
    pub(super) fn read_records(&self) -> io::Result<()> {
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let unread = self.index().without_metadata();
        for name in unread {
            let metadata = self.read_metadata(&name)?;
            self.index().fill_metadata(&name, Arc::new(metadata.into()));
        }
        Ok(())
    }

    /// One image as in a list, and its record, which is read again.
    pub(crate) fn describe(&self, name: &ImageName) -> io::Result<Option<(ListedImage, ImageMetadata)>> {
        let Some(ImageFile { path, mime }) = self.find(name)? else { return Ok(None) };
        let size = fs::metadata(path)?.len();
        let metadata = self.read_metadata(name)?;
        let cached = Arc::new(metadata.clone().into());
        Ok(Some((ListedImage { name: name.clone(), size, mime, metadata: cached }, metadata)))
    }

    /// Deletes an image, its record and its thumbnail; false if there was none. When it returns, they stay away even after a crash.
    pub(crate) fn remove(&self, name: &ImageName) -> io::Result<bool> {
        let removed = self.remove_unflushed(name)?;
        if removed {
            self.flush_names()?;
        }
        Ok(removed)
    }

    /// The same, but a crash may bring them back.
    fn remove_unflushed(&self, name: &ImageName) -> io::Result<bool> {
        let _names = self.lock_names();
        self.remove_files(name)
    }

    /// The same for whoever holds the names.
    pub(super) fn remove_files(&self, name: &ImageName) -> io::Result<bool> {
        let path = self.dir.join(name.as_str());
        let existed = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata.is_file(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        let mut without_record = Ok(());
        if existed {
            let record = self.set_aside(name)?;
            let removed = changes::remove(&path);
            match (&removed, record) {
                (Err(error), Some(aside)) if error.kind() != io::ErrorKind::NotFound => {
                    let _ = changes::rename(&aside, &self.metadata_path(name));
                }
                (_, Some(aside)) => without_record = changes::remove(&aside),
                (_, None) => {}
            }
            if let Err(error) = removed {
                return if error.kind() == io::ErrorKind::NotFound { Ok(false) } else { Err(error) };
            }
        }
        self.index().remove(name);
        self.thumbnails.remove(name);
        // A prompt that is left on the disk is not deleted; the next start tries again.
        without_record.map(|()| existed)
    }

    /// Deletes expired images and returns their totals.
    pub(crate) fn apply_retention(
        &self,
        policy: &RetentionPolicy,
        now: u64,
        by_age: bool,
    ) -> io::Result<StoreTotals> {
        let mut deleted = StoreTotals::default();
        let index = self.index();
        let may_have_expired = policy.may_have_expired(index.totals(), index.oldest(), now);
        drop(index);
        if !may_have_expired {
            return Ok(deleted);
        }
        // Images may have been deleted by hand: only what exists now counts.
        let scanned = self.scan_dir()?;
        for ScannedImage { name, bytes, .. } in policy.expired(scanned, now, by_age) {
            if self.remove_unflushed(&name)? {
                deleted.images += 1;
                deleted.bytes += bytes;
            }
        }
        Ok(deleted)
    }

    /// Reads the directory: regular files with names of the store, and their records. That takes long, so images come and go
    /// meanwhile.
    pub(super) fn scan_dir(&self) -> io::Result<Vec<ScannedImage>> {
        self.index().begin_scan();
        let (mut scanned, mut records) = (Vec::new(), HashMap::new());
        for entry in fs::read_dir(self.dir.as_path())? {
            let entry = entry?;
            let file = entry.file_name();
            let Some(file) = file.to_str() else { continue };
            let image_of_record = file.strip_suffix(EXTENSION);
            let Some(name) = ImageName::parse(image_of_record.unwrap_or(file)) else { continue };
            match entry.metadata() {
                Ok(metadata) if metadata.is_file() && image_of_record.is_some() => {
                    records.insert(name, metadata.len());
                }
                Ok(metadata) if metadata.is_file() => {
                    let modified = u64::try_from(metadata.mtime()).unwrap_or(0);
                    scanned.push(ScannedImage { name, bytes: metadata.len(), modified });
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        let record_size = |name: &ImageName| records.get(name).copied().unwrap_or(0);
        let entry = |image: &ScannedImage| {
            (image.name.clone(), IndexEntry::new(image.bytes, record_size(&image.name)))
        };
        let mut index = self.index();
        *index = index.rebuilt(scanned.iter().map(entry));
        drop(index);
        for image in &mut scanned {
            image.bytes += record_size(&image.name);
        }
        Ok(scanned)
    }
}
