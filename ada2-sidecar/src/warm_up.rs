//! Loads the default model before the first request, by a minimal generation at start and after each restart of the
//! engine. Until then readiness says `engine_model: warming`.

use std::{sync::Arc, time::Duration};

use service::{lifecycle::Lifecycle, reload::Reloadable};
use tokio::sync::watch;
use tracing::{info, warn};
use wire::health::ReadyReport;

use crate::{
    config::Config,
    engine::{EngineError, monitor::EngineState},
    images::{Job, choice, models},
    jobs::{JobError, JobHandle, JobSpec, Jobs},
    readiness::{ReadinessSnapshot, WarmUp},
};

/// While the card or the engine is not ready.
const RETRY: Duration = Duration::from_millis(500);

pub(crate) struct WarmUpWorker {
    pub(crate) state: watch::Sender<WarmUp>,
    pub(crate) engine: watch::Receiver<EngineState>,
    pub(crate) published: watch::Receiver<Arc<ReadinessSnapshot>>,
    pub(crate) jobs: Jobs,
    pub(crate) config: Reloadable<Arc<Config>>,
}

impl WarmUpWorker {
    /// Starts the worker, if warm-up is enabled.
    pub(crate) fn start(self, lifecycle: &Lifecycle) {
        if *self.state.borrow() == WarmUp::Off {
            return;
        }
        let draining = lifecycle.draining().clone();
        lifecycle.spawn_worker("warm-up", async move {
            // Draining drops the job's handle, which cancels the job.
            draining.run_until_cancelled(self.run()).await;
        });
    }

    async fn run(mut self) {
        loop {
            let start = self.engine.borrow().starts;
            if *self.state.borrow().for_start(start) != WarmUp::Pending {
                if self.engine.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let Some(mut job) = self.try_start() else {
                tokio::time::sleep(RETRY).await;
                continue;
            };
            self.state.send_replace(WarmUp::Running);
            let limit = self.config.load().request_timeout;
            let end = tokio::time::timeout(limit, job.wait()).await;
            self.state.send_replace(match end {
                Ok(Ok(())) => {
                    info!("the default model is loaded");
                    WarmUp::Done(start)
                }
                // The engine has stopped; its next start is warmed up.
                Ok(Err(JobError::Engine(EngineError::ConnectionRefused(_)))) => WarmUp::Pending,
                Ok(Err(error)) => failed(start, &error.to_string()),
                Err(_) => failed(start, &format!("not finished within {limit:?}")),
            });
        }
    }

    /// Starts the job, if nothing but `engine_model` fails and a slot is free.
    fn try_start(&self) -> Option<JobHandle<()>> {
        let admits = |report: &ReadyReport| report.fails_only("engine_model") || report.admits();
        if !admits(&self.published.borrow().report) {
            return None;
        }
        let status = self.engine.borrow().last_status.clone()?;
        let config = self.config.load();
        let default = config.default_model.as_deref();
        let models = models::apply_declarations(&config.models, &status.models);
        let choice = choice::resolve_for_new_images(&models, &config.presets, default)?;
        let permit = self.jobs.slots().try_acquire()?;
        let spec = JobSpec { job: Job::warm_up(choice), decode: None, finish: Box::new(|_, _, _| Ok(())) };
        Some(self.jobs.start(spec, permit, "warm-up".to_owned()))
    }
}

fn failed(start: u64, reason: &str) -> WarmUp {
    warn!(error = reason, "warm-up failed: cannot load the default model");
    WarmUp::Failed(start, reason.to_owned())
}
