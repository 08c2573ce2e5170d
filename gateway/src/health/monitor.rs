//! One loop per backend: probe, publish, wait. What a request finds out is published the same way, and shortens the wait.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use reqwest::Client;
use service::{clock::unix_seconds_f64, text::ellipsize};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};
use tracing::{info, warn};

use super::{
    history::History,
    model_cache::ModelCache,
    model_listing::{self, ListOutcome, ModelListing},
    probe::{ProbeReason, probe},
    state::{Evidence, Health, limit_warning, transition},
    viewers::Viewers,
};
use crate::{
    client::HttpClients,
    config::{Backend, Capability, ProbeRules},
    metrics::Metrics,
};

/// Between probes of a backend that is not ready.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// Between probes of a backend that a page shows.
const WATCHED_INTERVAL: Duration = Duration::from_secs(1);

/// Minimum time between a probe and the next that a request asks for: otherwise a backend that reports ready and rejects every
/// request would be probed without a pause.
const MIN_PROBE_GAP: Duration = Duration::from_millis(250);

/// How long a backend that becomes ready waits for its model list, if an older list is known.
const FIRST_LISTING_TIMEOUT: Duration = Duration::from_secs(2);

/// A backend and its health. Cheap to clone; all clones share the state.
#[derive(Debug, Clone)]
pub(super) struct BackendMonitor {
    pub(super) backend: Arc<Backend>,
    health: watch::Sender<Health>,
    /// The last model list, kept while the backend is down and over restarts of the gateway.
    listing: watch::Sender<ModelListing>,
    model_cache: Arc<ModelCache>,
    history: Arc<Mutex<History>>,
    pub(super) viewers: Viewers,
    probe_requested: Arc<Notify>,
    listing_requested: Arc<Notify>,
    rules: ProbeRules,
    metrics: Arc<Metrics>,
}

impl BackendMonitor {
    /// Shares its state with `previous`, the monitor of the same endpoint before a reload, which requests in flight still
    /// report to.
    pub(super) fn new(
        backend: Arc<Backend>,
        rules: ProbeRules,
        metrics: Arc<Metrics>,
        model_cache: Arc<ModelCache>,
        previous: Option<&Self>,
    ) -> Self {
        let health = previous.map_or_else(|| watch::Sender::new(Health::unknown()), |one| one.health.clone());
        let listing = previous.map_or_else(
            || watch::Sender::new(ModelListing { models: model_cache.models_of(&backend), warning: None }),
            |one| one.listing.clone(),
        );
        let probe_requested = previous.map(|one| one.probe_requested.clone()).unwrap_or_default();
        let history = previous.map(|one| one.history.clone()).unwrap_or_default();
        Self {
            backend,
            health,
            listing,
            model_cache,
            history,
            viewers: Viewers::default(),
            probe_requested,
            listing_requested: Arc::default(),
            rules,
            metrics,
        }
    }

