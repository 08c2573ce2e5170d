//! Noticing that the machine slept. What was known before is old then: connections may be dead, backends gone. Decided
//! by two clocks alone: in sleep wall time goes on, and monotonic time stands still on macOS as on Linux.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use crate::state::App;

/// Between two looks at the clocks.
const LOOK: Duration = Duration::from_secs(1);
/// Wall time may run ahead by this much between two looks: clocks are corrected.
const AHEAD: Duration = Duration::from_secs(5);

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
fn slept(prev: &Clocks, now: &Clocks) -> Option<Duration> {
    let wall = now.wall.duration_since(prev.wall).unwrap_or_default();
    let ahead = wall.saturating_sub(now.monotonic.saturating_duration_since(prev.monotonic));
    (ahead > AHEAD).then_some(ahead)
}

/// The last look at the clocks.
#[derive(Debug)]
pub(crate) struct Vigil {
    source: ClockSource,
    last: Mutex<Clocks>,
}

impl Vigil {
    /// Awake from now on.
    pub(crate) fn new(source: ClockSource) -> Self {
        let last = Mutex::new((source.0)());
        Self { source, last }
    }

    /// Looks. After a sleep, whoever looks at the same time waits until `woke` is done, and so acts on nothing old.
    pub(crate) fn look(&self, woke: impl FnOnce(Duration)) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let now = (self.source.0)();
        let slept = slept(&last, &now);
        *last = now;
        if let Some(slept) = slept {
            woke(slept);
        }
    }
}

/// The worker: looks once a second.
pub(crate) async fn watch(app: App) {
    loop {
        app.look_for_sleep();
        tokio::time::sleep(LOOK).await;
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
            let seen = slept(&start, &now).map(|ahead| ahead.as_secs_f64());
            assert_eq!(seen, expected, "{wall} {monotonic}");
        }
    }

    #[test]
    fn a_sleep_is_noticed_once() {
        let ahead = Arc::new(Mutex::new(Duration::ZERO));
        let shared = ahead.clone();
        let vigil = Vigil::new(ClockSource::new(move || {
            let now = Clocks::read();
            Clocks { wall: now.wall + *shared.lock().unwrap(), ..now }
        }));
        let noticed = || {
            let mut noticed = None;
            vigil.look(|slept| noticed = Some(slept.as_secs()));
            noticed
        };
        assert_eq!(noticed(), None);
        *ahead.lock().unwrap() = Duration::from_mins(1);
        assert!(noticed().is_some_and(|slept| (59..=60).contains(&slept)));
        assert_eq!(noticed(), None);
    }
}
