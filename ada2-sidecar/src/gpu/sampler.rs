//! The thread that samples the card. It owns the driver's library and publishes a sample each interval, whatever the driver
//! returns. Only a call that hangs stops it, which the age of the last sample shows.

mod publisher;

use std::{
    any::Any,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use self::publisher::Publisher;
pub(crate) use self::publisher::RECOVERY_SAMPLES;
use super::{
    GpuMemory, GpuProcess, GpuReading, GpuSample, GpuSamplerConfig, GpuState, HealthReading, OtherGpuUsage,
    library_file::{LibraryFile, fingerprint},
    nvml::{Card, Library, Sibling, SlowReading, XidEvents},
    processes, vram,
};

/// Listing processes holds the driver's global lock for milliseconds: more often would slow the card's users.
const PROCESS_INTERVAL: Duration = Duration::from_secs(2);
/// Fans, PCIe, and what only an operator changes.
const SLOW_INTERVAL: Duration = Duration::from_secs(10);
/// After unspecific errors for this long, the library is loaded again.
const REOPEN_AFTER: Duration = Duration::from_secs(5);
/// Between samples while a card recovers, and after a failed call.
const RECOVERY_INTERVAL: Duration = Duration::from_millis(100);
/// Retries load the driver, and block resets of the card: a pause is this many times as long as the attempt, …
const BACKOFF_FACTOR: u32 = 10;
/// … but at least this, …
const MIN_BACKOFF: Duration = Duration::from_millis(500);
/// … and at most this.
const MAX_BACKOFF: Duration = Duration::from_secs(30);
const MIB: u64 = 1 << 20;

pub(super) fn start(config: GpuSamplerConfig) -> io::Result<watch::Receiver<Option<Arc<GpuSample>>>> {
    let (sender, receiver) = watch::channel(None);
    let publisher = Publisher::new(sender, config.interval);
    let library = config.library.clone();
    thread::Builder::new()
        .name("nvml".to_owned())
        .spawn(move || supervise(publisher, library.as_deref(), |publisher| session(&config, publisher)))?;
    Ok(receiver)
}

/// Runs sessions until no receiver is left. A panic (the wrapper can, if the library lacks symbols) is a failed session.
fn supervise(
    mut publisher: Publisher,
    library: Option<&Path>,
    mut session: impl FnMut(&mut Publisher) -> Result<(), GpuState>,
) {
    while !publisher.is_closed() {
        publisher.start_session();
        let began = Instant::now();
        let end = catch_unwind(AssertUnwindSafe(|| session(&mut publisher))).unwrap_or_else(|panic| {
            let state = GpuState::Failed(panic_message(panic.as_ref()));
            publisher.publish(state.clone());
            Err(state)
        });
        let Err(state) = end else { return };
        let pause = backoff(began.elapsed(), publisher.was_healthy());
        let before = fingerprint(library);
        publisher.republish(&state, pause, || fingerprint(library) != before);
    }
}

/// A session in which the card was healthy was more than an attempt.
fn backoff(session: Duration, was_healthy: bool) -> Duration {
    if was_healthy { MIN_BACKOFF } else { (session * BACKOFF_FACTOR).clamp(MIN_BACKOFF, MAX_BACKOFF) }
}

/// From loading the library to losing the card, which is published; `Ok` once no receiver is left. All driver objects live on
/// this stack, so that returning closes `/dev/nvidia*` and the driver can be reloaded.
fn session(config: &GpuSamplerConfig, publisher: &mut Publisher) -> Result<(), GpuState> {
    let loaded = Library::load(config.library.as_deref());
    let library = loaded.inspect_err(|state| publisher.publish(state.clone()))?;
    let library_file = LibraryFile::capture(config.library.as_deref());
    let end = library.card(&config.gpu_id).and_then(|card| {
        // Before the first sample, so that no report between the two is missed.
        let events = library.events(&card);
        Session {
            card: &card,
            events,
            config,
            library_file: &library_file,
            memory_reading: None,
            slow: None,
            other_gpus: None,
        }
        .run(publisher)
    });
    if let Err(state) = &end {
        // Before the library is released: that may take a failing driver long.
        publisher.publish(state.clone());
    }
    end
}

/// The card while it responds.
struct Session<'a> {
    card: &'a Card<'a>,
    events: XidEvents<'a>,
    config: &'a GpuSamplerConfig,
    library_file: &'a LibraryFile,
    memory_reading: Option<MemoryReading>,
    slow: Option<(Instant, SlowReading, Option<String>)>,
    other_gpus: Option<(Instant, Vec<OtherGpuUsage>)>,
}

