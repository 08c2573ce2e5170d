//! Finds the engine that runs here, by its own JSON, and its unit, by the process that listens at its address.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    path::PathBuf,
    time::Duration,
};

use reqwest::Url;
use service::subprocess::with_timeout;

use super::{
    output_dir,
    reporter::{MoveError, StepReporter},
};
use crate::{
    commands::client::block_on,
    config::EngineKind,
    engine::{Engine, EngineError, EngineSetup},
    port::{self, Process},
};

const STEP: &str = "engine";
/// An idle engine answers in milliseconds, one that loads a model in seconds.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// A process that hangs in the driver may hang whoever reads its command line.
const PROCESS_TIMEOUT: Duration = Duration::from_secs(3);

/// An engine that a flag or the configuration file names.
#[derive(Debug, Default, Clone)]
pub(crate) struct EngineHint {
    pub(crate) kind: Option<EngineKind>,
    pub(crate) url: Option<Url>,
}

#[derive(Debug)]
pub(crate) struct FoundEngine {
    pub(crate) kind: EngineKind,
    pub(crate) url: Url,
    pub(crate) version: String,
}

impl FoundEngine {
    /// As it is written into the configuration.
    pub(crate) fn address(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }
}

/// Whether a URL leads to an address of the sidecar itself.
fn is_own_address(url: &Url, listen: &[SocketAddr]) -> bool {
    let url = url.clone();
    // A resolver may hang.
    let resolved = with_timeout(RESPONSE_TIMEOUT, move || url.socket_addrs(|| None).unwrap_or_default());
    resolved
        .unwrap_or_default()
        .iter()
        .any(|address| is_local(address.ip()) && listen.iter().any(|own| port::conflict(*own, *address)))
}

/// Whether it is an address of this host: the kernel would send from that same address. Nothing is sent.
fn is_local(ip: IpAddr) -> bool {
    let source_for = |any: IpAddr| {
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect((ip, 9)).ok()?;
        socket.local_addr().ok()
    };
    let any = if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    ip.is_loopback() || ip.is_unspecified() || source_for(any).is_some_and(|source| source.ip() == ip)
}

/// Refuses an engine URL that leads back to the sidecar. The fix names the engine behind nginx, if known.
fn refuse_own_address(url: &Url, listen: &[SocketAddr], targets: &[String]) -> Result<(), MoveError> {
    if !is_own_address(url, listen) {
        return Ok(());
    }
    let address = url.as_str().trim_end_matches('/');
    let message = format!("--engine-url {address} is the port that the sidecar takes over");
    let engine = targets.first().map_or("127.0.0.1:9090", String::as_str);
    Err(MoveError::new(STEP, message, format!("sudo ada2-sidecar move-in --engine-url http://{engine}")))
}

/// The URLs to try: only the flag's, else the file's, nginx's and the default ones.
fn candidates(flags: &EngineHint, file: &EngineHint, targets: &[String]) -> Vec<Url> {
    if let Some(url) = &flags.url {
        return vec![url.clone()];
    }
    let nginx = targets.iter().filter_map(|target| format!("http://{target}").parse().ok());
    let defaults = EngineKind::servers().filter_map(EngineKind::default_url);
    let mut all: Vec<Url> = Vec::new();
    for url in file.url.clone().into_iter().chain(nginx).chain(defaults) {
        if !all.contains(&url) {
            all.push(url);
        }
    }
    all
}

/// The engines to try at each URL: only the flag's, else all, the file's first.
fn kinds(flags: &EngineHint, file: &EngineHint) -> Vec<EngineKind> {
    if let Some(kind) = flags.kind {
        return vec![kind];
    }
    let mut all: Vec<_> = EngineKind::servers().collect();
    all.sort_by_key(|kind| Some(*kind) != file.kind);
    all
}

