//! The servers behind: whether their names lead anywhere, whether they answer, what they say, and whether their clocks and
//! versions go with ours.

mod rules;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures_util::future::join_all;
use reqwest::{Client, Url, header::DATE};
use service::outbound::read_limited;
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};

pub(super) use self::rules::{findings, legacy};
use crate::{
    client::HttpClients,
    config::{Backend, Capability, Config, ImageEngine, ProbeRules},
    health::{
        probe_once,
        state::{Evidence, Health, Readiness, transition},
    },
};

/// For a backend's answer to a probe, and for a name.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// For a connection to one address of several. Hosts on the same network answer in milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of a sidecar's metrics.
const MAX_METRICS_BYTES: usize = 1 << 20;

/// What is known of one.
#[derive(Debug)]
pub(super) struct BackendFacts {
    class: String,
    /// Whether pictures come from it.
    makes_images: bool,
    host: String,
    /// Scheme, host and port.
    origin: String,
    addresses: HostAddresses,
    evidence: Evidence,
    health: Health,
    /// How many pictures at once it is sent.
    limit: Option<usize>,
    clock: Option<ClockOffset>,
    version: Option<String>,
}

/// What its name leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum HostAddresses {
    /// It is an address itself.
    Literal,
    /// To these; the second list does not answer at all, while others do.
    Resolved(Vec<IpAddr>, Vec<IpAddr>),
    /// Nowhere; but this other name does lead somewhere.
    Unresolved(Option<String>),
    /// The resolver did not answer in time.
    TimedOut,
}

/// How far its clock may be ahead of ours, in seconds: not less than the first, not more than the second.
#[derive(Debug, Clone, Copy, PartialEq)]
struct ClockOffset(f64, f64);

/// Looks at all of them at once.
pub(super) async fn inspect_backends(config: &Config) -> Vec<BackendFacts> {
    let Ok(clients) = HttpClients::new(&config.outbound) else { return Vec::new() };
    let client = clients.pooled();
    let is_mock = config.images.engine == ImageEngine::Mock;
    // Nobody asks a backend for pictures while placeholders are made.
    let is_asked =
        |backend: &&Arc<Backend>| !is_mock || backend.limits.keys().any(|kind| *kind != Capability::Images);
    let backends = config.backends.all.iter().filter(is_asked);
    join_all(backends.map(|backend| inspect_backend(&client, backend, config))).await
}

async fn inspect_backend(client: &Client, backend: &Backend, config: &Config) -> BackendFacts {
    let host = backend.base_url.host_str().unwrap_or_default().to_owned();
    let port = backend.base_url.port_or_known_default().unwrap_or(80);
    let (addresses, evidence, clock) = tokio::join!(
        addresses(&host, port),
        probe_once(client, backend, PROBE_TIMEOUT),
        clock_offset(client, &backend.liveness)
    );
    let is_sidecar = matches!(&evidence, Evidence::Answered(answered) if matches!(answered.readiness, Readiness::Report(_)));
    let version = if is_sidecar { version(client, &backend.base_url).await } else { None };
    let now = service::clock::unix_seconds_f64(SystemTime::now());
    // One look decides here.
    let rules = ProbeRules { threshold: 1, ..config.health };
    let health = transition(&Health::unknown(), evidence.clone(), &rules, now);
    BackendFacts {
        class: backend.class.clone(),
        makes_images: backend.class == config.images.class,
        limit: backend.limits.get(&Capability::Images).copied(),
        host,
        origin: super::escaped(&backend.base_url.origin().ascii_serialization()),
        addresses,
        evidence,
        health,
        clock,
        version,
    }
}

