//! What is in the store: lists, sums, and what is taken out of it, by hand or by retention. Everything here blocks.

use std::{collections::HashMap, fs, io, os::unix::fs::MetadataExt, sync::PoisonError};

use super::{
    PictureName,
    disk::{Store, Stored},
    index::{Entry, Index, Known, Totals},
    records::ENDING,
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

    /// The same of the pictures that somebody wants, and what all of those are together. The first time, every record is
    /// read for it.
    pub(crate) fn page_of(
        &self,
        wants: &dyn Fn(&Known) -> bool,
        before: Option<&PictureName>,
        most: usize,
    ) -> io::Result<(Vec<Listed>, bool, Totals)> {
        self.read_records()?;
        let wanted = self.index().wanted(wants);
        let bytes = wanted.iter().map(|(_, entry)| entry.bytes + entry.record).sum();
        let totals = Totals { pictures: wanted.len(), bytes };
        let older = wanted.into_iter().filter(|(name, _)| before.is_none_or(|before| name < before));
        let mut listed = Vec::new();
        for (name, Entry { bytes, .. }) in older {
            match self.find(&name)? {
                Some(_) if listed.len() == most => return Ok((listed, true, totals)),
                Some(Stored { mime, .. }) => listed.push(Listed { name, bytes, mime }),
                None => self.index().remove(&name),
            }
        }
        Ok((listed, false, totals))
    }

    /// Reads what nobody has read yet. Whoever comes meanwhile waits for it.
    fn read_records(&self) -> io::Result<()> {
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let unread = self.index().unread();
        for (name, bytes) in unread {
            let record = self.record(&name)?;
            self.index().note(&name, bytes, Some(record));
        }
        Ok(())
    }

    /// A picture as it is listed, if there is one.
    pub(crate) fn listed(&self, name: &PictureName) -> io::Result<Option<Listed>> {
        let Some(Stored { path, mime }) = self.find(name)? else { return Ok(None) };
        let bytes = fs::metadata(path)?.len();
        Ok(Some(Listed { name: name.clone(), bytes, mime }))
    }

    /// Deletes a picture and its record; whether there was one.
    pub(crate) fn remove(&self, name: &PictureName) -> io::Result<bool> {
        let path = self.dir.join(name.as_str());
        let there = match fs::symlink_metadata(&path) {
            Ok(found) => found.is_file(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        if there {
            let record = self.set_aside(name)?;
            let removed = fs::remove_file(&path);
            match (&removed, record) {
                (Err(error), Some(aside)) if error.kind() != io::ErrorKind::NotFound => {
                    let _ = fs::rename(aside, self.record_path(name));
                }
                (_, Some(aside)) => drop(fs::remove_file(aside)),
                (_, None) => {}
            }
            if let Err(error) = removed {
                return if error.kind() == io::ErrorKind::NotFound { Ok(false) } else { Err(error) };
            }
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

    /// Reads the folder: regular files under names of the store's form, and their records.
    pub(super) fn survey(&self, index: &mut Index) -> io::Result<Vec<Seen>> {
        let (mut seen, mut records) = (Vec::new(), HashMap::new());
        for entry in fs::read_dir(self.dir.as_path())? {
            let entry = entry?;
            let file = entry.file_name();
            let Some(file) = file.to_str() else { continue };
            let record = file.strip_suffix(ENDING);
            let Some(name) = PictureName::parse(record.unwrap_or(file)) else { continue };
            match entry.metadata() {
                Ok(found) if found.is_file() && record.is_some() => drop(records.insert(name, found.len())),
                Ok(found) if found.is_file() => {
                    let modified = u64::try_from(found.mtime()).unwrap_or(0);
                    seen.push(Seen { name, bytes: found.len(), modified });
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        let record = |seen: &Seen| records.get(&seen.name).copied().unwrap_or(0);
        *index = index
            .refound(seen.iter().map(|seen| (seen.name.clone(), Entry::found(seen.bytes, record(seen)))));
        for seen in &mut seen {
            seen.bytes += records.get(&seen.name).copied().unwrap_or(0);
        }
        Ok(seen)
    }
}
