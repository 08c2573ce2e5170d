//! Which thumbnails are kept: the ones made last, up to a number and a total size. Pure.

use std::collections::{BTreeMap, HashMap};

use super::super::ImageName;

const MAX_FILES: usize = 20_000;
const MAX_BYTES: u64 = 256 << 20;

#[derive(Debug, Default)]
pub(super) struct ThumbnailIndex {
    /// Oldest first, with their sizes.
    by_age: BTreeMap<u64, (ImageName, u64)>,
    ages: HashMap<ImageName, u64>,
    bytes: u64,
    next_age: u64,
}

impl ThumbnailIndex {
    /// Adds the newest one. Returns those that are kept no longer.
    pub(super) fn insert(&mut self, name: ImageName, bytes: u64) -> Vec<ImageName> {
        self.remove(&name);
        self.ages.insert(name.clone(), self.next_age);
        self.by_age.insert(self.next_age, (name, bytes));
        self.next_age += 1;
        self.bytes += bytes;
        let mut excess = Vec::new();
        while self.by_age.len() > MAX_FILES || self.bytes > MAX_BYTES {
            let Some((_, (oldest, bytes))) = self.by_age.pop_first() else { break };
            self.ages.remove(&oldest);
            self.bytes -= bytes;
            excess.push(oldest);
        }
        excess
    }

    pub(super) fn remove(&mut self, name: &ImageName) {
        let removed = self.ages.remove(name).and_then(|age| self.by_age.remove(&age));
        self.bytes -= removed.map_or(0, |(_, bytes)| bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(nth: usize) -> ImageName {
        ImageName::parse(&format!("{nth}_0123456789abcdef.png")).unwrap()
    }

    #[test]
    fn the_oldest_go_above_the_number() {
        let mut index = ThumbnailIndex::default();
        for nth in 0..MAX_FILES {
            assert_eq!(index.insert(name(nth), 1), []);
        }
        assert_eq!(index.insert(name(0), 1), [], "made again, it is the newest");
        assert_eq!(index.insert(name(MAX_FILES), 1), [name(1)]);
        index.remove(&name(2));
        index.remove(&name(2));
        assert_eq!(index.insert(name(MAX_FILES + 1), 1), []);
        assert_eq!(index.insert(name(MAX_FILES + 2), 1), [name(3)]);
        assert_eq!((index.by_age.len(), index.ages.len(), index.bytes), (MAX_FILES, MAX_FILES, 20_000));
    }

    #[test]
    fn the_oldest_go_above_the_total_size() {
        let mut index = ThumbnailIndex::default();
        assert_eq!(index.insert(name(1), MAX_BYTES / 2), []);
        assert_eq!(index.insert(name(2), MAX_BYTES / 2), []);
        assert_eq!(index.insert(name(3), 1), [name(1)]);
        assert_eq!(index.insert(name(4), MAX_BYTES), [name(2), name(3)]);
        assert_eq!(index.insert(name(4), 7), []);
        assert_eq!((index.by_age.len(), index.bytes), (1, 7));
    }
}
