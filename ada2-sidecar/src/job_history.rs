//! Results of recent jobs: consecutive failures, time per step, when the engine last generated. Written by jobs, read by
//! readiness; bounded, and kept in memory only.

use std::{
    collections::VecDeque,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::watch;
use wire::openai::images::ImageSize;

use crate::{
    engine::{EngineError, JobOutcome, JobProgress},
    images::{Job, Task},
};

/// Jobs that a median is taken over.
const MAX_SAMPLES: usize = 20;
/// Fewer jobs give no median.
const MIN_SAMPLES: usize = 5;
/// Different keys; the least recently used is dropped.
const MAX_KEYS: usize = 32;
/// Steps of a job that count; one or two may have waited for something else.
const MIN_STEPS: u32 = 3;

/// Cheap to clone; clones share everything.
#[derive(Debug, Clone, Default)]
pub struct JobHistory(Arc<Mutex<HistoryState>>);

#[derive(Debug, Default)]
struct HistoryState {
    snapshot: JobHistorySnapshot,
    /// Most recently used last.
    timings: VecDeque<(TimingKey, VecDeque<Duration>)>,
}

/// Only jobs with the same key are compared: with ten source images a step may take four times as long as with one.
#[derive(Debug, Clone, PartialEq)]
struct TimingKey {
    model: String,
    size: Option<ImageSize>,
    task: Task,
    source_images: usize,
    loras: usize,
}

impl TimingKey {
    fn of(job: &Job) -> Self {
        Self {
            model: job.name.clone(),
            size: job.expected_size(),
            task: job.task,
            source_images: job.source.as_ref().map_or(0, |source| source.images.len()),
            loras: job.loras.len(),
        }
    }
}

/// What is known at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JobHistorySnapshot {
    /// Failures that are the engine's fault since a job last succeeded.
    pub failures: u32,
    /// The message of the last of them.
    pub last_failure: Option<String>,
    /// When a job last succeeded.
    pub last_success: Option<Instant>,
    /// When the engine last began to generate, that is, of a job's first step.
    pub generating_since: Option<Instant>,
    /// Running jobs that have had their first step.
    pub generating: u32,
    /// Time per step of the last job with enough steps.
    pub step_timing: Option<StepTiming>,
}

/// Time per step of one job, and of comparable jobs before it.
#[derive(Debug, Clone, PartialEq)]
pub struct StepTiming {
    /// The model's name in the request.
    pub model: String,
    /// The image's size, if it is known before it is generated.
    pub size: Option<ImageSize>,
    /// The mean of its steps.
    pub mean: Duration,
    /// The median of up to 20 earlier jobs with the same model, size, task and number of source images and LoRAs; none if
    /// there were fewer than five.
    pub median: Option<Duration>,
}

impl JobHistory {
    /// The current state.
    pub fn snapshot(&self) -> JobHistorySnapshot {
        self.lock().snapshot.clone()
    }

    /// Runs the engine's part of a job and records its time per step.
    pub(crate) async fn track(
        &self,
        job: &Job,
        mut progress: watch::Receiver<JobProgress>,
        run: impl Future<Output = JobOutcome>,
    ) -> JobOutcome {
        let mut run = pin!(run);
        let mut steps = StepClock::default();
        let mut generating = None;
        let result = loop {
            tokio::select! {
                biased;
                result = run.as_mut() => break result,
                changed = progress.changed() => {
                    if changed.is_err() {
                        break run.as_mut().await;
                    }
                    let JobProgress { image_index, image_fraction, .. } = *progress.borrow_and_update();
                    if steps.report(image_index, image_fraction, now()) {
                        generating.get_or_insert_with(|| GeneratingGuard::begin(self));
                    }
                }
            }
        };
        if let Some(step) = steps.mean_step() {
            self.record_timing(job, step);
        }
        result
    }

    fn record_timing(&self, job: &Job, step: Duration) {
        let mut state = self.lock();
        state.snapshot.step_timing = Some(state.push_timing(TimingKey::of(job), step));
    }

    /// Records a job's result: usable images, or the error.
    pub(crate) fn record_result(&self, result: Result<(), &EngineError>) {
        let snapshot = &mut self.lock().snapshot;
        match result {
            Ok(()) => {
                snapshot.last_success = Some(now());
                (snapshot.failures, snapshot.last_failure) = (0, None);
            }
            Err(error) if is_engine_fault(error) => {
                snapshot.failures = snapshot.failures.saturating_add(1);
                snapshot.last_failure = Some(error.to_string());
            }
            Err(_) => {}
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HistoryState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an error says that the engine does not work. A client's disconnect, a full queue or an unreachable engine does
/// not.
fn is_engine_fault(error: &EngineError) -> bool {
    // `Interrupted` neither: a person stopped the job or restarted the engine.
    matches!(error, EngineError::Failed(_) | EngineError::OutOfMemory(_) | EngineError::UnexpectedResponse(_))
}

impl HistoryState {
    /// Adds a job, and compares it with those before it.
    fn push_timing(&mut self, key: TimingKey, step: Duration) -> StepTiming {
        let index = self.timings.iter().position(|(other, _)| *other == key);
        let (_, mut before) =
            index.and_then(|at| self.timings.remove(at)).unwrap_or((key.clone(), VecDeque::new()));
        let median = median(&before);
        before.push_back(step);
        if before.len() > MAX_SAMPLES {
            before.pop_front();
        }
        self.timings.push_back((key.clone(), before));
        if self.timings.len() > MAX_KEYS {
            self.timings.pop_front();
        }
        StepTiming { model: key.model, size: key.size, mean: step, median }
    }
}

fn median(samples: &VecDeque<Duration>) -> Option<Duration> {
    let mut sorted: Vec<_> = samples.iter().copied().collect();
    sorted.sort_unstable();
    (sorted.len() >= MIN_SAMPLES).then(|| sorted[sorted.len() / 2])
}

/// Counts a job as generating until it ends or is dropped.
struct GeneratingGuard<'a>(&'a JobHistory);

impl<'a> GeneratingGuard<'a> {
    fn begin(history: &'a JobHistory) -> Self {
        let snapshot = &mut history.lock().snapshot;
        snapshot.generating_since = Some(now());
        snapshot.generating += 1;
        Self(history)
    }
}

impl Drop for GeneratingGuard<'_> {
    fn drop(&mut self) {
        self.0.lock().snapshot.generating -= 1;
    }
}

/// Sums the time between two steps of the same image. Time between two images (decoding, saving, loading) does not count.
#[derive(Debug, Default)]
struct StepClock {
    count: u32,
    elapsed: Duration,
    last_report: Option<StepReport>,
}

#[derive(Debug, Clone, Copy)]
struct StepReport {
    image: usize,
    fraction: f64,
    at: Instant,
}

impl StepClock {
    /// Takes a progress report; returns whether it is a step.
    fn report(&mut self, image: usize, fraction: f64, at: Instant) -> bool {
        let before = self.last_report.filter(|last| last.image == image);
        let unchanged = before.is_some_and(|before| (fraction - before.fraction).abs() < f64::EPSILON);
        if fraction <= 0.0 || unchanged {
            return false;
        }
        // A fraction that falls belongs to the graph's next node.
        if let Some(before) = before.filter(|before| fraction > before.fraction) {
            self.count = self.count.saturating_add(1);
            self.elapsed += at.saturating_duration_since(before.at);
        }
        self.last_report = Some(StepReport { image, fraction, at });
        true
    }

    /// Loading and waiting before the first step do not count.
    fn mean_step(&self) -> Option<Duration> {
        (self.count >= MIN_STEPS).then(|| self.elapsed / self.count)
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
