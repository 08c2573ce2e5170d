//! One loop per backend: probe, publish, wait. What a request meets is published the same way, and shortens the wait.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use reqwest::Client;
use tokio::sync::{Notify, watch};
use tracing::{info, warn};

use super::{
    probe::probe,
    state::{Evidence, Health, Rules, next},
};
use crate::config::Backend;

/// Between probes of a backend that is not ready.
const RETRY: Duration = Duration::from_secs(2);

/// A backend and what is believed of it. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    pub(super) backend: Arc<Backend>,
    health: watch::Sender<Health>,
    probe_now: Arc<Notify>,
    rules: Rules,
}

impl Watched {
    pub(super) fn new(backend: Arc<Backend>, rules: Rules) -> Self {
        Self { backend, health: watch::Sender::new(Health::unknown()), probe_now: Arc::default(), rules }
    }

    pub(super) fn health(&self) -> watch::Ref<'_, Health> {
        self.health.borrow()
    }

    /// Waits until the first probe is answered, or given up.
    pub(super) async fn first_probe(&self) {
        let _ = self.health.subscribe().wait_for(|health| health.last_check.is_some()).await;
    }

    /// Draws the conclusion now.
    pub(super) fn learn(&self, evidence: Evidence) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        self.health.send_modify(|health| {
            let new = next(health, evidence, &self.rules, now);
            self.announce(health, &new);
            *health = new;
        });
    }

    /// Asks for a probe without waiting for the next one's time.
    pub(super) fn probe_soon(&self) {
        self.probe_now.notify_one();
    }

    /// The loop.
    pub(super) async fn run(self, client: Client) {
        loop {
            let evidence = probe(&client, &self.backend, self.rules.timeout).await;
            self.learn(evidence);
            self.wait().await;
        }
    }

    /// Until the next probe's time. Should a request find out something meanwhile, the time is counted anew.
    async fn wait(&self) {
        let mut seen = self.health.subscribe();
        loop {
            let pause = if seen.borrow_and_update().ready { self.rules.interval } else { RETRY };
            tokio::select! {
                () = tokio::time::sleep(pause) => return,
                () = self.probe_now.notified() => return,
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
                Some(error) => warn!(backend, error = short(error), "backend is not ready"),
            }
        }
        if new.wrong_paths != prev.wrong_paths && !new.wrong_paths.is_empty() {
            let paths = new.wrong_paths.join(", ");
            warn!(backend, paths, "wrong probe: the backend answers 404 there; its list of models decides");
        }
    }
}

/// Foreign words enter the log cut; the log escapes them.
fn short(text: &str) -> String {
    text.chars().take(300).collect()
}
