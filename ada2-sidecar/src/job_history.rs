//! What became of the last pictures: failures in a row, the pace of steps, when the engine last worked. Written by jobs,
//! read by readiness; bounded, and of this process's time only.

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

/// Paces that the usual one is made of.
const MAX_SAMPLES: usize = 20;
/// Fewer say nothing of what is usual.
const MIN_SAMPLES: usize = 5;
/// Pairs of model and size that are remembered; the one unused for longest is forgotten.
const MAX_KEYS: usize = 32;
/// Steps that a pace is at least the mean of: one or two may have waited for anything.
const MIN_STEPS: u32 = 3;

/// The record. Cheap to clone; all clones are the same.
#[derive(Debug, Clone, Default)]
pub struct JobHistory(Arc<Mutex<HistoryState>>);

#[derive(Debug, Default)]
struct HistoryState {
    snapshot: JobHistorySnapshot,
    /// Newest use last.
    timings: VecDeque<(TimingKey, VecDeque<Duration>)>,
}

/// What paces are compared within.
#[derive(Debug, Clone, PartialEq)]
struct TimingKey {
    model: String,
    size: Option<ImageSize>,
    task: Task,
}

/// What is known of the last pictures.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JobHistorySnapshot {
    /// Failures of the engine's own since a picture succeeded.
    pub failures: u32,
    /// The last of them, in the engine's words.
    pub last_failure: Option<String>,
    /// When a picture succeeded last.
    pub last_success: Option<Instant>,
    /// When the engine began to paint last, as its first step shows.
    pub generating_since: Option<Instant>,
    /// Jobs that the engine has taken a step of and has not ended.
    pub generating: u32,
    /// How long steps took in the last job that made some.
    pub step_timing: Option<StepTiming>,
}

/// How long a job's steps took.
#[derive(Debug, Clone, PartialEq)]
pub struct StepTiming {
    /// What the job was asked for as.
    pub model: String,
    /// Of the picture, where it is known before it is made.
    pub size: Option<ImageSize>,
    /// The mean of its steps.
    pub mean: Duration,
    /// The median of up to 20 jobs before it for that model and size; absent where there were fewer than five.
    pub median: Option<Duration>,
}

impl JobHistory {
    /// What is known now.
    pub fn snapshot(&self) -> JobHistorySnapshot {
        self.lock().snapshot.clone()
    }

    /// Runs the engine's part of a job, and remembers its pace.
    pub(crate) async fn track(
        &self,
        job: &Job,
        mut progress: watch::Receiver<JobProgress>,
        run: impl Future<Output = JobOutcome>,
    ) -> JobOutcome {
        let mut run = pin!(run);
        let mut steps = StepClock::default();
        let mut painting = None;
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
                        painting.get_or_insert_with(|| GeneratingGuard::begin(self));
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
        let kind = TimingKey { model: job.name.clone(), size: job.expected_size(), task: job.task };
        let mut record = self.lock();
        record.snapshot.step_timing = Some(record.push_timing(kind, step));
    }

    /// Remembers what came of a job: pictures that can be used, or why there are none.
    pub(crate) fn record_result(&self, result: Result<(), &EngineError>) {
        let mut record = self.lock();
        match result {
            Ok(()) => {
                record.snapshot.last_success = Some(now());
                (record.snapshot.failures, record.snapshot.last_failure) = (0, None);
            }
            Err(error) if is_engine_fault(error) => {
                record.snapshot.failures = record.snapshot.failures.saturating_add(1);
                record.snapshot.last_failure = Some(error.to_string());
            }
            Err(_) => {}
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HistoryState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a failure says that the engine does not work: a caller who left, a full queue and an engine that is not there
/// say nothing of that.
fn is_engine_fault(error: &EngineError) -> bool {
    // An engine that a person stops, or starts anew, is none that fails by itself.
    matches!(error, EngineError::Failed(_) | EngineError::OutOfMemory(_) | EngineError::UnexpectedResponse(_))
}

impl HistoryState {
    /// One more job's pace, beside those before it.
    fn push_timing(&mut self, kind: TimingKey, step: Duration) -> StepTiming {
        let known = self.timings.iter().position(|(known, _)| *known == kind);
        let (_, mut before) =
            known.and_then(|at| self.timings.remove(at)).unwrap_or((kind.clone(), VecDeque::new()));
        let usual = median(&before);
        before.push_back(step);
        if before.len() > MAX_SAMPLES {
            before.pop_front();
        }
        self.timings.push_back((kind.clone(), before));
        if self.timings.len() > MAX_KEYS {
            self.timings.pop_front();
        }
        StepTiming { model: kind.model, size: kind.size, mean: step, median: usual }
    }
}

fn median(samples: &VecDeque<Duration>) -> Option<Duration> {
    let mut sorted: Vec<_> = samples.iter().copied().collect();
    sorted.sort_unstable();
    (sorted.len() >= MIN_SAMPLES).then(|| sorted[sorted.len() / 2])
}

/// A job at which the engine is seen to work, until it ends or is given up.
struct GeneratingGuard<'a>(&'a JobHistory);

impl<'a> GeneratingGuard<'a> {
    fn begin(outcomes: &'a JobHistory) -> Self {
        let mut record = outcomes.lock();
        record.snapshot.generating_since = Some(now());
        record.snapshot.generating += 1;
        Self(outcomes)
    }
}

impl Drop for GeneratingGuard<'_> {
    fn drop(&mut self) {
        self.0.lock().snapshot.generating -= 1;
    }
}

/// The time between two steps of the same picture, summed up. What lies between two pictures (decoding, saving, loading
/// what comes next) is no step.
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
    /// One more report; whether it tells of a step.
    fn report(&mut self, picture: usize, within: f64, at: Instant) -> bool {
        let before = self.last_report.filter(|last| last.image == picture);
        let unchanged = before.is_some_and(|before| (within - before.fraction).abs() < f64::EPSILON);
        if within <= 0.0 || unchanged {
            return false;
        }
        // Where it falls, another node of the graph begins.
        if let Some(before) = before.filter(|before| within > before.fraction) {
            self.count = self.count.saturating_add(1);
            self.elapsed += at.saturating_duration_since(before.at);
        }
        self.last_report = Some(StepReport { image: picture, fraction: within, at });
        true
    }

    /// What came before the first step, loading and waiting, is none.
    fn mean_step(&self) -> Option<Duration> {
        (self.count >= MIN_STEPS).then(|| self.elapsed / self.count)
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
