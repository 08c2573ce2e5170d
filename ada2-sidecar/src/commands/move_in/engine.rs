//! Which engine runs here, and as what: told by its own JSON, and by the process that listens at its address.

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
    config::EngineKind,
    engine::{Engine, EngineError},
    port::{self, Process},
};

const STEP: &str = "engine";
/// For one question; an idle engine answers in milliseconds, one that loads a model in seconds.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// For reading of a process: one that is wedged in the driver may hang whoever reads its command line.
const PROCESS_TIMEOUT: Duration = Duration::from_secs(3);

/// Where to look.
#[derive(Debug, Default, Clone)]
pub(crate) struct EngineHint {
    pub(crate) kind: Option<EngineKind>,
    pub(crate) url: Option<Url>,
}

/// What was found.
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

/// Whether this leads to one of the addresses where the sidecar itself will listen.
fn is_own_address(url: &Url, listen: &[SocketAddr]) -> bool {
    let named = url.clone();
    // A resolver may hang.
    let resolved = with_timeout(RESPONSE_TIMEOUT, move || named.socket_addrs(|| None).unwrap_or_default());
    resolved
        .unwrap_or_default()
        .iter()
        .any(|asked| is_local(asked.ip()) && listen.iter().any(|own| port::conflict(*own, *asked)))
}

/// What the kernel would itself send from to get there. Nothing is sent.
fn is_local(ip: IpAddr) -> bool {
    let from = |any: IpAddr| {
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect((ip, 9)).ok()?;
        socket.local_addr().ok()
    };
    let any = if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    ip.is_loopback() || ip.is_unspecified() || from(any).is_some_and(|from| from.ip() == ip)
}

/// An engine's address that would have the sidecar ask itself, with what nginx asks in its place if that is known.
fn refuse_own_address(url: &Url, listen: &[SocketAddr], targets: &[String]) -> Result<(), MoveError> {
    if !is_own_address(url, listen) {
        return Ok(());
    }
    let address = url.as_str().trim_end_matches('/');
    let message = format!("--engine-url {address}: that is the port that the sidecar takes over");
    let engine = targets.first().map_or("127.0.0.1:9090", String::as_str);
    Err(MoveError::new(STEP, message, format!("sudo ada2-sidecar move-in --engine-url http://{engine}")))
}

/// The addresses to ask: the one that a flag names alone; else the file's, nginx's, and the usual ones.
fn candidates(flags: &EngineHint, file: &EngineHint, targets: &[String]) -> Vec<Url> {
    if let Some(url) = &flags.url {
        return vec![url.clone()];
    }
    let nginx = targets.iter().filter_map(|target| format!("http://{target}").parse().ok());
    let usual = [EngineKind::InvokeAi, EngineKind::ComfyUi].into_iter().filter_map(EngineKind::default_url);
    let mut all: Vec<Url> = Vec::new();
    for url in file.url.clone().into_iter().chain(nginx).chain(usual) {
        if !all.contains(&url) {
            all.push(url);
        }
    }
    all
}

/// What to ask for at each: what a flag names alone; else both, the file's first.
fn kinds(flags: &EngineHint, file: &EngineHint) -> Vec<EngineKind> {
    match (flags.kind, file.kind) {
        (Some(kind), _) => vec![kind],
        (None, Some(EngineKind::ComfyUi)) => vec![EngineKind::ComfyUi, EngineKind::InvokeAi],
        (None, _) => vec![EngineKind::InvokeAi, EngineKind::ComfyUi],
    }
}

/// Asks each until one says who it is. `listen`: where the sidecar will.
pub(crate) fn find(
    flags: &EngineHint,
    file: &EngineHint,
    targets: &[String],
    listen: &[SocketAddr],
) -> Result<FoundEngine, MoveError> {
    if let Some(url) = &flags.url {
        refuse_own_address(url, listen, targets)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| MoveError::from_cause(STEP, "no HTTP client", error))?;
    let mut attempts = Vec::new();
    for url in candidates(flags, file, targets) {
        for kind in kinds(flags, file) {
            let engine = Engine::new(kind, Some(&url), "");
            let response =
                runtime.block_on(async { tokio::time::timeout(RESPONSE_TIMEOUT, engine.identity()).await });
            match response.unwrap_or_else(|_| Err(EngineError::Unresponsive("no answer in time".to_owned())))
            {
                Ok(identity) => return Ok(FoundEngine { kind, url, version: identity.version }),
                Err(EngineError::ConnectionRefused(_)) => {
                    attempts.push(format!("{url} nobody listens"));
                    break;
                }
                Err(why) => attempts.push(format!("{url} {why}")),
            }
        }
    }
    let unit = flags.kind.or(file.kind).unwrap_or(EngineKind::InvokeAi).default_unit();
    let message = format!("no InvokeAI or ComfyUI answers: {}", attempts.join("; "));
    Err(MoveError::new(
        STEP,
        message,
        format!("start it (`sudo systemctl start {unit}`), or name it: --engine-url http://127.0.0.1:9090"),
    ))
}

/// What runs the engine on this host.
#[derive(Debug, Default)]
pub(crate) struct RunningEngine {
    pub(crate) pid: Option<u32>,
    /// The service that it is, if it is one.
    pub(crate) unit: Option<String>,
    /// Where it writes its pictures.
    pub(crate) output_dir: Option<PathBuf>,
}