/// Memory and the processes that hold it, read together.
struct MemoryReading {
    taken: Instant,
    memory: Option<GpuMemory>,
    processes: Option<Vec<GpuProcess>>,
    engine_unit_active: bool,
}

impl Session<'_> {
    fn run(mut self, publisher: &mut Publisher) -> Result<(), GpuState> {
        let mut failing_since = None;
        while !publisher.is_closed() {
            match self.read() {
                Ok(reading) => {
                    failing_since = None;
                    let state = GpuState::Present(Box::new(reading));
                    if state.must_release_driver() {
                        return Err(state);
                    }
                    publisher.publish(state);
                }
                Err(state @ GpuState::Failed(_))
                    if failing_since.get_or_insert_with(Instant::now).elapsed() < REOPEN_AFTER =>
                {
                    publisher.publish(state);
                }
                Err(state) => return Err(state),
            }
            let pause = if publisher.is_urgent() { RECOVERY_INTERVAL } else { self.config.interval };
            if let Some(code) = self.events.wait(pause.min(self.config.interval))? {
                publisher.record_xid(code);
            }
        }
        Ok(())
    }

    fn read(&mut self) -> Result<GpuReading, GpuState> {
        let unit = &self.config.engine_unit;
        let memory_reading = match self.memory_reading.take() {
            Some(reading) if reading.taken.elapsed() < PROCESS_INTERVAL => reading,
            _ => MemoryReading::read(self.card, self.config)?,
        };
        let MemoryReading { taken, memory, processes, engine_unit_active } =
            &*self.memory_reading.insert(memory_reading);
        let headroom =
            memory.map(|memory| vram::headroom(&memory, processes.as_deref(), unit, *engine_unit_active));
        let is_elsewhere = *engine_unit_active
            && self.card.has_siblings()
            && processes
                .as_ref()
                .is_some_and(|all| !all.iter().any(|process| process.holds_memory_for(unit)));
        let other_gpus = match self.other_gpus.take() {
            _ if !is_elsewhere => None,
            Some(found) if found.0.elapsed() < SLOW_INTERVAL => Some(found),
            _ => Some((Instant::now(), find_other_gpus(&self.card.siblings(), self.config))),
        };
        self.other_gpus = other_gpus;
        let slow = match self.slow.take() {
            Some(slow_reading) if slow_reading.0.elapsed() < SLOW_INTERVAL => slow_reading,
            _ => {
                let replaced = self.library_file.replacement_version(self.card.driver_version());
                (Instant::now(), self.card.read_slow()?, replaced)
            }
        };
        let (_, slow_reading, replaced) = &*self.slow.insert(slow);
        let (mut report, health) = self.card.read_fast(slow_reading)?;
        report.memory_effective_free = headroom.and_then(|found| found.effective).map(|bytes| bytes / MIB);
        Ok(GpuReading {
            report,
            health: HealthReading {
                receives_xids: self.events.is_registered(),
                driver_on_disk: replaced.clone(),
                ..health
            },
            memory: *memory,
            processes: processes.clone(),
            processes_taken_at: *taken,
            engine_unit_active: *engine_unit_active,
            other_gpus: self.other_gpus.as_ref().map_or_else(Vec::new, |(_, found)| found.clone()),
        })
    }
}

