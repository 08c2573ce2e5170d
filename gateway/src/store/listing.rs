//! What is in the store: lists, sums, and what is taken out of it, by hand or by retention. Everything here blocks.

use std::{collections::HashMap, fs, io, os::unix::fs::MetadataExt, sync::PoisonError};

use super::{
    ImageName,
    disk::{ImageFile, ImageStore},
    index::{CachedMetadata, ImageIndex, IndexEntry, StoreTotals},
    metadata::EXTENSION,
    retention::{RetentionPolicy, ScannedImage},
};

/// A picture in a list.
#[derive(Debug)]
pub(crate) struct ListedImage {
    /// Its name.
    pub(crate) name: ImageName,
    /// Its size.
    pub(crate) size: u64,
    /// The type by its first bytes.
    pub(crate) mime: &'static str,
}

impl ImageStore {
    /// What is in the store.
    pub(crate) fn totals(&self) -> StoreTotals {
        self.index().totals()
    }

    /// Pictures older than `before`, newest first, and whether there are more.
    pub(crate) fn page(
        &self,
        before: Option<&ImageName>,
        limit: usize,
    ) -> io::Result<(Vec<ListedImage>, bool)> {
        let mut before = before.cloned();
        let mut listed = Vec::new();
        loop {
            // One more tells whether it goes on.
            let names = self.index().page(before.as_ref(), limit + 1 - listed.len());
            let Some((last, _)) = names.last() else { return Ok((listed, false)) };
            before = Some(last.clone());
            for (name, bytes) in names {
                match self.find(&name)? {
                    Some(_) if listed.len() == limit => return Ok((listed, true)),
                    Some(ImageFile { mime, .. }) => listed.push(ListedImage { name, size: bytes, mime }),
                    // Somebody else took it away.
                    None => self.index().remove(&name),
                }
            }
        }
    }

    /// The same of the pictures that somebody wants, and what all of those are together. The first time, every record is
    /// read for it.
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
        for (name, IndexEntry { image_size: bytes, .. }) in older {
            match self.find(&name)? {
                Some(_) if listed.len() == limit => return Ok((listed, true, totals)),
                Some(ImageFile { mime, .. }) => listed.push(ListedImage { name, size: bytes, mime }),
                None => self.index().remove(&name),
            }
        }
        Ok((listed, false, totals))
    }

    /// Reads what nobody has read yet. Whoever comes meanwhile waits for it.
    fn load_metadata(&self) -> io::Result<()> {
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let unread = self.index().without_metadata();
        for (name, bytes) in unread {
            let metadata = self.read_metadata(&name)?;
            self.index().set_metadata(&name, bytes, Some(metadata));
        }
        Ok(())
    }

    /// A picture as it is listed, if there is one.
    pub(crate) fn stat(&self, name: &ImageName) -> io::Result<Option<ListedImage>> {
        let Some(ImageFile { path, mime }) = self.find(name)? else { return Ok(None) };
        let bytes = fs::metadata(path)?.len();
        Ok(Some(ListedImage { name: name.clone(), size: bytes, mime }))
    }

    /// Deletes a picture and its record; whether there was one.
    pub(crate) fn remove(&self, name: &ImageName) -> io::Result<bool> {
        let path = self.dir.join(name.as_str());
        let existed = match fs::symlink_metadata(&path) {
            Ok(found) => found.is_file(),
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
        Ok(existed)
    }

    /// Deletes what is due, and says how much that was.
    pub(crate) fn apply_retention(
        &self,
        rules: &RetentionPolicy,
        now: u64,
        by_age: bool,
    ) -> io::Result<StoreTotals> {
        let mut deleted = StoreTotals::default();
        let mut index = self.index();
        if !rules.may_have_expired(index.totals(), index.oldest(), now) {
            return Ok(deleted);
        }
        // Others may have been here: only what is there now counts.
        let scanned = self.scan_dir(&mut index)?;
        drop(index);
        for ScannedImage { name, bytes, .. } in rules.expired(scanned, now, by_age) {
            if self.remove(&name)? {
                deleted.images += 1;
                deleted.bytes += bytes;
            }
        }
        Ok(deleted)
    }

    /// Reads the folder: regular files under names of the store's form, and their records.
    pub(super) fn scan_dir(&self, index: &mut ImageIndex) -> io::Result<Vec<ScannedImage>> {
        let (mut scanned, mut records) = (Vec::new(), HashMap::new());
        for entry in fs::read_dir(self.dir.as_path())? {
            let entry = entry?;
            let file = entry.file_name();
            let Some(file) = file.to_str() else { continue };
            let record = file.strip_suffix(EXTENSION);
            let Some(name) = ImageName::parse(record.unwrap_or(file)) else { continue };
            match entry.metadata() {
                Ok(found) if found.is_file() && record.is_some() => drop(records.insert(name, found.len())),
                Ok(found) if found.is_file() => {
                    let modified = u64::try_from(found.mtime()).unwrap_or(0);
                    scanned.push(ScannedImage { name, bytes: found.len(), modified });
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        let record = |seen: &ScannedImage| records.get(&seen.name).copied().unwrap_or(0);
        *index = index.rebuilt(
            scanned.iter().map(|seen| (seen.name.clone(), IndexEntry::new(seen.bytes, record(seen)))),
        );
        for seen in &mut scanned {
            seen.bytes += records.get(&seen.name).copied().unwrap_or(0);
        }
        Ok(scanned)
    }
}
