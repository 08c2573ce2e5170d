//! The sidecar: the whole service as a function of its listeners, its configuration and its lifecycle.
//!
//! One request, downwards: `routes` → `routes::images` → [`images`] (what is asked) → [`readiness`] (may work be
//! admitted) → [`jobs`] (the task that owns the slot) → [`engine`] → the answer. Beside it: [`gpu`] and the engine's
//! monitor feed [`readiness`].

mod access;
pub mod admin;
mod app;
pub mod cli;
pub mod commands;
pub mod config;
mod edge;
pub mod engine;
mod error;
pub mod gpu;
pub mod host;
pub mod images;
pub mod instance;
pub mod jobs;
pub mod metrics;
pub mod outcomes;
mod passthrough;
mod pictures;
mod port;
pub mod readiness;
mod recent;
pub mod reload;
mod routes;
mod sandbox;
mod smi;
mod systemd;
mod version;
mod vetting;
pub mod warm_up;

use std::{net::SocketAddr, sync::Arc};

use listenfd::ListenFd;
use service::{
    descriptors,
    guard::PRIVATE_RANGES,
    lifecycle::{Lifecycle, WorkerDied},
    reload::{Reloads, Switch},
    serve::{Listener, accept},
    settings::Source,
};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    app::App,
    config::Config,
    edge::Edge,
    engine::{Engine, monitor::EngineState},
    gpu::GpuSample,
    host::HostSample,
    jobs::Jobs,
    metrics::Metrics,
    passthrough::PassThrough,
    readiness::{Published, Rejudge, Sources, WarmUp, latch::file::LatchFile},
    reload::{Current, Reload},
    vetting::Vetting,
    warm_up::Warmer,
};

/// Why the service ended.
#[derive(Debug)]
pub enum ServeError {
    /// A part could not be started.
    Start(std::io::Error),
    /// A background task died.
    Worker(WorkerDied),
}

impl std::fmt::Display for ServeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Start(error) => write!(f, "cannot start: {error}"),
            Self::Worker(died) => write!(f, "{died}"),
        }
    }
}

impl std::error::Error for ServeError {}

/// Where the service listens.
#[derive(Debug)]
pub struct Sockets {
    /// Bound and listening.
    pub listeners: Vec<TcpListener>,
    /// The service manager holds them too: who waits in their queues is served by the next process.
    pub kept_open: bool,
}

/// Binds every address, or says which cannot be had, and who has it.
pub async fn bind(addresses: &[SocketAddr]) -> std::io::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for address in addresses {
        let listener = TcpListener::bind(address).await.map_err(|error| {
            let taken = error.kind() == std::io::ErrorKind::AddrInUse;
            let holder = taken.then(|| port::holder(*address)).flatten();
            let holder = holder.map(|holder| format!("; {}", holder.words(*address))).unwrap_or_default();
            let words = format!("cannot listen on {address} (--listen): {error}{holder}");
            std::io::Error::new(error.kind(), words)
        })?;
        listeners.push(listener);
    }
    Ok(listeners)
}

/// The sockets that the service manager listens on for us (`ada2-sidecar.socket`); they stay open while we restart, and
/// take the place of `listen`.
pub fn handed_over(mut manager: ListenFd) -> std::io::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for place in 0..manager.len() {
        let socket = manager.take_tcp_listener(place).map_err(|error| {
            std::io::Error::new(
                error.kind(),
                format!("socket {place} of the service manager is not a TCP one: {error}"),
            )
        })?;
        if let Some(socket) = socket {
            socket.set_nonblocking(true)?;
            listeners.push(TcpListener::from_std(socket)?);
        }
    }
    Ok(listeners)
}

/// Says that the service manager's sockets take the place of a `listen` that somebody has set.
pub fn warn_of_overridden_listen(config: &Config, handed: &[TcpListener]) {
    let handed: Vec<_> = handed.iter().filter_map(|socket| socket.local_addr().ok()).collect();
    let same = config.listen.len() == handed.len() && config.listen.iter().all(|one| handed.contains(one));
    if config.listen_source != Source::Default && !same {
        warn!(
            listen = list(&config.listen),
            sockets = list(&handed),
            "listen ({}) has no effect: the socket unit decides where we listen; change ListenStream= with \
             `systemctl edit ada2-sidecar.socket`, or take listen away",
            config.listen_source
        );
    }
}

