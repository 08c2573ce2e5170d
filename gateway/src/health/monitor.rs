//! One loop per backend: probe, publish, wait. What a request meets is published the same way, and shortens the wait.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use reqwest::Client;
use service::{clock::unix_seconds_f64, text::shortened};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};
use tracing::{info, warn};

use super::{
    listing::{self, Asked, Listing},
    probe::{Occasion, probe},
    remembered::RememberedModels,
    state::{Evidence, Health, next, over_limit},
};
use crate::{
    client::Clients,
    config::{Backend, Capability, ProbeRules},
    metrics::Metrics,
};

/// Between probes of a backend that is not ready.
const RETRY: Duration = Duration::from_secs(2);

/// At least so long between the end of a probe and one that a request asks for. A backend that says that it is ready and
/// refuses every request would else be probed without a pause.
const REST: Duration = Duration::from_millis(250);

/// How long the news that a backend is ready waits for its list where a former one is known.
const LIST_HEAD_START: Duration = Duration::from_secs(2);

/// A backend and what is believed of it. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    pub(super) backend: Arc<Backend>,
    health: watch::Sender<Health>,
    /// What it listed last, also before it was down or the gateway started anew.
    listing: watch::Sender<Listing>,
    remembered: Arc<RememberedModels>,
    probe_now: Arc<Notify>,
    list_now: Arc<Notify>,
    rules: ProbeRules,
    metrics: Arc<Metrics>,
}

impl Watched {
    /// `before` is the same backend until now: what is known of it, and what requests that are under way find out, is
    /// shared.
    pub(super) fn new(
        backend: Arc<Backend>,
        rules: ProbeRules,
        metrics: Arc<Metrics>,
        remembered: Arc<RememberedModels>,
        before: Option<&Self>,
    ) -> Self {
        let health = before.map_or_else(|| watch::Sender::new(Health::unknown()), |one| one.health.clone());
        let listing = before.map_or_else(
            || watch::Sender::new(Listing { models: remembered.of(&backend), warning: None }),
            |one| one.listing.clone(),
        );
        let probe_now = before.map(|one| one.probe_now.clone()).unwrap_or_default();
        Self { backend, health, listing, remembered, probe_now, list_now: Arc::default(), rules, metrics }
    }

