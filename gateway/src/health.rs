//! Which backends are up: probed all the time, corrected by what requests meet. Handlers read a snapshot.

mod listing;
mod monitor;
mod probe;
pub(crate) mod remembered;
pub mod state;

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use service::lifecycle::Lifecycle;
use tokio_util::sync::CancellationToken;

use self::{
    monitor::Watched,
    remembered::RememberedModels,
    state::{Evidence, Health},
};
use crate::{
    client::Clients,
    config::{Backend, Backends, ImageEngine, ProbeRules},
    metrics::Metrics,
    policy::catalog::{Permitted, text::Listed},
};

/// How long the first probes may hold up the start. They go on after it, and until then nothing is admitted.
const FIRST_PROBES: Duration = Duration::from_secs(2);

/// All backends' health.
#[derive(Debug)]
pub(crate) struct Monitors {
    watched: Vec<Watched>,
    remembered: Arc<RememberedModels>,
    /// Cancelled when others took over.
    over: CancellationToken,
}

/// A permitted request whose backend is up. Made by `Monitors::route` alone.
#[derive(Debug)]
pub struct Live {
    permitted: Permitted,
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
pub(crate) async fn look(client: &reqwest::Client, backend: &Backend, timeout: Duration) -> Evidence {
    probe::probe(client, backend, probe::Occasion::NotReady, timeout).await
}

impl Monitors {
    /// Knows all backends, and nothing about them yet but the models that they listed to the process before.
    pub(crate) fn new(
        backends: &Backends,
        rules: ProbeRules,
        metrics: &Arc<Metrics>,
        remembered: RememberedModels,
    ) -> Self {
        let (watched, remembered) = (Vec::new(), Arc::new(remembered));
        Self { watched, remembered, over: CancellationToken::new() }.succeeded_by(backends, rules, metrics)
    }

    /// The same after a reload, not started yet. What is known of a backend that stays where it is stays known.
    pub(crate) fn succeeded_by(
        &self,
        backends: &Backends,
        rules: ProbeRules,
        metrics: &Arc<Metrics>,
    ) -> Self {
        self.remembered.keep_only(backends);
        let watched = backends.all.iter().map(|backend| {
            let before = self.watched(&backend.class).filter(|one| one.backend.is_where(backend));
            Watched::new(backend.clone(), rules, metrics.clone(), self.remembered.clone(), before)
        });
        let (watched, remembered) = (watched.collect(), self.remembered.clone());
        Self { watched, remembered, over: CancellationToken::new() }
    }

    /// Starts one loop per backend.
    pub(crate) fn start(&self, clients: &Clients, lifecycle: &Lifecycle) {
        for watched in &self.watched {
            let over = self.over.clone();
            lifecycle.worker_until(over, "health monitor", watched.clone().run(clients.clone()));
        }
    }

    /// Ends the loops: others go on.
    pub(crate) fn retire(&self) {
        self.over.cancel();
    }

    /// Waits a little for the first probes, so that what is asked first is not refused for want of knowledge.
    pub(crate) async fn first_probes(&self) {
        let _ =
            tokio::time::timeout(FIRST_PROBES, join_all(self.watched.iter().map(Watched::first_probe))).await;
    }

    /// Whether the permitted backend is up. The mock is.
    pub(crate) fn route(&self, permitted: Permitted) -> Result<Live, NotReady> {
        if permitted.engine() == ImageEngine::Mock {
            return Ok(Live { permitted });
        }
        let class = &permitted.backend().class;
        let error = match self.watched(class) {
            Some(watched) => watched.health().error.clone(),
            None => Some("it is not configured".to_owned()),
        };
        match error {
            None => Ok(Live { permitted }),
            Some(error) => Err(NotReady { class: class.clone(), error }),
        }
    }

    /// What a request found out about the backend.
    pub(crate) fn learn(&self, class: &str, evidence: Evidence) {
        if let Some(watched) = self.watched(class) {
            watched.learn(evidence);
        }
    }

    /// A request met something that makes one doubt it: a probe decides.
    pub(crate) fn probe_soon(&self, class: &str) {
        if let Some(watched) = self.watched(class) {
            watched.probe_soon();
        }
    }

    /// The machine slept: until each backend was probed anew, it gets no request.
    pub(crate) fn forget(&self) {
        self.watched.iter().for_each(Watched::forget);
    }

    /// Every backend with what is believed of it.
    pub(crate) fn snapshot(&self) -> Vec<(Arc<Backend>, Health)> {
        let seen = self.watched.iter().map(|watched| {
            let mut health = watched.health().clone();
            // What is wrong with its list says nothing new while it is down.
            health.warnings.extend(watched.listing().warning.clone().filter(|_| health.ready));
            (watched.backend.clone(), health)
        });
        seen.collect()
    }

    /// Every ready backend with the models that it listed last.
    pub(crate) fn lists(&self) -> Vec<Listed> {
        let ready = self.watched.iter().filter(|watched| watched.health().ready);
        ready.map(|watched| (watched.backend.clone(), watched.listing().models.clone())).collect()
    }

    /// Every backend, ready or not, with the models that it listed last. Where a request goes must not depend on who
    /// happens to be up.
    pub(crate) fn last_lists(&self) -> Vec<Listed> {
        let all = self.watched.iter();
        all.map(|watched| (watched.backend.clone(), watched.listing().models.clone())).collect()
    }

    fn watched(&self, class: &str) -> Option<&Watched> {
        self.watched.iter().find(|watched| watched.backend.class == class)
    }
}

impl Live {
    /// What was permitted.
    pub(crate) fn into_permitted(self) -> Permitted {
        self.permitted
    }
}

#[cfg(test)]
impl Live {
    /// For tests of what comes after.
    pub(crate) fn untested(permitted: Permitted) -> Self {
        Self { permitted }
    }
}
