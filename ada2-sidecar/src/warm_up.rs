//! Loading the default model before anybody asks for a picture: a smallest possible generation at start, and whenever
//! the engine was started anew. Until it is done readiness says `engine_model: warming`.

use std::{sync::Arc, time::Duration};

use service::{lifecycle::Lifecycle, reload::Switch};
use tokio::sync::watch;
use tracing::{info, warn};
use wire::health::ReadyReport;

use crate::{
    config::Config,
    engine::{EngineError, monitor::EngineState},
    images::{Job, choice, models},
    jobs::{JobError, JobHandle, Jobs, Work},
    readiness::{Published, WarmUp},
};

/// While the card or the engine is not ready for it.
const RETRY: Duration = Duration::from_millis(500);

/// Loads it, again and again as the engine restarts.
pub(crate) struct Warmer {
    pub(crate) state: watch::Sender<WarmUp>,
    pub(crate) engine: watch::Receiver<EngineState>,
    pub(crate) published: watch::Receiver<Arc<Published>>,
    pub(crate) jobs: Jobs,
    pub(crate) config: Switch<Arc<Config>>,
}

impl Warmer {
    /// Starts it, if it is wanted.
    pub(crate) fn start(self, lifecycle: &Lifecycle) {
        if *self.state.borrow() == WarmUp::Off {
            return;
        }
        let draining = lifecycle.draining().clone();
        lifecycle.worker("warm-up", async move {
            // Dropping the job's handle cancels it: nobody waits for a picture when we stop.
            draining.run_until_cancelled(self.run()).await;
        });
    }

    async fn run(mut self) {
        loop {
            let start = self.engine.borrow().starts;
            if *self.state.borrow().for_start(start) != WarmUp::Due {
                if self.engine.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let Some(mut handle) = self.begin() else {
                tokio::time::sleep(RETRY).await;
                continue;
            };
            self.state.send_replace(WarmUp::Running);
            let time = self.config.now().request_timeout;
            let end = tokio::time::timeout(time, handle.finished()).await;
            self.state.send_replace(match end {
                Ok(Ok(())) => {
                    info!("the default model is loaded");
                    WarmUp::Done(start)
                }
                // The engine went away: it has another start before it.
                Ok(Err(JobError::Engine(EngineError::Refused(_)))) => WarmUp::Due,
                Ok(Err(error)) => failed(start, &error.to_string()),
                Err(_) => failed(start, &format!("not done within {time:?}")),
            });
        }
    }

    /// Only where nothing else keeps the service from being ready, and there is a slot.
    fn begin(&self) -> Option<JobHandle<()>> {
        let admits = |report: &ReadyReport| report.fails_only("engine_model") || report.admits();
        if !admits(&self.published.borrow().report) {
            return None;
        }
        let survey = self.engine.borrow().survey.clone()?;
        let config = self.config.now();
        let default = config.default_model.as_deref();
        let models = models::apply(&config.models, &survey.models);
        let choice = choice::resolve(&models, &config.presets, None, default).ok()?;
        let permit = self.jobs.slots().try_enter()?;
        let work = Work { job: Job::warm_up(choice), prepare: None, finish: Box::new(|_, _, _| Ok(())) };
        Some(self.jobs.start(work, permit, "warm-up".to_owned()))
    }
}

fn failed(start: u64, words: &str) -> WarmUp {
    warn!(error = words, "the default model could not be loaded in advance");
    WarmUp::Failed(start, words.to_owned())
}
