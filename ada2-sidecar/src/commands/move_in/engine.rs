//! Which engine runs here, and as what: told by its own JSON, and by the process that listens at its address.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::Url;

use super::{
    lines::{Lines, Stop, shown},
    output,
    program::bounded,
};
use crate::{
    config::EngineKind,
    engine::{Engine, EngineError},
    port::{self, Process},
};

const STEP: &str = "engine";
/// For one question; an idle engine answers in milliseconds, one that loads a model in seconds.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// For reading of a process: one that is wedged in the driver may hang whoever reads its command line.
const PROCESS_TIME: Duration = Duration::from_secs(3);

/// Where to look.
#[derive(Debug, Default, Clone)]
pub(crate) struct Wanted {
    pub(crate) kind: Option<EngineKind>,
    pub(crate) url: Option<Url>,
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) kind: EngineKind,
    pub(crate) url: Url,
    pub(crate) version: String,
}

impl Found {
    /// As it is written into the configuration.
    pub(crate) fn address(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }
}

/// Whether the sidecar itself will listen there.
fn is_ours(url: &Url) -> bool {
    let listen = super::units::addresses().unwrap_or_default();
    let here = matches!(url.host_str(), Some("127.0.0.1" | "localhost" | "[::1]" | "0.0.0.0"));
    here && listen.iter().any(|address| Some(address.port()) == url.port_or_known_default())
}

/// The addresses to ask: the one that a flag names alone; else the file's, nginx's, and the usual ones.
fn candidates(flags: &Wanted, file: &Wanted, targets: &[String]) -> Vec<Url> {
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
fn kinds(flags: &Wanted, file: &Wanted) -> Vec<EngineKind> {
    match (flags.kind, file.kind) {
        (Some(kind), _) => vec![kind],
        (None, Some(EngineKind::ComfyUi)) => vec![EngineKind::ComfyUi, EngineKind::InvokeAi],
        (None, _) => vec![EngineKind::InvokeAi, EngineKind::ComfyUi],
    }
}

/// Asks each until one says who it is.
pub(crate) fn find(flags: &Wanted, file: &Wanted, targets: &[String]) -> Result<Found, Stop> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Stop::failed(STEP, "no HTTP client", error))?;
    let mut said = Vec::new();
    if let Some(url) = flags.url.as_ref().filter(|url| is_ours(url)) {
        let message = format!("{url} is the port that the sidecar takes over");
        return Err(Stop::at(
            STEP,
            message,
            "name the engine's own address: --engine-url http://127.0.0.1:9090",
        ));
    }
    for url in candidates(flags, file, targets) {
        for kind in kinds(flags, file) {
            let engine = Engine::new(kind, Some(&url), "");
            let asked =
                runtime.block_on(async { tokio::time::timeout(ANSWER_TIME, engine.identity()).await });
            match asked.unwrap_or_else(|_| Err(EngineError::NoAnswer("no answer in time".to_owned()))) {
                Ok(identity) => return Ok(Found { kind, url, version: shown(&identity.version) }),
                Err(EngineError::Refused(_)) => {
                    said.push(format!("{url} nobody listens"));
                    break;
                }
                Err(why) => said.push(format!("{url} {why}")),
            }
        }
    }
    let unit = flags.kind.or(file.kind).unwrap_or(EngineKind::InvokeAi).default_unit();
    let message = format!("no InvokeAI or ComfyUI answers: {}", said.join("; "));
    Err(Stop::at(
        STEP,
        message,
        format!("start it (`sudo systemctl start {unit}`), or name it: --engine-url http://127.0.0.1:9090"),
    ))
}

/// What runs the engine on this host.
#[derive(Debug, Default)]
pub(crate) struct Runner {
    pub(crate) pid: Option<u32>,
    /// The service that it is, if it is one.
    pub(crate) unit: Option<String>,
    /// Where it writes its pictures.
    pub(crate) outputs: Option<PathBuf>,
}

