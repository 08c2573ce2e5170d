//! The engine, asked from here: is it there, is it the one that is meant, can its events be followed, and has it what our
//! graphs need.

mod reachability;

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use reqwest::Url;
use service::doctor::Finding;

use super::{
    text::{FixHints, sanitize},
    unit::SystemdUnit,
};
use crate::{
    config::{Config, EngineKind},
    engine::{Engine, EngineError, EngineIdentity},
    gpu::processes::pids_of_unit,
    graph_validation,
    images::{
        choice, model_warnings,
        models::{self, EngineModel},
    },
    port::{self, listening_addresses, listening_addresses_of},
};

/// For each question.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Faults of graphs that are told one by one.
const MAX_LISTED: usize = 5;

/// What was seen of it.
pub(super) struct EngineFacts<'a> {
    config: &'a Config,
    url: &'a Url,
    fixes: &'a FixHints,
    identity: Result<EngineIdentity, EngineError>,
    /// Not asked of an engine that does not say who it is.
    models: Option<Result<Arc<[EngineModel]>, EngineError>>,
    websocket: Option<Result<(), String>>,
    graph_errors: Option<Result<Vec<String>, EngineError>>,
    /// The engine's unit, as systemd shows it.
    pub(super) unit: Option<SystemdUnit>,
    /// Whoever listens at the engine's address on this host; none where that cannot be told.
    pub(super) listener: Option<port::Process>,
    /// Where the processes of the engine's unit listen.
    unit_listeners: Vec<SocketAddr>,
    /// Addresses at which others reach the engine past us.
    exposed_addresses: Vec<IpAddr>,
    /// The service, which asks all the time, reaches it.
    reachable_from_service: bool,
}

impl<'a> EngineFacts<'a> {
    /// None for the builtin engine, which is the service itself.
    pub(super) fn probe(config: &'a Config, fixes: &'a FixHints, service_reaches_it: bool) -> Option<Self> {
        let url = config.engine_url.as_ref()?;
        // Without a tag: only whoever serves may take jobs for his own.
        let engine = Engine::new(config.engine, Some(url), "");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        let templates = graph_validation::all_templates(&engine, &config.presets);
        let (identity, rest) = runtime.block_on(async {
            let identity = with_timeout(engine.identity()).await;
            if identity.is_err() {
                return (identity, None);
            }
            let rest = tokio::join!(
                with_timeout(engine.list_models()),
                engine.check_events(),
                with_timeout(graph_validation::validate_all(&engine, &templates))
            );
            (identity, Some(rest))
        });
        let (models, greeting, graphs) = rest.map_or((None, None, None), |(models, greeting, graphs)| {
            (Some(models), Some(greeting), Some(graphs))
        });
        let address = loopback_address(url);
        let pids = pids_of_unit(Path::new("/sys/fs/cgroup"), &config.engine_unit);
        Some(Self {
            config,
            url,
            fixes,
            identity,
            models,
            websocket: greeting,
            graph_errors: graphs,
            unit: SystemdUnit::query(&config.engine_unit),
            listener: address.and_then(|address| port::find_holder(address)?.process().cloned()),
            unit_listeners: listening_addresses_of(&pids),
            exposed_addresses: address.map_or_else(Vec::new, |address| {
                listening_addresses(address.port()).into_iter().filter(|ip| !ip.is_loopback()).collect()
            }),
            reachable_from_service: service_reaches_it,
        })
    }

    pub(super) fn responds(&self) -> bool {
        self.identity.is_ok() && matches!(self.models, Some(Ok(_)))
    }

    /// Whether it is a line of its own that the engine cannot be used.
    pub(super) fn is_down(&self) -> bool {
        match &self.identity {
            Err(EngineError::Unresponsive(_)) => !self.reachable_from_service,
            Err(_) => true,
            Ok(_) => matches!(self.models, Some(Err(EngineError::LoginRequired(_)))),
        }
    }

    pub(super) fn evaluate(&self) -> Vec<Finding> {
        let mut found = vec![self.reachability_finding()];
        if let (Ok(identity), Some(Ok(models))) = (&self.identity, &self.models) {
            found.push(self.version(identity));
            found.extend(self.events());
            found.extend(self.exposure_finding());
            found.extend(self.installed(models));
            found.extend(self.graph_findings());
        } else if self.identity.is_ok() {
            found.extend(self.exposure_finding());
        }
        found
    }

    fn version(&self, identity: &EngineIdentity) -> Finding {
        const NAME: &str = "engine_version";
        let name_and_version = format!("{} {}", self.config.engine.name(), sanitize(&identity.version));
        match &identity.warning {
            Some(warning) => Finding::warn(
                NAME,
                sanitize(warning),
                "sudo ada2-sidecar doctor --generate shows whether it works all the same",
            ),
            None => Finding::ok(NAME, format!("{name_and_version} is a tested one")),
        }
    }

