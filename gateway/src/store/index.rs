//! What is in the store, so that nobody has to walk its folder for it. Pure.

use std::collections::BTreeMap;

use super::PictureName;

/// Every picture and its size, oldest first.
#[derive(Debug, Default)]
pub(super) struct Index {
    pictures: BTreeMap<PictureName, u64>,
    bytes: u64,
}

/// What is in the store, in two figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Totals {
    /// Pictures.
    pub(crate) pictures: usize,
    /// Their bytes together.
    pub(crate) bytes: u64,
}

impl Index {
    pub(super) fn insert(&mut self, name: PictureName, bytes: u64) {
        self.bytes += bytes;
        self.bytes -= self.pictures.insert(name, bytes).unwrap_or(0);
    }

    pub(super) fn remove(&mut self, name: &PictureName) {
        self.bytes -= self.pictures.remove(name).unwrap_or(0);
    }

    pub(super) fn totals(&self) -> Totals {
        Totals { pictures: self.pictures.len(), bytes: self.bytes }
    }

    pub(super) fn oldest(&self) -> Option<&PictureName> {
        self.pictures.keys().next()
    }

    /// The newest ones that are older than `before`.
    pub(super) fn page(&self, before: Option<&PictureName>, most: usize) -> Vec<(PictureName, u64)> {
        let newest_first = |(name, bytes): (&PictureName, &u64)| (name.clone(), *bytes);
        match before {
            Some(before) => self.pictures.range(..before).rev().take(most).map(newest_first).collect(),
            None => self.pictures.iter().rev().take(most).map(newest_first).collect(),
        }
    }
}

impl FromIterator<(PictureName, u64)> for Index {
    fn from_iter<T: IntoIterator<Item = (PictureName, u64)>>(pictures: T) -> Self {
        let mut index = Self::default();
        pictures.into_iter().for_each(|(name, bytes)| index.insert(name, bytes));
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
        let mut index: Index = [(name(1), 10), (name(2), 20)].into_iter().collect();
        index.insert(name(3), 5);
        index.insert(name(3), 7);
        index.remove(&name(1));
        index.remove(&name(1));
        assert_eq!(index.totals(), Totals { pictures: 2, bytes: 27 });
        assert_eq!(index.oldest(), Some(&name(2)));
    }

    #[test]
    fn pages_go_from_the_newest_by_number_to_the_oldest() {
        let index: Index = [9, 10, 100, 11].map(|unix| (name(unix), unix)).into_iter().collect();
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
