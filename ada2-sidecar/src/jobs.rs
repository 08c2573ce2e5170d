//! Jobs. Each runs in a task of its own that holds a slot until all work on the request is over, whether or not a client
//! still waits: decoding the source image, the engine's work, and building the response.

mod handle;
mod image_work;

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use service::{
    lifecycle::Lifecycle,
    slots::{Permit, Slots},
};
use tokio::sync::{Notify, oneshot};
use tracing::{info, warn};

use self::{handle::ended_early, image_work::ImageWorkers};
use crate::{
    engine::{Engine, EngineError, GeneratedImage, JobContext, JobOutcome},
    image_codec,
    images::Job,
    job_history::JobHistory,
    metrics::Metrics,
};

pub use handle::{DecodeFn, DecodeStep, FinishFn, JobError, JobHandle, JobSpec};

/// Starts jobs and tracks those being cancelled. Clones share everything.
#[derive(Debug, Clone)]
pub struct Jobs {
    engine: Engine,
    slots: Arc<Slots>,
    image_workers: ImageWorkers,
    lifecycle: Lifecycle,
    cancelling: CancellingJobs,
    slots_changed: Arc<Notify>,
    metrics: Metrics,
    history: JobHistory,
}

impl Jobs {
    /// At most `limit` jobs run at once.
    pub fn new(engine: Engine, limit: usize, lifecycle: Lifecycle, metrics: Metrics) -> Self {
        Self {
            engine,
            slots: Slots::new(limit),
            image_workers: ImageWorkers::default(),
            lifecycle,
            cancelling: CancellingJobs::default(),
            slots_changed: Arc::default(),
            metrics,
            history: JobHistory::default(),
        }
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Results of recent jobs.
    pub fn history(&self) -> &JobHistory {
        &self.history
    }

    /// The slots that jobs hold.
    pub fn slots(&self) -> &Arc<Slots> {
        &self.slots
    }

    /// The lifecycle that jobs belong to.
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }

    /// Returns when a slot has been taken or released.
    pub async fn changed(&self) {
        self.slots_changed.notified().await;
    }

    /// How long the oldest cancelled job has been waiting to end.
    pub fn oldest_cancel_age(&self, now: Instant) -> Option<Duration> {
        self.cancelling.oldest().map(|since| now.saturating_duration_since(since))
    }

    /// Starts the job. The slot is released once the engine is free of the job and nothing is being decoded or encoded,
    /// and before the response is sent, so that a client that has read it finds the slot free. The exception is a response
    /// that is complete while the engine still cleans up: it is sent at once.
    pub fn start<T: Send + 'static>(
        &self,
        spec: JobSpec<T>,
        permit: Permit,
        request_id: String,
    ) -> JobHandle<T> {
        let (context, outcome_rx) = JobContext::new();
        let (decoded_tx, decoded_rx) = oneshot::channel();
        let (response_tx, response_rx) = oneshot::channel();
        let (cancel, progress) = (context.cancel.clone(), context.progress.subscribe());
        let jobs = self.clone();
        self.slots_changed.notify_one();
        self.lifecycle.spawn("job", async move {
            let run = JobRun::new(&jobs, &context, &spec.job, &request_id);
            let mut run = pin!(run.run(spec, outcome_rx, decoded_tx, response_tx, permit));
            tokio::select! {
                () = run.as_mut() => {}
                () = context.cancel.cancelled() => {
                    // A completed job needs no cancelling: only the cleanup in the engine is left.
                    let guard = (!context.is_completed()).then(|| jobs.cancelling.register());
                    if guard.is_some() {
                        info!(request_id, "no client waits for the job any more: cancelling it");
                    }
                    run.await;
                }
            }
        });
        JobHandle {
            progress,
            decoded_rx: Some(decoded_rx),
            response_rx,
            _cancel_on_drop: cancel.drop_guard(),
        }
    }
}

struct JobRun<'a> {
    jobs: &'a Jobs,
    context: &'a JobContext,
    log_fields: JobLogFields,
    request_id: &'a str,
}

impl<'a> JobRun<'a> {
    fn new(jobs: &'a Jobs, context: &'a JobContext, job: &Job, request_id: &'a str) -> Self {
        Self { jobs, context, log_fields: JobLogFields::from_job(job), request_id }
    }

