//! Reloads the configuration on SIGHUP or `ada2-sidecar reload`, all or nothing. A running request keeps the configuration
//! that it began with; its slot counts towards the new limit.

use std::sync::Arc;

use service::{
    lifecycle::Lifecycle,
    reload::{ReloadHandle, Reloadable},
    settings::Problem,
};

use crate::{
    config::{Config, LoadedConfig},
    graph_validation,
    jobs::Jobs,
    readiness::{
        EvaluationTrigger,
        rules::{CardRules, HostRules, Rules},
    },
    router::RequestRouter,
    systemd,
};

/// Reads the configuration again.
pub type ConfigSource = service::reload::ConfigLoader<LoadedConfig>;

/// The rules of readiness, as configured.
pub(crate) fn readiness_rules(config: &Config) -> Rules {
    Rules {
        gpu_required: config.gpu_required,
        min_free_vram: config.min_free_vram,
        engine_unit: config.engine_unit.clone(),
        engine: config.engine.name(),
        model_location: config.engine.fixes().map(|fixes| fixes.model_location),
        engine_url: config.engine_url.as_ref().map(service::secret::redact_url),
        default_model: config.default_model.clone(),
        presets: config.presets.clone(),
        models: config.models.clone(),
        warn_only: config.warn_only.clone(),
        card: CardRules {
            ecc_mode: config.ecc_mode,
            old_ecc_errors_gate: config.ecc_errors_gate,
            remap_pending_gates: config.row_remap_pending_gates,
            remap_failure_gates: config.row_remap_failure_gates,
        },
        host: HostRules {
            min_free_disk: config.min_free_disk,
            min_free_memory: config.min_free_memory,
            max_swap_used: config.max_swap_used,
            max_engine_memory: config.max_engine_memory,
        },
    }
}

/// The parts of the configuration that workers outside the router use.
#[derive(Debug)]
pub(crate) struct LiveConfig {
    pub(crate) config: Reloadable<Arc<Config>>,
    pub(crate) rules: Reloadable<Rules>,
    jobs: Jobs,
}

impl LiveConfig {
    pub(crate) fn new(config: Config, jobs: Jobs) -> Self {
        let rules = Reloadable::new(readiness_rules(&config));
        Self { config: Reloadable::new(Arc::new(config)), rules, jobs }
    }

    fn apply(&self, config: Arc<Config>) {
        self.jobs.slots().set_limit(config.max_inflight);
        self.jobs.engine().set_login(config.engine_login.clone());
        self.rules.replace(readiness_rules(&config));
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
        graph_validation::log_dropped_edges(&config.presets);
        self.live.apply(config.clone());
        self.router.replace(self.router.load().with_config(config.clone()));
        // Whoever is notified of the reload sees readiness under the new rules.
        self.evaluation.evaluate_now().await;
        Ok(config.warnings.clone())
    }
}
