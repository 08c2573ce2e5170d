//! Listing and deleting images, by request or by retention. Everything here blocks.

use std::{collections::HashMap, fs, io, os::unix::fs::MetadataExt, sync::PoisonError};

use super::{
    ImageName,
    disk::{ImageFile, ImageStore},
    index::{CachedMetadata, ImageIndex, IndexEntry, StoreTotals},
    metadata::EXTENSION,
    retention::{RetentionPolicy, ScannedImage},
};

#[derive(Debug)]
pub(crate) struct ListedImage {
    pub(crate) name: ImageName,
    pub(crate) size: u64,
    /// By the first bytes.
    pub(crate) mime: &'static str,
}

impl ImageStore {
    pub(crate) fn totals(&self) -> StoreTotals {
        self.index().totals()
    }

    /// Images older than `before`, newest first, and whether there are more.
    pub(crate) fn page(
        &self,
        before: Option<&ImageName>,
        limit: usize,
    ) -> io::Result<(Vec<ListedImage>, bool)> {
        let mut before = before.cloned();
        let mut listed = Vec::new();
        loop {
            // One more than requested, to see whether there are more.
            let names = self.index().page(before.as_ref(), limit + 1 - listed.len());
            let Some((last, _)) = names.last() else { return Ok((listed, false)) };
            before = Some(last.clone());
            for (name, size) in names {
                match self.find(&name)? {
                    Some(_) if listed.len() == limit => return Ok((listed, true)),
                    Some(ImageFile { mime, .. }) => listed.push(ListedImage { name, size, mime }),
                    // Deleted meanwhile.
                    None => self.index().remove(&name),
                }
            }
        }
    }

    /// The same for images whose records match, with the totals of all of those. The first call reads every record.
    pub(crate) fn page_matching(
        &self,
        predicate: &dyn Fn(&CachedMetadata) -> bool,
        before: Option<&ImageName>,
        limit: usize,
    ) -> io::Result<(Vec<ListedImage>, bool, StoreTotals)> {
        self.load_metadata()?;
        let matching = self.index().matching(predicate);
        let bytes = matching.iter().map(|(_, entry)| entry.image_size + entry.metadata_size).sum();
        let totals = StoreTotals { images: matching.len(), bytes };
        let older = matching.into_iter().filter(|(name, _)| before.is_none_or(|before| name < before));
        let mut listed = Vec::new();
        for (name, IndexEntry { image_size: size, .. }) in older {
            match self.find(&name)? {
                Some(_) if listed.len() == limit => return Ok((listed, true, totals)),
                Some(ImageFile { mime, .. }) => listed.push(ListedImage { name, size, mime }),
                None => self.index().remove(&name),
            }
        }
        Ok((listed, false, totals))
    }

    /// Reads the records that were not read yet. Concurrent calls wait.
    fn load_metadata(&self) -> io::Result<()> {
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let unread = self.index().without_metadata();
        for (name, size) in unread {
            let metadata = self.read_metadata(&name)?;
            self.index().set_metadata(&name, size, Some(metadata));
        }
        Ok(())
    }

    /// One image as in a list.
    pub(crate) fn stat(&self, name: &ImageName) -> io::Result<Option<ListedImage>> {
        let Some(ImageFile { path, mime }) = self.find(name)? else { return Ok(None) };
        let size = fs::metadata(path)?.len();
        Ok(Some(ListedImage { name: name.clone(), size, mime }))
    }

    /// Deletes an image, its record and its thumbnail; false if there was none.
    pub(crate) fn remove(&self, name: &ImageName) -> io::Result<bool> {
        let path = self.dir.join(name.as_str());
        let existed = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata.is_file(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        if existed {
            let record = self.set_aside(name)?;
            let removed = fs::remove_file(&path);
            match (&removed, record) {
                (Err(error), Some(aside)) if error.kind() != io::ErrorKind::NotFound => {
                    let _ = fs::rename(aside, self.metadata_path(name));
                }
                (_, Some(aside)) => drop(fs::remove_file(aside)),
                (_, None) => {}
            }
            if let Err(error) = removed {
                return if error.kind() == io::ErrorKind::NotFound { Ok(false) } else { Err(error) };
            }
        }
        self.index().remove(name);
        self.thumbnails.remove(name);
        Ok(existed)
    }

    /// Deletes expired images and returns their totals.
    pub(crate) fn apply_retention(
        &self,
        policy: &RetentionPolicy,
        now: u64,
        by_age: bool,
    ) -> io::Result<StoreTotals> {
        let mut deleted = StoreTotals::default();
        let mut index = self.index();
        if !policy.may_have_expired(index.totals(), index.oldest(), now) {
            return Ok(deleted);
        }
        // Images may have been deleted by hand: only what exists now counts.
        let scanned = self.scan_dir(&mut index)?;
        drop(index);
        for ScannedImage { name, bytes, .. } in policy.expired(scanned, now, by_age) {
            if self.remove(&name)? {
                deleted.images += 1;
                deleted.bytes += bytes;
            }
        }
        Ok(deleted)
    }

    /// Reads the directory: regular files with names of the store, and their records.
    pub(super) fn scan_dir(&self, index: &mut ImageIndex) -> io::Result<Vec<ScannedImage>> {
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
        *index = index.rebuilt(
            scanned
                .iter()
                .map(|image| (image.name.clone(), IndexEntry::new(image.bytes, record_size(&image.name)))),
        );
        for image in &mut scanned {
            image.bytes += record_size(&image.name);
        }
        Ok(scanned)
    }
}
