//! Reloads the configuration on SIGHUP or `ada2-sidecar reload`, all or nothing. A running request keeps the configuration
//! that it began with; its slot counts towards the new limit.

use std::sync::Arc;

use service::{
    lifecycle::Lifecycle,
    reload::{ReloadHandle, Reloadable},
    settings::Problem,
    slots::Slots,
};

use crate::{
    config::{Config, LoadedConfig},
    graph_validation,
    readiness::{EvaluationTrigger, rules::Rules},
    router::RequestRouter,
    systemd,
};

/// Reads the configuration again.
pub type ConfigSource = service::reload::ConfigLoader<LoadedConfig>;

/// The parts of the configuration that workers outside the router use.
#[derive(Debug)]
pub(crate) struct LiveConfig {
    pub(crate) config: Reloadable<Arc<Config>>,
    pub(crate) rules: Reloadable<Rules>,
    slots: Arc<Slots>,
}

impl LiveConfig {
    pub(crate) fn new(config: Config, slots: Arc<Slots>) -> Self {
        let rules = Reloadable::new(Rules::from_config(&config));
        Self { config: Reloadable::new(Arc::new(config)), rules, slots }
    }

    fn apply(&self, config: Arc<Config>) {
        self.slots.set_limit(config.max_inflight);
        self.rules.replace(Rules::from_config(&config));
        self.config.replace(config);
    }
}

#[derive(Debug)]
pub(crate) struct ReloadWorker {
    pub(crate) source: ConfigSource,
    pub(crate) live: LiveConfig,
    pub(crate) router: Reloadable<RequestRouter>,
    pub(crate) evaluation: EvaluationTrigger,
}

impl ReloadWorker {
    pub(crate) async fn run(self, reloads: ReloadHandle, lifecycle: Lifecycle) {
        reloads.run(lifecycle, || self.reload_once()).await;
    }

    async fn reload_once(&self) -> Result<Vec<String>, Vec<Problem>> {
        systemd::reloading();
        let result = self.replace().await;
        systemd::ready();
        result
    }

    async fn replace(&self) -> Result<Vec<String>, Vec<Problem>> {
        let config = self.source.load().await?.config;
        let old = self.live.config.load();
        let unchangeable = old.fixed.changes(&config.fixed);
        if !unchangeable.is_empty() {
            return Err(unchangeable);
        }
        // The state directory is opened once, at start.
        let (instance, state_dirs) = (old.instance.clone(), old.state_dirs.clone());
        let config = Arc::new(Config { instance, state_dirs, ..config });
        graph_validation::log_notes(&config.presets);
        self.live.apply(config.clone());
        self.router.replace(self.router.load().with_config(config.clone()));
        // Whoever learns of the reload then sees readiness judged by the new rules.
        self.evaluation.evaluate_now().await;
        Ok(config.warnings.clone())
    }
}
