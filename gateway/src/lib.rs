//! The gateway: the whole service as a function of its listeners, its configuration and its lifecycle.
//!
//! One image request, downwards: `router` → `middleware::gate` → `routes::images` → `payload` → `policy::demand` →
//! `policy::catalog` → [`health`] → `policy::admission` → `backend` → `store` → the answer. Beside it: one
//! health monitor per backend, and one look a second whether the machine slept.

mod backend;
mod blocking;
pub mod cli;
pub mod config;
mod error;
pub mod health;
mod metrics;
mod middleware;
mod payload;
mod policy;
mod router;
mod routes;
mod state;
mod store;
pub mod tls;
pub mod wake;

use shared::service::{
    lifecycle::{Lifecycle, WorkerDied},
    secret::redacted_url,
    serve::{Listener, TlsAcceptor, accept},
    settings::Problem,
};
use tokio::net::TcpListener;
use tracing::info;

use crate::{backend::Backends, config::Config, state::App, store::disk::Store, wake::ClockSource};

/// Why the service ended, or did not start.
#[derive(Debug)]
pub enum ServeError {
    /// The configuration names what cannot be had.
    Config(Vec<Problem>),
    /// An address or the runtime cannot be had.
    Start(std::io::Error),
    /// A background task died.
    Worker(WorkerDied),
}

impl std::fmt::Display for ServeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Config(problems) => {
                let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
                f.write_str(&lines.join("\n"))
            }
            Self::Start(error) => write!(f, "cannot start: {error}"),
            Self::Worker(died) => write!(f, "{died}"),
        }
    }
}

impl std::error::Error for ServeError {}

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
    backends: Backends,
    store: Store,
    tls: Option<TlsAcceptor>,
    clocks: ClockSource,
}

impl Gateway {
    /// Takes what the configuration names; every problem at once.
    pub fn open(config: Config) -> Result<Self, ServeError> {
        let store = Store::open(&config.store_dir);
        let tls = tls::acceptor(&config.tls, &config.data_dir);
        let backends = Backends::new(&config.outbound).map_err(|error| {
            Problem::new(
                "BACKEND_CA_BUNDLE",
                "BACKEND_CLIENT_CERT",
                format!("expected usable files: {error}"),
            )
        });
        match (store, tls, backends) {
            (Ok(store), Ok(tls), Ok(backends)) => {
                Ok(Self { config, backends, store, tls, clocks: ClockSource::default() })
            }
            (store, tls, backends) => Err(ServeError::Config(
                [store.err(), tls.err(), backends.err()].into_iter().flatten().collect(),
            )),
        }
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
        let Self { config, backends, store, tls, clocks } = self;
        let grace = config.shutdown_grace;
        let app = App::new(config, backends, store, clocks, lifecycle.clone());
        app.health.start(&app.backends, &lifecycle);
        lifecycle.worker("wake", wake::watch(app.clone()));
        app.health.first_probes().await;
        if let Some(socket) = listeners.metrics {
            let listener = Listener::plain(router::metrics_alone(app.clone()));
            lifecycle.worker("accept metrics", accept(socket, listener, lifecycle.clone()));
        }
        let listener = Listener { tls, ..Listener::plain(router::router(app)) };
        lifecycle.worker("accept", accept(listeners.api, listener, lifecycle.clone()));
        lifecycle.finish(grace).await.map_err(ServeError::Worker)
    }

    fn announce(&self, listeners: &Listeners) {
        let (listen, metrics) = listeners.addresses(self.tls.is_some());
        let backends = self.config.backends.all.iter();
        let backends: Vec<_> = backends
            .map(|backend| format!("{} at {}", backend.class, redacted_url(&backend.base_url)))
            .collect();
        info!(
            version = env!("CARGO_PKG_VERSION"),
            listen,
            metrics,
            backends = backends.join(", "),
            images = self.config.images.engine.as_str(),
            images_class = self.config.images.class,
            auth = if self.config.access.asks_tokens { "token" } else { "off" },
            pictures = %self.config.store_dir.display(),
            "listening"
        );
    }
}

async fn bind(
    address: impl tokio::net::ToSocketAddrs,
    what: impl FnOnce() -> String,
) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|error| {
        ServeError::Start(std::io::Error::new(error.kind(), format!("cannot listen on {}: {error}", what())))
    })
}
