//! Which pictures go: the oldest, beyond an age or a sum of bytes, and never one that is younger than a minute. Pure.

use std::time::Duration;

use super::{ImageName, index::StoreTotals};
use crate::sleep::Clocks;

/// A picture this young stays, whatever the rules say: its address was just given out.
const MIN_AGE_SECS: u64 = 60;
/// A clock that jumps by more is not believed, and for as long after it.
const CLOCK_JUMP: Duration = Duration::from_hours(1);

/// How much is kept; without limits everything is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetentionPolicy {
    /// For how long.
    pub max_age: Option<Duration>,
    /// How many bytes.
    pub max_bytes: Option<u64>,
}

/// A picture in the store's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ScannedImage {
    pub(super) name: ImageName,
    pub(super) bytes: u64,
    /// Unix seconds of the last change to the file.
    pub(super) modified: u64,
}

impl RetentionPolicy {
    /// Whether anything can be due, by what is known without a look at the folder.
    pub(super) fn may_have_expired(&self, totals: StoreTotals, oldest: Option<&ImageName>, now: u64) -> bool {
        self.max_bytes.is_some_and(|most| totals.bytes > most)
            || oldest.is_some_and(|oldest| self.is_too_old(oldest, now))
    }

    /// What goes now, oldest first. Without `by_age` only the sum of bytes counts.
    pub(super) fn expired(&self, mut images: Vec<ScannedImage>, now: u64, by_age: bool) -> Vec<ScannedImage> {
        images.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        let mut bytes: u64 = images.iter().map(|seen| seen.bytes).sum();
        images.retain(|seen| {
            let too_old = by_age && self.is_too_old(&seen.name, now);
            let too_many = self.max_bytes.is_some_and(|most| bytes > most);
            let delete = (too_old || too_many) && !seen.is_recent(now);
            if delete {
                bytes -= seen.bytes;
            }
            delete
        });
        images
    }

    fn is_too_old(&self, name: &ImageName, now: u64) -> bool {
        self.max_age.is_some_and(|most| now.saturating_sub(name.unix()) > most.as_secs())
    }
}

impl ScannedImage {
    /// By its name, or by its file's last change.
    fn is_recent(&self, now: u64) -> bool {
        now.saturating_sub(self.name.unix().max(self.modified)) < MIN_AGE_SECS
    }
}

/// Whether wall time can be believed when it says how old a picture is.
#[derive(Debug)]
pub(super) struct ClockMonitor {
    last: Clocks,
    /// The last jump.
    jumped: Option<Clocks>,
}

/// What a look at the clocks says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClockState {
    /// They go together.
    Steady,
    /// Wall time just jumped by so much, forward or back.
    Jumped(Duration),
    /// It did within the last hour.
    Settling,
}

impl ClockMonitor {
    pub(super) const fn new(now: Clocks) -> Self {
        Self { last: now, jumped: None }
    }

    /// Looks at the clocks again.
    pub(super) fn observe(&mut self, now: Clocks) -> ClockState {
        let monotonic = now.monotonic.saturating_duration_since(self.last.monotonic);
        let jump = match now.wall.duration_since(self.last.wall) {
            Ok(wall) => wall.abs_diff(monotonic),
            Err(back) => back.duration() + monotonic,
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

    fn seen(unix: u64, bytes: u64) -> ScannedImage {
        let name = ImageName::parse(&format!("{unix}_0123456789abcdef.png")).unwrap();
        ScannedImage { name, bytes, modified: unix }
    }

    fn due(rules: RetentionPolicy, pictures: &[ScannedImage], by_age: bool) -> Vec<u64> {
        let due = rules.expired(pictures.to_vec(), NOW, by_age);
        due.iter().map(|seen| seen.name.unix()).collect()
    }

    #[test]
    fn the_oldest_go_until_the_rest_fits() {
        let pictures = [seen(NOW - 100, 30), seen(NOW - 300, 10), seen(NOW - 200, 20), seen(NOW - 10, 40)];
        for (max_bytes, gone) in [
            (100, &[][..]),
            (99, &[NOW - 300]),
            (90, &[NOW - 300]),
            (89, &[NOW - 300, NOW - 200]),
            (0, &[NOW - 300, NOW - 200, NOW - 100]),
        ] {
            let rules = RetentionPolicy { max_bytes: Some(max_bytes), ..RetentionPolicy::default() };
            assert_eq!(due(rules, &pictures, true), gone, "{max_bytes}");
        }
        assert_eq!(due(RetentionPolicy::default(), &pictures, true), [0; 0]);
    }

    #[test]
    fn age_counts_from_the_name_and_the_young_stay() {
        let rules = RetentionPolicy { max_age: Some(Duration::from_secs(10)), ..RetentionPolicy::default() };
        let touched = ScannedImage { modified: NOW - 59, ..seen(NOW - 500, 1) };
        let future = seen(NOW + 500, 1);
        let pictures = [seen(NOW - 59, 1), seen(NOW - 60, 1), touched, future];
        assert_eq!(due(rules, &pictures, true), [NOW - 60]);
        assert_eq!(due(rules, &pictures, false), [0; 0]);
        let both = RetentionPolicy { max_bytes: Some(3), ..rules };
        assert_eq!(due(both, &pictures, false), [NOW - 60], "the sum counts all the same");
    }

    #[test]
    fn nothing_is_due_where_nothing_can_be() {
        let oldest = seen(NOW - 100, 1).name;
        let totals = StoreTotals { images: 1, bytes: 10 };
        for (max_age, max_bytes, due) in
            [(None, None, false), (Some(100), Some(10), false), (Some(99), None, true), (None, Some(9), true)]
        {
            let rules = RetentionPolicy { max_age: max_age.map(Duration::from_secs), max_bytes };
            assert_eq!(rules.may_have_expired(totals, Some(&oldest), NOW), due, "{rules:?}");
        }
        let rules = RetentionPolicy { max_age: Some(Duration::ZERO), max_bytes: Some(0) };
        assert!(!rules.may_have_expired(StoreTotals::default(), None, NOW));
    }

    #[test]
    fn a_clock_that_jumped_is_doubted_for_an_hour() {
        let start = Clocks::read();
        let at = |monotonic: u64, wall: u64| Clocks {
            wall: start.wall + Duration::from_secs(wall) - Duration::from_secs(10_000),
            monotonic: start.monotonic + Duration::from_secs(monotonic),
        };
        let mut trust = ClockMonitor::new(at(0, 10_000));
        assert_eq!(trust.observe(at(10, 10_010)), ClockState::Steady);
        assert_eq!(trust.observe(at(20, 13_620)), ClockState::Steady, "an hour exactly is none");
        assert_eq!(trust.observe(at(30, 17_231)), ClockState::Jumped(Duration::from_secs(3601)));
        assert_eq!(trust.observe(at(40, 17_241)), ClockState::Settling);
        assert_eq!(trust.observe(at(3629, 20_830)), ClockState::Settling);
        assert_eq!(trust.observe(at(3630, 20_831)), ClockState::Steady);
        assert_eq!(
            trust.observe(at(3640, 10_000)),
            ClockState::Jumped(Duration::from_secs(10_841)),
            "and back"
        );
    }
}
