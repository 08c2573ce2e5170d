//! The client: the TCP peer, or what a trusted proxy says of it. Pure.

mod forwarding;

use std::net::IpAddr;

use axum::http::{HeaderMap, Request, header, uri::Authority};
use ipnet::IpNet;

use self::forwarding::{
    ForwardedElement, ForwardingChain, ResolvedClient, from_right, list_entries, parse_authority,
    parse_scheme,
};
use super::serve::PeerAddr;

const FORWARDING: [&str; 3] = ["x-forwarded-for", "forwarded", "x-real-ip"];

/// The client's address, and how it reached the first proxy of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientInfo {
    /// The TCP peer.
    pub peer: IpAddr,
    /// The peer is a proxy of ours.
    pub trusted: bool,
    /// The client's address, as far as known.
    pub address: IpAddr,
    /// Why the address is uncertain.
    pub forwarding_error: Option<ForwardingError>,
    /// `http` or `https`, if a trusted proxy says.
    pub scheme: Option<&'static str>,
    /// The host and port that the client requested, from a trusted proxy.
    pub host: Option<Authority>,
}

/// Why a client's address is uncertain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardingError {
    /// The peer sends a forwarding header and is not a trusted proxy.
    UntrustedPeer,
    /// A trusted proxy's forwarding header is malformed, or names no address.
    Malformed,
    /// A trusted proxy's forwarding headers contradict each other.
    Conflicting,
}

/// Why an address may not come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressError {
    /// It is not in the allowed ranges.
    NotAllowed,
    /// It is not known.
    Uncertain(ForwardingError),
}

impl ForwardingError {
    /// For client and operator; `setting` lists the trusted proxies.
    pub fn message(self, setting: &str) -> String {
        match self {
            Self::UntrustedPeer => format!(
                "The request has a forwarding header (X-Forwarded-For, Forwarded or X-Real-IP), but its peer is not a \
                 trusted proxy. If it is your proxy, add its address to {setting}."
            ),
            Self::Malformed => "The proxy's forwarding header (X-Forwarded-For, Forwarded, X-Real-IP or \
                                 X-Forwarded-Host) is malformed or hides the client's address. Configure the proxy to \
                                 send IP addresses."
                .to_owned(),
            Self::Conflicting => "The proxy's forwarding headers (X-Forwarded-For, Forwarded, X-Real-IP, \
                               X-Forwarded-Host) contradict each other. Configure the proxy to send only one of them, \
                               or to overwrite those from the client."
                .to_owned(),
        }
    }
}

impl ClientInfo {
    /// The client of a request that came over one of our listeners.
    pub fn of<B>(request: &Request<B>, proxies: &[IpNet]) -> Result<Self, AddressError> {
        let PeerAddr(peer) = request.extensions().get().ok_or(AddressError::NotAllowed)?;
        Ok(Self::from_request(peer.ip(), request.headers(), proxies))
    }

    /// Whether this address is allowed; without ranges, any is. If the address alone decides, it must be certain. If a
    /// token is checked as well, an untrusted peer's forwarding header means nothing; but the client behind a trusted
    /// proxy must be known if only some addresses are allowed.
    pub fn check_address(&self, ranges: Option<&[IpNet]>, token_checked: bool) -> Result<(), AddressError> {
        let counts = |error: &ForwardingError| match error {
            ForwardingError::UntrustedPeer => !token_checked,
            ForwardingError::Malformed => !token_checked || ranges.is_some(),
            ForwardingError::Conflicting => true,
        };
        match self.forwarding_error.filter(counts) {
            Some(error) => Err(AddressError::Uncertain(error)),
            None if ranges.is_none_or(|ranges| is_in_ranges(self.address, ranges)) => Ok(()),
            None => Err(AddressError::NotAllowed),
        }
    }

