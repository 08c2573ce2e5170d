//! One loop per backend: probe, publish, wait. What a request meets is published the same way, and shortens the wait.

use std::{
    sync::Arc,
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
    model_cache::ModelCache,
    model_listing::{self, ListOutcome, ModelListing},
    probe::{ProbeReason, probe},
    state::{Evidence, Health, limit_warning, transition},
};
use crate::{
    client::HttpClients,
    config::{Backend, Capability, ProbeRules},
    metrics::Metrics,
};

/// Between probes of a backend that is not ready.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// At least so long between the end of a probe and one that a request asks for. A backend that says that it is ready and
/// refuses every request would else be probed without a pause.
const MIN_PROBE_GAP: Duration = Duration::from_millis(250);

/// How long the news that a backend is ready waits for its list where a former one is known.
const FIRST_LISTING_TIMEOUT: Duration = Duration::from_secs(2);

/// A backend and what is believed of it. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub(super) struct BackendMonitor {
    pub(super) backend: Arc<Backend>,
    health: watch::Sender<Health>,
    /// What it listed last, also before it was down or the gateway started anew.
    listing: watch::Sender<ModelListing>,
    model_cache: Arc<ModelCache>,
    probe_requested: Arc<Notify>,
    listing_requested: Arc<Notify>,
    rules: ProbeRules,
    metrics: Arc<Metrics>,
}

impl BackendMonitor {
    /// `before` is the same backend until now: what is known of it, and what requests that are under way find out, is
    /// shared.
    pub(super) fn new(
        backend: Arc<Backend>,
        rules: ProbeRules,
        metrics: Arc<Metrics>,
        remembered: Arc<ModelCache>,
        before: Option<&Self>,
    ) -> Self {
        let health = before.map_or_else(|| watch::Sender::new(Health::unknown()), |one| one.health.clone());
        let listing = before.map_or_else(
            || watch::Sender::new(ModelListing { models: remembered.models_of(&backend), warning: None }),
            |one| one.listing.clone(),
        );
        let probe_now = before.map(|one| one.probe_requested.clone()).unwrap_or_default();
        Self {
            backend,
            health,
            listing,
            model_cache: remembered,
            probe_requested: probe_now,
            listing_requested: Arc::default(),
            rules,
            metrics,
        }
    }

