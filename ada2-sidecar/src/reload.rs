//! The configuration read again while the sidecar serves, on SIGHUP or by `ada2-sidecar reload`: all of it or nothing. A
//! request that is under way keeps the configuration that it came to; its slot counts under the new limit.

use std::sync::Arc;

use service::{
    lifecycle::Lifecycle,
    reload::{Reloads, Switch},
    settings::Problem,
    slots::Slots,
};

use crate::{
    config::{Config, Loaded},
    edge::Edge,
    readiness::{Rejudge, rules::Rules},
    systemd, vetting,
};

/// Where the sidecar's is read from.
pub type Source = service::reload::Source<Loaded>;

/// What the workers beside the routes take from the configuration.
#[derive(Debug)]
pub(crate) struct Current {
    pub(crate) config: Switch<Arc<Config>>,
    pub(crate) rules: Switch<Rules>,
    slots: Arc<Slots>,
}

impl Current {
    /// As at start.
    pub(crate) fn new(config: Config, slots: Arc<Slots>) -> Self {
        let rules = Switch::new(Rules::of(&config));
        Self { config: Switch::new(Arc::new(config)), rules, slots }
    }

    fn replace(&self, config: Arc<Config>) {
        self.slots.set_limit(config.max_inflight);
        self.rules.replace(Rules::of(&config));
        self.config.replace(config);
    }
}

/// What a reload changes.
#[derive(Debug)]
pub(crate) struct Reload {
    pub(crate) source: Source,
    pub(crate) current: Current,
    pub(crate) door: Switch<Edge>,
    pub(crate) rejudge: Rejudge,
}

impl Reload {
    /// The worker.
    pub(crate) async fn run(self, reloads: Reloads, lifecycle: Lifecycle) {
        reloads.obey(lifecycle, || self.once()).await;
    }

    async fn once(&self) -> Result<Vec<String>, Vec<Problem>> {
        systemd::reloading();
        let done = self.replace().await;
        // Refused or not, it is over.
        systemd::ready();
        done
    }

    async fn replace(&self) -> Result<Vec<String>, Vec<Problem>> {
        let config = self.source.read().await?.config;
        let old = self.current.config.now();
        let unchangeable = old.fixed.changes(&config.fixed);
        if !unchangeable.is_empty() {
            return Err(unchangeable);
        }
        // The state directory is taken once, at start.
        let (instance, state_dirs) = (old.instance.clone(), old.state_dirs.clone());
        let config = Arc::new(Config { instance, state_dirs, ..config });
        vetting::log_notes(&config.presets);
        self.current.replace(config.clone());
        self.door.replace(self.door.now().with_config(config.clone()));
        // Whoever is told of the reload meets the verdict by the new rules.
        self.rejudge.verdict().await;
        Ok(config.warnings.clone())
    }
}
