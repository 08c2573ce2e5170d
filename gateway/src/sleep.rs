//! Detects that the machine slept: then connections may be dead and health results stale. During sleep, wall time goes on while
//! monotonic time stands still, on macOS and Linux.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

/// Clock corrections may move wall time ahead by this much between two checks.
const MAX_CLOCK_DRIFT: Duration = Duration::from_secs(5);

/// Both clocks, read together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clocks {
    /// Goes on during sleep.
    pub wall: SystemTime,
    /// Stands still during sleep.
    pub monotonic: Instant,
}

impl Clocks {
    /// The machine's clocks now.
    pub fn read() -> Self {
        Self { wall: SystemTime::now(), monotonic: Instant::now() }
    }
}

/// The machine's clocks, or a test's.
#[derive(Clone)]
pub struct ClockSource(Arc<dyn Fn() -> Clocks + Send + Sync>);

impl ClockSource {
    /// Clocks that are read by this function.
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

/// How long the machine slept between two checks, if it did. A clock set forward looks the same, which costs one probe of each
/// backend.
fn sleep_duration(prev: &Clocks, now: &Clocks) -> Option<Duration> {
    let wall = now.wall.duration_since(prev.wall).unwrap_or_default();
    let ahead = wall.saturating_sub(now.monotonic.saturating_duration_since(prev.monotonic));
    (ahead > MAX_CLOCK_DRIFT).then_some(ahead)
}

/// Shared by all states of the service, across reloads.
#[derive(Debug)]
pub(crate) struct SleepDetector {
    source: ClockSource,
    state: Mutex<DetectorState>,
}

#[derive(Debug)]
struct DetectorState {
    /// At the last check.
    clocks: Clocks,
    sleep_count: u64,
    last_sleep: Duration,
}

impl SleepDetector {
    pub(crate) fn new(source: ClockSource) -> Self {
        let clocks = (source.0)();
        Self {
            source,
            state: Mutex::new(DetectorState { clocks, sleep_count: 0, last_sleep: Duration::ZERO }),
        }
    }

    /// Both clocks now.
    pub(crate) fn clocks(&self) -> Clocks {
        (self.source.0)()
    }

    /// Calls `on_wake` after a sleep that is not counted in `seen` yet. Concurrent checks wait for it, so that none acts on stale
    /// state.
    pub(crate) fn check(&self, seen: &AtomicU64, on_wake: impl FnOnce(Duration)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clocks();
        if let Some(slept) = sleep_duration(&state.clocks, &now) {
            state.sleep_count += 1;
            state.last_sleep = slept;
        }
        state.clocks = now;
        if seen.swap(state.sleep_count, Ordering::AcqRel) != state.sleep_count {
            on_wake(state.last_sleep);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_wall_time_running_ahead_is_sleep() {
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
            let slept = sleep_duration(&start, &now).map(|slept| slept.as_secs_f64());
            assert_eq!(slept, expected, "{wall} {monotonic}");
        }
    }

    #[test]
    fn each_state_handles_a_sleep_once() {
        let ahead = Arc::new(Mutex::new(Duration::ZERO));
        let shared = ahead.clone();
        let detector = SleepDetector::new(ClockSource::new(move || {
            let now = Clocks::read();
            Clocks { wall: now.wall + *shared.lock().unwrap(), ..now }
        }));
        let (one, other) = (AtomicU64::new(0), AtomicU64::new(0));
        let check = |seen: &AtomicU64| {
            let mut duration = None;
            detector.check(seen, |slept| duration = Some(slept.as_secs()));
            duration
        };
        assert_eq!(check(&one), None);
        *ahead.lock().unwrap() = Duration::from_mins(1);
        assert!(check(&one).is_some_and(|slept| (59..=60).contains(&slept)));
        assert_eq!(check(&one), None);
        assert!(check(&other).is_some(), "new to the other state");
        assert_eq!(check(&other), None);
    }
}