/// Looks at the process that listens there.
pub(crate) fn runner(found: &Found, lines: &mut Lines) -> Runner {
    let addresses = found.url.socket_addrs(|| None).unwrap_or_default();
    let holder = addresses.iter().find_map(|address| port::holder(*address));
    let Some(process) = holder.as_ref().and_then(port::Holder::process) else {
        lines.warn(
            "engine unit",
            "the engine's process is not on this host, or cannot be told",
            "set `engine_unit` to the unit that it runs in, if it is on this host",
        );
        return Runner::default();
    };
    warn_if_open(found, &addresses, lines);
    let unit = unit_of(process, found.kind, lines);
    let (pid, kind) = (process.pid, found.kind);
    let outputs = bounded(PROCESS_TIME, move || output::of(pid, kind)).flatten();
    match &outputs {
        Some(folder) => lines.ok("engine outputs", &folder.display().to_string()),
        None => lines.warn(
            "engine outputs",
            "the folder of the engine's pictures cannot be told, so its disk is not watched",
            "--engine-output-dir /path/to/outputs",
        ),
    }
    Runner { pid: Some(pid), unit, outputs }
}

fn unit_of(process: &Process, kind: EngineKind, lines: &mut Lines) -> Option<String> {
    match process.unit.as_deref() {
        Some(unit) if is_a_service(unit) => {
            lines.ok("engine unit", unit);
            Some(unit.to_owned())
        }
        other => {
            let name = kind.name();
            let where_it_is = other.map_or_else(|| "no unit".to_owned(), |unit| format!("{unit:?}"));
            lines.warn(
                "engine unit",
                &format!("{process} runs in {where_it_is}: its VRAM cannot be told from others', and it does not come back by itself"),
                &format!(
                    "run it as a service: /usr/share/doc/ada2-sidecar/examples/{name}.service; for a container see engine_unit in \
                     /usr/share/doc/ada2-sidecar/README.md"
                ),
            );
            None
        }
    }
}

/// Neither a session, nor what forwards ports to a container.
fn is_a_service(unit: &str) -> bool {
    let forwards = ["docker.service", "containerd.service", "podman.service"].contains(&unit);
    unit.ends_with(".service") && !unit.starts_with("user@") && !forwards
}

/// An engine that all can reach makes every rule of ours one to walk around.
fn warn_if_open(found: &Found, asked: &[SocketAddr], lines: &mut Lines) {
    let port = asked.first().map_or(0, SocketAddr::port);
    let elsewhere = SocketAddr::from(([203, 0, 113, 1], port));
    // Held for an address that is not this host's: held for all.
    if port::holder(elsewhere).is_some() {
        let (name, address) = (found.kind.name(), format!("127.0.0.1:{port}"));
        lines.warn(
            "engine address",
            &format!("{name} listens on every address of this host: whoever reaches it there passes allow_from and limits by"),
            &format!("have it listen on {address} (InvokeAI: `host: 127.0.0.1` in invokeai.yaml; ComfyUI: `--listen 127.0.0.1`)"),
        );
    }
}

/// The folder, if it is the same for us as for the process, which may be in a container.
pub(crate) fn as_seen_from_here(pid: u32, folder: &Path) -> Option<PathBuf> {
    use std::os::unix::fs::MetadataExt;
    let inside = Path::new("/proc").join(pid.to_string()).join("root").join(folder.strip_prefix("/").ok()?);
    let (here, there) = (fs::metadata(folder).ok()?, fs::metadata(inside).ok()?);
    (here.is_dir() && (here.dev(), here.ino()) == (there.dev(), there.ino())).then(|| folder.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_address_is_the_only_one_and_others_come_in_order() {
        let url = |text: &str| text.parse::<Url>().unwrap();
        let wanted = |kind, address: Option<&str>| Wanted { kind, url: address.map(url) };
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
    fn what_only_forwards_or_was_started_by_hand_is_no_service() {
        for (unit, service) in [
            ("invokeai.service", true),
            ("my-engine.service", true),
            ("session-3.scope", false),
            ("docker.service", false),
            ("user@1000.service", false),
        ] {
            assert_eq!(is_a_service(unit), service, "{unit}");
        }
    }
}
