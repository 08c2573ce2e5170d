//! Loading the default model before anybody asks for a picture: a smallest possible generation at start, and whenever
//! the engine was started anew. Until it is done readiness says `engine_model: warming`.

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

/// While the card or the engine is not ready for it.
const RETRY: Duration = Duration::from_millis(500);

/// Loads it, again and again as the engine restarts.
pub(crate) struct WarmUpWorker {
    pub(crate) state: watch::Sender<WarmUp>,
    pub(crate) engine: watch::Receiver<EngineState>,
    pub(crate) published: watch::Receiver<Arc<ReadinessSnapshot>>,
    pub(crate) jobs: Jobs,
    pub(crate) config: Reloadable<Arc<Config>>,
}

impl WarmUpWorker {
    /// Starts it, if it is wanted.
    pub(crate) fn start(self, lifecycle: &Lifecycle) {
        if *self.state.borrow() == WarmUp::Off {
            return;
        }
        let draining = lifecycle.draining().clone();
        lifecycle.spawn_worker("warm-up", async move {
            // Dropping the job's handle cancels it: nobody waits for a picture when we stop.
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
                // The engine went away: it has another start before it.
                Ok(Err(JobError::Engine(EngineError::ConnectionRefused(_)))) => WarmUp::Pending,
                Ok(Err(error)) => failed(start, &error.to_string()),
                Err(_) => failed(start, &format!("not done within {limit:?}")),
            });
        }
    }

    /// Only where nothing else keeps the service from being ready, and there is a slot.
    fn try_start(&self) -> Option<JobHandle<()>> {
        let admits = |report: &ReadyReport| report.fails_only("engine_model") || report.admits();
        if !admits(&self.published.borrow().report) {
            return None;
        }
        let status = self.engine.borrow().last_status.clone()?;
        let config = self.config.load();
        let default = config.default_model.as_deref();
        let models = models::apply_declarations(&config.models, &status.models);
        let choice = choice::resolve(&models, &config.presets, None, default).ok()?;
        let permit = self.jobs.slots().try_acquire()?;
        let spec = JobSpec { job: Job::warm_up(choice), decode: None, finish: Box::new(|_, _, _| Ok(())) };
        Some(self.jobs.start(spec, permit, "warm-up".to_owned()))
    }
}

fn failed(start: u64, reason: &str) -> WarmUp {
    warn!(error = reason, "the default model could not be loaded in advance");
    WarmUp::Failed(start, reason.to_owned())
}