/// Tries them until an engine identifies itself. `listen`: the sidecar's addresses.
pub(crate) fn find(
    flags: &EngineHint,
    file: &EngineHint,
    targets: &[String],
    listen: &[SocketAddr],
) -> Result<FoundEngine, MoveError> {
    if let Some(url) = &flags.url {
        refuse_own_address(url, listen, targets)?;
    }
    let mut attempts = Vec::new();
    for url in candidates(flags, file, targets) {
        for kind in kinds(flags, file) {
            let engine = Engine::new(kind, &EngineSetup { url: Some(&url), ..EngineSetup::default() });
            let response =
                block_on(async { tokio::time::timeout(RESPONSE_TIMEOUT, engine.identity()).await });
            let response = response.map_err(|error| MoveError::from_cause(STEP, "no HTTP client", error))?;
            match response
                .unwrap_or_else(|_| Err(EngineError::Unresponsive("no response in time".to_owned())))
            {
                Ok(identity) => return Ok(FoundEngine { kind, url, version: identity.version }),
                Err(EngineError::ConnectionRefused(_)) => {
                    attempts.push(format!("{url} nothing listens"));
                    break;
                }
                Err(error) => attempts.push(format!("{url} {error}")),
            }
        }
    }
    let unit = flags.kind.or(file.kind).unwrap_or(EngineKind::InvokeAi).default_unit();
    let message = format!("no engine answers: {}", attempts.join("; "));
    Err(MoveError::new(
        STEP,
        message,
        format!("start it (`sudo systemctl start {unit}`), or name it: --engine-url http://127.0.0.1:9090"),
    ))
}

/// The engine's process on this host.
#[derive(Debug, Default)]
pub(crate) struct RunningEngine {
    pub(crate) pid: Option<u32>,
    pub(crate) unit: Option<String>,
    pub(crate) output_dir: Option<PathBuf>,
}

/// Examines the process that listens at the engine's address.
pub(crate) fn find_process(found: &FoundEngine, reporter: &mut StepReporter) -> RunningEngine {
    let addresses = found.url.socket_addrs(|| None).unwrap_or_default();
    let holder = addresses.iter().find_map(|address| port::find_holder(*address));
    let Some(process) = holder.as_ref().and_then(port::PortHolder::process) else {
        reporter.warn(
            "engine unit",
            "the engine's process is not on this host, or cannot be determined",
            "set `engine_unit` to the unit that it runs in, if it is on this host",
        );
        return RunningEngine::default();
    };
    warn_if_exposed(found, &addresses, reporter);
    let unit = unit_of(process, found.kind, reporter);
    let (pid, kind) = (process.pid, found.kind);
    let output_dir = with_timeout(PROCESS_TIMEOUT, move || output_dir::find(pid, kind)).flatten();
    match &output_dir {
        Some(dir) => reporter.ok("engine outputs", &dir.display().to_string()),
        None => reporter.warn(
            "engine outputs",
            "the engine's output directory cannot be determined, so its disk is not monitored",
            "--engine-output-dir /path/to/outputs",
        ),
    }
    RunningEngine { pid: Some(pid), unit, output_dir }
}

fn unit_of(process: &Process, kind: EngineKind, reporter: &mut StepReporter) -> Option<String> {
    match process.unit.as_deref() {
        Some(unit) if is_service(unit) => {
            reporter.ok("engine unit", unit);
            Some(unit.to_owned())
        }
        other => {
            let name = kind.name();
            let place = other.map_or_else(|| "no unit".to_owned(), |unit| format!("{unit:?}"));
            reporter.warn(
                "engine unit",
                &format!("{process} runs in {place}: its VRAM cannot be distinguished from other programs', and it does not restart by itself"),
                &format!(
                    "run it as a service (/usr/share/doc/ada2-sidecar/examples/{name}.service); for a container see engine_unit in \
                     /usr/share/doc/ada2-sidecar/GUIDE.md"
                ),
            );
            None
        }
    }
}

/// Whether it is the engine's own service: neither a session, nor what forwards ports to a container.
fn is_service(unit: &str) -> bool {
    let forwards = ["docker.service", "containerd.service", "podman.service"].contains(&unit);
    unit.ends_with(".service") && !unit.starts_with("user@") && !forwards
}

