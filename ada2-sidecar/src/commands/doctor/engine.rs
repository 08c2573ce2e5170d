//! The engine, queried by this process: whether it is the configured one, its events can be received, and it has what our
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

use super::fixes::FixHints;
use crate::{
    commands::{client::block_on, systemd::SystemdUnit},
    config::Config,
    engine::{Engine, EngineError, EngineIdentity},
    gpu::processes::pids_of_unit,
    graph_validation,
    images::{
        choice, model_warnings,
        models::{self, EngineModel},
    },
    port::{self, listening_addresses, listening_addresses_of},
};

/// For each request.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Problems that get a line each.
const MAX_LISTED: usize = 5;

/// The facts.
pub(super) struct EngineFacts<'a> {
    config: &'a Config,
    url: &'a Url,
    fixes: &'a FixHints,
    identity: Result<EngineIdentity, EngineError>,
    /// None if the engine does not identify itself; so are the next two.
    models: Option<Result<Arc<[EngineModel]>, EngineError>>,
    websocket: Option<Result<(), String>>,
    graph_errors: Option<Result<Vec<String>, EngineError>>,
    /// The engine's unit, as systemd shows it.
    pub(super) unit: Option<SystemdUnit>,
    /// The process that listens at the engine's address on this host, if known.
    pub(super) listener: Option<port::Process>,
    /// Where the processes of the engine's unit listen.
    unit_listeners: Vec<SocketAddr>,
    /// Addresses at which clients can bypass the sidecar.
    exposed_addresses: Vec<IpAddr>,
    /// The running service reaches it.
    reachable_from_service: bool,
}

impl<'a> EngineFacts<'a> {
    /// None for the builtin engine, which is the service itself.
    pub(super) fn probe(
        config: &'a Config,
        fixes: &'a FixHints,
        reachable_from_service: bool,
    ) -> Option<Self> {
        let url = config.engine_url.as_ref()?;
        // Without a tag: only the service may claim jobs.
        let engine = Engine::new(config.engine, &config.engine_setup(""));
        engine.set_login(config.engine_login.clone());
        let (identity, rest) = block_on(async {
            let identity = with_timeout(engine.identity()).await;
            if identity.is_err() {
                return (identity, None);
            }
            let (models, websocket) = tokio::join!(with_timeout(engine.list_models()), engine.check_events());
            let installed = models.as_deref().unwrap_or_default();
            let templates = graph_validation::all_templates(installed, &config.presets);
            let graph_errors = with_timeout(graph_validation::validate_all(&engine, &templates)).await;
            (identity, Some((models, websocket, graph_errors)))
        })
        .ok()?;
        let (models, websocket, graph_errors) = rest
            .map_or((None, None, None), |(models, websocket, graph_errors)| {
                (Some(models), Some(websocket), Some(graph_errors))
            });
        let address = loopback_address(url);
        let pids = pids_of_unit(Path::new("/sys/fs/cgroup"), &config.engine_unit);
        Some(Self {
            config,
            url,
            fixes,
            identity,
            models,
            websocket,
            graph_errors,
            unit: SystemdUnit::query(&config.engine_unit),
            listener: address.and_then(|address| port::find_holder(address)?.process().cloned()),
            unit_listeners: listening_addresses_of(&pids),
            exposed_addresses: address.map_or_else(Vec::new, |address| {
                listening_addresses(address.port()).into_iter().filter(|ip| !ip.is_loopback()).collect()
            }),
            reachable_from_service,
        })
    }

    pub(super) fn responds(&self) -> bool {
        self.identity.is_ok() && matches!(self.models, Some(Ok(_)))
    }

    /// Whether the line `engine` says that it cannot be used.
    pub(super) fn is_down(&self) -> bool {
        match &self.identity {
            Err(EngineError::Unresponsive(_)) => !self.reachable_from_service,
            Err(_) => true,
            Ok(_) => matches!(self.models, Some(Err(EngineError::LoginRequired(_)))),
        }
    }

    pub(super) fn evaluate(&self) -> Vec<Finding> {
        let mut findings = vec![self.reachability_finding()];
        if let (Ok(identity), Some(Ok(models))) = (&self.identity, &self.models) {
            findings.push(self.version(identity));
            findings.extend(self.events());
            findings.extend(self.exposure_finding());
            findings.extend(self.model_findings(models));
            findings.extend(self.graph_findings());
        } else if self.identity.is_ok() {
            findings.extend(self.exposure_finding());
        }
        findings
    }

    fn version(&self, identity: &EngineIdentity) -> Finding {
        const NAME: &str = "engine_version";
        match &identity.warning {
            Some(warning) => Finding::warn(
                NAME,
                warning,
                "sudo ada2-sidecar doctor --generate # shows whether it works all the same",
            ),
            None => Finding::ok(
                NAME,
                format!("{} {} is a tested version", self.config.engine.name(), identity.version),
            ),
        }
    }