    pub(super) fn health(&self) -> watch::Ref<'_, Health> {
        self.health.borrow()
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    pub(super) fn listing(&self) -> watch::Ref<'_, ModelListing> {
        self.listing.borrow()
    }

    pub(super) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the first probe has ended.
    pub(super) async fn wait_for_first_probe(&self) {
        let _ = self.health.subscribe().wait_for(|health| health.last_check.is_some()).await;
    }

    /// Updates the health by this evidence.
    pub(super) fn apply_evidence(&self, evidence: Evidence) {
        self.health.send_modify(|health| self.update(health, evidence));
    }

    /// The same for a probe's result, which no longer counts if the machine has slept since the probe was sent.
    fn apply_probe(&self, evidence: Evidence, sleeps: u64) {
        self.health.send_if_modified(|health| {
            let is_current = health.sleep_count == sleeps;
            if is_current {
                self.history().record(&evidence, unix_seconds_f64(SystemTime::now()));
                self.update(health, evidence);
            }
            is_current
        });
    }

    fn update(&self, health: &mut Health, evidence: Evidence) {
        let now = unix_seconds_f64(SystemTime::now());
        let mut new = transition(health, evidence, &self.rules, now);
        let warning =
            limit_warning(self.limit(), new.max_inflight).filter(|message| !new.warnings.contains(message));
        new.warnings.extend(warning);
        self.announce(health, &new);
        *health = new;
    }

    /// How many image requests it gets at once.
    fn limit(&self) -> Option<usize> {
        self.backend.limits.get(&Capability::Images).copied()
    }

    /// Called after a sleep of the machine: forgets the health and probes at once.
    pub(super) fn invalidate(&self) {
        self.health.send_modify(|health| *health = Health::after_sleep(health));
    }

    /// Probes without waiting for the interval.
    pub(super) fn probe_soon(&self) {
        self.probe_requested.notify_one();
    }

    /// Two loops, so that a slow model list does not delay the next probe.
    pub(super) async fn run(self, clients: HttpClients) {
        tokio::join!(self.probe_loop(&clients), self.listing_loop(&clients));
    }

    async fn probe_loop(&self, clients: &HttpClients) {
        let mut suspected = false;
        let mut listed_at = None;
        loop {
            let sleeps = self.health().sleep_count;
            tokio::select! {
                evidence = self.probe_backend(clients, suspected, &mut listed_at) => {
                    self.metrics.record_probe(&self.backend.class, evidence.probe_result());
                    self.apply_probe(evidence, sleeps);
                }
                // The probe's connection may be dead: a new probe need not wait for its timeout.
                () = self.wait_for_sleep(sleeps) => continue,
            }
            suspected = self.wait_for_next_probe(sleeps).await;
        }
    }

    /// Fetches the model list before a backend becomes ready, so that requests admitted then find it. Probes for a page alone do
    /// not fetch it.
    async fn probe_backend(
        &self,
        clients: &HttpClients,
        suspected: bool,
        listed_at: &mut Option<Instant>,
    ) -> Evidence {
        let was_ready = self.health().ready;
        let reason = match (was_ready, suspected) {
            (false, _) => ProbeReason::NotReady,
            (true, false) => ProbeReason::Ready,
            (true, true) => ProbeReason::Suspected,
        };
        let evidence = probe(&clients.pooled(), &self.backend, reason, self.rules.timeout).await;
        let is_fresh = listed_at.is_some_and(|at: Instant| at.elapsed() < self.rules.interval);
        if evidence.is_ready() && (reason != ProbeReason::Ready || !is_fresh) {
            *listed_at = Some(Instant::now());
            let mut listed = self.listing.subscribe();
            let has_models = !listed.borrow_and_update().models.is_empty();
            self.listing_requested.notify_one();
            match (was_ready, has_models) {
                (true, _) => {}
                (false, true) => drop(timeout(FIRST_LISTING_TIMEOUT, listed.changed()).await),
                // Listing has its own timeout.
                (false, false) => drop(listed.changed().await),
            }
        }
        evidence
    }

    async fn listing_loop(&self, clients: &HttpClients) {
        loop {
            self.listing_requested.notified().await;
            self.refresh_listing(&clients.pooled()).await;
        }
    }

    /// Fetches the list and publishes it; on failure the previous list stays.
    async fn refresh_listing(&self, client: &Client) {
        let listing = match model_listing::fetch_listing(client, &self.backend, self.rules.timeout).await {
            ListOutcome::Listed(listing) => {
                self.model_cache.store_models(&self.backend, &listing.models).await;
                listing
            }
            ListOutcome::Unsupported => ModelListing { warning: None, ..self.listing().clone() },
            ListOutcome::Failed(why) => {
                let message = format!("model list: {why}; the previous list stays in use");
                ModelListing { warning: Some(message), ..self.listing().clone() }
            }
        };
        if let Some(warning) = &listing.warning
            && self.listing().warning.as_ref() != Some(warning)
        {
            warn!(backend = self.backend.class, "{warning}");
        }
        self.listing.send_replace(listing);
    }

    async fn wait_for_sleep(&self, sleeps: u64) {
        let _ = self.health.subscribe().wait_for(|health| health.sleep_count != sleeps).await;
    }

    /// Waits until the next probe is due; returns whether a request asked for it. Restarts the interval whenever the health
    /// changes, and shortens it when a page is opened.
    async fn wait_for_next_probe(&self, sleeps: u64) -> bool {
        let earliest = Instant::now() + MIN_PROBE_GAP;
        let requested = async || {
            tokio::time::sleep_until(earliest).await;
            self.probe_requested.notified().await;
        };
        let (mut health, mut viewers) = (self.health.subscribe(), self.viewers.subscribe());
        let mut start = Instant::now();
        loop {
            let usual = if health.borrow_and_update().ready { self.rules.interval } else { RETRY_INTERVAL };
            let is_watched = *viewers.borrow_and_update() > 0;
            let pause = if is_watched { usual.min(WATCHED_INTERVAL) } else { usual };
            tokio::select! {
                () = tokio::time::sleep_until(start + pause) => return false,
                () = requested() => return true,
                () = self.wait_for_sleep(sleeps) => return false,
                _ = health.changed() => start = Instant::now(),
                _ = viewers.changed() => {}
            }
        }
    }

    /// Logs changes only.
    fn announce(&self, prev: &Health, new: &Health) {
        let backend = self.backend.class.as_str();
        if new.ready != prev.ready || prev.last_check.is_none() {
            match &new.error {
                None => info!(backend, "backend is ready"),
                Some(error) => warn!(backend, error = &*ellipsize(error, 300), "backend is not ready"),
            }
        }
        let limit = |health: &Health| limit_warning(self.limit(), health.max_inflight);
        if let Some(message) = limit(new).filter(|message| !prev.warnings.contains(message)) {
            warn!(backend, "{message}");
        }
        if new.missing_paths != prev.missing_paths && !new.missing_paths.is_empty() {
            let paths = new.missing_paths.join(", ");
            warn!(
                backend,
                paths, "wrong probe: the backend has no such path; its model list decides instead"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::{ProbeReport, Readiness};
    use super::*;
    use crate::{config::backends::tests::backend, store::disk::tests::temporary};

    fn new_monitor(rules: ProbeRules) -> BackendMonitor {
        let model_cache = Arc::new(ModelCache::open(&temporary("monitor")));
        BackendMonitor::new(backend("c", &[]), rules, Arc::new(Metrics::new([])), model_cache, None)
    }

    #[tokio::test(start_paused = true)]
    async fn requests_shorten_the_wait_and_no_two_probes_are_back_to_back() {
        let rules =
            ProbeRules { interval: Duration::from_secs(30), timeout: Duration::from_secs(15), threshold: 3 };
        let monitor = new_monitor(rules);
        let sleeps = monitor.health().sleep_count;
        let waits_for = async |delay: u64| {
            let start = Instant::now();
            let request = async {
                tokio::time::sleep(Duration::from_millis(delay)).await;
                monitor.probe_soon();
            };
            tokio::join!(monitor.wait_for_next_probe(sleeps), request);
            start.elapsed().as_millis()
        };
        for (delay, expected) in [(0, 250), (100, 250), (249, 250), (300, 300), (1500, 1500)] {
            let waited = waits_for(delay).await;
            assert!((expected..=expected + 2).contains(&waited), "requested after {delay} ms: {waited} ms");
        }
        let slept = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            monitor.invalidate();
        };
        let start = Instant::now();
        tokio::join!(monitor.wait_for_next_probe(sleeps), slept);
        assert!(start.elapsed() < Duration::from_millis(15), "a sleep ends the wait");
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_shortens_the_wait_to_a_second_for_as_long_as_it_is_open() {
        let rules =
            ProbeRules { interval: Duration::from_secs(30), timeout: Duration::from_secs(15), threshold: 3 };
        let monitor = new_monitor(rules);
        monitor.apply_evidence(Evidence::Answered(ProbeReport {
            alive: true,
            readiness: Readiness::Ready,
            missing_paths: Vec::new(),
        }));
        let sleeps = monitor.health().sleep_count;
        // When a page is opened and closed after the wait began, and how long the wait is.
        for (opened, closed, expected) in
            [(0, 40_000, 1000), (400, 40_000, 1000), (7000, 40_000, 7000), (100, 900, 30_000)]
        {
            let start = Instant::now();
            let page = async {
                tokio::time::sleep_until(start + Duration::from_millis(opened)).await;
                let _page = monitor.viewers.open();
                tokio::time::sleep_until(start + Duration::from_millis(closed)).await;
            };
            let waited = async {
                monitor.wait_for_next_probe(sleeps).await;
                start.elapsed().as_millis()
            };
            let ((), waited) = tokio::join!(page, waited);
            assert!((expected..=expected + 2).contains(&waited), "{opened} to {closed}: {waited} ms");
        }
    }

    #[test]
    fn a_probe_from_before_a_sleep_does_not_count() {
        let rules =
            ProbeRules { interval: Duration::from_secs(30), timeout: Duration::from_secs(15), threshold: 3 };
        let monitor = new_monitor(rules);
        let ready = || {
            Evidence::Answered(ProbeReport {
                alive: true,
                readiness: Readiness::Ready,
                missing_paths: Vec::new(),
            })
        };
        let before = monitor.health().sleep_count;
        monitor.apply_probe(ready(), before);
        assert!(monitor.health().ready);
        monitor.invalidate();
        monitor.apply_probe(ready(), before);
        assert!(!monitor.health().ready);
        assert!(monitor.health().error.as_ref().is_some_and(|error| error.contains("asleep")));
        let after = monitor.health().sleep_count;
        monitor.apply_probe(ready(), after);
        assert!(monitor.health().ready);
    }
}
