//! A job from its beginning to its end: decoding, the engine, encoding.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use service::slots::Permit;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::{Finish, JobError, Jobs, Prepare, Work, ended_early};
use crate::{
    engine::{Desk, EngineError, ImageEngine, Outcome, Picture},
    images::Job,
    pictures,
};

/// One job on its way.
pub(super) struct Course<'a> {
    jobs: &'a Jobs,
    desk: &'a Desk,
    label: Label,
    id: &'a str,
}

impl<'a> Course<'a> {
    pub(super) fn new(jobs: &'a Jobs, desk: &'a Desk, job: &Job, id: &'a str) -> Self {
        Self { jobs, desk, label: Label::of(job), id }
    }

    /// Sees it through, and tells its end to both.
    pub(super) async fn run<T: Send + 'static>(
        mut self,
        work: Work<T>,
        told: oneshot::Receiver<Outcome>,
        prepared: oneshot::Sender<Result<(), JobError>>,
        tell: oneshot::Sender<Result<T, JobError>>,
        permit: Permit,
    ) {
        let started = Instant::now();
        let Work { job, prepare, finish } = work;
        let job = match self.prepare(job, prepare).await {
            Ok(job) => Arc::new(job),
            Err(error) => {
                self.end(Some(&error), started);
                self.give_back(permit);
                // Whoever has left does not want to know.
                let _ = (prepared.send(Err(error.clone())), tell.send(Err(error)));
                return;
            }
        };
        self.label.task = job.task.name();
        let _ = prepared.send(Ok(()));
        let steps = self.desk.progress.subscribe();
        let run = self.jobs.outcomes.follow(&job, steps, self.jobs.engine.run(&job, self.desk));
        let mut run = pin!(async { self.desk.tell(run.await) });
        let mut answered = pin!(self.answer(told, job.clone(), finish));
        tokio::select! {
            biased;
            () = run.as_mut() => {
                let answer = answered.await;
                self.end(answer.as_ref().err(), started);
                self.give_back(permit);
                let _ = tell.send(answer);
            }
            answer = answered.as_mut() => {
                let failed = answer.as_ref().err().cloned();
                let _ = tell.send(answer);
                run.await;
                self.end(failed.as_ref(), started);
                self.give_back(permit);
            }
        }
    }

    async fn prepare(&self, job: Job, prepare: Option<Prepare>) -> Result<Job, JobError> {
        let Some(Prepare { large, work }) = prepare else { return Ok(job) };
        let job = self.jobs.pixels.run(large, &self.desk.cancel, move |cancel| work(job, cancel)).await?;
        if self.desk.cancel.is_cancelled() {
            return Err(EngineError::Cancelled.into());
        }
        job.map_err(JobError::Input)
    }

    /// Of the engine's outcome, as soon as it is told.
    pub(super) async fn answer<T: Send + 'static>(
        &self,
        told: oneshot::Receiver<Outcome>,
        job: Arc<Job>,
        finish: Finish<T>,
    ) -> Result<T, JobError> {
        let made = told.await.map_err(|_| ended_early())??;
        let asked = job.seeds.len();
        if made.len() != asked {
            let words = format!("{asked} pictures were asked for, and the engine made {}", made.len());
            return Err(EngineError::Failed(words).into());
        }
        let is_large = |made: &Picture| pictures::size_of("image", &made.bytes).is_ok_and(pictures::is_large);
        let large = made.iter().any(is_large);
        let answer = self.jobs.pixels.run(large, &self.desk.cancel, move |cancel| finish(made, &job, cancel));
        answer.await?.map_err(|error| match error {
            _ if self.desk.cancel.is_cancelled() => EngineError::Cancelled.into(),
            error => error.into(),
        })
    }

    fn end(&self, failed: Option<&JobError>, started: Instant) {
        self.label.report(self.id, failed.map_or(Ok(()), Err), started.elapsed());
        // What the engine works on is proven by pictures that can be used, and not by its word.
        match failed {
            None => self.jobs.outcomes.ended(Ok(())),
            Some(JobError::Engine(error)) => self.jobs.outcomes.ended(Err(error)),
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

    fn give_back(&self, permit: Permit) {
        drop(permit);
        self.jobs.changed.notify_one();
    }
}

/// What the log says of a job.
struct Label {
    task: &'static str,
    model: String,
    size: String,
    n: usize,
}

impl Label {
    fn of(job: &Job) -> Self {
        let size = job.expected_size().map_or_else(|| "own".to_owned(), |size| size.to_string());
        Self { task: job.task.name(), model: job.name.clone(), size, n: job.seeds.len() }
    }

    fn report(&self, request_id: &str, result: Result<(), &JobError>, took: Duration) {
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
