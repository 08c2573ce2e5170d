//! Who is calling: the TCP peer, or what a trusted proxy says of it. Pure.

use std::net::IpAddr;

use axum::http::HeaderMap;
use ipnet::IpNet;

use super::guard::in_ranges;

/// Headers that claim to know better than the connection.
const FORWARDING: [&str; 3] = ["x-forwarded-for", "forwarded", "x-real-ip"];

/// The caller's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// The address that counts.
    pub address: IpAddr,
    /// Somebody claims that it is another, whom we do not trust or cannot read. What is guarded by address alone
    /// stays closed then.
    pub doubtful: bool,
}

impl Client {
    /// Believes `X-Forwarded-For` only from `proxies`, reading from the right: each proxy appends its own peer, so
    /// the last address that is no trusted proxy is the caller; what stands left of it is the caller's own tale.
    pub fn of(peer: IpAddr, headers: &HeaderMap, proxies: &[IpNet]) -> Self {
        let peer = peer.to_canonical();
        if !in_ranges(peer, proxies) {
            return Self {
                address: peer,
                doubtful: FORWARDING.iter().any(|name| headers.contains_key(*name)),
            };
        }
        let lines = headers.get_all("x-forwarded-for").iter();
        let tale: Vec<_> =
            lines.flat_map(|line| line.to_str().unwrap_or("?").split(',')).map(str::trim).collect();
        let mut address = peer;
        for hop in tale.into_iter().rev() {
            let Ok(hop) = hop.parse::<IpAddr>() else { return Self { address, doubtful: true } };
            address = hop.to_canonical();
            if !in_ranges(address, proxies) {
                break;
            }
        }
        Self { address, doubtful: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, lines: &[(&'static str, &str)]) -> (String, bool) {
        let headers =
            lines.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let proxies: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "127.0.0.1/32".parse().unwrap()];
        let client = Client::of(peer.parse().unwrap(), &headers, &proxies);
        (client.address.to_string(), client.doubtful)
    }

    #[test]
    fn only_trusted_proxies_are_believed_and_from_the_right() {
        let xff = "x-forwarded-for";
        for (peer, lines, address, doubtful) in [
            ("192.168.1.7", &[][..], "192.168.1.7", false),
            ("::ffff:192.168.1.7", &[], "192.168.1.7", false),
            ("192.168.1.7", &[(xff, "1.2.3.4")], "192.168.1.7", true),
            ("192.168.1.7", &[("forwarded", "for=1.2.3.4")], "192.168.1.7", true),
            ("192.168.1.7", &[("x-real-ip", "1.2.3.4")], "192.168.1.7", true),
            ("::1", &[(xff, "1.2.3.4")], "::1", true),
            ("10.0.0.1", &[], "10.0.0.1", false),
            ("10.0.0.1", &[(xff, "1.2.3.4")], "1.2.3.4", false),
            ("10.0.0.1", &[(xff, "192.168.1.1, 1.2.3.4")], "1.2.3.4", false),
            ("10.0.0.1", &[(xff, "192.168.1.1, 1.2.3.4, 10.9.9.9")], "1.2.3.4", false),
            ("10.0.0.1", &[(xff, "192.168.1.1"), (xff, "1.2.3.4")], "1.2.3.4", false),
            ("10.0.0.1", &[(xff, "10.1.1.1")], "10.1.1.1", false),
            ("10.0.0.1", &[(xff, "::ffff:1.2.3.4")], "1.2.3.4", false),
            ("10.0.0.1", &[(xff, "192.168.1.1, nonsense")], "10.0.0.1", true),
            ("10.0.0.1", &[(xff, "")], "10.0.0.1", true),
        ] {
            assert_eq!(client(peer, lines), (address.to_owned(), doubtful), "{peer} {lines:?}");
        }
    }
}