    /// Trusts forwarding headers only from `proxies`, reading from the right: each proxy appends its own peer, so the
    /// last address that is not a trusted proxy is the client; what is left of it comes from the client.
    pub fn from_request(peer: IpAddr, headers: &HeaderMap, proxies: &[IpNet]) -> Self {
        let peer = peer.to_canonical();
        let direct =
            Self { peer, trusted: false, address: peer, forwarding_error: None, scheme: None, host: None };
        if !is_in_ranges(peer, proxies) {
            let claims = FORWARDING.iter().any(|name| headers.contains_key(*name));
            return Self { forwarding_error: claims.then_some(ForwardingError::UntrustedPeer), ..direct };
        }
        let is_proxy = |address| is_in_ranges(address, proxies);
        let elements = ForwardedElement::parse_all(headers);
        let listed = ForwardingChain::from_list_header(headers, "x-forwarded-for")
            .map(|chain| chain.resolve(peer, is_proxy));
        let standard = ForwardingChain::from_elements(&elements).map(|chain| chain.resolve(peer, is_proxy));
        let single = headers
            .get_all("x-real-ip")
            .iter()
            .map(|line| ForwardingChain::from_address_header(line).resolve(peer, is_proxy));
        let walks: Vec<_> = listed.iter().chain(&standard).cloned().chain(single).collect();
        let mut claims =
            ForwardingClaims { conflicting: false, malformed: walks.iter().any(|walk| !walk.readable) };
        let address = claims.check_agreement(walks.iter().map(|walk| walk.address)).unwrap_or(peer);

        let hops = |walk: Option<&ResolvedClient>| walk.map_or(1, |walk| walk.hops);
        let depth = hops(listed.as_ref().or(standard.as_ref()));
        let element = from_right(&elements, hops(standard.as_ref()));
        let (schemes, hosts) =
            (list_entries(headers, "x-forwarded-proto"), list_entries(headers, "x-forwarded-host"));
        let listed = from_right(&schemes, depth).copied();
        let standard = element.and_then(|element| element.proto.as_deref());
        let scheme = claims.check_agreement(listed.into_iter().chain(standard).filter_map(parse_scheme));
        let listed = from_right(&hosts, depth).copied();
        let standard = element.and_then(|element| element.host.as_deref());
        let host = claims.check_agreement(listed.into_iter().chain(standard).map(parse_authority));
        claims.malformed |= host == Some(None);
        Self {
            trusted: true,
            address,
            forwarding_error: claims.error(),
            scheme,
            host: host.flatten(),
            ..direct
        }
    }

    /// This server as the client reaches it, for URLs in responses. `None` if nobody named a host.
    pub fn base_url(&self, headers: &HeaderMap, own_scheme: &str) -> Option<String> {
        let host = self.host.as_ref().map(Authority::as_str);
        let host = host.or_else(|| headers.get(header::HOST)?.to_str().ok())?;
        Some(format!("{}://{host}", self.scheme.unwrap_or(own_scheme)))
    }
}

/// Loopback, private and carrier-grade ranges (Tailscale's): the default of who may come.
pub const PRIVATE_RANGES: &str = "127.0.0.0/8,::1/128,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,169.254.0.0/16,\
                                  fe80::/10,fc00::/7,100.64.0.0/10";

/// Whether an address is in one of the ranges. IPv4-mapped IPv6 addresses count as what they map.
pub fn is_in_ranges(address: IpAddr, ranges: &[IpNet]) -> bool {
    let address = address.to_canonical();
    ranges.iter().any(|range| range.contains(&address))
}

/// Problems with the claims of a trusted proxy.
struct ForwardingClaims {
    conflicting: bool,
    malformed: bool,
}

impl ForwardingClaims {
    /// The first claim; notes whether others differ.
    fn check_agreement<T: PartialEq>(&mut self, mut claims: impl Iterator<Item = T>) -> Option<T> {
        let first = claims.next()?;
        self.conflicting |= claims.any(|other| other != first);
        Some(first)
    }

    fn error(&self) -> Option<ForwardingError> {
        let malformed = self.malformed.then_some(ForwardingError::Malformed);
        malformed.or(self.conflicting.then_some(ForwardingError::Conflicting))
    }
}

#[cfg(test)]
mod tests;
