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
pub mod engine;
mod error;
pub mod gpu;
mod graph_validation;
pub mod host;
mod image_cache;
mod image_codec;
pub mod images;
pub mod instance;
pub mod job_history;
pub mod jobs;
pub mod metrics;
mod passthrough;
mod port;
pub mod readiness;
pub mod reload;
mod router;
mod routes;
mod sandbox;
mod smi;
mod systemd;
mod version;
pub mod warm_up;

use std::{net::SocketAddr, sync::Arc};

use listenfd::ListenFd;
use service::{
    descriptors,
    guard::PRIVATE_RANGES,
    lifecycle::{Lifecycle, WorkerExited},
    reload::{ReloadHandle, Reloadable},
    serve::{HttpServer, accept},
    settings::SettingSource,
};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    app::App,
    config::Config,
    engine::{Engine, monitor::EngineState},
    gpu::GpuSample,
    graph_validation::GraphValidator,
    host::HostSample,
    jobs::Jobs,
    metrics::Metrics,
    passthrough::PassThrough,
    readiness::{EvaluationTrigger, ReadinessSnapshot, ReadinessSources, WarmUp, latch::store::LatchStore},
    reload::{LiveConfig, ReloadWorker},
    router::RequestRouter,
    warm_up::WarmUpWorker,
};

/// Why the service ended.
#[derive(Debug)]
pub enum ServeError {
    /// A part could not be started.
    Start(std::io::Error),
    /// A background task died.
    Worker(WorkerExited),
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
            let is_in_use = error.kind() == std::io::ErrorKind::AddrInUse;
            let holder = is_in_use.then(|| port::find_holder(*address)).flatten();
            let holder =
                holder.map(|holder| format!("; {}", holder.conflict_message(*address))).unwrap_or_default();
            let message = format!("cannot listen on {address} (--listen): {error}{holder}");
            std::io::Error::new(error.kind(), message)
        })?;
        listeners.push(listener);
    }
    Ok(listeners)
}

