//! Noticing that the machine slept. What was known before is old then: connections may be dead, backends gone. Decided
//! by two clocks alone: in sleep wall time goes on, and monotonic time stands still on macOS as on Linux.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

/// Wall time may run ahead by this much between two looks: clocks are corrected.
const MAX_CLOCK_DRIFT: Duration = Duration::from_secs(5);

/// Both clocks, read together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clocks {
    /// Goes on in sleep.
    pub wall: SystemTime,
    /// Stands still in sleep.
    pub monotonic: Instant,
}

impl Clocks {
    /// Reads the machine's.
    pub fn read() -> Self {
        Self { wall: SystemTime::now(), monotonic: Instant::now() }
    }
}

/// Where the clocks are read: the machine's, or a test's.
#[derive(Clone)]
pub struct ClockSource(Arc<dyn Fn() -> Clocks + Send + Sync>);

impl ClockSource {
    /// Reads them so.
    pub fn new(read: impl Fn() -> Clocks + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }
}

impl Default for ClockSource {
    fn default() -> Self {
        Self::new(Clocks::read)
    }
}

impl fmt::Debug for ClockSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClockSource")
    }
}

/// How long the machine slept between two looks, if it did. A clock set forward looks the same and costs one probe of
/// each backend; one set back is no sleep.
fn sleep_duration(prev: &Clocks, now: &Clocks) -> Option<Duration> {
    let wall = now.wall.duration_since(prev.wall).unwrap_or_default();
    let ahead = wall.saturating_sub(now.monotonic.saturating_duration_since(prev.monotonic));
    (ahead > MAX_CLOCK_DRIFT).then_some(ahead)
}

/// Looks at the clocks, for all states of the service.
#[derive(Debug)]
pub(crate) struct SleepDetector {
    source: ClockSource,
    state: Mutex<DetectorState>,
}

/// What the last look saw.
#[derive(Debug)]
struct DetectorState {
    clocks: Clocks,
    /// Sleeps so far.
    sleep_count: u64,
    /// How long the last one was.
    last_sleep: Duration,
}

impl SleepDetector {
    /// Awake from now on.
    pub(crate) fn new(source: ClockSource) -> Self {
        let clocks = (source.0)();
        Self {
            source,
            state: Mutex::new(DetectorState { clocks, sleep_count: 0, last_sleep: Duration::ZERO }),
        }
    }

    /// Both clocks, now.
    pub(crate) fn clocks(&self) -> Clocks {
        (self.source.0)()
    }

    /// Looks. After a sleep that `known` does not count yet, whoever looks at the same time waits until `woke` is done,
    /// and so acts on nothing old.
    pub(crate) fn check(&self, known: &AtomicU64, on_wake: impl FnOnce(Duration)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clocks();
        if let Some(slept) = sleep_duration(&state.clocks, &now) {
            state.sleep_count += 1;
            state.last_sleep = slept;
        }
        state.clocks = now;
        if known.swap(state.sleep_count, Ordering::AcqRel) != state.sleep_count {
            on_wake(state.last_sleep);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_wall_time_that_runs_ahead_is_sleep() {
        let start = Clocks::read();
        for (wall, monotonic, expected) in [
            (1.0, 1.0, None),
            (6.0, 1.0, None),
            (6.1, 1.0, Some(5.1)),
            (28_801.0, 1.0, Some(28_800.0)),
            (10.0, 10.0, None),
            (3600.0, 3600.0, None),
            (0.0, 3600.0, None),
            (-3600.0, 1.0, None),
        ] {
            let step = Duration::from_secs_f64(f64::abs(wall));
            let now = Clocks {
                wall: if wall < 0.0 { start.wall - step } else { start.wall + step },
                monotonic: start.monotonic + Duration::from_secs_f64(monotonic),
            };
            let seen = sleep_duration(&start, &now).map(|ahead| ahead.as_secs_f64());
            assert_eq!(seen, expected, "{wall} {monotonic}");
        }
    }

    #[test]
    fn a_sleep_is_noticed_once_by_each_state() {
        let ahead = Arc::new(Mutex::new(Duration::ZERO));
        let shared = ahead.clone();
        let detector = SleepDetector::new(ClockSource::new(move || {
            let now = Clocks::read();
            Clocks { wall: now.wall + *shared.lock().unwrap(), ..now }
        }));
        let (one, other) = (AtomicU64::new(0), AtomicU64::new(0));
        let noticed = |known: &AtomicU64| {
            let mut noticed = None;
            detector.check(known, |slept| noticed = Some(slept.as_secs()));
            noticed
        };
        assert_eq!(noticed(&one), None);
        *ahead.lock().unwrap() = Duration::from_mins(1);
        assert!(noticed(&one).is_some_and(|slept| (59..=60).contains(&slept)));
        assert_eq!(noticed(&one), None);
        assert!(noticed(&other).is_some(), "the other state has not heard of it yet");
        assert_eq!(noticed(&other), None);
    }
}
