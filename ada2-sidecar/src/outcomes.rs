//! What became of the last pictures: failures in a row, the pace of steps, when the engine last worked. Written by jobs,
//! read by readiness; bounded, and of this process's time only.

use std::{
    collections::VecDeque,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::watch;
use wire::openai::images::Size;

use crate::{
    engine::{EngineError, Outcome, Progress},
    images::{Job, Task},
};

/// Paces that the usual one is made of.
const REMEMBERED: usize = 20;
/// Fewer say nothing of what is usual.
const ENOUGH: usize = 5;
/// Pairs of model and size that are remembered; the one unused for longest is forgotten.
const KINDS: usize = 32;
/// Steps that a pace is at least the mean of: one or two may have waited for anything.
const FEWEST_STEPS: u32 = 3;

/// The record. Cheap to clone; all clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Outcomes(Arc<Mutex<Record>>);

#[derive(Debug, Default)]
struct Record {
    seen: Seen,
    /// Newest use last.
    paces: VecDeque<(PaceKey, VecDeque<Duration>)>,
}

/// What paces are compared within.
#[derive(Debug, Clone, PartialEq)]
struct PaceKey {
    model: String,
    size: Option<Size>,
    task: Task,
}

/// What is known of the last pictures.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Seen {
    /// Failures of the engine's own since a picture succeeded.
    pub failures: u32,
    /// The last of them, in the engine's words.
    pub failure: Option<String>,
    /// When a picture succeeded last.
    pub succeeded: Option<Instant>,
    /// When the engine began to paint last, as its first step shows.
    pub working: Option<Instant>,
    /// Jobs that the engine has taken a step of and has not ended.
    pub painting: u32,
    /// How long steps took in the last job that made some.
    pub pace: Option<Pace>,
}

/// How long a job's steps took.
#[derive(Debug, Clone, PartialEq)]
pub struct Pace {
    /// What the job was asked for as.
    pub model: String,
    /// Of the picture, where it is known before it is made.
    pub size: Option<Size>,
    /// The mean of its steps.
    pub step: Duration,
    /// The median of up to 20 jobs before it for that model and size; absent where there were fewer than five.
    pub usual: Option<Duration>,
}

impl Outcomes {
    /// What is known now.
    pub fn seen(&self) -> Seen {
        self.record().seen.clone()
    }

    /// Runs the engine's part of a job, and remembers its pace.
    pub(crate) async fn follow(
        &self,
        job: &Job,
        mut progress: watch::Receiver<Progress>,
        run: impl Future<Output = Outcome>,
    ) -> Outcome {
        let mut run = pin!(run);
        let mut steps = Steps::default();
        let mut painting = None;
        let result = loop {
            tokio::select! {
                biased;
                result = run.as_mut() => break result,
                told = progress.changed() => {
                    if told.is_err() {
                        break run.as_mut().await;
                    }
                    let Progress { picture, within, .. } = *progress.borrow_and_update();
                    if steps.report(picture, within, now()) {
                        painting.get_or_insert_with(|| Painting::begin(self));
                    }
                }
            }
        };
        if let Some(step) = steps.pace() {
            self.paced(job, step);
        }
        result
    }

    fn paced(&self, job: &Job, step: Duration) {
        let kind = PaceKey { model: job.name.clone(), size: job.expected_size(), task: job.task };
        let mut record = self.record();
        record.seen.pace = Some(record.pace(kind, step));
    }

    /// Remembers what came of a job: pictures that can be used, or why there are none.
    pub(crate) fn ended(&self, result: Result<(), &EngineError>) {
        let mut record = self.record();
        match result {
            Ok(()) => {
                record.seen.succeeded = Some(now());
                (record.seen.failures, record.seen.failure) = (0, None);
            }
            Err(error) if is_engines_own(error) => {
                record.seen.failures = record.seen.failures.saturating_add(1);
                record.seen.failure = Some(error.to_string());
            }
            Err(_) => {}
        }
    }

    fn record(&self) -> std::sync::MutexGuard<'_, Record> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a failure says that the engine does not work: a caller who left, a full queue and an engine that is not there
/// say nothing of that.
fn is_engines_own(error: &EngineError) -> bool {
    // An engine that a person stops, or starts anew, is none that fails by itself.
    matches!(error, EngineError::Failed(_) | EngineError::OutOfMemory(_) | EngineError::Strange(_))
}

impl Record {
    /// One more job's pace, beside those before it.
    fn pace(&mut self, kind: PaceKey, step: Duration) -> Pace {
        let known = self.paces.iter().position(|(known, _)| *known == kind);
        let (_, mut before) =
            known.and_then(|at| self.paces.remove(at)).unwrap_or((kind.clone(), VecDeque::new()));
        let usual = median(&before);
        before.push_back(step);
        if before.len() > REMEMBERED {
            before.pop_front();
        }
        self.paces.push_back((kind.clone(), before));
        if self.paces.len() > KINDS {
            self.paces.pop_front();
        }
        Pace { model: kind.model, size: kind.size, step, usual }
    }
}

fn median(paces: &VecDeque<Duration>) -> Option<Duration> {
    let mut sorted: Vec<_> = paces.iter().copied().collect();
    sorted.sort_unstable();
    (sorted.len() >= ENOUGH).then(|| sorted[sorted.len() / 2])
}

/// A job at which the engine is seen to work, until it ends or is given up.
struct Painting<'a>(&'a Outcomes);

impl<'a> Painting<'a> {
    fn begin(outcomes: &'a Outcomes) -> Self {
        let mut record = outcomes.record();
        record.seen.working = Some(now());
        record.seen.painting += 1;
        Self(outcomes)
    }
}

impl Drop for Painting<'_> {
    fn drop(&mut self) {
        self.0.record().seen.painting -= 1;
    }
}

/// The time between two steps of the same picture, summed up. What lies between two pictures (decoding, saving, loading
/// what comes next) is no step.
#[derive(Debug, Default)]
struct Steps {
    count: u32,
    took: Duration,
    last: Option<Step>,
}

#[derive(Debug, Clone, Copy)]
struct Step {
    picture: usize,
    within: f64,
    at: Instant,
}

impl Steps {
    /// One more report; whether it tells of a step.
    fn report(&mut self, picture: usize, within: f64, at: Instant) -> bool {
        let before = self.last.filter(|last| last.picture == picture);
        let unchanged = before.is_some_and(|before| (within - before.within).abs() < f64::EPSILON);
        if within <= 0.0 || unchanged {
            return false;
        }
        // Where it falls, another node of the graph begins.
        if let Some(before) = before.filter(|before| within > before.within) {
            self.count = self.count.saturating_add(1);
            self.took += at.saturating_duration_since(before.at);
        }
        self.last = Some(Step { picture, within, at });
        true
    }

    /// What came before the first step, loading and waiting, is none.
    fn pace(&self) -> Option<Duration> {
        (self.count >= FEWEST_STEPS).then(|| self.took / self.count)
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