/// An exposed engine bypasses the sidecar's rules.
fn warn_if_exposed(found: &FoundEngine, addresses: &[SocketAddr], reporter: &mut StepReporter) {
    let port = addresses.first().map_or(0, SocketAddr::port);
    let foreign = SocketAddr::from(([203, 0, 113, 1], port));
    // Whoever holds the port for an address that is not this host's holds it for all.
    if port::find_holder(foreign).is_some() {
        let name = found.kind.name();
        let fix = found.kind.fixes().map_or("", |fixes| fixes.loopback);
        reporter.warn(
            "engine address",
            &format!(
                "{name} listens on every address of this host: clients can bypass allow_from and limits"
            ),
            &format!("let it listen on 127.0.0.1:{port} only: {fix}"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_url_is_the_only_candidate_and_others_come_in_order() {
        let url = |text: &str| text.parse::<Url>().unwrap();
        let hint = |kind, address: Option<&str>| EngineHint { kind, url: address.map(url) };
        let targets = ["127.0.0.1:9090".to_owned(), "127.0.0.1:8000".to_owned()];
        for (flags, file, expected) in [
            (
                hint(None, Some("http://10.0.0.1:9")),
                hint(None, Some("http://a:1")),
                &["http://10.0.0.1:9/"][..],
            ),
            (
                hint(None, None),
                hint(None, Some("http://127.0.0.1:7")),
                &[
                    "http://127.0.0.1:7/",
                    "http://127.0.0.1:9090/",
                    "http://127.0.0.1:8000/",
                    "http://127.0.0.1:8188/",
                ],
            ),
        ] {
            let found: Vec<_> = candidates(&flags, &file, &targets).iter().map(ToString::to_string).collect();
            assert_eq!(found[..expected.len()], *expected);
            let others = if flags.url.is_some() { 0 } else { EngineKind::servers().count() - 2 };
            assert_eq!(found.len(), expected.len() + others, "those of further engines: {found:?}");
        }
        let all = kinds(&hint(None, None), &hint(Some(EngineKind::ComfyUi), None));
        assert_eq!(all[..2], [EngineKind::ComfyUi, EngineKind::InvokeAi]);
        assert_eq!(all.len(), EngineKind::servers().count());
        assert_eq!(
            kinds(&hint(Some(EngineKind::InvokeAi), None), &hint(Some(EngineKind::ComfyUi), None)),
            [EngineKind::InvokeAi]
        );
    }

    #[test]
    fn the_port_that_is_taken_over_is_refused_as_the_engines() {
        let everywhere: SocketAddr = "0.0.0.0:7860".parse().unwrap();
        let local: SocketAddr = "127.0.0.1:7860".parse().unwrap();
        for (url, listen, is_own) in [
            ("http://127.0.0.1:7860", everywhere, true),
            ("http://127.1.2.3:7860", everywhere, true),
            ("http://[::1]:7860", everywhere, true),
            ("http://localhost:7860/", local, true),
            ("http://0.0.0.0:7860", everywhere, true),
            ("http://127.0.0.1:9090", everywhere, false),
            ("http://127.0.0.2:7860", local, false),
            ("http://203.0.113.1:7860", everywhere, false),
        ] {
            assert_eq!(is_own_address(&url.parse().unwrap(), &[listen]), is_own, "{url}");
        }
        let refused = |targets: &[String]| {
            refuse_own_address(&"http://127.0.0.1:7860".parse().unwrap(), &[everywhere], targets).unwrap_err()
        };
        assert!(refused(&[]).message.starts_with("--engine-url http://127.0.0.1:7860 is the port"));
        assert!(refused(&[]).fix.ends_with("--engine-url http://127.0.0.1:9090"));
        assert!(refused(&["127.0.0.1:9191".into()]).fix.ends_with("--engine-url http://127.0.0.1:9191"));
    }

    #[test]
    fn sessions_and_port_forwarders_are_not_services() {
        for (unit, service) in [
            ("invokeai.service", true),
            ("my-engine.service", true),
            ("session-3.scope", false),
            ("docker.service", false),
            ("user@1000.service", false),
        ] {
            assert_eq!(is_service(unit), service, "{unit}");
        }
    }
}
