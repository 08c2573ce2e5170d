//! Which pictures go: the oldest, beyond an age or a sum of bytes, and never one that is younger than a minute. Pure.

use std::time::Duration;

use super::{PictureName, index::Totals};
use crate::sleep::Clocks;

/// A picture this young stays, whatever the rules say: its address was just given out.
const YOUNG: u64 = 60;
/// A clock that jumps by more is not believed, and for as long after it.
const DOUBT: Duration = Duration::from_hours(1);

/// How much is kept; without limits everything is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rules {
    /// For how long.
    pub max_age: Option<Duration>,
    /// How many bytes.
    pub max_bytes: Option<u64>,
}

/// A picture in the store's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) name: PictureName,
    pub(super) bytes: u64,
    /// Unix seconds of the last change to the file.
    pub(super) modified: u64,
}

impl Rules {
    /// Whether anything can be due, by what is known without a look at the folder.
    pub(super) fn may_be_due(&self, totals: Totals, oldest: Option<&PictureName>, now: u64) -> bool {
        self.max_bytes.is_some_and(|most| totals.bytes > most)
            || oldest.is_some_and(|oldest| self.is_too_old(oldest, now))
    }

    /// What goes now, oldest first. Without `by_age` only the sum of bytes counts.
    pub(super) fn due(&self, mut pictures: Vec<Seen>, now: u64, by_age: bool) -> Vec<Seen> {
        pictures.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        let mut bytes: u64 = pictures.iter().map(|seen| seen.bytes).sum();
        pictures.retain(|seen| {
            let too_old = by_age && self.is_too_old(&seen.name, now);
            let too_many = self.max_bytes.is_some_and(|most| bytes > most);
            let goes = (too_old || too_many) && !seen.is_young(now);
            if goes {
                bytes -= seen.bytes;
            }
            goes
        });
        pictures
    }

    fn is_too_old(&self, name: &PictureName, now: u64) -> bool {
        self.max_age.is_some_and(|most| now.saturating_sub(name.unix()) > most.as_secs())
    }
}

impl Seen {
    /// By its name, or by its file's last change.
    fn is_young(&self, now: u64) -> bool {
        now.saturating_sub(self.name.unix().max(self.modified)) < YOUNG
    }
}

/// Whether wall time can be believed when it says how old a picture is.
#[derive(Debug)]
pub(super) struct Trust {
    last: Clocks,
    /// The last jump.
    jumped: Option<Clocks>,
}

/// What a look at the clocks says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// They go together.
    Steady,
    /// Wall time just jumped by so much, forward or back.
    Jumped(Duration),
    /// It did within the last hour.
    Doubtful,
}

impl Trust {
    pub(super) const fn new(now: Clocks) -> Self {
        Self { last: now, jumped: None }
    }

    /// Looks at the clocks again.
    pub(super) fn look(&mut self, now: Clocks) -> Look {
        let monotonic = now.monotonic.saturating_duration_since(self.last.monotonic);
        let jump = match now.wall.duration_since(self.last.wall) {
            Ok(wall) => wall.abs_diff(monotonic),
            Err(back) => back.duration() + monotonic,
        };
        self.last = now;
        if jump > DOUBT {
            self.jumped = Some(now);
            return Look::Jumped(jump);
        }
        let since = self.jumped.map(|jumped| now.monotonic.saturating_duration_since(jumped.monotonic));
        if since.is_some_and(|since| since < DOUBT) { Look::Doubtful } else { Look::Steady }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000_000;

    fn seen(unix: u64, bytes: u64) -> Seen {
        let name = PictureName::parse(&format!("{unix}_0123456789abcdef.png")).unwrap();
        Seen { name, bytes, modified: unix }
    }

    fn due(rules: Rules, pictures: &[Seen], by_age: bool) -> Vec<u64> {
        let due = rules.due(pictures.to_vec(), NOW, by_age);
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
            let rules = Rules { max_bytes: Some(max_bytes), ..Rules::default() };
            assert_eq!(due(rules, &pictures, true), gone, "{max_bytes}");
        }
        assert_eq!(due(Rules::default(), &pictures, true), [0; 0]);
    }

    #[test]
    fn age_counts_from_the_name_and_the_young_stay() {
        let rules = Rules { max_age: Some(Duration::from_secs(10)), ..Rules::default() };
        let touched = Seen { modified: NOW - 59, ..seen(NOW - 500, 1) };
        let future = seen(NOW + 500, 1);
        let pictures = [seen(NOW - 59, 1), seen(NOW - 60, 1), touched, future];
        assert_eq!(due(rules, &pictures, true), [NOW - 60]);
        assert_eq!(due(rules, &pictures, false), [0; 0]);
        let both = Rules { max_bytes: Some(3), ..rules };
        assert_eq!(due(both, &pictures, false), [NOW - 60], "the sum counts all the same");
    }

    #[test]
    fn nothing_is_due_where_nothing_can_be() {
        let oldest = seen(NOW - 100, 1).name;
        let totals = Totals { pictures: 1, bytes: 10 };
        for (max_age, max_bytes, due) in
            [(None, None, false), (Some(100), Some(10), false), (Some(99), None, true), (None, Some(9), true)]
        {
            let rules = Rules { max_age: max_age.map(Duration::from_secs), max_bytes };
            assert_eq!(rules.may_be_due(totals, Some(&oldest), NOW), due, "{rules:?}");
        }
        let rules = Rules { max_age: Some(Duration::ZERO), max_bytes: Some(0) };
        assert!(!rules.may_be_due(Totals::default(), None, NOW));
    }

    #[test]
    fn a_clock_that_jumped_is_doubted_for_an_hour() {
        let start = Clocks::read();
        let at = |monotonic: u64, wall: u64| Clocks {
            wall: start.wall + Duration::from_secs(wall) - Duration::from_secs(10_000),
            monotonic: start.monotonic + Duration::from_secs(monotonic),
        };
        let mut trust = Trust::new(at(0, 10_000));
        assert_eq!(trust.look(at(10, 10_010)), Look::Steady);
        assert_eq!(trust.look(at(20, 13_620)), Look::Steady, "an hour exactly is none");
        assert_eq!(trust.look(at(30, 17_231)), Look::Jumped(Duration::from_secs(3601)));
        assert_eq!(trust.look(at(40, 17_241)), Look::Doubtful);
        assert_eq!(trust.look(at(3629, 20_830)), Look::Doubtful);
        assert_eq!(trust.look(at(3630, 20_831)), Look::Steady);
        assert_eq!(trust.look(at(3640, 10_000)), Look::Jumped(Duration::from_secs(10_841)), "and back");
    }
}
