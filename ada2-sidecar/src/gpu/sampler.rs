//! The thread that looks at the card. It owns the driver's library and publishes a sample each interval, whatever
//! the driver says; only a call that hangs stops it, which the age of the last sample shows. It decides nothing.

use std::{
    any::Any,
    io,
    mem::discriminant,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::watch;
use tracing::{info, warn};

use super::{
    GpuProcess, GpuReading, GpuSample, GpuState, Memory, Sampling,
    nvml::{Card, Library},
    processes, vram,
};

/// Listing processes keeps the driver's global lock for milliseconds: asked more often it slows the card's users.
const PROCESSES_EVERY: Duration = Duration::from_secs(2);
/// After this long of errors that say nothing better, the library is loaded anew.
const REOPEN_AFTER: Duration = Duration::from_secs(5);
/// Initialising costs the driver much; a card that went away is first looked for after this …
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// … and, doubling, at last every.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
const MIB: u64 = 1 << 20;

pub(super) fn start(sampling: Sampling) -> io::Result<watch::Receiver<Option<Arc<GpuSample>>>> {
    let (sender, receiver) = watch::channel(None);
    let publisher = Publisher { sender, interval: sampling.interval, answered: false };
    thread::Builder::new()
        .name("nvml".to_owned())
        .spawn(move || supervise(publisher, |publisher| session(&sampling, publisher)))?;
    Ok(receiver)
}

/// One session after the other until nobody listens. A session that panics (the wrapper can, on a library that lacks
/// symbols) is a session that failed.
fn supervise(mut publisher: Publisher, mut session: impl FnMut(&mut Publisher) -> Result<(), GpuState>) {
    let mut pause = FIRST_PAUSE;
    while !publisher.is_alone() {
        publisher.answered = false;
        let end = catch_unwind(AssertUnwindSafe(|| session(&mut publisher)))
            .unwrap_or_else(|panic| Err(GpuState::Failed(panic_words(panic.as_ref()))));
        let Err(state) = end else { return };
        if publisher.answered {
            pause = FIRST_PAUSE;
        }
        publisher.repeat(&state, pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// From loading the library to losing the card; `Ok` once nobody listens. Everything of the driver lives on this
/// stack, so that its end lets go of `/dev/nvidia*` and the driver can be reloaded.
fn session(sampling: &Sampling, publisher: &mut Publisher) -> Result<(), GpuState> {
    let library = Library::load(sampling.library.as_deref())?;
    let end = library.card(&sampling.gpu_id).and_then(|card| follow(&card, sampling, publisher));
    if let Err(state) = &end {
        // Said before the library is let go of: a driver in trouble may take long over that.
        publisher.publish(state.clone());
    }
    end
}

fn follow(card: &Card<'_>, sampling: &Sampling, publisher: &mut Publisher) -> Result<(), GpuState> {
    let mut together = None;
    let mut failing_since = None;
    while !publisher.is_alone() {
        match look(card, sampling, &mut together) {
            Ok(reading) => {
                failing_since = None;
                publisher.publish(GpuState::Present(Box::new(reading)));
            }
            Err(state @ GpuState::Failed(_))
                if failing_since.get_or_insert_with(Instant::now).elapsed() < REOPEN_AFTER =>
            {
                publisher.publish(state);
            }
            Err(state) => return Err(state),
        }
        thread::sleep(sampling.interval);
    }
    Ok(())
}

/// Memory and those who hold it, read one right after the other.
struct Together {
    taken: Instant,
    memory: Memory,
    processes: Option<Vec<GpuProcess>>,
    engine_unit_active: bool,
}

fn look(card: &Card<'_>, sampling: &Sampling, last: &mut Option<Together>) -> Result<GpuReading, GpuState> {
    let together = match last.take() {
        Some(together) if together.taken.elapsed() < PROCESSES_EVERY => together,
        _ => Together::take(card, &sampling.engine_unit)?,
    };
    let Together { memory: then, processes, engine_unit_active, .. } = &*last.insert(together);
    let headroom = vram::headroom(then, processes.as_deref(), &sampling.engine_unit, *engine_unit_active);
    let mut report = card.report()?;
    report.memory_effective_free = headroom.effective.map(|bytes| bytes / MIB);
    Ok(GpuReading {
        report,
        memory: *then,
        processes: processes.clone(),
        engine_unit_active: *engine_unit_active,
    })
}

impl Together {
    fn take(card: &Card<'_>, engine_unit: &str) -> Result<Self, GpuState> {
        let usages = card.processes()?;
        let memory = card.memory()?;
        Ok(Self {
            taken: Instant::now(),
            memory,
            processes: usages.map(|usages| processes::describe(&usages, Path::new("/proc"), engine_unit)),
            engine_unit_active: processes::unit_is_active(Path::new("/sys/fs/cgroup"), engine_unit),
        })
    }
}

/// The sending end, and what it has sent.
struct Publisher {
    sender: watch::Sender<Option<Arc<GpuSample>>>,
    interval: Duration,
    /// Whether the card answered in this session.
    answered: bool,
}

impl Publisher {
    fn is_alone(&self) -> bool {
        self.sender.is_closed()
    }

    fn publish(&mut self, state: GpuState) {
        self.answered |= matches!(state, GpuState::Present(_));
        let news = self
            .sender
            .borrow()
            .as_ref()
            .is_none_or(|sample| discriminant(&sample.state) != discriminant(&state));
        if news && matches!(state, GpuState::Present(_)) {
            info!(gpu = %state, "GPU");
        } else if news {
            warn!(gpu = %state, "GPU");
        }
        let sample = GpuSample { taken: Instant::now(), wall: SystemTime::now(), state };
        self.sender.send_replace(Some(Arc::new(sample)));
    }

    /// The same every interval for that long: an old sample means a hung driver, and nothing else.
    fn repeat(&mut self, state: &GpuState, pause: Duration) {
        let until = Instant::now() + pause;
        while !self.is_alone() {
            self.publish(state.clone());
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::sleep(self.interval.min(left));
        }
    }
}

fn panic_words(panic: &(dyn Any + Send)) -> String {
    let words = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    format!("panic: {}", words.unwrap_or("without words"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_published_and_the_next_session_follows() {
        let (sender, mut samples) = watch::channel(None);
        let publisher = Publisher { sender, interval: Duration::from_millis(10), answered: false };
        let mut sessions = 0;
        let thread = thread::spawn(move || {
            supervise(publisher, |publisher| {
                sessions += 1;
                assert!(sessions > 1, "the driver is odd");
                publisher.publish(GpuState::NoPermission);
                while !publisher.is_alone() {
                    thread::sleep(Duration::from_millis(1));
                }
                Ok(())
            });
        });
        let words = "panic: the driver is odd";
        assert_comes(&mut samples, |state| matches!(state, GpuState::Failed(seen) if seen == words)).await;
        assert_comes(&mut samples, |state| matches!(state, GpuState::NoPermission)).await;
        drop(samples);
        thread.join().unwrap();
    }

    #[tokio::test]
    async fn trouble_is_repeated_with_fresh_times() {
        let (sender, mut samples) = watch::channel(None);
        let publisher = Publisher { sender, interval: Duration::from_millis(10), answered: false };
        let thread = thread::spawn(move || supervise(publisher, |_| Err(GpuState::Lost)));
        assert_comes(&mut samples, |state| matches!(state, GpuState::Lost)).await;
        let first = samples.borrow().as_ref().unwrap().taken;
        samples.changed().await.unwrap();
        assert!(samples.borrow().as_ref().unwrap().taken > first);
        drop(samples);
        thread.join().unwrap();
    }

    async fn assert_comes(
        samples: &mut watch::Receiver<Option<Arc<GpuSample>>>,
        wanted: impl Fn(&GpuState) -> bool,
    ) {
        let comes = samples.wait_for(|sample| sample.as_ref().is_some_and(|sample| wanted(&sample.state)));
        tokio::time::timeout(Duration::from_secs(10), comes).await.expect("the state comes").unwrap();
    }
}
