//! What every handler can reach: handles, built once, cheap to clone.

use std::{ops::Deref, sync::Arc};

use service::{body::BodyBudget, clock::unix_now};
use tokio::sync::watch;

use crate::{
    config::Config,
    engine::{Survey, monitor::EngineState},
    images::models,
    jobs::Jobs,
    metrics::Metrics,
    readiness::Published,
    recent::Recent,
};

/// Bytes of all requests' bodies together.
const BODIES: usize = 256 << 20;

/// The handlers' state. One pointer, because each request clones it several times.
#[derive(Debug, Clone)]
pub(crate) struct App(Arc<Parts>);

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// What the state consists of.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    /// The configuration.
    pub(crate) config: Arc<Config>,
    /// Starts jobs.
    pub(crate) jobs: Jobs,
    /// The engine as last seen.
    pub(crate) engine: watch::Receiver<EngineState>,
    /// The verdict that is in force.
    pub(crate) published: watch::Receiver<Arc<Published>>,
    /// Reads bodies.
    pub(crate) bodies: BodyBudget,
    /// Pictures behind addresses.
    pub(crate) recent: Arc<Recent>,
    /// What was counted.
    pub(crate) metrics: Metrics,
    /// Unix seconds of our start: the date of models, whose own the engines do not keep.
    pub(crate) started: u64,
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
        published: watch::Receiver<Arc<Published>>,
        metrics: Metrics,
    ) -> Self {
        Self(Arc::new(Parts {
            bodies: BodyBudget::new(BODIES, config.max_request_bytes),
            config,
            jobs,
            engine,
            published,
            recent: Arc::default(),
            metrics,
            started: unix_now(),
        }))
    }

    /// The same with another configuration; bodies that are held count on.
    pub(crate) fn with_config(&self, config: Arc<Config>) -> Self {
        let bodies = self.bodies.with_each(config.max_request_bytes);
        Self(Arc::new(Parts { config, bodies, ..Parts::clone(self) }))
    }

    /// Passes if work is admitted now. That we are stopping refuses nobody: whoever is heard connected before, and is seen
    /// through like all that runs.
    pub(crate) fn gate(&self) -> Result<(), NotReady> {
        let published = self.published.borrow();
        let report = &published.report;
        if report.admits() || report.fails_only("draining") {
            Ok(())
        } else {
            Err(NotReady(report.failing()))
        }
    }

    /// The engine as last seen, its models of the kinds that the configuration declares. Not there before it has answered
    /// for the first time.
    pub(crate) fn survey(&self) -> Result<Survey, NotReady> {
        let survey = self.engine.borrow().survey.clone();
        let survey = survey.ok_or_else(|| NotReady(self.published.borrow().report.failing()))?;
        Ok(Survey { models: models::apply(&self.config.models, &survey.models), ..survey })
    }
}
