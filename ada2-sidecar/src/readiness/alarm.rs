//! A condition that must last before it counts, and be gone for a while before it no longer does: what keeps a verdict
//! from flapping. Pure.

use std::time::{Duration, Instant};

/// Whether a condition counts, and since when observations contradict that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Alarm {
    /// Whether it counts.
    pub(crate) on: bool,
    changing_since: Option<Instant>,
}

/// How long until it counts, and until it no longer does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delays {
    /// Until it is raised.
    pub(crate) rise: Duration,
    /// Until it is cleared.
    pub(crate) fall: Duration,
}

impl Alarm {
    /// Starts with the first observation.
    pub(crate) const fn new(on: bool) -> Self {
        Self { on, changing_since: None }
    }

    /// After one more observation: `raise` is the condition; `clear` is that it is surely gone. Between the two (a margin)
    /// nothing changes.
    #[must_use]
    pub(crate) fn update(self, raise: bool, clear: bool, delays: Delays, now: Instant) -> Self {
        let (doubtful, delay) = if self.on { (clear, delays.fall) } else { (raise, delays.rise) };
        if !doubtful {
            return Self { changing_since: None, ..self };
        }
        let since = self.changing_since.unwrap_or(now);
        if now.saturating_duration_since(since) >= delay {
            Self { on: !self.on, changing_since: None }
        } else {
            Self { changing_since: Some(since), ..self }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DELAYS: Delays = Delays { rise: Duration::from_secs(15), fall: Duration::from_secs(10) };

    /// Seconds and what is seen then: `1` the condition, `0` surely not, `.` between.
    fn run(looks: &[(u64, char)]) -> Vec<bool> {
        let start = Instant::now();
        let next = |alarm: &mut Alarm, (second, seen): &(u64, char)| {
            *alarm = alarm.update(*seen == '1', *seen == '0', DELAYS, start + Duration::from_secs(*second));
            Some(alarm.on)
        };
        looks.iter().scan(Alarm::default(), next).collect()
    }

    #[test]
    fn an_alarm_is_raised_and_cleared_after_its_delays() {
        assert_eq!(run(&[(0, '1'), (14, '1'), (15, '1')]), [false, false, true]);
        assert_eq!(
            run(&[(0, '1'), (10, '0'), (11, '1'), (25, '1')]),
            [false; 4],
            "a break starts the time anew"
        );
        let on = [(0, '1'), (15, '1')];
        let then = |looks: &[(u64, char)]| run(&[&on, looks].concat())[2..].to_vec();
        assert_eq!(then(&[(20, '0'), (29, '0'), (30, '0')]), [true, true, false]);
        assert_eq!(then(&[(20, '.'), (40, '.')]), [true, true], "between the two nothing changes");
    }

    proptest! {
        #[test]
        fn an_alarm_never_changes_faster_than_its_delays(looks in prop::collection::vec((any::<bool>(), any::<bool>()), 1..200)) {
            let start = Instant::now();
            let (mut alarm, mut last_change) = (Alarm::default(), None::<(Duration, bool)>);
            for (tick, (raise, clear)) in looks.into_iter().enumerate() {
                let at = Duration::from_millis(500) * u32::try_from(tick).unwrap();
                let next = alarm.update(raise, clear && !raise, DELAYS, start + at);
                if next.on != alarm.on {
                    let least = if next.on { DELAYS.rise } else { DELAYS.fall };
                    if let Some((before, _)) = last_change {
                        prop_assert!(at.checked_sub(before).unwrap() >= least);
                    }
                    last_change = Some((at, next.on));
                }
                alarm = next;
            }
        }
    }
}
