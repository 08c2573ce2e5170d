//! What every handler can reach: handles, built once, cheap to clone.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use shared::service::{body::BodyBudget, lifecycle::Lifecycle};
use tokio::sync::watch;

use crate::{
    config::Config,
    engine::{Engine, Survey, monitor::EngineState},
    error::ApiError,
    jobs::Jobs,
    readiness::Published,
    recent::Recent,
};

/// All requests' bodies together.
const BODIES: usize = 256 << 20;

/// The parts that live as long as the service.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    /// The configuration.
    pub(crate) config: Arc<Config>,
    /// Starts jobs.
    pub(crate) jobs: Jobs,
    /// Reads bodies.
    pub(crate) bodies: BodyBudget,
    /// Pictures behind addresses.
    pub(crate) recent: Arc<Recent>,
    /// The engine as last seen.
    pub(crate) engine: watch::Receiver<EngineState>,
    /// Unix seconds of our start: the date of models, whose own the engines do not keep.
    pub(crate) started: u64,
    /// The phases of the service.
    pub(crate) lifecycle: Lifecycle,
}

impl Parts {
    /// Builds them.
    pub(crate) fn new(
        config: Config,
        engine: Engine,
        state: watch::Receiver<EngineState>,
        lifecycle: Lifecycle,
    ) -> Self {
        Self {
            jobs: Jobs::new(engine, config.max_inflight, lifecycle.clone()),
            bodies: BodyBudget::new(BODIES, config.max_request_bytes),
            recent: Arc::default(),
            engine: state,
            started: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            config: Arc::new(config),
            lifecycle,
        }
    }
}

/// The handlers' state.
#[derive(Debug, Clone)]
pub(crate) struct App {
    /// The parts.
    pub(crate) parts: Parts,
    /// The verdict that is in force.
    pub(crate) published: watch::Receiver<Arc<Published>>,
}

impl App {
    /// Passes if work is admitted now.
    pub(crate) fn gate(&self) -> Result<(), ApiError> {
        let published = self.published.borrow();
        if published.report.admits() { Ok(()) } else { Err(ApiError::NotReady(published.report.failing())) }
    }

    /// The engine as last seen. Not there before it has answered for the first time.
    pub(crate) fn survey(&self) -> Result<Survey, ApiError> {
        let survey = self.parts.engine.borrow().survey.clone();
        survey.ok_or_else(|| ApiError::NotReady(self.published.borrow().report.failing()))
    }
}
