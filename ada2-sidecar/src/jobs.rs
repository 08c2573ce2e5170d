//! Jobs: the task that owns a slot until all work on the request is over, whoever still waits for it: decoding what it
//! starts from, the engine's work, and making the answer.

mod course;
mod pixels;

use std::{
    collections::BTreeMap,
    fmt,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use service::{
    lifecycle::Lifecycle,
    slots::{Permit, Slots},
};
use tokio::sync::{Notify, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::info;
use wire::openai::fields::FieldError;

use self::{course::Course, pixels::PixelWork};
use crate::{
    engine::{Desk, Engine, EngineError, Picture, Progress},
    images::Job,
    metrics::Metrics,
    outcomes::Outcomes,
};

/// Starts jobs and knows those that are being cancelled.
#[derive(Debug, Clone)]
pub struct Jobs {
    engine: Engine,
    slots: Arc<Slots>,
    pixels: PixelWork,
    lifecycle: Lifecycle,
    cancelling: Cancelling,
    changed: Arc<Notify>,
    metrics: Metrics,
    outcomes: Outcomes,
}

/// What a job does.
pub struct Work<T> {
    /// For the engine; all of it, or all but the picture that it starts from.
    pub job: Job,
    /// Where it starts from a picture.
    pub prepare: Option<Prepare>,
    /// Makes the answer of the pictures and the job as it was run, on a thread that may block. Gives up once cancelled.
    pub finish: Finish<T>,
}

impl<T> fmt::Debug for Work<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work").field("job", &self.job).field("prepare", &self.prepare).finish_non_exhaustive()
    }
}

/// Decoding the picture that a job starts from.
pub struct Prepare {
    /// Whether that takes much memory.
    pub large: bool,
    /// Does it, on a thread that may block. Gives up once cancelled.
    pub work: Decode,
}

impl fmt::Debug for Prepare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepare").field("large", &self.large).finish_non_exhaustive()
    }
}

/// See [`Prepare::work`].
pub type Decode = Box<dyn FnOnce(Job, &CancellationToken) -> Result<Job, FieldError> + Send>;

/// See [`Work::finish`].
pub type Finish<T> = Box<dyn FnOnce(Vec<Picture>, &Job, &CancellationToken) -> Result<T, EngineError> + Send>;

/// Why a job has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobError {
    /// The picture that it was to start from cannot be used. The engine has heard nothing of the job.
    Input(FieldError),
    /// The engine's doing, or the caller's.
    Engine(EngineError),
    /// A fault of ours.
    Panic,
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(error) => error.fmt(f),
            Self::Engine(error) => error.fmt(f),
            Self::Panic => f.write_str("a panic, which the log has"),
        }
    }
}

impl From<EngineError> for JobError {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

/// A running job. Dropping it asks for the end of exactly this job, in the engine and here.
#[derive(Debug)]
pub struct JobHandle<T> {
    progress: watch::Receiver<Progress>,
    prepared: Option<oneshot::Receiver<Result<(), JobError>>>,
    answer: oneshot::Receiver<Result<T, JobError>>,
    _cancel: DropGuard,
}

impl<T> JobHandle<T> {
    /// How far it is, the newest only.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// Waits until what it starts from is decoded, or cannot be.
    pub async fn prepared(&mut self) -> Result<(), JobError> {
        match self.prepared.take() {
            Some(prepared) => prepared.await.unwrap_or_else(|_| Err(ended_early())),
            None => Ok(()),
        }
    }

    /// Waits for the answer.
    pub async fn finished(&mut self) -> Result<T, JobError> {
        (&mut self.answer).await.unwrap_or_else(|_| Err(ended_early()))
    }
}

fn ended_early() -> JobError {
    EngineError::Failed("the job's task ended without a result".to_owned()).into()
}

impl Jobs {
    /// Room for `limit` jobs.
    pub fn new(engine: Engine, limit: usize, lifecycle: Lifecycle, metrics: Metrics) -> Self {
        Self {
            engine,
            slots: Slots::new(limit),
            pixels: PixelWork::default(),
            lifecycle,
            cancelling: Cancelling::default(),
            changed: Arc::default(),
            metrics,
            outcomes: Outcomes::default(),
        }
    }

    /// Who runs them.
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What became of the last ones.
    pub fn outcomes(&self) -> &Outcomes {
        &self.outcomes
    }

    /// The slots.
    pub fn slots(&self) -> &Arc<Slots> {
        &self.slots
    }

    /// The service's phases.
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }

    /// Returns when a slot was taken or given back.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// How long the oldest cancelled job has been waiting for its end.
    pub fn oldest_cancel(&self, now: Instant) -> Option<Duration> {
        self.cancelling.oldest().map(|since| now.saturating_duration_since(since))
    }

    /// Starts the job. The permit is given back when the engine has let go and nothing is decoded or encoded any more,
    /// before the answer is told: whoever reads it finds the slot free. Only what an engine tells before it has let go is
    /// told at once.
    pub fn start<T: Send + 'static>(
        &self,
        work: Work<T>,
        permit: Permit,
        request_id: String,
    ) -> JobHandle<T> {
        let (desk, told) = Desk::open();
        let (prepared, is_prepared) = oneshot::channel();
        let (tell, answer) = oneshot::channel();
        let (cancel, progress) = (desk.cancel.clone(), desk.progress.subscribe());
        let jobs = self.clone();
        self.changed.notify_one();
        self.lifecycle.spawn("job", async move {
            let course = Course::new(&jobs, &desk, &work.job, &request_id);
            let mut course = pin!(course.run(work, told, prepared, tell, permit));
            tokio::select! {
                () = course.as_mut() => {}
                () = desk.cancel.cancelled() => {
                    // What is told already needs no cancelling: the engine is only being tidied up.
                    let noted = (!desk.is_told()).then(|| jobs.cancelling.note());
                    if noted.is_some() {
                        info!(request_id, "nobody waits for the job any more: cancelling it");
                    }
                    course.await;
                }
            }
        });
        JobHandle { progress, prepared: Some(is_prepared), answer, _cancel: cancel.drop_guard() }
    }
}

/// When each job that is being cancelled was first asked to end.
#[derive(Debug, Clone, Default)]
struct Cancelling(Arc<Mutex<(u64, BTreeMap<u64, Instant>)>>);

impl Cancelling {
    fn note(&self) -> Note {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.0 += 1;
        let id = inner.0;
        inner.1.insert(id, Instant::now());
        Note { of: self.clone(), id }
    }

    fn oldest(&self) -> Option<Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1.values().min().copied()
    }
}

struct Note {
    of: Cancelling,
    id: u64,
}

impl Drop for Note {
    fn drop(&mut self) {
        self.of.0.lock().unwrap_or_else(PoisonError::into_inner).1.remove(&self.id);
    }
}

#[cfg(test)]
mod tests;
