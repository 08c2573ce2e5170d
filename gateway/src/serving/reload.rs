//! Reloads the configuration on SIGHUP, completely or not at all. Running requests keep the old state; their slots count towards
//! the new limits.

use std::sync::Arc;

use service::{lifecycle::Lifecycle, settings::Problem, telemetry::OpenedLog};

use super::Serving;
use crate::{
    blocking::blocking,
    config::{Config, LoadedConfig},
    tls::{self, CertResolver},
    writable_paths::log_file_problem,
};

/// Loads the gateway's configuration.
pub type ConfigSource = service::reload::ConfigLoader<LoadedConfig>;

#[derive(Debug)]
pub(crate) struct Reload {
    source: ConfigSource,
    serving: Serving,
    cert_resolver: Option<Arc<CertResolver>>,
    lifecycle: Lifecycle,
}

impl Reload {
    pub(crate) fn new(
        source: ConfigSource,
        serving: Serving,
        cert_resolver: Option<Arc<CertResolver>>,
        lifecycle: Lifecycle,
    ) -> Self {
        Self { source, serving, cert_resolver, lifecycle }
    }

    /// The worker.
    pub(crate) async fn run(self) {
        let reloads = self.serving.app.load().reloads.clone();
        reloads.run(self.lifecycle.clone(), || self.reload()).await;
    }

    async fn reload(&self) -> Result<Vec<String>, Vec<Problem>> {
        let LoadedConfig { config, warnings, .. } = self.source.load().await?;
        let old = self.serving.app.load();
        let unchangeable = unchangeable(&old.config, &config);
        if !unchangeable.is_empty() {
            return Err(unchangeable);
        }
        let (tls, data_dir, file) = (config.tls.clone(), config.data_dir.clone(), config.log.file.clone());
        let opened = blocking(move || {
            let log = OpenedLog::open(file.as_deref());
            (
                tls::certificate(&tls, &data_dir),
                log.map_err(|error| log_file_problem(file.as_deref(), &error)),
            )
        });
        let (certificate, log) = match opened.await {
            (Ok(certificate), Ok(log)) => (certificate, log),
            (certificate, log) => return Err([certificate.err(), log.err()].into_iter().flatten().collect()),
        };
        let new = old.with_config(config).map_err(|problem| vec![problem])?;
        // Nothing fails from here on. New backends are probed before they get requests.
        new.health.start(&new.clients, &self.lifecycle);
        new.health.wait_for_first_probes().await;
        log.activate();
        if let Some((resolver, certificate)) = self.cert_resolver.as_ref().zip(certificate) {
            resolver.replace(&certificate);
        }
        self.serving.replace(new).health.stop();
        Ok(warnings)
    }
}

/// Changes that need a restart.
fn unchangeable(old: &Config, new: &Config) -> Vec<Problem> {
    let mut problems = old.fixed.changes(&new.fixed);
    if old.log.file.is_some() != new.log.file.is_some() {
        let expected = "a reload cannot turn the log file on or off; restart the gateway to apply";
        problems.push(Problem::new("GATEWAY_LOG_FILE", "GATEWAY_LOG_FILE", expected));
    }
    problems
}
