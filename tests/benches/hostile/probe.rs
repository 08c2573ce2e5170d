//! Asks `/healthz` over new connections for as long as an attack lasts.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use fakes::stats::percentile;

use super::client;

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(10);

/// The polling thread.
pub(super) struct HealthProbe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Health>,
}

/// How health was answered.
pub(super) struct Health {
    times: Vec<Duration>,
    pub(super) p50: Duration,
    pub(super) p99: Duration,
    /// Questions without an answer of 200.
    pub(super) failed: usize,
}

impl HealthProbe {
    pub(super) fn start(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let (mut times, mut failed) = (Vec::new(), 0);
            while !stopped.load(Ordering::Acquire) {
                let start = Instant::now();
                if client::get(address, "/healthz") == Some(200) {
                    times.push(start.elapsed());
                } else {
                    failed += 1;
                }
                thread::sleep(PAUSE);
            }
            if times.is_empty() {
                times.push(NEVER);
            }
            let (p50, p99) = (percentile(&mut times, 50), percentile(&mut times, 99));
            Health { times, p50, p99, failed }
        });
        Self { stop, thread }
    }

    pub(super) fn stop(self) -> Health {
        self.stop.store(true, Ordering::Release);
        self.thread.join().expect("the probe only asks")
    }
}

/// Stands for a time where nothing was answered at all.
const NEVER: Duration = Duration::from_secs(9_999);

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let max = self.times.last().copied().unwrap_or_default();
        write!(f, "{:.1}, {:.1}, {:.1} ({})", ms(self.p50), ms(self.p99), ms(max), self.times.len())?;
        if self.failed > 0 {
            write!(f, ", {} unanswered", self.failed)?;
        }
        Ok(())
    }
}
