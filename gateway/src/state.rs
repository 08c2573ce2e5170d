//! What handlers hold: cheap handles, built once.

use std::{
    ops::Deref,
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use axum::Router;
use shared::service::{
    body::BodyBudget,
    lifecycle::Lifecycle,
    reload::{Reloads, Switch},
    settings::Problem,
};
use tracing::info;

use crate::{
    backend::Backends,
    config::Config,
    health::{Monitors, remembered::RememberedModels},
    metrics::Metrics,
    policy::admission::Admission,
    router,
    store::disk::Store,
    wake::{ClockSource, Vigil},
    warnings::Warnings,
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
        backends: Backends,
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
            backends,
            vigil: Arc::new(Vigil::new(clocks)),
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
        let backends = Backends::new(&config.outbound).map_err(|error| crate::outbound_problem(&error))?;
        Ok(Self(Arc::new(Parts {
            bodies: self.bodies.with_each(longest_body(&config)),
            health: Arc::new(self.health.succeeded_by(&config.backends, config.health, &self.metrics)),
            admission: Arc::new(self.admission.succeeded_by(&config.backends, &config.access.tokens)),
            config: Arc::new(config),
            backends,
            sleeps_known: Arc::new(AtomicU64::new(self.sleeps_known.load(Ordering::Acquire))),
            ..Parts::clone(self)
        })))
    }

    /// After a sleep of the machine drops what was known and idle before it, so that nothing is admitted until each
    /// backend was asked anew.
    pub(crate) fn look_for_sleep(&self) {
        self.vigil.look(&self.sleeps_known, |slept| {
            info!(seconds = slept.as_secs(), "the machine was asleep; asking every backend again");
            // The connections first: the new probes must not take an old one.
            self.backends.drop_idle();
            self.health.forget();
        });
    }
}

fn longest_body(config: &Config) -> usize {
    if config.max_request == 0 { ALL_BODIES } else { config.max_request.min(ALL_BODIES) }
}

/// What listeners and workers take the state from.
#[derive(Debug, Clone)]
pub(crate) struct Serving {
    /// The state of new requests.
    pub(crate) app: Switch<App>,
    /// The routes with it, for callers.
    pub(crate) api: Switch<Router>,
    /// The same for metrics alone.
    pub(crate) metrics: Switch<Router>,
}

impl Serving {
    /// With this state.
    pub(crate) fn new(app: App) -> Self {
        Self {
            api: Switch::new(router::router(app.clone())),
            metrics: Switch::new(router::metrics_alone(app.clone())),
            app: Switch::new(app),
        }
    }

    /// New requests get this one; gives the one before.
    pub(crate) fn replace(&self, app: App) -> App {
        drop(self.api.replace(router::router(app.clone())));
        drop(self.metrics.replace(router::metrics_alone(app.clone())));
        self.app.replace(app)
    }
}

/// Unix seconds now.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
