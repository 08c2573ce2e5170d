//! Which images are deleted: the oldest, above a maximum age or total size, but never within their first minute. Pure.

use std::time::Duration;

use super::{ImageName, index::StoreTotals};
use crate::sleep::Clocks;

/// Younger images stay: their URLs were just handed out.
const MIN_AGE_SECS: u64 = 60;
/// A larger jump suspends deletion by age, for the same time.
const CLOCK_JUMP: Duration = Duration::from_hours(1);

/// How much is kept; without limits, everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetentionPolicy {
    /// Older images are deleted.
    pub max_age: Option<Duration>,
    /// Of images and records.
    pub max_bytes: Option<u64>,
}

/// An image in the store's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ScannedImage {
    pub(super) name: ImageName,
    /// With its record.
    pub(super) bytes: u64,
    /// In Unix seconds.
    pub(super) modified: u64,
}

impl RetentionPolicy {
    /// Whether anything can have expired, judged without reading the directory.
    pub(super) fn may_have_expired(&self, totals: StoreTotals, oldest: Option<&ImageName>, now: u64) -> bool {
        self.max_bytes.is_some_and(|max| totals.bytes > max)
            || oldest.is_some_and(|oldest| self.is_too_old(oldest, now))
    }

    /// The expired images, oldest first. Without `by_age`, only the total size counts.
    pub(super) fn expired(&self, mut images: Vec<ScannedImage>, now: u64, by_age: bool) -> Vec<ScannedImage> {
        images.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        let mut bytes: u64 = images.iter().map(|image| image.bytes).sum();
        images.retain(|image| {
            let too_old = by_age && self.is_too_old(&image.name, now);
            let too_many = self.max_bytes.is_some_and(|max| bytes > max);
            let delete = (too_old || too_many) && !image.is_recent(now);
            if delete {
                bytes -= image.bytes;
            }
            delete
        });
        images
    }

    fn is_too_old(&self, name: &ImageName, now: u64) -> bool {
        self.max_age.is_some_and(|max| now.saturating_sub(name.unix()) > max.as_secs())
    }
}

impl ScannedImage {
    /// By its name or modification time.
    fn is_recent(&self, now: u64) -> bool {
        now.saturating_sub(self.name.unix().max(self.modified)) < MIN_AGE_SECS
    }
}

/// Watches whether wall time is reliable enough to judge ages.
#[derive(Debug)]
pub(super) struct ClockMonitor {
    last: Clocks,
    /// Of the last jump.
    jumped: Option<Clocks>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClockState {
    Steady,
    /// Forward or back.
    Jumped(Duration),
    /// Within an hour after a jump.
    Settling,
}

impl ClockMonitor {
    pub(super) const fn new(now: Clocks) -> Self {
        Self { last: now, jumped: None }
    }

    pub(super) fn observe(&mut self, now: Clocks) -> ClockState {
        let monotonic = now.monotonic.saturating_duration_since(self.last.monotonic);
        let jump = match now.wall.duration_since(self.last.wall) {
            Ok(wall) => wall.abs_diff(monotonic),
            Err(backwards) => backwards.duration() + monotonic,
        };
        self.last = now;
        if jump > CLOCK_JUMP {
            self.jumped = Some(now);
            return ClockState::Jumped(jump);
        }
        let since = self.jumped.map(|jumped| now.monotonic.saturating_duration_since(jumped.monotonic));
        if since.is_some_and(|since| since < CLOCK_JUMP) { ClockState::Settling } else { ClockState::Steady }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000_000;

    fn image(unix: u64, bytes: u64) -> ScannedImage {
        let name = ImageName::parse(&format!("{unix}_0123456789abcdef.png")).unwrap();
        ScannedImage { name, bytes, modified: unix }
    }

    fn expired(policy: RetentionPolicy, images: &[ScannedImage], by_age: bool) -> Vec<u64> {
        let expired = policy.expired(images.to_vec(), NOW, by_age);
        expired.iter().map(|image| image.name.unix()).collect()
    }

    #[test]
    fn the_oldest_are_deleted_until_the_rest_fits() {
        let images = [image(NOW - 100, 30), image(NOW - 300, 10), image(NOW - 200, 20), image(NOW - 10, 40)];
        for (max_bytes, deleted) in [
            (100, &[][..]),
            (99, &[NOW - 300]),
            (90, &[NOW - 300]),
            (89, &[NOW - 300, NOW - 200]),
            (0, &[NOW - 300, NOW - 200, NOW - 100]),
        ] {
            let policy = RetentionPolicy { max_bytes: Some(max_bytes), ..RetentionPolicy::default() };
            assert_eq!(expired(policy, &images, true), deleted, "{max_bytes}");
        }
        assert_eq!(expired(RetentionPolicy::default(), &images, true), [0; 0]);
    }

    #[test]
    fn age_counts_from_the_name_and_recent_images_stay() {
        let policy = RetentionPolicy { max_age: Some(Duration::from_secs(10)), ..RetentionPolicy::default() };
        let touched = ScannedImage { modified: NOW - 59, ..image(NOW - 500, 1) };
        let future = image(NOW + 500, 1);
        let images = [image(NOW - 59, 1), image(NOW - 60, 1), touched, future];
        assert_eq!(expired(policy, &images, true), [NOW - 60]);
        assert_eq!(expired(policy, &images, false), [0; 0]);
        let both = RetentionPolicy { max_bytes: Some(3), ..policy };
        assert_eq!(expired(both, &images, false), [NOW - 60], "the total size counts all the same");
    }

    #[test]
    fn nothing_can_have_expired_within_the_limits() {
        let oldest = image(NOW - 100, 1).name;
        let totals = StoreTotals { images: 1, bytes: 10 };
        for (max_age, max_bytes, expected) in
            [(None, None, false), (Some(100), Some(10), false), (Some(99), None, true), (None, Some(9), true)]
        {
            let policy = RetentionPolicy { max_age: max_age.map(Duration::from_secs), max_bytes };
            assert_eq!(policy.may_have_expired(totals, Some(&oldest), NOW), expected, "{policy:?}");
        }
        let policy = RetentionPolicy { max_age: Some(Duration::ZERO), max_bytes: Some(0) };
        assert!(!policy.may_have_expired(StoreTotals::default(), None, NOW));
    }

    #[test]
    fn a_clock_that_jumped_is_unreliable_for_an_hour() {
        let start = Clocks::read();
        let at = |monotonic: u64, wall: u64| Clocks {
            wall: start.wall + Duration::from_secs(wall) - Duration::from_secs(10_000),
            monotonic: start.monotonic + Duration::from_secs(monotonic),
        };
        let mut monitor = ClockMonitor::new(at(0, 10_000));
        assert_eq!(monitor.observe(at(10, 10_010)), ClockState::Steady);
        assert_eq!(monitor.observe(at(20, 13_620)), ClockState::Steady, "exactly an hour is no jump");
        assert_eq!(monitor.observe(at(30, 17_231)), ClockState::Jumped(Duration::from_secs(3601)));
        assert_eq!(monitor.observe(at(40, 17_241)), ClockState::Settling);
        assert_eq!(monitor.observe(at(3629, 20_830)), ClockState::Settling);
        assert_eq!(monitor.observe(at(3630, 20_831)), ClockState::Steady);
        assert_eq!(
            monitor.observe(at(3640, 10_000)),
            ClockState::Jumped(Duration::from_secs(10_841)),
            "and back"
        );
    }
}
