//! Two guards against the browser as an attacker: which `Host` we answer to (DNS rebinding), and which `Origin`
//! may speak where no token was checked (drive-by posts). And which addresses may come. Pure rules.

mod patterns;

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderValue, Request, Version, header, uri::Authority};
use ipnet::IpNet;

pub use self::patterns::{HostPattern, WebOrigin};
use self::patterns::{default_port, is_address, normal_host};
use super::{client::Client, secret::redacted_address, settings::Settings};

/// Why a request does not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// No `Host` in HTTP/1.1, several, or one that cannot be read.
    BadHost,
    /// This `Host` is not ours.
    ForeignHost(String),
    /// This `Origin` is not ours.
    ForeignOrigin(String),
}

/// Endings of names that the public DNS cannot hand to an attacker.
const PRIVATE_ENDINGS: &[&str] = &[".local", ".lan", ".home.arpa", ".internal", ".localhost"];

/// The names and origins that are ours besides the ones that are ours by nature.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    /// Further values of `Host`, without port.
    pub allowed_hosts: Vec<HostPattern>,
    /// Further values of `Origin`.
    pub allowed_origins: Vec<WebOrigin>,
}

impl Guard {
    /// Reads both lists from the settings of these names. Every entry that could never match is a problem.
    pub fn read(settings: &mut Settings, hosts: &str, origins: &str) -> Option<Self> {
        let allowed_hosts = entries(settings, hosts, HostPattern::parse);
        let allowed_origins = entries(settings, origins, WebOrigin::parse);
        Some(Self { allowed_hosts: allowed_hosts?, allowed_origins: allowed_origins? })
    }

    /// Passes IP addresses, names without a dot, names under private endings, and `allowed_hosts`; and a request of
    /// HTTP/1.0 that names no host, which no browser sends. The host that a trusted proxy was asked for must pass as well.
    pub fn host<B>(&self, request: &Request<B>, client: &Client) -> Result<(), Refusal> {
        let target = request.uri().authority();
        let mut given = request.headers().get_all(header::HOST).iter();
        let host: Authority = match (given.next(), target) {
            (Some(host), _) => {
                host.to_str().ok().and_then(|host| host.parse().ok()).ok_or(Refusal::BadHost)?
            }
            (None, _) if request.version() > Version::HTTP_10 => return Err(Refusal::BadHost),
            (None, Some(target)) => target.clone(),
            (None, None) => return self.forwarded_host(client),
        };
        let one = given.next().is_none() && !host.as_str().contains('@');
        let same = target.is_none_or(|target| target == &host);
        if !one || !same {
            return Err(Refusal::BadHost);
        }
        self.name(&host)?;
        self.forwarded_host(client)
    }

    fn forwarded_host(&self, client: &Client) -> Result<(), Refusal> {
        client.host.as_ref().map_or(Ok(()), |host| self.name(host))
    }

    fn name(&self, host: &Authority) -> Result<(), Refusal> {
        let name = normal_host(host.host()).ok_or(Refusal::BadHost)?;
        let allowed = || self.allowed_hosts.iter().any(|allowed| allowed.matches(&name));
        if is_address(&name) || is_private_name(&name) || allowed() {
            Ok(())
        } else {
            Err(Refusal::ForeignHost(cut(&name)))
        }
    }

    /// Passes a request without `Origin`, one whose origin's host and port are those of `Host` (of `X-Forwarded-Host`
    /// where a trusted proxy says it), and `allowed_origins`. `null` never passes.
    pub fn origin(&self, headers: &HeaderMap, client: &Client) -> Result<(), Refusal> {
        let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
        let text = origin.to_str().unwrap_or("unreadable");
        let one = headers.get_all(header::ORIGIN).iter().count() == 1;
        let asked = client.host.clone().or_else(|| headers.get(header::HOST)?.to_str().ok()?.parse().ok());
        let own = one && WebOrigin::of(text).zip(asked).is_some_and(|(origin, host)| is_at(&origin, &host));
        if own || self.allowed_origin(headers).is_some() {
            Ok(())
        } else {
            Err(Refusal::ForeignOrigin(cut(text)))
        }
    }

    /// The request's one `Origin` as it came, where it is in `allowed_origins`.
    pub fn allowed_origin<'a>(&self, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
        let mut given = headers.get_all(header::ORIGIN).iter();
        let origin = given.next().filter(|_| given.next().is_none())?;
        let asked = WebOrigin::of(origin.to_str().ok()?)?;
        self.allowed_origins.contains(&asked).then_some(origin)
    }
}

/// The entries of a list between its commas. A password may hold a comma: what stands before an `@` without a scheme of its own
/// is one entry with what it can be the rest of, so that no part of it is quoted.
fn split(text: &str) -> Vec<String> {
    let mut items: Vec<String> = Vec::new();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let is_rest = item.contains('@') && !item.contains("://");
        let begins = |item: &String| {
            item.split_once("://").map_or(item.as_str(), |(_, rest)| rest).contains([':', '@'])
        };
        match items.iter().rposition(begins).filter(|_| is_rest) {
            Some(begin) => {
                let whole = [&items.split_off(begin)[..], &[item.to_owned()]].concat().join(",");
                items.push(whole);
            }
            None => items.push(item.to_owned()),
        }
    }
    items
}

/// The comma-separated entries of a setting, or `None` and a problem for each that is none.
fn entries<T>(settings: &mut Settings, key: &str, parse: fn(&str) -> Result<T, String>) -> Option<Vec<T>> {
    let items = split(settings.raw(key).unwrap_or_default());
    let before = settings.problems.len();
    let mut entry = |item: &String| {
        if item.contains('@') {
            let found = redacted_address(item);
            settings.complain(key, format!("expected no user name and no password, found {found:?}"));
            return None;
        }
        let complain = |why| settings.complain(key, format!("{why}, found {item:?}"));
        parse(item).map_err(complain).ok()
    };
    let entries = items.iter().filter_map(&mut entry).collect();
    (settings.problems.len() == before).then_some(entries)
}

/// Whether a name, in lower case and without a dot at its end, is one that the public DNS cannot hand out.
pub fn is_private_name(name: &str) -> bool {
    !name.contains('.') || PRIVATE_ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// Foreign text for an answer or a log.
fn cut(text: &str) -> String {
    text.chars().take(100).collect()
}

/// Whether the page came from this host and port. A scheme's default port need not be written.
fn is_at(origin: &WebOrigin, host: &Authority) -> bool {
    let default = default_port(&origin.scheme);
    default.is_some()
        && normal_host(host.host()).as_ref() == Some(&origin.host)
        && host.port_u16().or(default) == origin.port
}

/// Whether an address is in one of the ranges. IPv4-mapped IPv6 addresses count as what they map.
pub fn in_ranges(address: IpAddr, ranges: &[IpNet]) -> bool {
    let address = address.to_canonical();
    ranges.iter().any(|range| range.contains(&address))
}

/// Loopback, private and carrier-grade ranges (Tailscale's): the default of who may come.
pub const PRIVATE_RANGES: &str = "127.0.0.0/8,::1/128,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,169.254.0.0/16,\
                                  fe80::/10,fc00::/7,100.64.0.0/10";

#[cfg(test)]
mod tests;