    fn events(&self) -> Option<Finding> {
        const NAME: &str = "engine_websocket";
        Some(match self.websocket.as_ref()? {
            Ok(()) => Finding::ok(NAME, "its events can be followed"),
            Err(why) => Finding::warn(
                NAME,
                format!(
                    "its events cannot be followed ({}): finished pictures are noticed late, and there are no previews",
                    sanitize(why)
                ),
                self.fixes.edit("name the engine itself, and no proxy, as engine_url in"),
            ),
        })
    }

    fn exposure_finding(&self) -> Option<Finding> {
        const NAME: &str = "engine_listen";
        loopback_address(self.url)?;
        let Some(ip) = self.exposed_addresses.first() else {
            return Some(Finding::ok(NAME, "it is reached through this host alone"));
        };
        let unit = &self.config.engine_unit;
        let how = match self.config.engine {
            EngineKind::ComfyUi => "start it with --listen 127.0.0.1".to_owned(),
            _ => "write host: 127.0.0.1 into its invokeai.yaml".to_owned(),
        };
        let message = format!(
            "it listens at {ip} as well: whoever reaches this host can use it past allow_from and token"
        );
        Some(Finding::warn(NAME, message, format!("{how}, then sudo systemctl restart {unit}")))
    }

    fn installed(&self, models: &Arc<[EngineModel]>) -> Vec<Finding> {
        const NAME: &str = "engine_models";
        let (declared, presets) = (&self.config.models, &self.config.presets);
        let known = models::apply_declarations(declared, models);
        let default = self.config.default_model.as_deref();
        let resolved = choice::resolve(&known, presets, None, default);
        if let (Err(refused), Some(default)) = (&resolved, default) {
            let fix = self.fixes.edit(&format!("correct default_model: {} in", sanitize(default)));
            return vec![Finding::fail(
                NAME,
                format!("default_model cannot be used: {}", sanitize(&refused.to_string())),
                fix,
            )];
        }
        let served = known.iter().filter(|model| model.graphs().is_some()).count();
        let usable = choice::usable_preset_names(&known, presets).len();
        if served == 0 && usable == 0 {
            let message = format!(
                "none of its {} models is one that is served here, and no preset can be used",
                known.len()
            );
            let how = match self.config.engine {
                EngineKind::ComfyUi => "put an SD 1.5 or SDXL checkpoint into its models/checkpoints",
                _ => "install an SD 1.5 or SDXL main model in its model manager",
            };
            return vec![Finding::fail(NAME, message, how)];
        }
        let unknown = known.iter().filter(|model| model.kind.is_unknown()).count();
        let unusable: Vec<_> = model_warnings(models, declared, presets)
            .into_iter()
            .filter(|line| !line.contains("nothing tells"))
            .collect();
        if unusable.is_empty() {
            let unknown = match unknown {
                0 => String::new(),
                many => {
                    format!(", {many} of unknown kind (sudo ada2-sidecar check-config --live names them)")
                }
            };
            return vec![Finding::ok(
                NAME,
                format!("{served} of {} models are served{unknown}", known.len()),
            )];
        }
        let line =
            |line: &String| Finding::warn(NAME, sanitize(line), self.fixes.edit("correct the name in"));
        unusable.iter().take(MAX_LISTED).map(line).collect()
    }

    fn graph_findings(&self) -> Vec<Finding> {
        const NAME: &str = "templates";
        match &self.graph_errors {
            Some(Ok(faults)) if faults.is_empty() => {
                vec![Finding::ok(
                    NAME,
                    "the engine knows every node of the graphs, built-in ones and those of presets",
                )]
            }
            Some(Ok(faults)) => {
                let finding = |line: &String| {
                    let how = "install the node in the engine, or correct the preset's template; sudo ada2-sidecar check-config --live";
                    Finding::fail(NAME, sanitize(line), how)
                };
                faults.iter().take(MAX_LISTED).map(finding).collect()
            }
            Some(Err(error)) => vec![Finding::skip(
                NAME,
                format!("the engine cannot be asked about graphs: {}", sanitize(&error.to_string())),
            )],
            None => Vec::new(),
        }
    }
}

async fn with_timeout<T>(request: impl Future<Output = Result<T, EngineError>>) -> Result<T, EngineError> {
    let timed_out = |_| Err(EngineError::Unresponsive(format!("no answer within {} s", TIMEOUT.as_secs())));
    tokio::time::timeout(TIMEOUT, request).await.unwrap_or_else(timed_out)
}

/// Where the engine listens on this host, if its address says that it does.
fn loopback_address(url: &Url) -> Option<SocketAddr> {
    let host = url.host_str()?.trim_matches(['[', ']']);
    let ip = if host == "localhost" { IpAddr::from([127, 0, 0, 1]) } else { host.parse().ok()? };
    ip.is_loopback().then(|| SocketAddr::new(ip, url.port_or_known_default().unwrap_or(80)))
}

#[cfg(test)]
mod tests;
