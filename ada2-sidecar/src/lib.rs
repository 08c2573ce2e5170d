//! The sidecar as a function of its listeners, its configuration and its lifecycle.
//!
//! A request for an image passes `router`, `middleware`, `routes::images`, [`images`] (request and job), [`jobs`] (the task
//! that holds the slot) and [`engine`]. [`gpu`], [`host`] and the engine's monitor feed [`readiness`], which gates it.

pub mod admin;
mod app;
pub mod cli;
pub mod commands;
pub mod config;
pub mod engine;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
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
mod middleware;
mod passthrough;
mod port;
pub mod readiness;
pub mod reload;
mod router;
mod routes;
mod sandbox;
mod smi;
mod systemd;
#[cfg(test)]
mod tests;
mod version;
pub mod warm_up;

use std::{net::SocketAddr, sync::Arc};

use listenfd::ListenFd;
use service::{
    client_info::PRIVATE_RANGES,
    descriptors,
    lifecycle::Lifecycle,
    process::ServeError,
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

/// The listening sockets.
#[derive(Debug)]
pub struct Sockets {
    /// Bound and listening.
    pub listeners: Vec<TcpListener>,
    /// The service manager holds the sockets too, so connections in their queues are served by the next process.
    pub socket_activated: bool,
}

/// Binds every address. The error names the address, and the process that holds it.
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

/// The sockets of the service manager (`ada2-sidecar.socket`). They stay open over a restart, and replace `listen`.
pub fn socket_activated(mut listen_fds: ListenFd) -> std::io::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for index in 0..listen_fds.len() {
        let socket = listen_fds.take_tcp_listener(index).map_err(|error| {
            std::io::Error::new(
                error.kind(),
                format!("socket {index} of the service manager is not a TCP socket: {error}"),
            )
        })?;
        if let Some(socket) = socket {
            socket.set_nonblocking(true)?;
            listeners.push(TcpListener::from_std(socket)?);
        }
    }
    Ok(listeners)
}

/// Warns if a configured `listen` differs from the service manager's sockets, which replace it.
pub fn warn_of_overridden_listen(config: &Config, activated: &[TcpListener]) {
    let activated: Vec<_> = activated.iter().filter_map(|socket| socket.local_addr().ok()).collect();
    let is_same = config.listen.len() == activated.len()
        && config.listen.iter().all(|address| activated.contains(address));
    if config.listen_source != SettingSource::Default && !is_same {
        warn!(
            listen = join_addresses(&config.listen),
            sockets = join_addresses(&activated),
            "listen ({}) has no effect: the socket unit decides where the service listens; change ListenStream= with \
             `systemctl edit ada2-sidecar.socket`, or remove listen",
            config.listen_source
        );
    }
}

fn join_addresses(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Serves until the lifecycle ends. Starts every background task. `source` reads the configuration for reloads.
///
/// Connections wait in the listeners' queues until the first readiness verdict: earlier answers could only be refusals, and
/// a restart would fail requests.
pub async fn serve(
    sockets: Sockets,
    config: Config,
    source: reload::ConfigSource,
    lifecycle: Lifecycle,
) -> Result<(), ServeError> {
    let Sockets { listeners, socket_activated } = sockets;
    log_startup(&listeners, &config);
    let reloads = ReloadHandle::default();
    if let Some(directory) = config.admin.runtime_dir.as_deref().or(config.instance.directory()) {
        let addresses = listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
        admin::start(directory, addresses, reloads.clone(), &lifecycle);
    }
    let grace = config.shutdown_grace;
    let engine = Engine::new(config.engine, &config.engine_setup(config.instance.tag()));
    engine.set_login(config.engine_login.clone());
    let gpu = gpu::start(config.gpu_sampler_config()).map_err(ServeError::Start)?;
    let metrics = Metrics::default();
    let jobs = Jobs::new(engine, config.max_inflight, lifecycle.clone(), metrics.clone());
    let engine_state = jobs.engine().start(jobs.slots().clone(), &lifecycle);
    let host = host::start(config.host_sampler_config()).map_err(ServeError::Start)?;
    let live = LiveConfig::new(config, jobs.clone());
    let (readiness, evaluation) = start_readiness(&live, gpu, host, &engine_state, &jobs, &lifecycle);
    let config = live.config.load();
    let engine_url = config.engine_url.as_ref();
    let passthrough = engine_url.map(|url| PassThrough::new(url, config.max_upload, lifecycle.clone()));
    let app = App::new(config, jobs, engine_state, readiness.clone(), metrics);
    let router = Reloadable::new(RequestRouter::new(app, passthrough.map(Arc::new)));
    let serving = CancellationToken::new();
    systemd::start_notifier(&lifecycle, readiness.clone(), reloads.clone(), serving.clone());
    let first_readings = readiness::wait_for_first_readings(readiness);
    if lifecycle.draining().run_until_cancelled(first_readings).await.is_some() {
        for listener in listeners {
            let mut server = HttpServer { socket_activated, ..HttpServer::plain(router.clone()) };
            server.limits.max_connections = descriptors::max_connections(server.limits.max_connections);
            lifecycle.spawn_worker("accept", accept(listener, server, lifecycle.clone()));
        }
        systemd::ready();
        serving.cancel();
        // Not earlier, because the end of a reload reports `READY=1`.
        let reload = ReloadWorker { source, live, router, evaluation };
        lifecycle.spawn_worker("reload", reload.run(reloads, lifecycle.clone()));
        lifecycle.draining().cancelled().await;
    }
    systemd::stopping();
    lifecycle.wait_until_stopped(grace).await.map_err(ServeError::Worker)
}

/// Starts readiness and the workers that report to it: graph validation and warm-up.
fn start_readiness(
    live: &LiveConfig,
    gpu: watch::Receiver<Option<Arc<GpuSample>>>,
    host: watch::Receiver<Option<Arc<HostSample>>>,
    engine: &watch::Receiver<EngineState>,
    jobs: &Jobs,
    lifecycle: &Lifecycle,
) -> (watch::Receiver<Arc<ReadinessSnapshot>>, EvaluationTrigger) {
    let config = live.config.load();
    let (state, warm_up) = watch::channel(if config.warm_up { WarmUp::Pending } else { WarmUp::Off });
    let validator =
        GraphValidator { engine: jobs.engine().clone(), state: engine.clone(), config: live.config.clone() };
    let graphs = validator.start(lifecycle);
    let sources = ReadinessSources { gpu, host, engine: engine.clone(), graphs, warm_up, jobs: jobs.clone() };
    let latches = config.instance.directory().map(LatchStore::open);
    let (published, evaluation) = readiness::start(live.rules.clone(), sources, latches, lifecycle);
    let warm_up_worker = WarmUpWorker {
        state,
        engine: engine.clone(),
        published: published.clone(),
        jobs: jobs.clone(),
        config: live.config.clone(),
    };
    warm_up_worker.start(lifecycle);
    (published, evaluation)
}

fn log_startup(listeners: &[TcpListener], config: &Config) {
    for warning in &config.warnings {
        warn!("{warning}");
    }
    graph_validation::log_dropped_edges(&config.presets);
    let addresses: Vec<_> = listeners
        .iter()
        .filter_map(|listener| listener.local_addr().ok())
        .map(|address| format!("http://{address}"))
        .collect();
    let private: Option<Vec<ipnet::IpNet>> =
        service::settings::list(PRIVATE_RANGES, |range| range.parse().ok());
    let allowed = if Some(&config.allow_from) == private.as_ref() {
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
        "listening; clients from these addresses may run workflows on this machine: {allowed}"
    );
}
