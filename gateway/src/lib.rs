//! The gateway as a function of its listeners, configuration and lifecycle.
//!
//! The path of an image request: `router` → `middleware` → `routes::images` → `request` → `policy` → [`health`] → `admission` →
//! `backend` → `store`. Chat and embeddings take the same path through `routes::text`, without the store. In the background: one
//! health monitor per backend, and the workers that [`Gateway::serve`] starts.

mod admission;
mod app;
mod backend;
mod blocking;
pub mod cli;
mod client;
pub mod commands;
pub mod config;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod health;
mod jobs;
mod metrics;
mod middleware;
mod policy;
mod request;
mod router;
mod routes;
pub mod serving;
pub mod sleep;
mod store;
#[cfg(test)]
mod tests;
pub mod tls;
mod version;
mod warnings;
mod writable_paths;

use std::{path::Path, sync::Arc};

use service::{
    descriptors,
    lifecycle::Lifecycle,
    process::ServeError,
    secret::redact_url,
    serve::{HttpServer, accept},
    telemetry,
};
use tokio::net::TcpListener;
use tracing::{info, warn};

use crate::{
    app::App,
    client::HttpClients,
    config::{Config, LoadedConfig},
    serving::{
        Serving,
        reload::{ConfigSource, Reload},
    },
    sleep::ClockSource,
    store::{disk::ImageStore, retention_worker},
    tls::CertResolver,
    writable_paths::log_file_problem,
};

/// The bound sockets.
#[derive(Debug)]
pub struct Listeners {
    /// For clients.
    pub api: TcpListener,
    /// For metrics only, if configured.
    pub metrics: Option<TcpListener>,
}

impl Listeners {
    /// Both URLs, for the log.
    fn addresses(&self, tls: bool) -> (String, Option<String>) {
        let address = |scheme: &str, socket: &TcpListener| {
            socket.local_addr().map_or_else(|_| scheme.to_owned(), |address| format!("{scheme}://{address}"))
        };
        let scheme = if tls { "https" } else { "http" };
        (address(scheme, &self.api), self.metrics.as_ref().map(|socket| address("http", socket)))
    }
}

/// A gateway that is ready to serve: its store is locked and its certificate loaded.
#[derive(Debug)]
pub struct Gateway {
    config: Config,
    clients: HttpClients,
    store: ImageStore,
    cert_resolver: Option<Arc<CertResolver>>,
    clocks: ClockSource,
    config_source: Option<ConfigSource>,
}

