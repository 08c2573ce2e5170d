//! What is in the store: lists, sums, and what is taken out of it, by hand or by retention. Everything here blocks.

use std::{fs, io, os::unix::fs::MetadataExt};

use super::{
    PictureName,
    disk::{Store, Stored},
    index::{Index, Totals},
    retention::{Rules, Seen},
};

/// A picture in a list.
#[derive(Debug)]
pub(crate) struct Listed {
    /// Its name.
    pub(crate) name: PictureName,
    /// Its size.
    pub(crate) bytes: u64,
    /// The type by its first bytes.
    pub(crate) mime: &'static str,
}

impl Store {
    /// What is in the store.
    pub(crate) fn totals(&self) -> Totals {
        self.index().totals()
    }

    /// Pictures older than `before`, newest first, and whether there are more.
    pub(crate) fn page(&self, before: Option<&PictureName>, most: usize) -> io::Result<(Vec<Listed>, bool)> {
        let mut before = before.cloned();
        let mut listed = Vec::new();
        loop {
            // One more tells whether it goes on.
            let names = self.index().page(before.as_ref(), most + 1 - listed.len());
            let Some((last, _)) = names.last() else { return Ok((listed, false)) };
            before = Some(last.clone());
            for (name, bytes) in names {
                match self.find(&name)? {
                    Some(_) if listed.len() == most => return Ok((listed, true)),
                    Some(Stored { mime, .. }) => listed.push(Listed { name, bytes, mime }),
                    // Somebody else took it away.
                    None => self.index().remove(&name),
                }
            }
        }
    }

    /// Deletes a picture; whether there was one.
    pub(crate) fn remove(&self, name: &PictureName) -> io::Result<bool> {
        let path = self.dir.join(name.as_str());
        let there = match fs::symlink_metadata(&path) {
            Ok(found) => found.is_file(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        if there && let Err(error) = fs::remove_file(&path) {
            return if error.kind() == io::ErrorKind::NotFound { Ok(false) } else { Err(error) };
        }
        self.index().remove(name);
        Ok(there)
    }

    /// Deletes what is due, and says how much that was.
    pub(crate) fn retain(&self, rules: &Rules, now: u64, by_age: bool) -> io::Result<Totals> {
        let mut gone = Totals::default();
        let mut index = self.index();
        if !rules.may_be_due(index.totals(), index.oldest(), now) {
            return Ok(gone);
        }
        // Others may have been here: only what is there now counts.
        let seen = self.survey(&mut index)?;
        drop(index);
        for Seen { name, bytes, .. } in rules.due(seen, now, by_age) {
            if self.remove(&name)? {
                gone.pictures += 1;
                gone.bytes += bytes;
            }
        }
        Ok(gone)
    }

    /// Reads the folder: regular files under names of the store's form.
    pub(super) fn survey(&self, index: &mut Index) -> io::Result<Vec<Seen>> {
        let mut seen = Vec::new();
        for entry in fs::read_dir(self.dir.as_path())? {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().and_then(PictureName::parse) else { continue };
            match entry.metadata() {
                Ok(found) if found.is_file() => {
                    let modified = u64::try_from(found.mtime()).unwrap_or(0);
                    seen.push(Seen { name, bytes: found.len(), modified });
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        *index = seen.iter().map(|seen| (seen.name.clone(), seen.bytes)).collect();
        Ok(seen)
    }
}
