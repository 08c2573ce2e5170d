//! What is in the store, so that nobody has to walk its folder for it. Pure.

use std::{collections::BTreeMap, sync::Arc};

use super::{PictureName, records::Record};

/// Every picture and what is known of it, oldest first.
#[derive(Debug, Default)]
pub(super) struct Index {
    pictures: BTreeMap<PictureName, Entry>,
    bytes: u64,
}

/// A picture. What its record says is read only once somebody wants to know.
#[derive(Debug, Clone, Default)]
pub(super) struct Entry {
    /// Its size.
    pub(super) bytes: u64,
    /// The size of its record; 0 if it has none.
    pub(super) record: u64,
    /// What that says, if it was read.
    known: Option<Arc<Known>>,
}

/// What lists are made by.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Who made it.
    pub(crate) owners: Box<[String]>,
    /// The requests that it answered.
    pub(crate) request_ids: Box<[String]>,
}

impl Known {
    /// What a record says of it.
    pub(super) fn of(record: Record) -> Self {
        Self { owners: record.owners.into(), request_ids: record.request_ids.into() }
    }
}

impl Entry {
    /// As found in the folder.
    pub(super) fn found(bytes: u64, record: u64) -> Self {
        Self { bytes, record, known: None }
    }

    fn all(&self) -> u64 {
        self.bytes + self.record
    }
}

/// What is in the store, in two figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Totals {
    /// Pictures.
    pub(crate) pictures: usize,
    /// Their bytes together, and those of what is kept beside them.
    pub(crate) bytes: u64,
}

impl Index {
    pub(super) fn insert(&mut self, name: PictureName, entry: Entry) {
        self.bytes += entry.all();
        self.bytes -= self.pictures.insert(name, entry).map_or(0, |before| before.all());
    }

    pub(super) fn remove(&mut self, name: &PictureName) {
        self.bytes -= self.pictures.remove(name).map_or(0, |before| before.all());
    }

    /// Notes what the record of a picture says, if the picture is still there.
    pub(super) fn note(&mut self, name: &PictureName, bytes: u64, record: Option<Record>) {
        if let Some(entry) = self.pictures.get(name) {
            let known = record.map(|record| Arc::new(Known::of(record)));
            let entry = Entry { record: bytes, known, ..entry.clone() };
            self.insert(name.clone(), entry);
        }
    }

    /// A picture got its name, maybe once more.
    pub(super) fn placed(&mut self, name: &PictureName, bytes: u64) {
        let known = self.pictures.get(name).cloned().unwrap_or_default();
        self.insert(name.clone(), Entry { bytes, ..known });
    }

    /// Pictures whose records nobody has read yet, and the records' sizes.
    pub(super) fn unread(&self) -> Vec<(PictureName, u64)> {
        let unread = |(_, entry): &(&PictureName, &Entry)| entry.record > 0 && entry.known.is_none();
        self.pictures.iter().filter(unread).map(|(name, entry)| (name.clone(), entry.record)).collect()
    }

    /// The pictures that somebody wants of those whose records were read, newest first.
    pub(super) fn wanted(&self, wants: &dyn Fn(&Known) -> bool) -> Vec<(PictureName, Entry)> {
        let nothing = Known::default();
        let is_wanted =
            |(_, entry): &(&PictureName, &Entry)| wants(entry.known.as_deref().unwrap_or(&nothing));
        self.pictures
            .iter()
            .rev()
            .filter(is_wanted)
            .map(|(name, entry)| (name.clone(), entry.clone()))
            .collect()
    }

    /// The same pictures as found anew; what was read of them stays known.
    pub(super) fn refound(&self, found: impl Iterator<Item = (PictureName, Entry)>) -> Self {
        let known = |(name, entry): (PictureName, Entry)| {
            let before = self.pictures.get(&name).filter(|before| before.record == entry.record);
            let known = before.and_then(|before| before.known.clone());
            (name, Entry { known, ..entry })
        };
        found.map(known).collect()
    }

    pub(super) fn totals(&self) -> Totals {
        Totals { pictures: self.pictures.len(), bytes: self.bytes }
    }

    pub(super) fn oldest(&self) -> Option<&PictureName> {
        self.pictures.keys().next()
    }

    /// The newest ones that are older than `before`.
    pub(super) fn page(&self, before: Option<&PictureName>, most: usize) -> Vec<(PictureName, u64)> {
        let newest_first = |(name, entry): (&PictureName, &Entry)| (name.clone(), entry.bytes);
        match before {
            Some(before) => self.pictures.range(..before).rev().take(most).map(newest_first).collect(),
            None => self.pictures.iter().rev().take(most).map(newest_first).collect(),
        }
    }
}

impl FromIterator<(PictureName, Entry)> for Index {
    fn from_iter<T: IntoIterator<Item = (PictureName, Entry)>>(pictures: T) -> Self {
        let mut index = Self::default();
        pictures.into_iter().for_each(|(name, entry)| index.insert(name, entry));
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(unix: u64) -> PictureName {
        PictureName::parse(&format!("{unix}_0123456789abcdef.png")).unwrap()
    }

    #[test]
    fn the_sum_follows_every_change() {
        let entry = |bytes| Entry::found(bytes, 1);
        let mut index: Index = [(name(1), entry(10)), (name(2), entry(20))].into_iter().collect();
        index.insert(name(3), entry(5));
        index.insert(name(3), entry(7));
        index.remove(&name(1));
        index.remove(&name(1));
        assert_eq!(index.totals(), Totals { pictures: 2, bytes: 29 });
        index.note(&name(3), 3, None);
        index.note(&name(9), 3, None);
        assert_eq!(index.totals(), Totals { pictures: 2, bytes: 31 });
        assert_eq!(index.oldest(), Some(&name(2)));
    }

    #[test]
    fn pages_go_from_the_newest_by_number_to_the_oldest() {
        let index: Index =
            [9, 10, 100, 11].map(|unix| (name(unix), Entry::found(unix, 0))).into_iter().collect();
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