async fn addresses(host: &str, port: u16) -> HostAddresses {
    if host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok() {
        return HostAddresses::Literal;
    }
    let Ok(found) = timeout(PROBE_TIMEOUT, resolve(host)).await else { return HostAddresses::TimedOut };
    if found.is_empty() {
        let other = match host.strip_suffix(".local") {
            Some(short) => short.to_owned(),
            None if host.contains('.') => return HostAddresses::Unresolved(None),
            None => format!("{host}.local"),
        };
        let leads = timeout(CONNECT_TIMEOUT, resolve(&other)).await.is_ok_and(|found| !found.is_empty());
        return HostAddresses::Unresolved(leads.then_some(other));
    }
    if found.len() == 1 {
        return HostAddresses::Resolved(found, Vec::new());
    }
    // A refusal is an answer: the next address is tried at once. Silence costs every new connection time.
    let tried = found
        .iter()
        .map(|address| timeout(CONNECT_TIMEOUT, TcpStream::connect(SocketAddr::new(*address, port))));
    let tried = join_all(tried).await;
    let silent: Vec<_> =
        found.iter().zip(&tried).filter(|(_, tried)| tried.is_err()).map(|(address, _)| *address).collect();
    let connects = tried.iter().any(|tried| matches!(tried, Ok(Ok(_))));
    HostAddresses::Resolved(found, if connects { silent } else { Vec::new() })
}

async fn resolve(host: &str) -> Vec<IpAddr> {
    let mut found: Vec<_> = match lookup_host((host, 0)).await {
        Ok(found) => found.map(|address| address.ip()).collect(),
        Err(_) => Vec::new(),
    };
    found.sort_unstable();
    found.dedup();
    found
}

/// What the `Date` of an answer tells of its clock, which is cut to whole seconds.
async fn clock_offset(client: &Client, url: &Url) -> Option<ClockOffset> {
    let unix = |time: SystemTime| time.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs_f64());
    let sent = SystemTime::now();
    let began = Instant::now();
    let answer = client.get(url.clone()).timeout(PROBE_TIMEOUT).send().await.ok()?;
    let took = began.elapsed().as_secs_f64();
    let date = httpdate::parse_http_date(answer.headers().get(DATE)?.to_str().ok()?).ok()?;
    let (date, sent) = (unix(date)?, unix(sent)?);
    // It was read between our two readings.
    Some(ClockOffset(date - (sent + took), date + 1.0 - sent))
}

/// What its metrics say.
async fn version(client: &Client, base: &Url) -> Option<String> {
    let answer = client.get(base.join("/metrics").ok()?).timeout(PROBE_TIMEOUT).send().await.ok()?;
    if !answer.status().is_success() {
        return None;
    }
    let text = read_limited(answer, MAX_METRICS_BYTES).await.ok()?;
    read_version(&String::from_utf8_lossy(&text))
}

fn read_version(metrics: &str) -> Option<String> {
    let line = metrics.lines().find_map(|line| line.strip_prefix("ada2_sidecar_build_info{"))?;
    let version = line.split_once("version=\"")?.1.split('"').next()?;
    Some(super::escaped(version))
}

/// Whether the old gateway behind answers, and why not.
pub(super) async fn ask_legacy(config: &Config) -> Option<Result<String, String>> {
    let legacy = config.legacy.as_ref()?;
    let place = service::secret::redact_url(&legacy.origin);
    let clients = HttpClients::new(&config.outbound).ok()?;
    Some(match clients.unpooled().get(legacy.origin.clone()).timeout(PROBE_TIMEOUT).send().await {
        Ok(_) => Ok(place),
        Err(error) => Err(format!("{place}: {}", super::super::target::error_chain(&error))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_the_metrics() {
        let text = "# HELP x\nada2_sidecar_build_info{version=\"0.1.0\"} 1\nother 2\n";
        assert_eq!(read_version(text).as_deref(), Some("0.1.0"));
        assert_eq!(read_version("ada2_sidecar_build_info{} 1").as_deref(), None);
        assert_eq!(
            read_version("ada2_sidecar_build_info{commit=\"1\",version=\"2.0\"} 1").as_deref(),
            Some("2.0")
        );
        assert_eq!(read_version(""), None);
    }

    #[tokio::test]
    async fn a_name_leads_somewhere_or_nowhere() {
        assert_eq!(addresses("127.0.0.1", 1).await, HostAddresses::Literal);
        assert_eq!(addresses("[::1]", 1).await, HostAddresses::Literal);
        assert_eq!(addresses("ada2.invalid", 1).await, HostAddresses::Unresolved(None));
        let HostAddresses::Resolved(found, silent) = addresses("localhost", 1).await else {
            unreachable!("every host knows it")
        };
        assert!(!found.is_empty() && silent.is_empty(), "refused by all is no silence");
    }
}
