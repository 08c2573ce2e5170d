//! Guards against attacks through a browser: which `Host` we answer to (DNS rebinding), and which `Origin` may send
//! requests where no token was checked (cross-site requests). Pure.

mod patterns;

use axum::http::{HeaderMap, HeaderValue, Request, Version, header, uri::Authority};

pub use self::patterns::{HostPattern, WebOrigin};
use self::patterns::{default_port, is_address, normalize_host};
use super::{client_info::ClientInfo, secret::redact_url_text, settings::Settings, text::prefix};

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuardError {
    /// No `Host` in HTTP/1.1, several, or one that is malformed.
    InvalidHost,
    /// The `Host` is not ours.
    HostNotAllowed(String),
    /// The `Origin` is not allowed.
    OriginNotAllowed(String),
}

/// Characters of a host or origin that an error quotes.
const MAX_QUOTED_CHARS: usize = 100;

/// Suffixes of names that nobody can register in the public DNS.
const PRIVATE_SUFFIXES: &[&str] = &[".local", ".lan", ".home.arpa", ".internal", ".localhost"];

/// The names and origins that are allowed besides private ones.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    /// Values of `Host`, without port.
    pub allowed_hosts: Vec<HostPattern>,
    /// Values of `Origin`.
    pub allowed_origins: Vec<WebOrigin>,
}

impl Guard {
    /// Reads both lists from these settings. An entry that could never match is a problem.
    pub fn from_settings(settings: &mut Settings, hosts: &str, origins: &str) -> Option<Self> {
        let allowed_hosts = parse_entries(settings, hosts, HostPattern::parse);
        let allowed_origins = parse_entries(settings, origins, WebOrigin::parse);
        Some(Self { allowed_hosts: allowed_hosts?, allowed_origins: allowed_origins? })
    }

    /// Passes IP addresses, names without a dot, names under private suffixes, and `allowed_hosts`; and HTTP/1.0 without
    /// `Host`, which no browser sends. The `X-Forwarded-Host` of a trusted proxy must pass as well.
    pub fn check_host<B>(&self, request: &Request<B>, client: &ClientInfo) -> Result<(), GuardError> {
        let target = request.uri().authority();
        let mut hosts = request.headers().get_all(header::HOST).iter();
        let host: Authority = match (hosts.next(), target) {
            (Some(host), _) => {
                host.to_str().ok().and_then(|host| host.parse().ok()).ok_or(GuardError::InvalidHost)?
            }
            (None, _) if request.version() > Version::HTTP_10 => return Err(GuardError::InvalidHost),
            (None, Some(target)) => target.clone(),
            (None, None) => return self.check_forwarded_host(client),
        };
        let is_single = hosts.next().is_none() && !host.as_str().contains('@');
        if !is_single || target.is_some_and(|target| target != &host) {
            return Err(GuardError::InvalidHost);
        }
        self.check_name(&host)?;
        self.check_forwarded_host(client)
    }

    fn check_forwarded_host(&self, client: &ClientInfo) -> Result<(), GuardError> {
        client.host.as_ref().map_or(Ok(()), |host| self.check_name(host))
    }

    fn check_name(&self, host: &Authority) -> Result<(), GuardError> {
        let name = normalize_host(host.host()).ok_or(GuardError::InvalidHost)?;
        let allowed = || self.allowed_hosts.iter().any(|allowed| allowed.matches(&name));
        if is_address(&name) || is_private_name(&name) || allowed() {
            Ok(())
        } else {
            Err(GuardError::HostNotAllowed(prefix(&name, MAX_QUOTED_CHARS).to_owned()))
        }
    }

    /// Passes requests without `Origin`, same-origin requests (compared with `Host`, or with the `X-Forwarded-Host` of a
    /// trusted proxy), and `allowed_origins`. `null` never passes.
    pub fn check_origin(&self, headers: &HeaderMap, client: &ClientInfo) -> Result<(), GuardError> {
        let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
        let text = origin.to_str().unwrap_or("unreadable");
        let is_single = headers.get_all(header::ORIGIN).iter().count() == 1;
        let requested_host =
            client.host.clone().or_else(|| headers.get(header::HOST)?.to_str().ok()?.parse().ok());
        let is_same_origin = is_single
            && WebOrigin::from_header(text)
                .zip(requested_host)
                .is_some_and(|(origin, host)| matches_host(&origin, &host));
        if is_same_origin || self.allowed_origin(headers).is_some() {
            Ok(())
        } else {
            Err(GuardError::OriginNotAllowed(prefix(text, MAX_QUOTED_CHARS).to_owned()))
        }
    }

    /// The request's `Origin`, if it is the only one and in `allowed_origins`.
    pub fn allowed_origin<'a>(&self, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let origin = origins.next().filter(|_| origins.next().is_none())?;
        let parsed = WebOrigin::from_header(origin.to_str().ok()?)?;
        self.allowed_origins.contains(&parsed).then_some(origin)
    }
}

/// Splits a list at its commas. A password may contain a comma: an item with an `@` and without a scheme is joined with the
/// items that it may continue, so that no error quotes a part of a password.
fn split_entries(text: &str) -> Vec<String> {
    let mut items: Vec<String> = Vec::new();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let is_rest = item.contains('@') && !item.contains("://");
        let begins = |item: &String| {
            item.split_once("://").map_or(item.as_str(), |(_, rest)| rest).contains([':', '@'])
        };
        match items.iter().rposition(begins).filter(|_| is_rest) {
            Some(begin) => {
                let joined = [&items.split_off(begin)[..], &[item.to_owned()]].concat().join(",");
                items.push(joined);
            }
            None => items.push(item.to_owned()),
        }
    }
    items
}

/// The comma-separated entries of a setting, or `None` and a problem for each invalid one.
fn parse_entries<T>(
    settings: &mut Settings,
    key: &str,
    parse: fn(&str) -> Result<T, String>,
) -> Option<Vec<T>> {
    let items = split_entries(settings.raw(key).unwrap_or_default());
    let before = settings.problems.len();
    let mut entry = |item: &String| {
        if item.contains('@') {
            let redacted = redact_url_text(item);
            settings.add_problem(key, format!("expected no user name or password, found {redacted:?}"));
            return None;
        }
        let add_problem = |why| settings.add_problem(key, format!("{why}, found {item:?}"));
        parse(item).map_err(add_problem).ok()
    };
    let entries = items.iter().filter_map(&mut entry).collect();
    (settings.problems.len() == before).then_some(entries)
}

/// Whether nobody can register this name in the public DNS. Expects lower case and no trailing dot.
pub fn is_private_name(name: &str) -> bool {
    !name.contains('.') || PRIVATE_SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

/// Whether the page came from this host and port. The scheme's default port may be omitted.
fn matches_host(origin: &WebOrigin, host: &Authority) -> bool {
    let default = default_port(&origin.scheme);
    default.is_some()
        && normalize_host(host.host()).as_ref() == Some(&origin.host)
        && host.port_u16().or(default) == origin.port
}

#[cfg(test)]
mod tests;