/// The sockets that the service manager listens on for us (`ada2-sidecar.socket`); they stay open while we restart, and
/// take the place of `listen`.
pub fn socket_activated(mut listen_fds: ListenFd) -> std::io::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for index in 0..listen_fds.len() {
        let socket = listen_fds.take_tcp_listener(index).map_err(|error| {
            std::io::Error::new(
                error.kind(),
                format!("socket {index} of the service manager is not a TCP one: {error}"),
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
pub fn warn_of_overridden_listen(config: &Config, activated: &[TcpListener]) {
    let activated: Vec<_> = activated.iter().filter_map(|socket| socket.local_addr().ok()).collect();
    let same =
        config.listen.len() == activated.len() && config.listen.iter().all(|one| activated.contains(one));
    if config.listen_source != SettingSource::Default && !same {
        warn!(
            listen = join_addresses(&config.listen),
            sockets = join_addresses(&activated),
            "listen ({}) has no effect: the socket unit decides where we listen; change ListenStream= with \
             `systemctl edit ada2-sidecar.socket`, or take listen away",
            config.listen_source
        );
    }
}

fn join_addresses(addresses: &[SocketAddr]) -> String {
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
    source: reload::ConfigSource,
    lifecycle: Lifecycle,
) -> Result<(), ServeError> {
    let Sockets { listeners, kept_open } = sockets;
    log_startup(&listeners, &config);
    let reloads = ReloadHandle::default();
    if let Some(folder) = config.admin.runtime_dir.as_deref().or(config.instance.directory()) {
        let addresses = listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
        admin::start(folder, addresses, reloads.clone(), &lifecycle);
    }
    let grace = config.shutdown_grace;
    let engine = Engine::new(config.engine, config.engine_url.as_ref(), config.instance.tag());
    let gpu = gpu::start(config.gpu_sampler_config()).map_err(ServeError::Start)?;
    let engine_state = engine.start(&lifecycle);
    let metrics = Metrics::default();
    let jobs = Jobs::new(engine, config.max_inflight, lifecycle.clone(), metrics.clone());
    let host = host::start(config.host_sampler_config()).map_err(ServeError::Start)?;
    let current = LiveConfig::new(config, jobs.slots().clone());
    let (readiness, rejudge) = start_readiness(&current, gpu, host, &engine_state, &jobs, &lifecycle);
    let config = current.config.load();
    let engine_url = config.engine_url.as_ref();
    let passthrough = engine_url.map(|url| PassThrough::new(url, config.max_upload, lifecycle.clone()));
    let app = App::new(config, jobs, engine_state, readiness.clone(), metrics);
    let door = Reloadable::new(RequestRouter::new(app, passthrough.map(Arc::new)));
    let serving = CancellationToken::new();
    systemd::start_notifier(&lifecycle, readiness.clone(), reloads.clone(), serving.clone());
    let first_readings = readiness::wait_for_first_readings(readiness);
    if lifecycle.draining().run_until_cancelled(first_readings).await.is_some() {
        for socket in listeners {
            let mut listener = HttpServer { socket_activated: kept_open, ..HttpServer::plain(door.clone()) };
            listener.limits.max_connections = descriptors::max_connections(listener.limits.max_connections);
            lifecycle.spawn_worker("accept", accept(socket, listener, lifecycle.clone()));
        }
        systemd::ready();
        serving.cancel();
        // Not before: the end of a reload tells the service manager that we are ready.
        let reload = ReloadWorker { source, live: current, service: door, evaluation: rejudge };
        lifecycle.spawn_worker("reload", reload.run(reloads, lifecycle.clone()));
        lifecycle.draining().cancelled().await;
    }
    systemd::stopping();
    lifecycle.wait_until_stopped(grace).await.map_err(ServeError::Worker)
}

/// Starts readiness, and the loading of the model that it may wait for.
fn start_readiness(
    current: &LiveConfig,
    gpu: watch::Receiver<Option<Arc<GpuSample>>>,
    host: watch::Receiver<Option<Arc<HostSample>>>,
    engine: &watch::Receiver<EngineState>,
    jobs: &Jobs,
    lifecycle: &Lifecycle,
) -> (watch::Receiver<Arc<ReadinessSnapshot>>, EvaluationTrigger) {
    let config = current.config.load();
    let (state, warm_up) = watch::channel(if config.warm_up { WarmUp::Pending } else { WarmUp::Off });
    let vetting = GraphValidator {
        engine: jobs.engine().clone(),
        state: engine.clone(),
        config: current.config.clone(),
    };
    let graphs = vetting.start(lifecycle);
    let sources = ReadinessSources { gpu, host, engine: engine.clone(), graphs, warm_up, jobs: jobs.clone() };
    let files = config.instance.directory().map(LatchStore::open);
    let (published, rejudge) = readiness::start(current.rules.clone(), sources, files, lifecycle);
    let warmer = WarmUpWorker {
        state,
        engine: engine.clone(),
        published: published.clone(),
        jobs: jobs.clone(),
        config: current.config.clone(),
    };
    warmer.start(lifecycle);
    (published, rejudge)
}

fn log_startup(listeners: &[TcpListener], config: &Config) {
    for warning in &config.warnings {
        warn!("{warning}");
    }
    graph_validation::log_notes(&config.presets);
    let addresses: Vec<_> = listeners
        .iter()
        .filter_map(|listener| listener.local_addr().ok())
        .map(|address| format!("http://{address}"))
        .collect();
    let private: Option<Vec<ipnet::IpNet>> =
        service::settings::list(PRIVATE_RANGES, |range| range.parse().ok());
    let who = if Some(&config.allow_from) == private.as_ref() {
        "loopback, private and 100.64/10 addresses".to_owned()
    } else {
        config.allow_from.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    info!(
        version = version::WITH_COMMIT,
        listen = addresses.join(", "),
        engine = config.engine.name(),
        url = config.engine_url.as_ref().map(service::secret::redact_url),
        gpu = if config.gpu_required { "required" } else { "optional" },
        token = if config.token.is_some() { "required on /v1" } else { "none" },
        "listening; whoever may come may run workflows on this machine: {who}"
    );
}
