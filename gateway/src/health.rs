//! Which backends are ready: probed periodically, and corrected at once by failing requests. Handlers read a snapshot.

pub(crate) mod history;
pub(crate) mod model_cache;
mod model_listing;
mod monitor;
mod probe;
pub mod state;
pub(crate) mod viewers;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use service::lifecycle::Lifecycle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::{
    history::Sample,
    model_cache::ModelCache,
    monitor::BackendMonitor,
    state::{Evidence, Health},
    viewers::Viewer,
};
use crate::{
    client::HttpClients,
    config::{Backend, Backends, ProbeRules},
    metrics::Metrics,
    policy::text::BackendModels,
};

/// How long the start waits for the first probes. Backends that take longer get no requests until they are probed.
const FIRST_PROBES_TIMEOUT: Duration = Duration::from_secs(2);

/// The health of all backends.
#[derive(Debug)]
pub(crate) struct Monitors {
    backends: Vec<BackendMonitor>,
    model_cache: Arc<ModelCache>,
    /// Cancelled when a reload has replaced these monitors.
    cancellation: CancellationToken,
}

/// A single probe, for commands that run no monitors.
pub(crate) async fn probe_once(client: &reqwest::Client, backend: &Backend, timeout: Duration) -> Evidence {
    probe::probe(client, backend, probe::ProbeReason::NotReady, timeout).await
}

impl Monitors {
    /// Only the cached model lists are known yet.
    pub(crate) fn new(
        backends: &Backends,
        rules: ProbeRules,
        metrics: &Arc<Metrics>,
        model_cache: ModelCache,
    ) -> Self {
        Self {
            backends: Vec::new(),
            model_cache: Arc::new(model_cache),
            cancellation: CancellationToken::new(),
        }
        .reconfigured(backends, rules, metrics)
    }

    /// The monitors after a reload, not started yet. The health of a backend whose endpoint is unchanged carries over.
    pub(crate) fn reconfigured(
        &self,
        backends: &Backends,
        rules: ProbeRules,
        metrics: &Arc<Metrics>,
    ) -> Self {
        self.model_cache.retain_backends(backends);
        let monitors = backends.all.iter().map(|backend| {
            let previous = self.monitor(&backend.class).filter(|one| one.backend.is_same_endpoint(backend));
            BackendMonitor::new(backend.clone(), rules, metrics.clone(), self.model_cache.clone(), previous)
        });
        Self {
            backends: monitors.collect(),
            model_cache: self.model_cache.clone(),
            cancellation: CancellationToken::new(),
        }
    }

    /// Starts one loop per backend.
    pub(crate) fn start(&self, clients: &HttpClients, lifecycle: &Lifecycle) {
        for monitor in &self.backends {
            let cancellation = self.cancellation.clone();
            lifecycle.spawn_worker_until(
                cancellation,
                "health monitor",
                monitor.clone().run(clients.clone()),
            );
        }
    }

    /// Ends the loops.
    pub(crate) fn stop(&self) {
        self.cancellation.cancel();
    }

    /// Cancelled when the loops end.
    pub(crate) fn stopped(&self) -> &CancellationToken {
        &self.cancellation
    }

    /// Waits briefly for the first probes, so that the first requests are not rejected before anything is known.
    pub(crate) async fn wait_for_first_probes(&self) {
        let _ = tokio::time::timeout(
            FIRST_PROBES_TIMEOUT,
            join_all(self.backends.iter().map(BackendMonitor::wait_for_first_probe)),
        )
        .await;
    }

    /// Why the backend gets no requests; `None` if it is ready.
    pub(crate) fn error(&self, class: &str) -> Option<String> {
        match self.monitor(class) {
            Some(monitor) => monitor.health().error.clone(),
            None => Some("it is not configured".to_owned()),
        }
    }

    /// A backend's health, as it changes; `None` if it is not configured.
    pub(crate) fn subscribe(&self, class: &str) -> Option<watch::Receiver<Health>> {
        self.monitor(class).map(BackendMonitor::subscribe)
    }

    /// Has a backend probed every second, until the guard is dropped.
    pub(crate) fn watch(&self, class: &str) -> Option<Viewer> {
        self.monitor(class).map(|monitor| monitor.viewers.open())
    }

    /// The samples of each backend that are not in `seen`, which counts them per class.
    pub(crate) fn new_samples(&self, seen: &mut BTreeMap<String, u64>) -> Vec<(String, Vec<Sample>)> {
        let new = self.backends.iter().map(|monitor| {
            let class = &monitor.backend.class;
            let seen = seen.entry(class.clone()).or_default();
            let (samples, count) = monitor.history().after(*seen);
            *seen = count;
            (class.clone(), samples)
        });
        new.filter(|(_, samples)| !samples.is_empty()).collect()
    }

    /// Applies what a request found out about a backend.
    pub(crate) fn report_evidence(&self, class: &str, evidence: Evidence) {
        if let Some(monitor) = self.monitor(class) {
            monitor.apply_evidence(evidence);
        }
    }

    /// Probes a backend now, after a request failed in a way that makes its health doubtful.
    pub(crate) fn probe_soon(&self, class: &str) {
        if let Some(monitor) = self.monitor(class) {
            monitor.probe_soon();
        }
    }

    /// After a sleep of the machine no backend gets requests until it is probed again.
    pub(crate) fn invalidate(&self) {
        self.backends.iter().for_each(BackendMonitor::invalidate);
    }

    /// Every backend and its health.
    pub(crate) fn snapshot(&self) -> Vec<(Arc<Backend>, Health)> {
        let backends = self.backends.iter().map(|monitor| {
            let mut health = monitor.health().clone();
            // A warning about the model list adds nothing while the backend is down.
            health.warnings.extend(monitor.listing().warning.clone().filter(|_| health.ready));
            (monitor.backend.clone(), health)
        });
        backends.collect()
    }

    /// Every ready backend and the models that it listed last.
    pub(crate) fn ready_models(&self) -> Vec<BackendModels> {
        let ready = self.backends.iter().filter(|monitor| monitor.health().ready);
        ready.map(|monitor| (monitor.backend.clone(), monitor.listing().models.clone())).collect()
    }

    /// Every backend, ready or not, and the models that it listed last: routing must not depend on which backends are up.
    pub(crate) fn all_models(&self) -> Vec<BackendModels> {
        let all = self.backends.iter();
        all.map(|monitor| (monitor.backend.clone(), monitor.listing().models.clone())).collect()
    }

    fn monitor(&self, class: &str) -> Option<&BackendMonitor> {
        self.backends.iter().find(|monitor| monitor.backend.class == class)
    }
}
