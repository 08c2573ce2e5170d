//! What handlers hold: cheap handles, built once.

use std::{
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use shared::service::{body::BodyBudget, lifecycle::Lifecycle};
use tracing::info;

use crate::{
    backend::Backends,
    config::Config,
    health::Monitors,
    metrics::Metrics,
    policy::admission::Admission,
    store::disk::Store,
    wake::{ClockSource, Vigil},
};

/// Bytes of all request bodies together.
const ALL_BODIES: usize = 256 << 20;

/// The state.
#[derive(Debug, Clone)]
pub(crate) struct App {
    /// The configuration; one value per request.
    pub(crate) config: Arc<Config>,
    /// Bounds what is held of request bodies.
    pub(crate) bodies: BodyBudget,
    /// Which backends are up.
    pub(crate) health: Arc<Monitors>,
    /// Where there is room.
    pub(crate) admission: Arc<Admission>,
    /// The clients to the backends.
    pub(crate) backends: Backends,
    /// Whether the machine slept.
    pub(crate) vigil: Arc<Vigil>,
    /// The pictures.
    pub(crate) store: Store,
    /// What is counted.
    pub(crate) metrics: Arc<Metrics>,
    /// Whether the service drains.
    pub(crate) lifecycle: Lifecycle,
    /// When the service started.
    pub(crate) started: Instant,
    /// Unix seconds of the same.
    pub(crate) loaded_at: u64,
}

impl App {
    /// The state at start.
    pub(crate) fn new(
        config: Config,
        backends: Backends,
        store: Store,
        clocks: ClockSource,
        lifecycle: Lifecycle,
    ) -> Self {
        let each = if config.max_request == 0 { ALL_BODIES } else { config.max_request };
        let metrics = Arc::new(Metrics::new(config.backends.classes()));
        Self {
            bodies: BodyBudget::new(ALL_BODIES, each.min(ALL_BODIES)),
            health: Arc::new(Monitors::new(&config.backends, config.health, &metrics)),
            admission: Arc::new(Admission::new(&config.backends)),
            config: Arc::new(config),
            backends,
            vigil: Arc::new(Vigil::new(clocks)),
            store,
            metrics,
            lifecycle,
            started: Instant::now(),
            loaded_at: unix_now(),
        }
    }

    /// After a sleep of the machine drops what was known and idle before it, so that nothing is admitted until each
    /// backend was asked anew.
    pub(crate) fn look_for_sleep(&self) {
        self.vigil.look(|slept| {
            info!(seconds = slept.as_secs(), "the machine was asleep; asking every backend again");
            // The connections first: the new probes must not take an old one.
            self.backends.drop_idle();
            self.health.forget();
        });
    }
}

/// Unix seconds now.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
