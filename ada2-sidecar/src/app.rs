//! The state that every handler shares: handles, built once and cheap to clone.

use std::{ops::Deref, sync::Arc};

use service::{body::BodyBudget, clock::unix_now};
use tokio::sync::watch;

use crate::{
    config::Config,
    engine::{EngineStatus, monitor::EngineState},
    image_cache::ImageCache,
    images::{Limits, models},
    jobs::Jobs,
    metrics::Metrics,
    readiness::ReadinessSnapshot,
};

/// Bytes of all requests' bodies together.
const MAX_BUFFERED_BODIES: usize = 256 << 20;

/// The handlers' state. One pointer, because each request clones it several times.
#[derive(Debug, Clone)]
pub(crate) struct App(Arc<AppState>);

impl Deref for App {
    type Target = AppState;

    fn deref(&self) -> &AppState {
        &self.0
    }
}

#[derive(Debug, Clone)]
pub(crate) struct AppState {
    pub(crate) config: Arc<Config>,
    pub(crate) jobs: Jobs,
    /// The engine as last seen.
    pub(crate) engine_state: watch::Receiver<EngineState>,
    pub(crate) readiness: watch::Receiver<Arc<ReadinessSnapshot>>,
    pub(crate) body_budget: BodyBudget,
    pub(crate) image_cache: Arc<ImageCache>,
    pub(crate) metrics: Metrics,
    /// Unix seconds of our start: the `created` of models, for which the engines keep no date.
    pub(crate) started_at: u64,
}

/// No request is admitted now; the text names the failing checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotReady(pub(crate) String);

impl App {
    pub(crate) fn new(
        config: Arc<Config>,
        jobs: Jobs,
        engine_state: watch::Receiver<EngineState>,
        readiness: watch::Receiver<Arc<ReadinessSnapshot>>,
        metrics: Metrics,
    ) -> Self {
        Self(Arc::new(AppState {
            body_budget: BodyBudget::new(MAX_BUFFERED_BODIES, config.max_request_bytes),
            config,
            jobs,
            engine_state,
            readiness,
            image_cache: Arc::default(),
            metrics,
            started_at: unix_now(),
        }))
    }

    /// The same with another configuration. Bodies that are held keep counting.
    pub(crate) fn with_config(&self, config: Arc<Config>) -> Self {
        let body_budget = self.body_budget.with_body_limit(config.max_request_bytes);
        Self(Arc::new(AppState { config, body_budget, ..AppState::clone(self) }))
    }

    /// Passes while requests are admitted. Draining alone rejects no request: a client that still sends one connected before,
    /// and is served to the end.
    pub(crate) fn check_ready(&self) -> Result<(), NotReady> {
        let snapshot = self.readiness.borrow();
        let report = &snapshot.report;
        if report.admits() || report.fails_only("draining") {
            Ok(())
        } else {
            Err(NotReady(report.failing_message()))
        }
    }

    /// The engine as last seen, with the models' declared kinds. Fails until the engine has answered once.
    pub(crate) fn engine_status(&self) -> Result<EngineStatus, NotReady> {
        let status = self.engine_state.borrow().last_status.clone();
        let status = status.ok_or_else(|| NotReady(self.readiness.borrow().report.failing_message()))?;
        Ok(EngineStatus { models: models::apply_declarations(&self.config.models, &status.models), ..status })
    }

    pub(crate) fn limits(&self) -> Limits {
        let config = &self.config;
        Limits {
            max_n: config.max_n,
            max_pixels: config.max_pixels,
            max_seed: config.engine.max_seed(),
            schedulers: config.engine.schedulers(),
        }
    }
}
