//! Jobs: the task that owns a slot until the engine has let go of the work, whoever still waits for it.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use shared::service::{
    lifecycle::Lifecycle,
    slots::{Permit, Slots},
};
use tokio::sync::{Notify, oneshot, watch};
use tokio_util::sync::DropGuard;
use tracing::{info, warn};

use crate::{
    engine::{Desk, Engine, EngineError, ImageEngine, Outcome, Progress},
    images::Job,
    metrics::Metrics,
    outcomes::Outcomes,
};

/// Starts jobs and knows those that are being cancelled.
#[derive(Debug, Clone)]
pub struct Jobs {
    engine: Engine,
    slots: Arc<Slots>,
    lifecycle: Lifecycle,
    cancelling: Cancelling,
    changed: Arc<Notify>,
    metrics: Metrics,
    outcomes: Outcomes,
}

/// A running job. Dropping it asks the engine to cancel exactly this job.
#[derive(Debug)]
pub struct JobHandle {
    progress: watch::Receiver<Progress>,
    outcome: oneshot::Receiver<Outcome>,
    _cancel: DropGuard,
}

impl JobHandle {
    /// How far it is, the newest only.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// Waits for the pictures.
    pub async fn finished(&mut self) -> Outcome {
        let outcome = (&mut self.outcome).await;
        outcome
            .unwrap_or_else(|_| Err(EngineError::Failed("the job's task ended without a result".to_owned())))
    }
}

impl Jobs {
    /// Room for `limit` jobs.
    pub fn new(engine: Engine, limit: usize, lifecycle: Lifecycle, metrics: Metrics) -> Self {
        Self {
            engine,
            slots: Slots::new(limit),
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

    /// How long the oldest cancelled job has been waiting for the engine to let go of it.
    pub fn oldest_cancel(&self, now: Instant) -> Option<Duration> {
        self.cancelling.oldest().map(|since| now.saturating_duration_since(since))
    }

    /// Starts the job. The permit is given back when the engine has let go, before the outcome is told: whoever
    /// reads the answer finds the slot free.
    pub fn start(&self, job: Job, permit: Permit, request_id: String) -> JobHandle {
        let (desk, outcome) = Desk::open();
        let (cancel, progress) = (desk.cancel.clone(), desk.progress.subscribe());
        let (engine, cancelling) = (self.engine.clone(), self.cancelling.clone());
        let (changed, metrics) = (self.changed.clone(), self.metrics.clone());
        let outcomes = self.outcomes.clone();
        changed.notify_one();
        self.lifecycle.spawn("job", async move {
            let started = Instant::now();
            let result = {
                let steps = desk.progress.subscribe();
                let mut run = pin!(outcomes.follow(&job, steps, engine.run(&job, &desk)));
                tokio::select! {
                    result = run.as_mut() => result,
                    () = desk.cancel.cancelled() => {
                        // What is told already needs no cancelling: the engine is only being tidied up.
                        let noted = (!desk.is_told()).then(|| cancelling.note());
                        if noted.is_some() {
                            info!(request_id, "nobody waits for the job any more: cancelling it in the engine");
                        }
                        run.await
                    }
                }
            };
            report(&request_id, &job, &result, started.elapsed());
            metrics.job_ended(match &result {
                Ok(_) => "done",
                Err(EngineError::Cancelled) => "cancelled",
                Err(_) => "failed",
            });
            drop(permit);
            changed.notify_one();
            desk.tell(result);
        });
        JobHandle { progress, outcome, _cancel: cancel.drop_guard() }
    }
}

fn report(request_id: &str, job: &Job, result: &Outcome, took: Duration) {
    let (model, size, n, task) = (&job.name, job.size.to_string(), job.seeds.len(), job.task().name());
    let ms = took.as_millis();
    match result {
        Ok(_) => info!(request_id, task, ?model, size, n, ms, "job done"),
        Err(EngineError::Cancelled) => {
            info!(request_id, task, ?model, size, n, ms, "job cancelled, engine free of it");
        }
        Err(error) => warn!(request_id, task, ?model, size, n, ms, %error, "job failed"),
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
mod tests {
    use super::*;
    use crate::{
        engine::{builtin::Builtin, catalog::Choice},
        models::{Base, EngineModel},
    };

    fn job(steps: u32) -> Job {
        let model = Some(EngineModel::plain("k", "n", Base::Sd1));
        Job { steps, ..Job::warm_up(Choice { name: "n".into(), model, preset: None }) }
    }

    fn jobs() -> Jobs {
        Jobs::new(Engine::Builtin(Builtin), 1, Lifecycle::new(), Metrics::default())
    }

    #[tokio::test(start_paused = true)]
    async fn the_slot_is_free_when_the_answer_is_read() {
        let jobs = jobs();
        let permit = jobs.slots().try_enter().unwrap();
        let mut handle = jobs.start(job(2), permit, "r".into());
        assert_eq!(jobs.slots().available(), 0);
        assert_eq!(handle.finished().await.unwrap().len(), 1);
        assert_eq!(jobs.slots().available(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_handle_cancels_the_job_and_frees_the_slot() {
        let jobs = jobs();
        let permit = jobs.slots().try_enter().unwrap();
        drop(jobs.start(job(150), permit, "r".into()));
        let start = tokio::time::Instant::now();
        while jobs.slots().available() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(start.elapsed() < Duration::from_secs(1), "far less than the job's 3 s");
        assert_eq!(jobs.oldest_cancel(Instant::now()), None);
    }
}