    fn events(&self) -> Option<Finding> {
        const NAME: &str = "engine_websocket";
        Some(match self.websocket.as_ref()? {
            Ok(()) => Finding::ok(NAME, "its events can be received"),
            Err(error) => Finding::warn(
                NAME,
                format!(
                    "its events cannot be received ({error}): finished images are noticed late, and there are no previews"
                ),
                self.fixes.edit("name the engine itself, and no proxy, as engine_url in"),
            ),
        })
    }

    fn exposure_finding(&self) -> Option<Finding> {
        const NAME: &str = "engine_listen";
        loopback_address(self.url)?;
        let Some(ip) = self.exposed_addresses.first() else {
            return Some(Finding::ok(NAME, "it listens on loopback only"));
        };
        let unit = &self.config.engine_unit;
        let change = self.config.engine.fixes()?.loopback;
        let message = format!(
            "it also listens at {ip}: any host that reaches this one can bypass allow_from and token"
        );
        Some(Finding::warn(NAME, message, format!("{change}, then sudo systemctl restart {unit}")))
    }

    fn model_findings(&self, models: &Arc<[EngineModel]>) -> Vec<Finding> {
        const NAME: &str = "engine_models";
        let (declared, presets) = (&self.config.models, &self.config.presets);
        let models = models::apply_declarations(declared, models);
        let default = self.config.default_model.as_deref();
        let resolved = choice::resolve_default(&models, presets, default);
        if let (Err(error), Some(default)) = (&resolved, default) {
            let fix = self.fixes.edit(&format!("correct default_model: {default} in"));
            return vec![Finding::fail(NAME, format!("default_model cannot be used: {error}"), fix)];
        }
        let there: Vec<_> = models.iter().filter(|model| model.is_installed() && model.is_listed).collect();
        let served = there.iter().filter(|model| model.is_usable()).count();
        let usable = choice::usable_preset_names(&models, presets).len();
        if served == 0 && usable == 0 {
            let message =
                format!("none of its {} models is supported, and no preset can be used", there.len());
            let place = self.config.engine.fixes().map_or("", |fixes| fixes.model_location);
            let fix = format!("install a model that the built-in graphs can run {place}");
            return vec![Finding::fail(NAME, message, fix)];
        }
        let unknown = models.iter().filter(|model| model.kind.is_unknown()).count();
        let unusable: Vec<_> = model_warnings(&models, declared, presets)
            .into_iter()
            .filter(|line| !line.contains("cannot detect the kind"))
            .collect();
        if unusable.is_empty() {
            let unknown = match unknown {
                0 => String::new(),
                many => {
                    format!(", {many} of unknown type (`sudo ada2-sidecar check-config --live` lists them)")
                }
            };
            return vec![Finding::ok(
                NAME,
                format!("{served} of {} models are supported{unknown}", there.len()),
            )];
        }
        let finding = |warning: &String| Finding::warn(NAME, warning, self.fixes.edit("correct the name in"));
        unusable.iter().take(MAX_LISTED).map(finding).collect()
    }

    fn graph_findings(&self) -> Vec<Finding> {
        const NAME: &str = "templates";
        match &self.graph_errors {
            Some(Ok(errors)) if errors.is_empty() => {
                vec![Finding::ok(
                    NAME,
                    "the engine has every node that the graphs need, the built-in ones and those of presets",
                )]
            }
            Some(Ok(errors)) => {
                let fix = "install the node in the engine, or correct the preset's template, then sudo ada2-sidecar \
                           check-config --live";
                let finding = |error: &String| Finding::fail(NAME, error, fix);
                errors.iter().take(MAX_LISTED).map(finding).collect()
            }
            Some(Err(error)) => {
                vec![Finding::skip(NAME, format!("the engine cannot validate the graphs: {error}"))]
            }
            None => Vec::new(),
        }
    }
}

async fn with_timeout<T>(request: impl Future<Output = Result<T, EngineError>>) -> Result<T, EngineError> {
    let timed_out = |_| Err(EngineError::Unresponsive(format!("no response within {} s", TIMEOUT.as_secs())));
    tokio::time::timeout(TIMEOUT, request).await.unwrap_or_else(timed_out)
}

/// The engine's address, if it is one of this host's loopback interface.
fn loopback_address(url: &Url) -> Option<SocketAddr> {
    let host = url.host_str()?.trim_matches(['[', ']']);
    let ip = if host == "localhost" { IpAddr::from([127, 0, 0, 1]) } else { host.parse().ok()? };
    ip.is_loopback().then(|| SocketAddr::new(ip, url.port_or_known_default().unwrap_or(80)))
}

#[cfg(test)]
mod tests;
