//! Whether the store, or its disk, is nearly full: warned of before images are refused. Pure.

use service::files::DiskSpace;

use super::index::StoreTotals;

/// Bytes kept free for images that are made at the same time; a quarter of a small disk.
const MIN_FREE_BYTES: u64 = 64 << 20;

/// What must be free on a disk of this size before so many bytes are written. A disk of size 0 reports nothing.
pub(crate) fn required_free(total: u64, bytes: u64) -> u64 {
    if total == 0 { 0 } else { MIN_FREE_BYTES.min(total / 4).saturating_add(bytes) }
}

/// Nearly full from 90 % until below 88 %, so that a level at the edge does not repeat the warning.
#[derive(Debug, Default)]
pub(crate) struct Fullness(bool);

impl Fullness {
    /// Whether it is nearly full now.
    pub(crate) fn update(&mut self, used: u64, capacity: u64) -> bool {
        let threshold = u128::from(capacity) * if self.0 { 88 } else { 90 };
        self.0 = capacity > 0 && u128::from(used) * 100 >= threshold;
        self.0
    }
}

/// Used and usable bytes of a disk; the rest is kept free.
pub(crate) fn usage(disk: DiskSpace) -> (u64, u64) {
    let used = disk.total.saturating_sub(disk.free);
    (used, disk.total.saturating_sub(required_free(disk.total, 0)))
}

/// For a disk that is nearly full; `contents` says what the gateway keeps on it.
pub(crate) fn disk_warning(disk: DiskSpace, contents: &[&str]) -> String {
    format!(
        "the disk with {} is {} % full ({} left); images are refused below {}: free some space, or limit the store \
         (UI_IMAGE_STORE_MAX_BYTES)",
        contents.join(", "),
        percent(disk.total.saturating_sub(disk.free), disk.total),
        human_size(disk.free),
        human_size(required_free(disk.total, 0))
    )
}

/// For a store that is nearly at its limit.
pub(crate) fn store_warning(totals: StoreTotals, limit: u64) -> String {
    format!(
        "the image store uses {} of {} ({} %, UI_IMAGE_STORE_MAX_BYTES): above the limit, the oldest images are deleted",
        human_size(totals.bytes),
        human_size(limit),
        percent(totals.bytes, limit)
    )
}

fn percent(part: u64, all: u64) -> u128 {
    u128::from(part) * 100 / u128::from(all.max(1))
}

/// As in `20 GiB`.
pub(crate) fn human_size(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units.into_iter().find(|(shift, _)| bytes >> shift >= 10);
    unit.map_or_else(|| format!("{bytes} bytes"), |(shift, name)| format!("{} {name}", bytes >> shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_space_is_kept_free_and_a_quarter_of_a_small_disk() {
        const MIB: u64 = 1 << 20;
        for (total, bytes, expected) in [
            (1 << 40, 0, 64 * MIB),
            (1 << 40, 16 * MIB, 80 * MIB),
            (100 * MIB, 4 * MIB, 29 * MIB),
            (MIB, 0, MIB / 4),
            (0, 16 * MIB, 0),
            (1 << 40, u64::MAX, u64::MAX),
        ] {
            assert_eq!(required_free(total, bytes), expected, "{total} {bytes}");
        }
    }

    #[test]
    fn nearly_full_begins_at_90_percent_and_ends_below_88() {
        let mut fullness = Fullness::default();
        for (used, is_nearly_full) in [
            (0, false),
            (89, false),
            (90, true),
            (89, true),
            (88, true),
            (87, false),
            (89, false),
            (100, true),
        ] {
            assert_eq!(fullness.update(used, 100), is_nearly_full, "{used}");
        }
        assert!(!fullness.update(0, 0), "a disk of size 0 reports nothing");
        assert!(Fullness::default().update(u64::MAX, u64::MAX));
    }

    #[test]
    fn warnings_have_figures_and_a_fix() {
        let disk = DiskSpace { total: 100 << 30, free: 7 << 30 };
        assert_eq!(
            disk_warning(disk, &["the images (/a)", "the log (/b)"]),
            "the disk with the images (/a), the log (/b) is 93 % full (7168 MiB left); images are refused below 64 MiB: free \
             some space, or limit the store (UI_IMAGE_STORE_MAX_BYTES)"
        );
        assert_eq!(
            usage(DiskSpace { total: 8 << 20, free: 3 << 20 }),
            (5 << 20, 6 << 20),
            "a quarter of a small disk is kept free"
        );
        let warning = store_warning(StoreTotals { images: 1, bytes: 19 << 30 }, 20 << 30);
        assert!(
            warning.starts_with("the image store uses 19 GiB of 20 GiB (95 %, UI_IMAGE_STORE_MAX_BYTES)"),
            "{warning}"
        );
        for (bytes, text) in [(9, "9 bytes"), ((10 << 10) - 1, "10239 bytes"), (10 << 10, "10 KiB")] {
            assert_eq!(human_size(bytes), text);
        }
    }
}
