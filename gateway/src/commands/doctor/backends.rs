//! The backends: name resolution, readiness, clock, and version.

mod rules;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures_util::future::join_all;
use reqwest::{Client, Url, header::DATE};
use service::{outbound::read_limited, secret::redact_url};
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};

pub(super) use self::rules::{findings, legacy};
use crate::{
    client::HttpClients,
    commands::target::error_chain,
    config::{Backend, Capability, Config, ImageEngine, ProbeRules},
    health::{
        probe_once,
        state::{Evidence, Health, Readiness, transition},
    },
};

/// For an answer, and for resolving a name.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// For connecting to one of several addresses. Hosts on the same network answer in milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_METRICS_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct BackendFacts {
    class: String,
    makes_images: bool,
    host: String,
    /// Scheme, host and port.
    origin: String,
    addresses: HostAddresses,
    evidence: Evidence,
    health: Health,
    /// How many image requests it gets at once.
    limit: Option<usize>,
    clock: Option<ClockOffset>,
    version: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum HostAddresses {
    /// The host is an address.
    Literal,
    /// All addresses, and those that do not answer while others do.
    Resolved(Vec<IpAddr>, Vec<IpAddr>),
    /// No address, but perhaps a similar name that resolves.
    Unresolved(Option<String>),
    TimedOut,
}

/// How many seconds its clock is ahead of ours: at least the first, at most the second.
#[derive(Debug, Clone, Copy, PartialEq)]
struct ClockOffset(f64, f64);

pub(super) async fn inspect_backends(config: &Config) -> Vec<BackendFacts> {
    let Ok(clients) = HttpClients::new(&config.outbound) else { return Vec::new() };
    let client = clients.pooled();
    let is_mock = config.images.engine == ImageEngine::Mock;
    // With placeholders, no backend gets image requests.
    let is_used =
        |backend: &&Arc<Backend>| !is_mock || backend.limits.keys().any(|kind| *kind != Capability::Images);
    let backends = config.backends.all.iter().filter(is_used);
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
    // A single probe decides here.
    let rules = ProbeRules { threshold: 1, ..config.health };
    let health = transition(&Health::unknown(), evidence.clone(), &rules, now);
    BackendFacts {
        class: backend.class.clone(),
        makes_images: backend.class == config.images.class,
        limit: backend.limits.get(&Capability::Images).copied(),
        host,
        origin: backend.base_url.origin().ascii_serialization(),
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
        let resolves = timeout(CONNECT_TIMEOUT, resolve(&other)).await.is_ok_and(|found| !found.is_empty());
        return HostAddresses::Unresolved(resolves.then_some(other));
    }
    if found.len() == 1 {
        return HostAddresses::Resolved(found, Vec::new());
    }
    // After a refusal clients try the next address at once; an address that does not answer delays every new connection.
    let connect = |address: &IpAddr| TcpStream::connect(SocketAddr::new(*address, port));
    let attempts = join_all(found.iter().map(|address| timeout(CONNECT_TIMEOUT, connect(address)))).await;
    let silent = found.iter().zip(&attempts).filter(|(_, attempt)| attempt.is_err());
    let silent: Vec<_> = silent.map(|(address, _)| *address).collect();
    let connects = attempts.iter().any(|attempt| matches!(attempt, Ok(Ok(_))));
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

/// From the `Date` of an answer, which has whole seconds.
async fn clock_offset(client: &Client, url: &Url) -> Option<ClockOffset> {
    let unix = |time: SystemTime| time.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs_f64());
    let sent = SystemTime::now();
    let started = Instant::now();
    let response = client.get(url.clone()).timeout(PROBE_TIMEOUT).send().await.ok()?;
    let elapsed = started.elapsed().as_secs_f64();
    let date = httpdate::parse_http_date(response.headers().get(DATE)?.to_str().ok()?).ok()?;
    let (date, sent) = (unix(date)?, unix(sent)?);
    // The backend's clock was read between our two readings.
    Some(ClockOffset(date - (sent + elapsed), date + 1.0 - sent))
}

/// The sidecar's version, from its metrics.
async fn version(client: &Client, base: &Url) -> Option<String> {
    let response = client.get(base.join("/metrics").ok()?).timeout(PROBE_TIMEOUT).send().await.ok()?;
    if !response.status().is_success() {
        return None;
    }
    let text = read_limited(response, MAX_METRICS_BYTES).await.ok()?;
    read_version(&String::from_utf8_lossy(&text))
}

fn read_version(metrics: &str) -> Option<String> {
    let line = metrics.lines().find_map(|line| line.strip_prefix("ada2_sidecar_build_info{"))?;
    line.split_once("version=\"")?.1.split('"').next().map(str::to_owned)
}

/// The legacy upstream's address if it answers, else why it does not.
pub(super) async fn ask_legacy(config: &Config) -> Option<Result<String, String>> {
    let legacy = config.legacy.as_ref()?;
    let address = redact_url(&legacy.origin);
    let clients = HttpClients::new(&config.outbound).ok()?;
    Some(match clients.unpooled().get(legacy.origin.clone()).timeout(PROBE_TIMEOUT).send().await {
        Ok(_) => Ok(address),
        Err(error) => Err(format!("{address}: {}", error_chain(&error))),
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
    async fn names_are_resolved() {
        assert_eq!(addresses("127.0.0.1", 1).await, HostAddresses::Literal);
        assert_eq!(addresses("[::1]", 1).await, HostAddresses::Literal);
        assert_eq!(addresses("ada2.invalid", 1).await, HostAddresses::Unresolved(None));
        let HostAddresses::Resolved(found, silent) = addresses("localhost", 1).await else {
            unreachable!("every host resolves it")
        };
        assert!(!found.is_empty() && silent.is_empty(), "a refusal counts as an answer");
    }
}