impl MemoryReading {
    fn read(card: &Card<'_>, config: &GpuSamplerConfig) -> Result<Self, GpuState> {
        let GpuSamplerConfig { engine_unit, kernel, .. } = config;
        let usages = card.processes()?;
        let memory = card.memory()?;
        Ok(Self {
            taken: Instant::now(),
            memory,
            processes: usages.map(|usages| processes::describe(&usages, &kernel.proc, engine_unit)),
            engine_unit_active: processes::unit_is_active(&kernel.cgroups, engine_unit),
        })
    }
}

/// The other cards on which the engine's processes hold memory.
fn find_other_gpus(siblings: &[Sibling], config: &GpuSamplerConfig) -> Vec<OtherGpuUsage> {
    let GpuSamplerConfig { engine_unit, kernel, .. } = config;
    let usage = |sibling: &Sibling| {
        let all = processes::describe(&sibling.usages, &kernel.proc, engine_unit);
        let engine_processes: Vec<_> =
            all.into_iter().filter(|process| process.holds_memory_for(engine_unit)).collect();
        let (index, name, uuid) = (sibling.index, sibling.name.clone(), sibling.uuid.clone());
        (!engine_processes.is_empty()).then_some(OtherGpuUsage {
            index,
            name,
            uuid,
            processes: engine_processes,
        })
    };
    siblings.iter().filter_map(usage).collect()
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let message =
        panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    format!("panic: {}", message.unwrap_or("no message"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_attempts_are_repeated_less_often() {
        for (attempt, was_healthy, expected) in [
            (3, false, 500),
            (80, false, 800),
            (1_500, false, 15_000),
            (9_000, false, 30_000),
            (9_000, true, 500),
        ] {
            let pause = backoff(Duration::from_millis(attempt), was_healthy);
            assert_eq!(pause, Duration::from_millis(expected), "{attempt} ms, well: {was_healthy}");
        }
    }

    #[tokio::test]
    async fn a_panic_is_published_and_a_new_session_starts() {
        let (sender, mut samples) = watch::channel(None);
        let publisher = Publisher::new(sender, Duration::from_millis(10));
        let mut sessions = 0;
        let thread = thread::spawn(move || {
            supervise(publisher, None, |publisher| {
                sessions += 1;
                assert!(sessions > 1, "the driver is odd");
                publisher.publish(GpuState::NoPermission);
                while !publisher.is_closed() {
                    thread::sleep(Duration::from_millis(1));
                }
                Ok(())
            });
        });
        let message = "panic: the driver is odd";
        assert_comes(&mut samples, |state| matches!(state, GpuState::Failed(found) if found == message))
            .await;
        assert_comes(&mut samples, |state| matches!(state, GpuState::NoPermission)).await;
        drop(samples);
        thread.join().unwrap();
    }

    #[tokio::test]
    async fn failures_are_republished_with_new_times() {
        let (sender, mut samples) = watch::channel(None);
        let publisher = Publisher::new(sender, Duration::from_millis(10));
        let thread = thread::spawn(move || {
            supervise(publisher, None, |publisher| {
                publisher.publish(GpuState::Lost);
                Err(GpuState::Lost)
            });
        });
        assert_comes(&mut samples, |state| matches!(state, GpuState::Lost)).await;
        let first = samples.borrow_and_update().as_ref().unwrap().taken;
        samples.changed().await.unwrap();
        assert!(samples.borrow().as_ref().unwrap().taken > first);
        drop(samples);
        thread.join().unwrap();
    }

    async fn assert_comes(
        samples: &mut watch::Receiver<Option<Arc<GpuSample>>>,
        condition: impl Fn(&GpuState) -> bool,
    ) {
        let comes = samples.wait_for(|sample| sample.as_ref().is_some_and(|sample| condition(&sample.state)));
        tokio::time::timeout(Duration::from_secs(10), comes).await.expect("the state comes").unwrap();
    }
}
