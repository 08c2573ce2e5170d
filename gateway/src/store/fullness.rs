//! Whether the store, or a disk, is nearly full: told before pictures are refused. Pure.

use service::files::Disk;

use super::{index::Totals, writable::needed};

/// Nearly full from nine tenths on, and until it is less than 88 % again: at the edge nobody is told over and over.
#[derive(Debug, Default)]
pub(crate) struct Fullness(bool);

impl Fullness {
    /// Whether it is nearly full with so much of all taken.
    pub(crate) fn look(&mut self, taken: u64, all: u64) -> bool {
        let most = u128::from(all) * if self.0 { 88 } else { 90 };
        self.0 = all > 0 && u128::from(taken) * 100 >= most;
        self.0
    }
}

/// What is taken of a disk, and of how much until pictures are refused: some of it is kept free.
pub(crate) fn part(disk: Disk) -> (u64, u64) {
    let taken = disk.total.saturating_sub(disk.free);
    (taken, disk.total.saturating_sub(needed(disk.total, 0)))
}

/// What is said of a disk that is nearly full; `holds` is what of ours is on it.
pub(crate) fn of_disk(disk: Disk, holds: &[&str]) -> String {
    format!(
        "the disk with {} is {} % full, {} are left, and below {} pictures are refused: remove something, or bound the store \
         (UI_IMAGE_STORE_MAX_BYTES)",
        holds.join(", "),
        percent(disk.total.saturating_sub(disk.free), disk.total),
        size(disk.free),
        size(needed(disk.total, 0))
    )
}

/// The same of a store that has a bound.
pub(crate) fn of_store(totals: Totals, bound: u64) -> String {
    format!(
        "the picture store holds {} of the {} of UI_IMAGE_STORE_MAX_BYTES ({} %): beyond it the oldest pictures are deleted",
        size(totals.bytes),
        size(bound),
        percent(totals.bytes, bound)
    )
}

fn percent(part: u64, all: u64) -> u128 {
    u128::from(part) * 100 / u128::from(all.max(1))
}

/// A size for people.
pub(crate) fn size(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units.into_iter().find(|(shift, _)| bytes >> shift >= 10);
    unit.map_or_else(|| format!("{bytes} bytes"), |(shift, name)| format!("{} {name}", bytes >> shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nine_tenths_are_nearly_full_and_a_little_less_still_is() {
        let mut fullness = Fullness::default();
        for (taken, nearly) in [
            (0, false),
            (89, false),
            (90, true),
            (89, true),
            (88, true),
            (87, false),
            (89, false),
            (100, true),
        ] {
            assert_eq!(fullness.look(taken, 100), nearly, "{taken}");
        }
        assert!(!fullness.look(0, 0), "a disk of size 0 tells nothing");
        assert!(Fullness::default().look(u64::MAX, u64::MAX));
    }

    #[test]
    fn what_is_told_has_figures_and_what_to_do() {
        let disk = Disk { total: 100 << 30, free: 7 << 30 };
        assert_eq!(
            of_disk(disk, &["the pictures (/a)", "the log (/b)"]),
            "the disk with the pictures (/a), the log (/b) is 93 % full, 7168 MiB are left, and below 64 MiB pictures are \
             refused: remove something, or bound the store (UI_IMAGE_STORE_MAX_BYTES)"
        );
        assert_eq!(
            part(Disk { total: 8 << 20, free: 3 << 20 }),
            (5 << 20, 6 << 20),
            "a quarter of a small disk is kept free"
        );
        let told = of_store(Totals { pictures: 1, bytes: 19 << 30 }, 20 << 30);
        assert!(
            told.starts_with(
                "the picture store holds 19 GiB of the 20 GiB of UI_IMAGE_STORE_MAX_BYTES (95 %)"
            ),
            "{told}"
        );
        assert_eq!((size(9), size(20 << 10)), ("9 bytes".to_owned(), "20 KiB".to_owned()));
    }
}
