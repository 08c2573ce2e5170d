//! A job from its beginning to its end: decoding, the engine, encoding.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use service::slots::Permit;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::{DecodeStep, FinishFn, JobError, JobSpec, Jobs, ended_early};
use crate::{
    engine::{EngineError, GeneratedImage, JobContext, JobOutcome},
    image_codec,
    images::Job,
};

/// One job on its way.
pub(super) struct JobRun<'a> {
    jobs: &'a Jobs,
    context: &'a JobContext,
    log_fields: JobLogFields,
    request_id: &'a str,
}

impl<'a> JobRun<'a> {
    pub(super) fn new(jobs: &'a Jobs, desk: &'a JobContext, job: &Job, id: &'a str) -> Self {
        Self { jobs, context: desk, log_fields: JobLogFields::from_job(job), request_id: id }
    }

    /// Sees it through, and tells its end to both.
    pub(super) async fn run<T: Send + 'static>(
        mut self,
        spec: JobSpec<T>,
        outcome_rx: oneshot::Receiver<JobOutcome>,
        prepared_tx: oneshot::Sender<Result<(), JobError>>,
        answer_tx: oneshot::Sender<Result<T, JobError>>,
        permit: Permit,
    ) {
        let started = Instant::now();
        let JobSpec { job, prepare, finish } = spec;
        let job = match self.decode_input(job, prepare).await {
            Ok(job) => Arc::new(job),
            Err(error) => {
                self.record_result(Some(&error), started);
                self.release(permit);
                // Whoever has left does not want to know.
                let _ = (prepared_tx.send(Err(error.clone())), answer_tx.send(Err(error)));
                return;
            }
        };
        self.log_fields.task = job.task.name();
        let _ = prepared_tx.send(Ok(()));
        let steps = self.context.progress.subscribe();
        let run = self.jobs.outcomes.track(&job, steps, self.jobs.engine.run(&job, self.context));
        let mut run = pin!(async { self.context.complete(run.await) });
        let mut answer_task = pin!(self.answer(outcome_rx, job.clone(), finish));
        tokio::select! {
            biased;
            () = run.as_mut() => {
                let answer = answer_task.await;
                self.record_result(answer.as_ref().err(), started);
                self.release(permit);
                let _ = answer_tx.send(answer);
            }
            answer = answer_task.as_mut() => {
                let failed = answer.as_ref().err().cloned();
                let _ = answer_tx.send(answer);
                run.await;
                self.record_result(failed.as_ref(), started);
                self.release(permit);
            }
        }
    }

    async fn decode_input(&self, job: Job, prepare: Option<DecodeStep>) -> Result<Job, JobError> {
        let Some(DecodeStep { is_large: large, decode: work }) = prepare else { return Ok(job) };
        let job =
            self.jobs.image_work.run(large, &self.context.cancel, move |cancel| work(job, cancel)).await?;
        if self.context.cancel.is_cancelled() {
            return Err(EngineError::Cancelled.into());
        }
        job.map_err(JobError::Input)
    }

    /// Of the engine's outcome, as soon as it is told.
    pub(super) async fn answer<T: Send + 'static>(
        &self,
        outcome_rx: oneshot::Receiver<JobOutcome>,
        job: Arc<Job>,
        finish: FinishFn<T>,
    ) -> Result<T, JobError> {
        let images = outcome_rx.await.map_err(|_| ended_early())??;
        let requested = job.seeds.len();
        if images.len() != requested {
            let message =
                format!("{requested} pictures were asked for, and the engine made {}", images.len());
            return Err(EngineError::Failed(message).into());
        }
        let is_large = |image: &GeneratedImage| {
            image_codec::upright_size("image", &image.bytes).is_ok_and(image_codec::is_large)
        };
        let large = images.iter().any(is_large);
        let answer =
            self.jobs.image_work.run(large, &self.context.cancel, move |cancel| finish(images, &job, cancel));
        answer.await?.map_err(|error| match error {
            _ if self.context.cancel.is_cancelled() => EngineError::Cancelled.into(),
            error => error.into(),
        })
    }

    fn record_result(&self, failed: Option<&JobError>, started: Instant) {
        self.log_fields.log(self.request_id, failed.map_or(Ok(()), Err), started.elapsed());
        // What the engine works on is proven by pictures that can be used, and not by its word.
        match failed {
            None => self.jobs.outcomes.record_result(Ok(())),
            Some(JobError::Engine(error)) => self.jobs.outcomes.record_result(Err(error)),
            Some(JobError::Input(_) | JobError::Panic) => {}
        }
        self.jobs.metrics.job_ended(match failed {
            None => "done",
            Some(JobError::Engine(EngineError::Cancelled)) => "cancelled",
            // The engine has heard nothing of it: a refused request, and no job.
            Some(JobError::Input(_)) => return,
            Some(_) => "failed",
        });
    }

    fn release(&self, permit: Permit) {
        drop(permit);
        self.jobs.slots_changed.notify_one();
    }
}

/// What the log says of a job.
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

    fn log(&self, request_id: &str, result: Result<(), &JobError>, took: Duration) {
        let Self { task, model, size, n } = self;
        let ms = took.as_millis();
        match result {
            Ok(()) => info!(request_id, task, ?model, size, n, ms, "job done"),
            Err(JobError::Engine(EngineError::Cancelled)) => {
                info!(request_id, task, ?model, size, n, ms, "job cancelled, engine free of it");
            }
            Err(JobError::Input(error)) => {
                info!(request_id, task, ?model, size, n, ms, %error, "job refused: its picture cannot be used");
            }
            Err(error) => warn!(request_id, task, ?model, size, n, ms, %error, "job failed"),
        }
    }
}