impl Gateway {
    /// Starts the log, logs warnings about the configuration, and opens what it names. Reports all problems at once.
    pub fn start(loaded: LoadedConfig) -> Result<Self, ServeError> {
        let log = start_log(&loaded.config.log);
        if log.is_ok() {
            loaded.warnings.iter().for_each(|warning| warn!("{warning}"));
        }
        match (log, Self::open(loaded.config)) {
            (Ok(()), opened) => opened,
            (Err(ServeError::Config(log)), Err(ServeError::Config(others))) => {
                Err(ServeError::Config([log, others].concat()))
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Opens what the configuration names. Reports all problems at once.
    pub fn open(config: Config) -> Result<Self, ServeError> {
        let store = ImageStore::open(&config.store_dir);
        let certificate = tls::certificate(&config.tls, &config.data_dir);
        let clients = HttpClients::new(&config.outbound);
        match (store, certificate, clients) {
            (Ok(store), Ok(certificate), Ok(clients)) => {
                let cert_resolver = certificate.map(|certificate| Arc::new(CertResolver::new(certificate)));
                let clocks = ClockSource::default();
                Ok(Self { config, clients, store, cert_resolver, clocks, config_source: None })
            }
            (store, certificate, clients) => Err(ServeError::Config(
                [store.err(), certificate.err(), clients.err()].into_iter().flatten().collect(),
            )),
        }
    }

    /// Where a reload reads the configuration.
    #[must_use]
    pub fn with_config_source(self, source: ConfigSource) -> Self {
        Self { config_source: Some(source), ..self }
    }

    /// For tests that simulate sleep.
    #[must_use]
    pub fn with_clocks(self, clocks: ClockSource) -> Self {
        Self { clocks, ..self }
    }

    /// Binds the configured addresses.
    pub async fn bind(&self) -> Result<Listeners, ServeError> {
        let (host, port) = &self.config.listen;
        let api = bind((host.as_str(), *port), || format!("{host} port {port} (GATEWAY_HOST, GATEWAY_PORT)"));
        let api = api.await?;
        let metrics = match self.config.metrics_listen {
            Some(address) => {
                Some(bind(address, || format!("{address} for metrics (GATEWAY_METRICS_LISTEN)")).await?)
            }
            None => None,
        };
        Ok(Listeners { api, metrics })
    }

    /// Serves until the lifecycle ends. Starts every background task.
    pub async fn serve(self, listeners: Listeners, lifecycle: Lifecycle) -> Result<(), ServeError> {
        self.announce(&listeners);
        let Self { config, clients, store, cert_resolver, clocks, config_source } = self;
        let grace = config.shutdown_grace;
        let app = App::new(config, clients, store, clocks, lifecycle.clone());
        app.health.start(&app.clients, &lifecycle);
        app.health.wait_for_first_probes().await;
        let serving = Serving::new(app);
        lifecycle.spawn_worker("sleep", serving::watch_for_sleep(serving.app.clone()));
        let app = serving.app.clone();
        lifecycle.spawn_worker("retention", retention_worker::run(move || app.load().retention()));
        let app = serving.app.clone();
        lifecycle.spawn_worker("warnings", warnings::run(move || app.load().warning_inputs()));
        lifecycle.spawn_worker("log file", telemetry::watch_rotation());
        if let Some(resolver) = cert_resolver.clone() {
            let app = serving.app.clone();
            let data_dir = move || app.load().config.local_ca_dir().map(Path::to_owned);
            lifecycle.spawn_worker("certificate", tls::run_renewal(resolver, data_dir));
        }
        if let Some(source) = config_source {
            let reload = Reload::new(source, serving.clone(), cert_resolver.clone(), lifecycle.clone());
            lifecycle.spawn_worker("reload", reload.run());
        }
        if let Some(socket) = listeners.metrics {
            let listener = HttpServer::plain(serving.metrics.clone());
            lifecycle.spawn_worker("accept metrics", accept(socket, listener, lifecycle.clone()));
        }
        let mut listener =
            HttpServer { tls: cert_resolver.map(tls::acceptor), ..HttpServer::plain(serving.api) };
        listener.limits.max_connections = connection_limit(listener.limits.max_connections);
        lifecycle.spawn_worker("accept", accept(listeners.api, listener, lifecycle.clone()));
        lifecycle.wait_until_stopped(grace).await.map_err(ServeError::Worker)
    }

    fn announce(&self, listeners: &Listeners) {
        let (listen, metrics) = listeners.addresses(self.cert_resolver.is_some());
        let backends = self.config.backends.all.iter();
        let backends: Vec<_> = backends
            .map(|backend| format!("{} at {}", backend.class, redact_url(&backend.base_url)))
            .collect();
        info!(
            version = version::WITH_COMMIT,
            listen,
            metrics,
            backends = backends.join(", "),
            images = self.config.images.engine.as_str(),
            images_class = self.config.images.class,
            auth = if self.config.access.auth_required { "token" } else { "off" },
            pictures = %self.config.store_dir.display(),
            "listening"
        );
    }
}

/// The number of connections that leaves enough file descriptors for requests.
fn connection_limit(desired: usize) -> usize {
    let connections = descriptors::max_connections(desired);
    if connections < desired {
        warn!(
            limit = descriptors::limit(),
            connections,
            "the open-file limit restricts the number of connections; raise it (NumberOfFiles under launchd, `ulimit -n` in a shell)"
        );
    }
    connections
}

fn start_log(log: &config::LogConfig) -> Result<(), ServeError> {
    let file = log.file.as_deref();
    telemetry::start(log.format, "info", file)
        .map_err(|error| ServeError::Config(vec![log_file_problem(file, &error)]))
}

async fn bind(
    address: impl tokio::net::ToSocketAddrs,
    describe: impl FnOnce() -> String,
) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|error| {
        ServeError::Start(std::io::Error::new(
            error.kind(),
            format!("cannot listen on {}: {error}", describe()),
        ))
    })
}
