//! What handlers hold: cheap handles, built once.

use std::{
    ops::Deref,
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use service::{
    body::BodyBudget, clock::unix_now, lifecycle::Lifecycle, reload::ReloadHandle, settings::Problem,
};
use tracing::info;

use crate::{
    admission::Admission,
    client::HttpClients,
    config::Config,
    health::{Monitors, model_cache::ModelCache},
    metrics::Metrics,
    sleep::{ClockSource, SleepDetector},
    store::{disk::ImageStore, retention_worker::RetentionInputs},
    warnings::{WarningInputs, Warnings},
};

/// Bytes of all request bodies together.
const BODY_BUDGET: usize = 256 << 20;

/// The state. A reload makes another; each request keeps the one that it came to, and so one configuration. One pointer,
/// because each request clones it several times.
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
    /// Bounds what is held of request bodies.
    pub(crate) body_budget: BodyBudget,
    /// Which backends are up.
    pub(crate) health: Arc<Monitors>,
    /// Where there is room.
    pub(crate) admission: Arc<Admission>,
    /// The clients to the backends.
    pub(crate) clients: HttpClients,
    /// Whether the machine slept.
    pub(crate) sleep: Arc<SleepDetector>,
    /// The pictures.
    pub(crate) store: ImageStore,
    /// What is counted.
    pub(crate) metrics: Arc<Metrics>,
    /// Whether the service drains.
    pub(crate) lifecycle: Lifecycle,
    /// When the service started.
    pub(crate) started: Instant,
    /// Unix seconds of the same.
    pub(crate) started_at: u64,
    /// Which configuration is in force.
    pub(crate) reloads: ReloadHandle,
    /// What an operator should know.
    pub(crate) warnings: Warnings,
    /// How many sleeps of the machine this state knows of.
    seen_sleeps: Arc<AtomicU64>,
}

impl App {
    /// The state at start.
    pub(crate) fn new(
        config: Config,
        clients: HttpClients,
        store: ImageStore,
        clocks: ClockSource,
        lifecycle: Lifecycle,
    ) -> Self {
        let metrics = Arc::new(Metrics::new(config.backends.classes()));
        let model_cache = ModelCache::open(&config.data_dir);
        Self(Arc::new(AppState {
            body_budget: BodyBudget::new(BODY_BUDGET, longest_body(&config)),
            health: Arc::new(Monitors::new(&config.backends, config.health, &metrics, model_cache)),
            admission: Arc::new(Admission::new(&config.backends, &config.access.tokens)),
            config: Arc::new(config),
            clients,
            sleep: Arc::new(SleepDetector::new(clocks)),
            store,
            metrics,
            lifecycle,
            started: Instant::now(),
            started_at: unix_now(),
            reloads: ReloadHandle::default(),
            warnings: Warnings::default(),
            seen_sleeps: Arc::default(),
        }))
    }

    /// The state with another configuration. What is under way and what is known goes on counting: places taken, bodies
    /// held, backends that stay where they are.
    pub(crate) fn with_config(&self, config: Config) -> Result<Self, Problem> {
        let clients = HttpClients::new(&config.outbound)?;
        Ok(Self(Arc::new(AppState {
            body_budget: self.body_budget.with_body_limit(longest_body(&config)),
            health: Arc::new(self.health.reconfigured(&config.backends, config.health, &self.metrics)),
            admission: Arc::new(self.admission.reconfigured(&config.backends, &config.access.tokens)),
            config: Arc::new(config),
            clients,
            seen_sleeps: Arc::new(AtomicU64::new(self.seen_sleeps.load(Ordering::Acquire))),
            ..AppState::clone(self)
        })))
    }

    /// What the worker that lets old pictures go needs.
    pub(crate) fn retention(&self) -> RetentionInputs {
        RetentionInputs {
            clocks: self.sleep.clocks(),
            store: self.store.clone(),
            policy: self.config.retention,
        }
    }

    /// What the worker that looks for what an operator should know needs.
    pub(crate) fn warning_inputs(&self) -> WarningInputs {
        WarningInputs {
            config: self.config.clone(),
            totals: self.store.totals(),
            warnings: self.warnings.clone(),
        }
    }

    /// After a sleep of the machine drops what was known and idle before it, so that nothing is admitted until each
    /// backend was asked anew.
    pub(crate) fn check_for_sleep(&self) {
        self.sleep.check(&self.seen_sleeps, |slept| {
            info!(seconds = slept.as_secs(), "the machine was asleep; asking every backend again");
            // The connections first: the new probes must not take an old one.
            self.clients.drop_idle_connections();
            self.health.invalidate();
        });
    }
}

fn longest_body(config: &Config) -> usize {
    if config.max_request_bytes == 0 { BODY_BUDGET } else { config.max_request_bytes.min(BODY_BUDGET) }
}
