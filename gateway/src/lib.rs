//! The gateway: the whole service as a function of its listeners, its configuration and its lifecycle.
//!
//! One image request, downwards: `router` → `middleware::auth` → `routes::images` → `payload` → `request::image_request` →
//! `policy::routing` → [`health`] → `admission` → `backend` → `store` → the answer. A request for words
//! or numbers goes through `routes::text` the same way, without a store. Beside it: one health monitor per backend, one
//! look a second whether the machine slept, and the pictures' retention.

mod admission;
mod app;
mod backend;
mod blocking;
pub mod cli;
mod client;
pub mod commands;
pub mod config;
mod error;
pub mod health;
mod metrics;
mod middleware;
mod policy;
mod request;
mod router;
mod routes;
pub mod serving;
pub mod sleep;
mod store;
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
    /// For callers.
    pub api: TcpListener,
    /// For metrics alone, if configured.
    pub metrics: Option<TcpListener>,
}

impl Listeners {
    /// `https://…` or `http://…` of both, for the log.
    fn addresses(&self, tls: bool) -> (String, Option<String>) {
        let address = |scheme: &str, socket: &TcpListener| {
            socket.local_addr().map_or_else(|_| scheme.to_owned(), |address| format!("{scheme}://{address}"))
        };
        let scheme = if tls { "https" } else { "http" };
        (address(scheme, &self.api), self.metrics.as_ref().map(|socket| address("http", socket)))
    }
}

/// A gateway that has everything it needs but its listeners: the store is its own, the certificate is there.
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
    /// Starts the log, tells in it what an operator should know, and takes what the configuration names; every problem at once.
    pub fn start(loaded: LoadedConfig) -> Result<Self, ServeError> {
        let log = start_log(&loaded.config.log);
        if log.is_ok() {
            loaded.warnings.iter().for_each(|note| warn!("{note}"));
        }
        match (log, Self::open(loaded.config)) {
            (Ok(()), opened) => opened,
            (Err(ServeError::Config(log)), Err(ServeError::Config(others))) => {
                Err(ServeError::Config([log, others].concat()))
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Takes what the configuration names; every problem at once.
    pub fn open(config: Config) -> Result<Self, ServeError> {
        let store = ImageStore::open(&config.store_dir);
        let certificate = tls::certificate(&config.tls, &config.data_dir);
        let clients = HttpClients::new(&config.outbound);
        match (store, certificate, clients) {
            (Ok(store), Ok(certificate), Ok(clients)) => {
                let shown = certificate.map(|certificate| Arc::new(CertResolver::new(certificate)));
                Ok(Self {
                    config,
                    clients,
                    store,
                    cert_resolver: shown,
                    clocks: ClockSource::default(),
                    config_source: None,
                })
            }
            (store, certificate, clients) => Err(ServeError::Config(
                [store.err(), certificate.err(), clients.err()].into_iter().flatten().collect(),
            )),
        }
    }

    /// Reads the configuration from there again when it is asked to.
    #[must_use]
    pub fn with_config_source(self, source: ConfigSource) -> Self {
        Self { config_source: Some(source), ..self }
    }

    /// Reads the clocks elsewhere, as tests do that let the machine sleep.
    #[must_use]
    pub fn with_clocks(self, clocks: ClockSource) -> Self {
        Self { clocks, ..self }
    }

    /// Binds the configured addresses, or says why one cannot be had.
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

    /// Serves until the lifecycle ends. Every background task is named here.
    pub async fn serve(self, listeners: Listeners, lifecycle: Lifecycle) -> Result<(), ServeError> {
        self.announce(&listeners);
        let Self { config, clients, store, cert_resolver: shown, clocks, config_source: source } = self;
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
        if let Some(shown) = shown.clone() {
            let app = serving.app.clone();
            let folder = move || app.load().config.local_ca_dir().map(Path::to_owned);
            lifecycle.spawn_worker("certificate", tls::run_renewal(shown, folder));
        }
        if let Some(source) = source {
            let reload = Reload::new(source, serving.clone(), shown.clone(), lifecycle.clone());
            lifecycle.spawn_worker("reload", reload.run());
        }
        if let Some(socket) = listeners.metrics {
            let listener = HttpServer::plain(serving.metrics.clone());
            lifecycle.spawn_worker("accept metrics", accept(socket, listener, lifecycle.clone()));
        }
        let mut listener = HttpServer { tls: shown.map(tls::acceptor), ..HttpServer::plain(serving.api) };
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

/// How many connections there may be, so that what a request needs can still be opened.
fn connection_limit(wanted: usize) -> usize {
    let connections = descriptors::max_connections(wanted);
    if connections < wanted {
        warn!(
            limit = descriptors::limit(),
            connections,
            "the limit of open files allows few connections: raise it (NumberOfFiles under launchd, `ulimit -n` in a shell)"
        );
    }
    connections
}

/// Starts the log that the configuration asks for.
fn start_log(log: &config::LogConfig) -> Result<(), ServeError> {
    let file = log.file.as_deref();
    telemetry::start(log.format, "info", file)
        .map_err(|error| ServeError::Config(vec![log_file_problem(file, &error)]))
}

async fn bind(
    address: impl tokio::net::ToSocketAddrs,
    what: impl FnOnce() -> String,
) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|error| {
        ServeError::Start(std::io::Error::new(error.kind(), format!("cannot listen on {}: {error}", what())))
    })
}