    pub(super) fn health(&self) -> watch::Ref<'_, Health> {
        self.health.borrow()
    }

    pub(super) fn listing(&self) -> watch::Ref<'_, Listing> {
        self.listing.borrow()
    }

    /// Waits until the first probe is answered, or given up.
    pub(super) async fn first_probe(&self) {
        let _ = self.health.subscribe().wait_for(|health| health.last_check.is_some()).await;
    }

    /// Draws the conclusion now.
    pub(super) fn learn(&self, evidence: Evidence) {
        self.health.send_modify(|health| self.conclude(health, evidence));
    }

    /// The same with what a probe found, unless the machine slept since it was sent: then it says nothing of now.
    fn learn_from_probe(&self, evidence: Evidence, sleeps: u64) {
        self.health.send_if_modified(|health| {
            let counts = health.sleeps == sleeps;
            if counts {
                self.conclude(health, evidence);
            }
            counts
        });
    }

    fn conclude(&self, health: &mut Health, evidence: Evidence) {
        let now = unix_seconds_f64(SystemTime::now());
        let mut new = next(health, evidence, &self.rules, now);
        let over = over_limit(self.limit(), new.most_at_once).filter(|words| !new.warnings.contains(words));
        new.warnings.extend(over);
        self.announce(health, &new);
        *health = new;
    }

    /// How many picture requests it is sent at once.
    fn limit(&self) -> Option<usize> {
        self.backend.limits.get(&Capability::Images).copied()
    }

    /// The machine slept: nothing is known any more, and the loop probes at once.
    pub(super) fn forget(&self) {
        self.health.send_modify(|health| *health = Health::after_sleep(health));
    }

    /// Asks for a probe without waiting for the next one's time.
    pub(super) fn probe_soon(&self) {
        self.probe_now.notify_one();
    }

    /// The loops: the next probe is not held up by a list that is long in coming.
    pub(super) async fn run(self, clients: Clients) {
        tokio::join!(self.keep_probing(&clients), self.keep_listing(&clients));
    }

    async fn keep_probing(&self, clients: &Clients) {
        let mut doubted = false;
        loop {
            let sleeps = self.health().sleeps;
            tokio::select! {
                evidence = self.look(clients, doubted) => {
                    self.metrics.probed(&self.backend.class, evidence.probe_result());
                    self.learn_from_probe(evidence, sleeps);
                }
                // Its connection may be dead: another one asks now, instead of after this one's time.
                () = self.slept_since(sleeps) => continue,
            }
            doubted = self.wait(sleeps).await;
        }
    }

    /// For a backend that becomes ready, the list comes before the good news: whoever is let in by these finds that.
    async fn look(&self, clients: &Clients, doubted: bool) -> Evidence {
        let was_ready = self.health().ready;
        let occasion = match (was_ready, doubted) {
            (false, _) => Occasion::NotReady,
            (true, false) => Occasion::Ready,
            (true, true) => Occasion::Doubt,
        };
        let evidence = probe(&clients.pooled(), &self.backend, occasion, self.rules.timeout).await;
        if evidence.admits() {
            let mut listed = self.listing.subscribe();
            let is_known = !listed.borrow_and_update().models.is_empty();
            self.list_now.notify_one();
            match (was_ready, is_known) {
                (true, _) => {}
                (false, true) => drop(timeout(LIST_HEAD_START, listed.changed()).await),
                // The wait for it has an end of its own.
                (false, false) => drop(listed.changed().await),
            }
        }
        evidence
    }

    async fn keep_listing(&self, clients: &Clients) {
        loop {
            self.list_now.notified().await;
            self.list(&clients.pooled()).await;
        }
    }

    /// Asks for the list, and publishes it. Without an answer the former one stays.
    async fn list(&self, client: &Client) {
        let listing = match listing::ask(client, &self.backend, self.rules.timeout).await {
            Asked::Listed(listing) => {
                self.remembered.remember(&self.backend, &listing.models).await;
                listing
            }
            Asked::None => Listing { warning: None, ..self.listing().clone() },
            Asked::Failed(why) => {
                let words = format!("list of models: {why}; what was known of it before counts");
                Listing { warning: Some(words), ..self.listing().clone() }
            }
        };
        if let Some(warning) = &listing.warning
            && self.listing().warning.as_ref() != Some(warning)
        {
            warn!(backend = self.backend.class, "{warning}");
        }
        self.listing.send_replace(listing);
    }

    async fn slept_since(&self, sleeps: u64) {
        let _ = self.health.subscribe().wait_for(|health| health.sleeps != sleeps).await;
    }

    /// Until the next probe's time, or until a request asks for one, which it tells. Should a request find out something
    /// meanwhile, the time is counted anew.
    async fn wait(&self, sleeps: u64) -> bool {
        let rested = Instant::now() + REST;
        let asked = async || {
            tokio::time::sleep_until(rested).await;
            self.probe_now.notified().await;
        };
        let mut seen = self.health.subscribe();
        loop {
            let pause = if seen.borrow_and_update().ready { self.rules.interval } else { RETRY };
            tokio::select! {
                () = tokio::time::sleep(pause) => return false,
                () = asked() => return true,
                () = self.slept_since(sleeps) => return false,
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
                Some(error) => warn!(backend, error = &*shortened(error, 300), "backend is not ready"),
            }
        }
        let over = |health: &Health| over_limit(self.limit(), health.most_at_once);
        if let Some(words) = over(new).filter(|words| !prev.warnings.contains(words)) {
            warn!(backend, "{words}");
        }
        if new.wrong_paths != prev.wrong_paths && !new.wrong_paths.is_empty() {
            let paths = new.wrong_paths.join(", ");
            warn!(backend, paths, "wrong probe: the backend has no such path; its list of models decides");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::{Answered, Verdict};
    use super::*;
    use crate::{config::backends::tests::backend, store::disk::tests::temporary};

    fn watched(rules: ProbeRules) -> Watched {
        let remembered = Arc::new(RememberedModels::open(&temporary("monitor")));
        Watched::new(backend("c", &[]), rules, Arc::new(Metrics::new([])), remembered, None)
    }

    /// A backend that says that it is ready and refuses every request would be asked at every refusal.
    #[tokio::test(start_paused = true)]
    async fn requests_shorten_the_wait_and_no_two_probes_are_back_to_back() {
        let rules =
            ProbeRules { interval: Duration::from_secs(30), timeout: Duration::from_secs(15), threshold: 3 };
        let watched = watched(rules);
        let sleeps = watched.health().sleeps;
        let waits_for = async |asked: u64| {
            let begun = Instant::now();
            let ask = async {
                tokio::time::sleep(Duration::from_millis(asked)).await;
                watched.probe_soon();
            };
            tokio::join!(watched.wait(sleeps), ask);
            begun.elapsed().as_millis()
        };
        for (asked, waited) in [(0, 250), (100, 250), (249, 250), (300, 300), (1500, 1500)] {
            let passed = waits_for(asked).await;
            assert!((waited..=waited + 2).contains(&passed), "asked after {asked} ms: {passed} ms");
        }
        let slept = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            watched.forget();
        };
        let begun = Instant::now();
        tokio::join!(watched.wait(sleeps), slept);
        assert!(begun.elapsed() < Duration::from_millis(15), "what was known is void: at once");
    }

    #[test]
    fn a_probe_from_before_a_sleep_counts_no_more() {
        let rules =
            ProbeRules { interval: Duration::from_secs(30), timeout: Duration::from_secs(15), threshold: 3 };
        let watched = watched(rules);
        let good =
            || Evidence::Answered(Answered { alive: true, verdict: Verdict::Ready, wrong_paths: Vec::new() });
        let before = watched.health().sleeps;
        watched.learn_from_probe(good(), before);
        assert!(watched.health().ready);
        watched.forget();
        watched.learn_from_probe(good(), before);
        assert!(!watched.health().ready);
        assert!(watched.health().error.as_ref().is_some_and(|error| error.contains("asleep")));
        let after = watched.health().sleeps;
        watched.learn_from_probe(good(), after);
        assert!(watched.health().ready);
    }
}