/// Looks at the process that listens there.
pub(crate) fn find_process(found: &FoundEngine, reporter: &mut StepReporter) -> RunningEngine {
    let addresses = found.url.socket_addrs(|| None).unwrap_or_default();
    let holder = addresses.iter().find_map(|address| port::find_holder(*address));
    let Some(process) = holder.as_ref().and_then(port::PortHolder::process) else {
        reporter.warn(
            "engine unit",
            "the engine's process is not on this host, or cannot be told",
            "set `engine_unit` to the unit that it runs in, if it is on this host",
        );
        return RunningEngine::default();
    };
    warn_if_exposed(found, &addresses, reporter);
    let unit = unit_of(process, found.kind, reporter);
    let (pid, kind) = (process.pid, found.kind);
    let outputs = with_timeout(PROCESS_TIMEOUT, move || output_dir::find(pid, kind)).flatten();
    match &outputs {
        Some(folder) => reporter.ok("engine outputs", &folder.display().to_string()),
        None => reporter.warn(
            "engine outputs",
            "the folder of the engine's pictures cannot be told, so its disk is not watched",
            "--engine-output-dir /path/to/outputs",
        ),
    }
    RunningEngine { pid: Some(pid), unit, output_dir: outputs }
}

fn unit_of(process: &Process, kind: EngineKind, reporter: &mut StepReporter) -> Option<String> {
    match process.unit.as_deref() {
        Some(unit) if is_service(unit) => {
            reporter.ok("engine unit", unit);
            Some(unit.to_owned())
        }
        other => {
            let name = kind.name();
            let where_it_is = other.map_or_else(|| "no unit".to_owned(), |unit| format!("{unit:?}"));
            reporter.warn(
                "engine unit",
                &format!("{process} runs in {where_it_is}: its VRAM cannot be told from others', and it does not come back by itself"),
                &format!(
                    "run it as a service: /usr/share/doc/ada2-sidecar/examples/{name}.service; for a container see engine_unit in \
                     /usr/share/doc/ada2-sidecar/GUIDE.md"
                ),
            );
            None
        }
    }
}

/// Neither a session, nor what forwards ports to a container.
fn is_service(unit: &str) -> bool {
    let forwards = ["docker.service", "containerd.service", "podman.service"].contains(&unit);
    unit.ends_with(".service") && !unit.starts_with("user@") && !forwards
}

/// An engine that all can reach makes every rule of ours one to walk around.
fn warn_if_exposed(found: &FoundEngine, asked: &[SocketAddr], reporter: &mut StepReporter) {
    let port = asked.first().map_or(0, SocketAddr::port);
    let elsewhere = SocketAddr::from(([203, 0, 113, 1], port));
    // Held for an address that is not this host's: held for all.
    if port::find_holder(elsewhere).is_some() {
        let (name, address) = (found.kind.name(), format!("127.0.0.1:{port}"));
        reporter.warn(
            "engine address",
            &format!("{name} listens on every address of this host: whoever reaches it there passes allow_from and limits by"),
            &format!("have it listen on {address} (InvokeAI: `host: 127.0.0.1` in invokeai.yaml; ComfyUI: `--listen 127.0.0.1`)"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_address_is_the_only_one_and_others_come_in_order() {
        let url = |text: &str| text.parse::<Url>().unwrap();
        let wanted = |kind, address: Option<&str>| EngineHint { kind, url: address.map(url) };
        let targets = ["127.0.0.1:9090".to_owned(), "127.0.0.1:8000".to_owned()];
        for (flags, file, expected) in [
            (
                wanted(None, Some("http://10.0.0.1:9")),
                wanted(None, Some("http://a:1")),
                &["http://10.0.0.1:9/"][..],
            ),
            (
                wanted(None, None),
                wanted(None, Some("http://127.0.0.1:7")),
                &[
                    "http://127.0.0.1:7/",
                    "http://127.0.0.1:9090/",
                    "http://127.0.0.1:8000/",
                    "http://127.0.0.1:8188/",
                ],
            ),
        ] {
            let found: Vec<_> = candidates(&flags, &file, &targets).iter().map(ToString::to_string).collect();
            assert_eq!(found, expected);
        }
        let both = [EngineKind::ComfyUi, EngineKind::InvokeAi];
        assert_eq!(kinds(&wanted(None, None), &wanted(Some(EngineKind::ComfyUi), None)), both);
        assert_eq!(
            kinds(&wanted(Some(EngineKind::InvokeAi), None), &wanted(Some(EngineKind::ComfyUi), None)),
            [EngineKind::InvokeAi]
        );
    }

    #[test]
    fn the_port_that_is_taken_over_is_no_engines() {
        let everywhere: SocketAddr = "0.0.0.0:7860".parse().unwrap();
        let local: SocketAddr = "127.0.0.1:7860".parse().unwrap();
        for (url, listen, ours) in [
            ("http://127.0.0.1:7860", everywhere, true),
            ("http://127.1.2.3:7860", everywhere, true),
            ("http://[::1]:7860", everywhere, true),
            ("http://localhost:7860/", local, true),
            ("http://0.0.0.0:7860", everywhere, true),
            ("http://127.0.0.1:9090", everywhere, false),
            ("http://127.0.0.2:7860", local, false),
            ("http://203.0.113.1:7860", everywhere, false),
        ] {
            assert_eq!(is_own_address(&url.parse().unwrap(), &[listen]), ours, "{url}");
        }
        let refused = |targets: &[String]| {
            refuse_own_address(&"http://127.0.0.1:7860".parse().unwrap(), &[everywhere], targets).unwrap_err()
        };
        assert!(refused(&[]).message.starts_with("--engine-url http://127.0.0.1:7860: that is the port"));
        assert!(refused(&[]).fix.ends_with("--engine-url http://127.0.0.1:9090"));
        assert!(refused(&["127.0.0.1:9191".into()]).fix.ends_with("--engine-url http://127.0.0.1:9191"));
    }

    #[test]
    fn what_only_forwards_or_was_started_by_hand_is_no_service() {
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