    pub(super) fn health(&self) -> watch::Ref<'_, Health> {
        self.health.borrow()
    }

    pub(super) fn listing(&self) -> watch::Ref<'_, ModelListing> {
        self.listing.borrow()
    }

    /// Waits until the first probe is answered, or given up.
    pub(super) async fn wait_for_first_probe(&self) {
        let _ = self.health.subscribe().wait_for(|health| health.last_check.is_some()).await;
    }

    /// Draws the conclusion now.
    pub(super) fn apply_evidence(&self, evidence: Evidence) {
        self.health.send_modify(|health| self.update(health, evidence));
    }

    /// The same with what a probe found, unless the machine slept since it was sent: then it says nothing of now.
    fn apply_probe(&self, evidence: Evidence, sleeps: u64) {
        self.health.send_if_modified(|health| {
            let counts = health.sleep_count == sleeps;
            if counts {
                self.update(health, evidence);
            }
            counts
        });
    }

    fn update(&self, health: &mut Health, evidence: Evidence) {
        let now = unix_seconds_f64(SystemTime::now());
        let mut new = transition(health, evidence, &self.rules, now);
        let over =
            limit_warning(self.limit(), new.max_inflight).filter(|message| !new.warnings.contains(message));
        new.warnings.extend(over);
        self.announce(health, &new);
        *health = new;
    }

    /// How many picture requests it is sent at once.
    fn limit(&self) -> Option<usize> {
        self.backend.limits.get(&Capability::Images).copied()
    }

    /// The machine slept: nothing is known any more, and the loop probes at once.
    pub(super) fn invalidate(&self) {
        self.health.send_modify(|health| *health = Health::after_sleep(health));
    }

    /// Asks for a probe without waiting for the next one's time.
    pub(super) fn probe_soon(&self) {
        self.probe_requested.notify_one();
    }

    /// The loops: the next probe is not held up by a list that is long in coming.
    pub(super) async fn run(self, clients: HttpClients) {
        tokio::join!(self.probe_loop(&clients), self.listing_loop(&clients));
    }

    async fn probe_loop(&self, clients: &HttpClients) {
        let mut suspected = false;
        loop {
            let sleeps = self.health().sleep_count;
            tokio::select! {
                evidence = self.probe_backend(clients, suspected) => {
                    self.metrics.record_probe(&self.backend.class, evidence.probe_result());
                    self.apply_probe(evidence, sleeps);
                }
                // Its connection may be dead: another one asks now, instead of after this one's time.
                () = self.wait_for_sleep(sleeps) => continue,
            }
            suspected = self.wait_for_next_probe(sleeps).await;
        }
    }

    /// For a backend that becomes ready, the list comes before the good news: whoever is let in by these finds that.
    async fn probe_backend(&self, clients: &HttpClients, suspected: bool) -> Evidence {
        let was_ready = self.health().ready;
        let occasion = match (was_ready, suspected) {
            (false, _) => ProbeReason::NotReady,
            (true, false) => ProbeReason::Ready,
            (true, true) => ProbeReason::Suspected,
        };
        let evidence = probe(&clients.pooled(), &self.backend, occasion, self.rules.timeout).await;
        if evidence.is_ready() {
            let mut listed = self.listing.subscribe();
            let is_known = !listed.borrow_and_update().models.is_empty();
            self.listing_requested.notify_one();
            match (was_ready, is_known) {
                (true, _) => {}
                (false, true) => drop(timeout(FIRST_LISTING_TIMEOUT, listed.changed()).await),
                // The wait for it has an end of its own.
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

    /// Asks for the list, and publishes it. Without an answer the former one stays.
    async fn refresh_listing(&self, client: &Client) {
        let listing = match model_listing::fetch_listing(client, &self.backend, self.rules.timeout).await {
            ListOutcome::Listed(listing) => {
                self.model_cache.store_models(&self.backend, &listing.models).await;
                listing
            }
            ListOutcome::Unsupported => ModelListing { warning: None, ..self.listing().clone() },
            ListOutcome::Failed(why) => {
                let message = format!("list of models: {why}; what was known of it before counts");
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

    /// Until the next probe's time, or until a request asks for one, which it tells. Should a request find out something
    /// meanwhile, the time is counted anew.
    async fn wait_for_next_probe(&self, sleeps: u64) -> bool {
        let rested = Instant::now() + MIN_PROBE_GAP;
        let asked = async || {
            tokio::time::sleep_until(rested).await;
            self.probe_requested.notified().await;
        };
        let mut seen = self.health.subscribe();
        loop {
            let pause = if seen.borrow_and_update().ready { self.rules.interval } else { RETRY_INTERVAL };
            tokio::select! {
                () = tokio::time::sleep(pause) => return false,
                () = asked() => return true,
                () = self.wait_for_sleep(sleeps) => return false,
                _ = seen.changed() => {}
            }
        }
    }

    /// One line when something changes; silence while it stays.
    fn announce(&self, prev: &Health, new: &Health) {
        let backend = self.backend.class.as_str();
        if new.ready != prev.ready || prev.last_check.is_none() {
            match &new.error {
                None => info!(backend, "backend is ready"),
                Some(error) => warn!(backend, error = &*ellipsize(error, 300), "backend is not ready"),
            }
        }
        let over = |health: &Health| limit_warning(self.limit(), health.max_inflight);
        if let Some(message) = over(new).filter(|words| !prev.warnings.contains(words)) {
            warn!(backend, "{message}");
        }
        if new.missing_paths != prev.missing_paths && !new.missing_paths.is_empty() {
            let paths = new.missing_paths.join(", ");
            warn!(backend, paths, "wrong probe: the backend has no such path; its list of models decides");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::{ProbeReport, Readiness};
    use super::*;
    use crate::{config::backends::tests::backend, store::disk::tests::temporary};

    fn monitor(rules: ProbeRules) -> BackendMonitor {
        let remembered = Arc::new(ModelCache::open(&temporary("monitor")));
        BackendMonitor::new(backend("c", &[]), rules, Arc::new(Metrics::new([])), remembered, None)
    }

    /// A backend that says that it is ready and refuses every request would be asked at every refusal.
    #[tokio::test(start_paused = true)]
    async fn requests_shorten_the_wait_and_no_two_probes_are_back_to_back() {
        let rules =
            ProbeRules { interval: Duration::from_secs(30), timeout: Duration::from_secs(15), threshold: 3 };
        let watched = monitor(rules);
        let sleeps = watched.health().sleep_count;
        let waits_for = async |asked: u64| {
            let begun = Instant::now();
            let ask = async {
                tokio::time::sleep(Duration::from_millis(asked)).await;
                watched.probe_soon();
            };
            tokio::join!(watched.wait_for_next_probe(sleeps), ask);
            begun.elapsed().as_millis()
        };
        for (asked, waited) in [(0, 250), (100, 250), (249, 250), (300, 300), (1500, 1500)] {
            let passed = waits_for(asked).await;
            assert!((waited..=waited + 2).contains(&passed), "asked after {asked} ms: {passed} ms");
        }
        let slept = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            watched.invalidate();
        };
        let begun = Instant::now();
        tokio::join!(watched.wait_for_next_probe(sleeps), slept);
        assert!(begun.elapsed() < Duration::from_millis(15), "what was known is void: at once");
    }

    #[test]
    fn a_probe_from_before_a_sleep_counts_no_more() {
        let rules =
            ProbeRules { interval: Duration::from_secs(30), timeout: Duration::from_secs(15), threshold: 3 };
        let watched = monitor(rules);
        let good = || {
            Evidence::Answered(ProbeReport {
                alive: true,
                readiness: Readiness::Ready,
                missing_paths: Vec::new(),
            })
        };
        let before = watched.health().sleep_count;
        watched.apply_probe(good(), before);
        assert!(watched.health().ready);
        watched.invalidate();
        watched.apply_probe(good(), before);
        assert!(!watched.health().ready);
        assert!(watched.health().error.as_ref().is_some_and(|error| error.contains("asleep")));
        let after = watched.health().sleep_count;
        watched.apply_probe(good(), after);
        assert!(watched.health().ready);
    }
}
