//! Which backends are up: probed all the time, corrected by what requests meet. Handlers read a snapshot.

pub(crate) mod model_cache;
mod model_listing;
mod monitor;
mod probe;
pub mod state;

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use service::lifecycle::Lifecycle;
use tokio_util::sync::CancellationToken;

use self::{
    model_cache::ModelCache,
    monitor::BackendMonitor,
    state::{Evidence, Health},
};
use crate::{
    client::HttpClients,
    config::{Backend, Backends, ImageEngine, ProbeRules},
    metrics::Metrics,
    policy::routing::{Routed, text::BackendModels},
};

/// How long the first probes may hold up the start. They go on after it, and until then nothing is admitted.
const FIRST_PROBES_TIMEOUT: Duration = Duration::from_secs(2);

/// All backends' health.
#[derive(Debug)]
pub(crate) struct Monitors {
    backends: Vec<BackendMonitor>,
    model_cache: Arc<ModelCache>,
    /// Cancelled when others took over.
    cancellation: CancellationToken,
}

/// A permitted request whose backend is up. Made by `Monitors::require_ready` alone.
#[derive(Debug)]
pub struct Ready {
    routed: Routed,
}

/// A backend that is not up, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotReady {
    /// The backend.
    pub class: String,
    /// Its own failing checks, or what the probe met.
    pub error: String,
}

/// What one look at a backend finds, by a program that watches nothing.
pub(crate) async fn probe_once(client: &reqwest::Client, backend: &Backend, timeout: Duration) -> Evidence {
    probe::probe(client, backend, probe::ProbeReason::NotReady, timeout).await
}

impl Monitors {
    /// Knows all backends, and nothing about them yet but the models that they listed to the process before.
    pub(crate) fn new(
        backends: &Backends,
        rules: ProbeRules,
        metrics: &Arc<Metrics>,
        remembered: ModelCache,
    ) -> Self {
        let (watched, remembered) = (Vec::new(), Arc::new(remembered));
        Self { backends: watched, model_cache: remembered, cancellation: CancellationToken::new() }
            .reconfigured(backends, rules, metrics)
    }

    /// The same after a reload, not started yet. What is known of a backend that stays where it is stays known.
    pub(crate) fn reconfigured(
        &self,
        backends: &Backends,
        rules: ProbeRules,
        metrics: &Arc<Metrics>,
    ) -> Self {
        self.model_cache.retain_backends(backends);
        let watched = backends.all.iter().map(|backend| {
            let before = self.monitor(&backend.class).filter(|one| one.backend.is_same_endpoint(backend));
            BackendMonitor::new(backend.clone(), rules, metrics.clone(), self.model_cache.clone(), before)
        });
        let (watched, remembered) = (watched.collect(), self.model_cache.clone());
        Self { backends: watched, model_cache: remembered, cancellation: CancellationToken::new() }
    }

    /// Starts one loop per backend.
    pub(crate) fn start(&self, clients: &HttpClients, lifecycle: &Lifecycle) {
        for watched in &self.backends {
            let over = self.cancellation.clone();
            lifecycle.spawn_worker_until(over, "health monitor", watched.clone().run(clients.clone()));
        }
    }

    /// Ends the loops: others go on.
    pub(crate) fn stop(&self) {
        self.cancellation.cancel();
    }

    /// Waits a little for the first probes, so that what is asked first is not refused for want of knowledge.
    pub(crate) async fn wait_for_first_probes(&self) {
        let _ = tokio::time::timeout(
            FIRST_PROBES_TIMEOUT,
            join_all(self.backends.iter().map(BackendMonitor::wait_for_first_probe)),
        )
        .await;
    }

    /// Whether the permitted backend is up. The mock is.
    pub(crate) fn require_ready(&self, permitted: Routed) -> Result<Ready, NotReady> {
        if permitted.engine() == ImageEngine::Mock {
            return Ok(Ready { routed: permitted });
        }
        let class = &permitted.backend().class;
        let error = match self.monitor(class) {
            Some(monitor) => monitor.health().error.clone(),
            None => Some("it is not configured".to_owned()),
        };
        match error {
            None => Ok(Ready { routed: permitted }),
            Some(error) => Err(NotReady { class: class.clone(), error }),
        }
    }

    /// What a request found out about the backend.
    pub(crate) fn report_evidence(&self, class: &str, evidence: Evidence) {
        if let Some(monitor) = self.monitor(class) {
            monitor.apply_evidence(evidence);
        }
    }

    /// A request met something that makes one doubt it: a probe decides.
    pub(crate) fn probe_soon(&self, class: &str) {
        if let Some(monitor) = self.monitor(class) {
            monitor.probe_soon();
        }
    }

    /// The machine slept: until each backend was probed anew, it gets no request.
    pub(crate) fn invalidate(&self) {
        self.backends.iter().for_each(BackendMonitor::invalidate);
    }

    /// Every backend with what is believed of it.
    pub(crate) fn snapshot(&self) -> Vec<(Arc<Backend>, Health)> {
        let seen = self.backends.iter().map(|monitor| {
            let mut health = monitor.health().clone();
            // What is wrong with its list says nothing new while it is down.
            health.warnings.extend(monitor.listing().warning.clone().filter(|_| health.ready));
            (monitor.backend.clone(), health)
        });
        seen.collect()
    }

    /// Every ready backend with the models that it listed last.
    pub(crate) fn ready_models(&self) -> Vec<BackendModels> {
        let ready = self.backends.iter().filter(|monitor| monitor.health().ready);
        ready.map(|monitor| (monitor.backend.clone(), monitor.listing().models.clone())).collect()
    }

    /// Every backend, ready or not, with the models that it listed last. Where a request goes must not depend on who
    /// happens to be up.
    pub(crate) fn known_models(&self) -> Vec<BackendModels> {
        let all = self.backends.iter();
        all.map(|monitor| (monitor.backend.clone(), monitor.listing().models.clone())).collect()
    }

    fn monitor(&self, class: &str) -> Option<&BackendMonitor> {
        self.backends.iter().find(|watched| watched.backend.class == class)
    }
}

impl Ready {
    /// What was permitted.
    pub(crate) fn into_routed(self) -> Routed {
        self.routed
    }
}

#[cfg(test)]
impl Ready {
    /// For tests of what comes after.
    pub(crate) fn assume_ready(permitted: Routed) -> Self {
        Self { routed: permitted }
    }
}
