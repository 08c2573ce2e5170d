//! The names and addresses of this host, and those that an authority may sign for.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

/// Domains that do not exist on the internet: the same that `Host` may be under without being configured.
const PRIVATE_DOMAINS: [&str; 5] = ["localhost", "local", "lan", "home.arpa", "internal"];
/// Names of this host in Docker's and Podman's containers.
const CONTAINER_HOST_NAMES: [&str; 2] = ["host.docker.internal", "host.containers.internal"];
/// Addresses that do not exist on the internet.
const PRIVATE_RANGES: [&str; 9] = [
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
    "100.64.0.0/10",
    "::1/128",
    "fc00::/7",
    "fe80::/10",
];

/// The host's short name; empty if it has none that a certificate can hold.
pub(super) fn short_host() -> String {
    host_name().split('.').next().unwrap_or_default().to_owned()
}

fn host_name() -> String {
    let name = hostname::get().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let name = name.to_ascii_lowercase().trim_matches('.').to_owned();
    // Some clients reject a whole certificate for one invalid name.
    let is_valid = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if is_valid && !name.contains("..") { name } else { String::new() }
}

pub(crate) fn host_names() -> BTreeSet<String> {
    let short = short_host();
    let local = if short.is_empty() { String::new() } else { format!("{short}.local") };
    let mut names = BTreeSet::from(["localhost".to_owned(), host_name(), short, local]);
    names.extend(["127.0.0.1", "::1"].map(str::to_owned));
    names.extend(CONTAINER_HOST_NAMES.map(str::to_owned));
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    names.extend(interfaces.iter().map(|interface| interface.ip().to_string()));
    names.remove("");
    names
}

/// The name by which the local network finds this host, which its certificate has; `localhost` if it has none.
pub(crate) fn local_name() -> String {
    let is_local = |name: &String| name.strip_suffix(".local").is_some();
    host_names().into_iter().find(is_local).unwrap_or_else(|| "localhost".to_owned())
}

/// Names that an authority may sign for; `None` is any.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct PermittedSubtrees {
    /// Each with every name below.
    pub(crate) domains: Option<Vec<String>>,
    pub(crate) ranges: Option<Vec<IpNet>>,
}

impl PermittedSubtrees {
    /// For a new authority: private names and addresses, and those that the host has now.
    pub(super) fn private_plus(names: &BTreeSet<String>) -> Self {
        let mut domains: Vec<_> = PRIVATE_DOMAINS.map(str::to_owned).to_vec();
        let mut ranges: Vec<IpNet> =
            PRIVATE_RANGES.iter().map(|range| range.parse().expect("a valid range")).collect();
        for name in names {
            match name.parse::<IpAddr>() {
                Ok(address) if !contain(&ranges, address) => ranges.push(enclosing_network(address)),
                Err(_) if !covers(&domains, name) => domains.push(name.clone()),
                Ok(_) | Err(_) => {}
            }
        }
        Self { domains: Some(domains), ranges: Some(ranges) }
    }

    /// Whether a certificate of the authority may have this name or address.
    pub(super) fn allows(&self, name: &str) -> bool {
        match name.parse::<IpAddr>() {
            Ok(address) => self.ranges.as_ref().is_none_or(|ranges| contain(ranges, address)),
            Err(_) => self.domains.as_ref().is_none_or(|domains| covers(domains, name)),
        }
    }
}

/// For IPv6 the whole network: hosts change their address every day.
fn enclosing_network(address: IpAddr) -> IpNet {
    let bits = if address.is_ipv4() { 32 } else { 64 };
    IpNet::new_assert(address, bits).trunc()
}

fn contain(ranges: &[IpNet], address: IpAddr) -> bool {
    ranges.iter().any(|range| range.contains(&address))
}

fn covers(domains: &[String], name: &str) -> bool {
    let below = |domain: &str| {
        let rest = name.strip_suffix(domain.trim_start_matches('.'));
        rest.is_some_and(|rest| rest.is_empty() && !domain.starts_with('.') || rest.ends_with('.'))
    };
    domains.iter().any(|domain| below(domain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_include_localhost_and_loopback() {
        for name in ["localhost", "127.0.0.1", "::1"] {
            assert!(host_names().contains(name), "{:?}", host_names());
        }
    }

    #[test]
    fn an_authority_may_sign_for_private_names_and_those_that_the_host_has() {
        let host = ["ai2", "ai2.example.org", "203.0.113.7", "2001:db8:1:2::5", "192.168.1.9"];
        let permitted = PermittedSubtrees::private_plus(&host.map(str::to_owned).into());
        for (name, allowed) in [
            ("localhost", true),
            ("ai2", true),
            ("ai2.local", true),
            ("other.lan", true),
            ("a.b.home.arpa", true),
            ("ai2.example.org", true),
            ("sub.ai2.example.org", true),
            ("example.org", false),
            ("bank.example", false),
            ("notlocal", false),
            ("arpa", false),
            ("127.9.9.9", true),
            ("192.168.44.1", true),
            ("100.99.1.1", true),
            ("fd00::1", true),
            ("fe80::1", true),
            ("203.0.113.7", true),
            ("203.0.113.8", false),
            ("2001:db8:1:2:9::9", true),
            ("2001:db8:1:3::5", false),
            ("8.8.8.8", false),
        ] {
            assert_eq!(permitted.allows(name), allowed, "{name}");
        }
        assert_eq!(permitted.ranges.unwrap().len(), PRIVATE_RANGES.len() + 2, "no range twice");
        assert!(PermittedSubtrees::default().allows("bank.example"), "an authority without constraints");
    }
}
