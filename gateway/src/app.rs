//! The state that handlers share.

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
    admission::{Admission, event_streams::EventStreams},
    client::HttpClients,
    config::Config,
    health::{Monitors, model_cache::ModelCache},
    jobs::ImageJobs,
    metrics::Metrics,
    sleep::{ClockSource, SleepDetector},
    store::{disk::ImageStore, retention_worker::RetentionInputs},
    warnings::{WarningInputs, Warnings},
};

/// Shared by all request bodies.
const BODY_BUDGET: usize = 256 << 20;

/// The state under one configuration. A reload makes another; each request keeps the one it started with. One pointer, because
/// each request clones it several times.
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
    pub(crate) body_budget: BodyBudget,
    pub(crate) health: Arc<Monitors>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) event_streams: EventStreams,
    pub(crate) jobs: ImageJobs,
    pub(crate) clients: HttpClients,
    pub(crate) sleep: Arc<SleepDetector>,
    pub(crate) store: ImageStore,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) started: Instant,
    /// The same in Unix seconds.
    pub(crate) started_at: u64,
    pub(crate) reloads: ReloadHandle,
    pub(crate) warnings: Warnings,
    /// How many sleeps of the machine this state has handled.
    handled_sleeps: Arc<AtomicU64>,
}

impl App {
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
            event_streams: EventStreams::default(),
            jobs: ImageJobs::default(),
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
            handled_sleeps: Arc::default(),
        }))
    }

    /// The state with another configuration. Slots, body budget and the health of unchanged backends carry over.
    pub(crate) fn with_config(&self, config: Config) -> Result<Self, Problem> {
        let clients = HttpClients::new(&config.outbound)?;
        Ok(Self(Arc::new(AppState {
            body_budget: self.body_budget.with_body_limit(longest_body(&config)),
            health: Arc::new(self.health.reconfigured(&config.backends, config.health, &self.metrics)),
            admission: Arc::new(self.admission.reconfigured(&config.backends, &config.access.tokens)),
            config: Arc::new(config),
            clients,
            handled_sleeps: Arc::new(AtomicU64::new(self.handled_sleeps.load(Ordering::Acquire))),
            ..AppState::clone(self)
        })))
    }

    pub(crate) fn retention(&self) -> RetentionInputs {
        RetentionInputs {
            clocks: self.sleep.clocks(),
            store: self.store.clone(),
            policy: self.config.retention,
        }
    }

    pub(crate) fn warning_inputs(&self) -> WarningInputs {
        WarningInputs {
            config: self.config.clone(),
            totals: self.store.totals(),
            warnings: self.warnings.clone(),
        }
    }

    /// If the machine has slept, drops idle connections and health, so that nothing is admitted until each backend is probed
    /// again.
    pub(crate) fn check_for_sleep(&self) {
        self.sleep.check(&self.handled_sleeps, |slept| {
            info!(seconds = slept.as_secs(), "the machine was asleep; probing every backend again");
            // Connections first: the new probes must not use an old one.
            self.clients.drop_idle_connections();
            self.health.invalidate();
        });
    }
}

fn longest_body(config: &Config) -> usize {
    if config.max_request_bytes == 0 { BODY_BUDGET } else { config.max_request_bytes.min(BODY_BUDGET) }
}