    async fn run<T: Send + 'static>(
        mut self,
        spec: JobSpec<T>,
        outcome_rx: oneshot::Receiver<JobOutcome>,
        decoded_tx: oneshot::Sender<Result<(), JobError>>,
        response_tx: oneshot::Sender<Result<T, JobError>>,
        permit: Permit,
    ) {
        let started = Instant::now();
        let JobSpec { job, decode, finish } = spec;
        let job = match self.decode_input(job, decode).await {
            Ok(job) => Arc::new(job),
            Err(error) => {
                self.record_result(Some(&error), started);
                self.release(permit);
                // Sending fails only if the client has disconnected.
                let _ = (decoded_tx.send(Err(error.clone())), response_tx.send(Err(error)));
                return;
            }
        };
        self.log_fields.task = job.task.name();
        let _ = decoded_tx.send(Ok(()));
        let steps = self.context.progress.subscribe();
        let run = self.jobs.history.track(&job, steps, self.jobs.engine.run(&job, self.context));
        let mut run = pin!(async { self.context.complete(run.await) });
        let mut response = pin!(self.response(outcome_rx, job.clone(), finish));
        tokio::select! {
            biased;
            () = run.as_mut() => {
                let response = response.await;
                self.record_result(response.as_ref().err(), started);
                self.release(permit);
                let _ = response_tx.send(response);
            }
            response = response.as_mut() => {
                let failed = response.as_ref().err().cloned();
                let _ = response_tx.send(response);
                run.await;
                self.record_result(failed.as_ref(), started);
                self.release(permit);
            }
        }
    }

    async fn decode_input(&self, job: Job, decode: Option<DecodeStep>) -> Result<Job, JobError> {
        let Some(DecodeStep { is_large, run }) = decode else { return Ok(job) };
        let cancel = &self.context.cancel;
        let job = self.jobs.image_workers.run(is_large, cancel, move |cancel| run(job, cancel)).await?;
        if cancel.is_cancelled() {
            return Err(EngineError::Cancelled.into());
        }
        job.map_err(JobError::Input)
    }

    /// Builds the response as soon as the engine's outcome is known.
    async fn response<T: Send + 'static>(
        &self,
        outcome_rx: oneshot::Receiver<JobOutcome>,
        job: Arc<Job>,
        finish: FinishFn<T>,
    ) -> Result<T, JobError> {
        let images = outcome_rx.await.map_err(|_| ended_early())??;
        let requested = job.seeds.len();
        if images.len() != requested {
            let message =
                format!("{requested} images were requested, and the engine returned {}", images.len());
            return Err(EngineError::Failed(message).into());
        }
        let is_large = |image: &GeneratedImage| {
            image_codec::upright_size("image", &image.bytes).is_ok_and(image_codec::is_large)
        };
        let any_large = images.iter().any(is_large);
        let cancel = &self.context.cancel;
        let response =
            self.jobs.image_workers.run(any_large, cancel, move |cancel| finish(images, &job, cancel));
        response.await?.map_err(|error| match error {
            _ if cancel.is_cancelled() => EngineError::Cancelled.into(),
            error => error.into(),
        })
    }

    fn record_result(&self, error: Option<&JobError>, started: Instant) {
        self.log_fields.log(self.request_id, error, started.elapsed());
        // Only usable images prove that the engine works; its own report of success does not.
        match error {
            None => self.jobs.history.record_result(Ok(())),
            Some(JobError::Engine(error)) => self.jobs.history.record_result(Err(error)),
            Some(JobError::Input(_) | JobError::Panic) => {}
        }
        self.jobs.metrics.job_ended(match error {
            None => "done",
            Some(JobError::Engine(EngineError::Cancelled)) => "cancelled",
            // A rejected request: the engine never saw a job.
            Some(JobError::Input(_)) => return,
            Some(_) => "failed",
        });
    }

    fn release(&self, permit: Permit) {
        drop(permit);
        self.jobs.slots_changed.notify_one();
    }
}

struct JobLogFields {
    task: &'static str,
    model: String,
    size: String,
    n: usize,
}

impl JobLogFields {
    fn from_job(job: &Job) -> Self {
        let size = job.expected_size().map_or_else(|| "own".to_owned(), |size| size.to_string());
        Self { task: job.task.name(), model: job.name.clone(), size, n: job.seeds.len() }
    }

    fn log(&self, request_id: &str, error: Option<&JobError>, took: Duration) {
        let Self { task, model, size, n } = self;
        let ms = took.as_millis();
        match error {
            None => info!(request_id, task, ?model, size, n, ms, "job done"),
            Some(JobError::Engine(EngineError::Cancelled)) => {
                info!(request_id, task, ?model, size, n, ms, "job cancelled; the engine is free of it");
            }
            Some(JobError::Input(error)) => {
                info!(request_id, task, ?model, size, n, ms, %error, "job rejected: its source image is unusable");
            }
            Some(error) => warn!(request_id, task, ?model, size, n, ms, %error, "job failed"),
        }
    }
}

/// When each job that is being cancelled was first asked to end.
#[derive(Debug, Clone, Default)]
struct CancellingJobs(Arc<Mutex<CancellingState>>);

#[derive(Debug, Default)]
struct CancellingState {
    last_id: u64,
    since: BTreeMap<u64, Instant>,
}

impl CancellingJobs {
    fn register(&self) -> CancellingGuard {
        let mut state = self.lock();
        state.last_id += 1;
        let id = state.last_id;
        state.since.insert(id, Instant::now());
        CancellingGuard { jobs: self.clone(), id }
    }

    fn oldest(&self) -> Option<Instant> {
        self.lock().since.values().min().copied()
    }

    fn lock(&self) -> MutexGuard<'_, CancellingState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct CancellingGuard {
    jobs: CancellingJobs,
    id: u64,
}

impl Drop for CancellingGuard {
    fn drop(&mut self) {
        self.jobs.lock().since.remove(&self.id);
    }
}

#[cfg(test)]
mod tests;
