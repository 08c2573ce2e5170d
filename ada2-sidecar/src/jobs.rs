//! Jobs: the task that owns a slot until all work on the request is over, whoever still waits for it: decoding what it
//! starts from, the engine's work, and making the answer.

mod image_work;
mod run;

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

use self::{image_work::ImageWorkers, run::JobRun};
use crate::{
    engine::{Engine, EngineError, GeneratedImage, JobContext, JobProgress},
    images::Job,
    job_history::JobHistory,
    metrics::Metrics,
};

/// Starts jobs and knows those that are being cancelled.
#[derive(Debug, Clone)]
pub struct Jobs {
    engine: Engine,
    slots: Arc<Slots>,
    image_work: ImageWorkers,
    lifecycle: Lifecycle,
    cancelling: CancellingJobs,
    slots_changed: Arc<Notify>,
    metrics: Metrics,
    outcomes: JobHistory,
}

/// What a job does.
pub struct JobSpec<T> {
    /// For the engine; all of it, or all but the picture that it starts from.
    pub job: Job,
    /// Where it starts from a picture.
    pub prepare: Option<DecodeStep>,
    /// Makes the answer of the pictures and the job as it was run, on a thread that may block. Gives up once cancelled.
    pub finish: FinishFn<T>,
}

impl<T> fmt::Debug for JobSpec<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work").field("job", &self.job).field("prepare", &self.prepare).finish_non_exhaustive()
    }
}

/// Decoding the picture that a job starts from.
pub struct DecodeStep {
    /// Whether that takes much memory.
    pub is_large: bool,
    /// Does it, on a thread that may block. Gives up once cancelled.
    pub decode: DecodeFn,
}

impl fmt::Debug for DecodeStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepare").field("large", &self.is_large).finish_non_exhaustive()
    }
}

/// See [`DecodeStep::decode`].
pub type DecodeFn = Box<dyn FnOnce(Job, &CancellationToken) -> Result<Job, FieldError> + Send>;

/// See [`JobSpec::finish`].
pub type FinishFn<T> =
    Box<dyn FnOnce(Vec<GeneratedImage>, &Job, &CancellationToken) -> Result<T, EngineError> + Send>;

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
    progress: watch::Receiver<JobProgress>,
    prepared_rx: Option<oneshot::Receiver<Result<(), JobError>>>,
    answer_rx: oneshot::Receiver<Result<T, JobError>>,
    _cancel: DropGuard,
}

impl<T> JobHandle<T> {
    /// How far it is, the newest only.
    pub fn progress(&self) -> watch::Receiver<JobProgress> {
        self.progress.clone()
    }

    /// Waits until what it starts from is decoded, or cannot be.
    pub async fn wait_prepared(&mut self) -> Result<(), JobError> {
        match self.prepared_rx.take() {
            Some(prepared) => prepared.await.unwrap_or_else(|_| Err(ended_early())),
            None => Ok(()),
        }
    }

    /// Waits for the answer.
    pub async fn wait(&mut self) -> Result<T, JobError> {
        (&mut self.answer_rx).await.unwrap_or_else(|_| Err(ended_early()))
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
            image_work: ImageWorkers::default(),
            lifecycle,
            cancelling: CancellingJobs::default(),
            slots_changed: Arc::default(),
            metrics,
            outcomes: JobHistory::default(),
        }
    }

    /// Who runs them.
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What became of the last ones.
    pub fn outcomes(&self) -> &JobHistory {
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
        self.slots_changed.notified().await;
    }

    /// How long the oldest cancelled job has been waiting for its end.
    pub fn oldest_cancel_age(&self, now: Instant) -> Option<Duration> {
        self.cancelling.oldest().map(|since| now.saturating_duration_since(since))
    }

    /// Starts the job. The permit is given back when the engine has let go and nothing is decoded or encoded any more,
    /// before the answer is told: whoever reads it finds the slot free. Only what an engine tells before it has let go is
    /// told at once.
    pub fn start<T: Send + 'static>(
        &self,
        spec: JobSpec<T>,
        permit: Permit,
        request_id: String,
    ) -> JobHandle<T> {
        let (context, outcome_rx) = JobContext::new();
        let (prepared_tx, is_prepared) = oneshot::channel();
        let (answer_tx, answer) = oneshot::channel();
        let (cancel, progress) = (context.cancel.clone(), context.progress.subscribe());
        let jobs = self.clone();
        self.slots_changed.notify_one();
        self.lifecycle.spawn("job", async move {
            let run = JobRun::new(&jobs, &context, &spec.job, &request_id);
            let mut run = pin!(run.run(spec, outcome_rx, prepared_tx, answer_tx, permit));
            tokio::select! {
                () = run.as_mut() => {}
                () = context.cancel.cancelled() => {
                    // What is told already needs no cancelling: the engine is only being tidied up.
                    let guard = (!context.is_completed()).then(|| jobs.cancelling.register());
                    if guard.is_some() {
                        info!(request_id, "nobody waits for the job any more: cancelling it");
                    }
                    run.await;
                }
            }
        });
        JobHandle {
            progress,
            prepared_rx: Some(is_prepared),
            answer_rx: answer,
            _cancel: cancel.drop_guard(),
        }
    }
}

/// When each job that is being cancelled was first asked to end.
#[derive(Debug, Clone, Default)]
struct CancellingJobs(Arc<Mutex<(u64, BTreeMap<u64, Instant>)>>);

impl CancellingJobs {
    fn register(&self) -> CancellingGuard {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.0 += 1;
        let id = inner.0;
        inner.1.insert(id, Instant::now());
        CancellingGuard { jobs: self.clone(), id }
    }

    fn oldest(&self) -> Option<Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1.values().min().copied()
    }
}

struct CancellingGuard {
    jobs: CancellingJobs,
    id: u64,
}

impl Drop for CancellingGuard {
    fn drop(&mut self) {
        self.jobs.0.lock().unwrap_or_else(PoisonError::into_inner).1.remove(&self.id);
    }
}

#[cfg(test)]
mod tests;
