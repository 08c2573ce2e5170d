//! What every handler can reach: handles, built once, cheap to clone.

use std::{ops::Deref, sync::Arc};

use service::{body::BodyBudget, clock::unix_now};
use tokio::sync::watch;

use crate::{
    config::Config,
    engine::{EngineStatus, monitor::EngineState},
    image_cache::ImageCache,
    images::models,
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

/// What the state consists of.
#[derive(Debug, Clone)]
pub(crate) struct AppState {
    /// The configuration.
    pub(crate) config: Arc<Config>,
    /// Starts jobs.
    pub(crate) jobs: Jobs,
    /// The engine as last seen.
    pub(crate) engine_state: watch::Receiver<EngineState>,
    /// The verdict that is in force.
    pub(crate) readiness: watch::Receiver<Arc<ReadinessSnapshot>>,
    /// Reads bodies.
    pub(crate) body_budget: BodyBudget,
    /// Pictures behind addresses.
    pub(crate) image_cache: Arc<ImageCache>,
    /// What was counted.
    pub(crate) metrics: Metrics,
    /// Unix seconds of our start: the date of models, whose own the engines do not keep.
    pub(crate) started_at: u64,
}

/// No work is admitted now: the failing checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotReady(pub(crate) String);

impl App {
    /// Builds it.
    pub(crate) fn new(
        config: Arc<Config>,
        jobs: Jobs,
        engine: watch::Receiver<EngineState>,
        published: watch::Receiver<Arc<ReadinessSnapshot>>,
        metrics: Metrics,
    ) -> Self {
        Self(Arc::new(AppState {
            body_budget: BodyBudget::new(MAX_BUFFERED_BODIES, config.max_request_bytes),
            config,
            jobs,
            engine_state: engine,
            readiness: published,
            image_cache: Arc::default(),
            metrics,
            started_at: unix_now(),
        }))
    }

    /// The same with another configuration; bodies that are held count on.
    pub(crate) fn with_config(&self, config: Arc<Config>) -> Self {
        let bodies = self.body_budget.with_body_limit(config.max_request_bytes);
        Self(Arc::new(AppState { config, body_budget: bodies, ..AppState::clone(self) }))
    }

    /// Passes if work is admitted now. That we are stopping refuses nobody: whoever is heard connected before, and is seen
    /// through like all that runs.
    pub(crate) fn check_ready(&self) -> Result<(), NotReady> {
        let published = self.readiness.borrow();
        let report = &published.report;
        if report.admits() || report.fails_only("draining") {
            Ok(())
        } else {
            Err(NotReady(report.failing_message()))
        }
    }

    /// The engine as last seen, its models of the kinds that the configuration declares. Not there before it has answered
    /// for the first time.
    pub(crate) fn engine_status(&self) -> Result<EngineStatus, NotReady> {
        let status = self.engine_state.borrow().last_status.clone();
        let status = status.ok_or_else(|| NotReady(self.readiness.borrow().report.failing_message()))?;
        Ok(EngineStatus { models: models::apply_declarations(&self.config.models, &status.models), ..status })
    }
}