fn list(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Serves until the lifecycle ends. Every background task is named here. `source` is where the configuration is read from
/// again, when that is asked for.
///
/// Connections wait in the listeners' queues until there is a first verdict: before it, whatever we said would be a
/// refusal, and a restart would fail requests.
pub async fn serve(
    sockets: Sockets,
    config: Config,
    source: reload::Source,
    lifecycle: Lifecycle,
) -> Result<(), ServeError> {
    let Sockets { listeners, kept_open } = sockets;
    announce(&listeners, &config);
    let reloads = Reloads::default();
    if let Some(folder) = config.admin.runtime_dir.as_deref().or(config.instance.directory()) {
        let addresses = listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
        admin::start(folder, addresses, reloads.clone(), &lifecycle);
    }
    let grace = config.shutdown_grace;
    let engine = Engine::new(config.engine, config.engine_url.as_ref(), config.instance.tag());
    let gpu = gpu::start(config.sampling()).map_err(ServeError::Start)?;
    let engine_state = engine.start(&lifecycle);
    let metrics = Metrics::default();
    let jobs = Jobs::new(engine, config.max_inflight, lifecycle.clone(), metrics.clone());
    let host = host::start(config.host_watch()).map_err(ServeError::Start)?;
    let current = Current::new(config, jobs.slots().clone());
    let (published, rejudge) = judge(&current, gpu, host, &engine_state, &jobs, &lifecycle);
    let config = current.config.now();
    let engine_url = config.engine_url.as_ref();
    let way = engine_url.map(|url| PassThrough::new(url, config.edge.max_upload, lifecycle.clone()));
    let app = App::new(config, jobs, engine_state, published.clone(), metrics);
    let door = Switch::new(Edge::new(app, way.map(Arc::new)));
    let serving = CancellationToken::new();
    systemd::start(&lifecycle, published.clone(), reloads.clone(), serving.clone());
    let first_looks = readiness::first_looks(published);
    if lifecycle.draining().run_until_cancelled(first_looks).await.is_some() {
        for socket in listeners {
            let mut listener = Listener { kept_open, ..Listener::plain(door.clone()) };
            listener.bounds.connections = descriptors::connections(listener.bounds.connections);
            lifecycle.worker("accept", accept(socket, listener, lifecycle.clone()));
        }
        systemd::ready();
        serving.cancel();
        // Not before: the end of a reload tells the service manager that we are ready.
        let reload = Reload { source, current, door, rejudge };
        lifecycle.worker("reload", reload.run(reloads, lifecycle.clone()));
        lifecycle.draining().cancelled().await;
    }
    systemd::stopping();
    lifecycle.finish(grace).await.map_err(ServeError::Worker)
}

/// Starts readiness, and the loading of the model that it may wait for.
fn judge(
    current: &Current,
    gpu: watch::Receiver<Option<Arc<GpuSample>>>,
    host: watch::Receiver<Option<Arc<HostSample>>>,
    engine: &watch::Receiver<EngineState>,
    jobs: &Jobs,
    lifecycle: &Lifecycle,
) -> (watch::Receiver<Arc<Published>>, Rejudge) {
    let config = current.config.now();
    let (state, warm_up) = watch::channel(if config.warm_up { WarmUp::Due } else { WarmUp::Off });
    let vetting =
        Vetting { engine: jobs.engine().clone(), state: engine.clone(), config: current.config.clone() };
    let graphs = vetting.start(lifecycle);
    let sources = Sources { gpu, host, engine: engine.clone(), graphs, warm_up, jobs: jobs.clone() };
    let files = config.instance.directory().map(LatchFile::in_directory);
    let (published, rejudge) = readiness::start(current.rules.clone(), sources, files, lifecycle);
    let warmer = Warmer {
        state,
        engine: engine.clone(),
        published: published.clone(),
        jobs: jobs.clone(),
        config: current.config.clone(),
    };
    warmer.start(lifecycle);
    (published, rejudge)
}

fn announce(listeners: &[TcpListener], config: &Config) {
    for warning in &config.warnings {
        warn!("{warning}");
    }
    vetting::log_notes(&config.presets);
    let addresses: Vec<_> = listeners
        .iter()
        .filter_map(|listener| listener.local_addr().ok())
        .map(|address| format!("http://{address}"))
        .collect();
    let private: Option<Vec<ipnet::IpNet>> =
        service::settings::list(PRIVATE_RANGES, |range| range.parse().ok());
    let who = if Some(&config.edge.allow_from) == private.as_ref() {
        "loopback, private and 100.64/10 addresses".to_owned()
    } else {
        config.edge.allow_from.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    info!(
        version = version::WITH_COMMIT,
        listen = addresses.join(", "),
        engine = config.engine.name(),
        url = config.engine_url.as_ref().map(service::secret::redacted_url),
        gpu = if config.gpu_required { "required" } else { "optional" },
        token = if config.edge.token.is_some() { "required on /v1" } else { "none" },
        "listening; whoever may come may run workflows on this machine: {who}"
    );
}
