//! What handlers hold: cheap handles, built once.

use std::{
    ops::Deref,
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use service::{body::BodyBudget, clock::unix_now, lifecycle::Lifecycle, reload::Reloads, settings::Problem};
use tracing::info;

use crate::{
    admission::Admission,
    client::Clients,
    config::Config,
    health::{Monitors, remembered::RememberedModels},
    metrics::Metrics,
    sleep::{ClockSource, SleepDetector},
    store::{disk::Store, keeping::Round},
    warnings::{Warnings, Watched},
};

/// Bytes of all request bodies together.
const ALL_BODIES: usize = 256 << 20;

/// The state. A reload makes another; each request keeps the one that it came to, and so one configuration. One pointer,
/// because each request clones it several times.
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
    /// Bounds what is held of request bodies.
    pub(crate) bodies: BodyBudget,
    /// Which backends are up.
    pub(crate) health: Arc<Monitors>,
    /// Where there is room.
    pub(crate) admission: Arc<Admission>,
    /// The clients to the backends.
    pub(crate) clients: Clients,
    /// Whether the machine slept.
    pub(crate) sleep: Arc<SleepDetector>,
    /// The pictures.
    pub(crate) store: Store,
    /// What is counted.
    pub(crate) metrics: Arc<Metrics>,
    /// Whether the service drains.
    pub(crate) lifecycle: Lifecycle,
    /// When the service started.
    pub(crate) started: Instant,
    /// Unix seconds of the same.
    pub(crate) started_at: u64,
    /// Which configuration is in force.
    pub(crate) reloads: Reloads,
    /// What an operator should know.
    pub(crate) warnings: Warnings,
    /// How many sleeps of the machine this state knows of.
    sleeps_known: Arc<AtomicU64>,
}

impl App {
    /// The state at start.
    pub(crate) fn new(
        config: Config,
        clients: Clients,
        store: Store,
        clocks: ClockSource,
        lifecycle: Lifecycle,
    ) -> Self {
        let metrics = Arc::new(Metrics::new(config.backends.classes()));
        let remembered = RememberedModels::open(&config.data_dir);
        Self(Arc::new(Parts {
            bodies: BodyBudget::new(ALL_BODIES, longest_body(&config)),
            health: Arc::new(Monitors::new(&config.backends, config.health, &metrics, remembered)),
            admission: Arc::new(Admission::new(&config.backends, &config.access.tokens)),
            config: Arc::new(config),
            clients,
            sleep: Arc::new(SleepDetector::new(clocks)),
            store,
            metrics,
            lifecycle,
            started: Instant::now(),
            started_at: unix_now(),
            reloads: Reloads::default(),
            warnings: Warnings::default(),
            sleeps_known: Arc::default(),
        }))
    }

    /// The state with another configuration. What is under way and what is known goes on counting: places taken, bodies
    /// held, backends that stay where they are.
    pub(crate) fn with_config(&self, config: Config) -> Result<Self, Problem> {
        let clients = Clients::new(&config.outbound)?;
        Ok(Self(Arc::new(Parts {
            bodies: self.bodies.with_each(longest_body(&config)),
            health: Arc::new(self.health.succeeded_by(&config.backends, config.health, &self.metrics)),
            admission: Arc::new(self.admission.succeeded_by(&config.backends, &config.access.tokens)),
            config: Arc::new(config),
            clients,
            sleeps_known: Arc::new(AtomicU64::new(self.sleeps_known.load(Ordering::Acquire))),
            ..Parts::clone(self)
        })))
    }

    /// What the worker that lets old pictures go needs.
    pub(crate) fn retention(&self) -> Round {
        Round { clocks: self.sleep.clocks(), store: self.store.clone(), rules: self.config.retention }
    }

    /// What the worker that looks for what an operator should know needs.
    pub(crate) fn watched(&self) -> Watched {
        Watched { config: self.config.clone(), totals: self.store.totals(), warnings: self.warnings.clone() }
    }

    /// After a sleep of the machine drops what was known and idle before it, so that nothing is admitted until each
    /// backend was asked anew.
    pub(crate) fn look_for_sleep(&self) {
        self.sleep.look(&self.sleeps_known, |slept| {
            info!(seconds = slept.as_secs(), "the machine was asleep; asking every backend again");
            // The connections first: the new probes must not take an old one.
            self.clients.drop_idle();
            self.health.forget();
        });
    }
}

fn longest_body(config: &Config) -> usize {
    if config.max_request == 0 { ALL_BODIES } else { config.max_request.min(ALL_BODIES) }
}
