//! The configuration read again while the gateway serves, on SIGHUP: all of it or nothing. A request that is under way
//! keeps the state that it came to; its place counts under the new limits.

use std::sync::Arc;

use service::{lifecycle::Lifecycle, settings::Problem, telemetry::OpenedLog};

use super::Serving;
use crate::{
    blocking::blocking,
    config::{Config, LoadedConfig},
    tls::{self, CertResolver},
    writable_paths::log_file_problem,
};

/// Where the gateway's is read from.
pub type ConfigSource = service::reload::ConfigLoader<LoadedConfig>;

/// What a reload changes.
#[derive(Debug)]
pub(crate) struct Reload {
    source: ConfigSource,
    serving: Serving,
    cert_resolver: Option<Arc<CertResolver>>,
    lifecycle: Lifecycle,
}

impl Reload {
    /// Of this service.
    pub(crate) fn new(
        source: ConfigSource,
        serving: Serving,
        shown: Option<Arc<CertResolver>>,
        lifecycle: Lifecycle,
    ) -> Self {
        Self { source, serving, cert_resolver: shown, lifecycle }
    }

    /// The worker.
    pub(crate) async fn run(self) {
        let reloads = self.serving.app.load().reloads.clone();
        reloads.run(self.lifecycle.clone(), || self.reload()).await;
    }

    async fn reload(&self) -> Result<Vec<String>, Vec<Problem>> {
        let LoadedConfig { config, warnings: notes, .. } = self.source.load().await?;
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
        // Nothing fails from here on. A backend that is new is asked before requests get to it.
        new.health.start(&new.clients, &self.lifecycle);
        new.health.wait_for_first_probes().await;
        log.activate();
        if let Some((resolver, certificate)) = self.cert_resolver.as_ref().zip(certificate) {
            resolver.replace(&certificate);
        }
        self.serving.replace(new).health.stop();
        Ok(notes)
    }
}

/// What differs and cannot while the gateway runs.
fn unchangeable(old: &Config, new: &Config) -> Vec<Problem> {
    let mut problems = old.fixed.changes(&new.fixed);
    if old.log.file.is_some() != new.log.file.is_some() {
        let expected = "expected a file as at start, or none as at start; restart to apply";
        problems.push(Problem::new("GATEWAY_LOG_FILE", "GATEWAY_LOG_FILE", expected));
    }
    problems
}
