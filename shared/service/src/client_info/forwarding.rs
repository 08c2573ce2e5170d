//! Parses forwarding headers: `X-Forwarded-*`, `X-Real-IP`, and RFC 7239's `Forwarded`. Pure.
//!
//! The crates for RFC 7239 (forwarded-header-value, rfc7239) do not join several lines of a header, do not parse addresses
//! with ports in `X-Forwarded-For`, and lose all elements if one is malformed.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName, HeaderValue, uri::Authority};

/// The addresses in one header: the client first, our peer's peer last. `None` for a hidden one.
#[derive(Debug)]
pub(super) struct ForwardingChain(Vec<Option<IpAddr>>);

/// The client that a chain of addresses leads to.
#[derive(Debug, Clone)]
pub(super) struct ResolvedClient {
    /// The first address from the right that is not a trusted proxy.
    pub(super) address: IpAddr,
    /// How many entries were used.
    pub(super) hops: usize,
    /// No used entry was hidden or malformed.
    pub(super) readable: bool,
}

impl ForwardingChain {
    /// From a header that lists addresses, if there is one.
    pub(super) fn from_list_header(headers: &HeaderMap, name: &str) -> Option<Self> {
        headers
            .contains_key(name)
            .then(|| Self(list_entries(headers, name).into_iter().map(parse_node).collect()))
    }

    /// From a header that holds one address.
    pub(super) fn from_address_header(value: &HeaderValue) -> Self {
        Self(vec![value.to_str().ok().and_then(parse_node)])
    }

    /// From `Forwarded`, if any element has a `for`.
    pub(super) fn from_elements(elements: &[ForwardedElement]) -> Option<Self> {
        let claims = elements.iter().any(|element| element.client.is_some());
        claims.then(|| Self(elements.iter().map(|element| parse_node(element.client.as_deref()?)).collect()))
    }

    /// Follows the entries from the right, as long as they are proxies of ours.
    pub(super) fn resolve(self, peer: IpAddr, is_proxy: impl Fn(IpAddr) -> bool) -> ResolvedClient {
        let mut resolved = ResolvedClient { address: peer, hops: 0, readable: !self.0.is_empty() };
        for hop in self.0.into_iter().rev() {
            let Some(address) = hop else { return ResolvedClient { readable: false, ..resolved } };
            resolved = ResolvedClient { address, hops: resolved.hops + 1, ..resolved };
            if !is_proxy(address) {
                break;
            }
        }
        resolved
    }
}

/// One element of `Forwarded`, from one proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ForwardedElement {
    pub(super) client: Option<String>,
    pub(super) proto: Option<String>,
    pub(super) host: Option<String>,
}

impl ForwardedElement {
    /// The elements of all lines. A malformed one counts as a proxy that hides its client.
    pub(super) fn parse_all(headers: &HeaderMap) -> Vec<Self> {
        let lines = headers.get_all("forwarded").iter().map(|line| line.to_str().unwrap_or("?"));
        let elements =
            lines.flat_map(|line| split_unquoted(line, ',')).filter(|element| !element.trim().is_empty());
        elements.map(|element| Self::parse(element).unwrap_or_else(Self::unknown)).collect()
    }

    /// `for=…;proto=…;host=…`, in any order, each at most once.
    fn parse(text: &str) -> Option<Self> {
        let mut element = Self::default();
        for pair in split_unquoted(text, ';').into_iter().map(str::trim).filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=')?;
            let value = unquoted(value.trim())?;
            // A token, as a header's name is: a quote in a client's name would hide what a proxy appends to the line.
            let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
            let field = match name.as_str() {
                "for" => &mut element.client,
                "proto" => &mut element.proto,
                "host" => &mut element.host,
                _ => continue,
            };
            if field.replace(value).is_some() {
                return None;
            }
        }
        Some(element)
    }

    fn unknown() -> Self {
        Self { client: Some("unknown".to_owned()), ..Self::default() }
    }
}

/// The non-empty entries of all lines of a list header.
pub(super) fn list_entries<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    let lines = headers.get_all(name).iter().map(|line| line.to_str().unwrap_or("?"));
    let entries = lines.flat_map(|line| line.split(',')).map(str::trim).filter(|entry| !entry.is_empty());
    entries.collect()
}

/// The entry of the outermost proxy that is ours, when so many are: what stands left of it is the client's own. A list that
/// is shorter was not added to by every proxy.
pub(super) fn from_right<T>(entries: &[T], hops: usize) -> Option<&T> {
    let last = entries.len().checked_sub(1)?;
    entries.get(last.saturating_sub(hops.max(1) - 1))
}

/// The address of `1.2.3.4`, `1.2.3.4:567`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:4711`, in quotes or not;
/// `None` of a name, of `unknown`, and of what RFC 7239 calls obfuscated (`_gateway`).
fn parse_node(text: &str) -> Option<IpAddr> {
    let text = unquoted(text.trim())?;
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']').filter(|(host, _)| host.contains(':'))?,
        None => text.split_at(text.find(':')?),
    };
    let port = port.strip_prefix(':').map_or(port.is_empty(), is_port);
    host.parse::<IpAddr>().ok().filter(|_| port).map(|address| address.to_canonical())
}

/// A number, or a name in its place as RFC 7239 has it.
fn is_port(text: &str) -> bool {
    let name = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    text.parse::<u16>().is_ok() || text.strip_prefix('_').is_some_and(name)
}

/// The scheme of a request that a proxy passes on. A WebSocket is one over HTTP.
pub(super) fn parse_scheme(text: &str) -> Option<&'static str> {
    match text.trim_matches('"').to_ascii_lowercase().as_str() {
        "http" | "ws" => Some("http"),
        "https" | "wss" => Some("https"),
        _ => None,
    }
}

/// A host with or without port, and nothing else; in lower case.
pub(super) fn parse_authority(text: &str) -> Option<Authority> {
    let authority: Authority = unquoted(text)?.to_ascii_lowercase().parse().ok()?;
    let has_port = authority.host().len() < authority.as_str().len();
    let is_valid = !authority.host().is_empty() && has_port == authority.port_u16().is_some();
    (is_valid && !authority.as_str().contains('@')).then_some(authority)
}

/// A token as it is, a quoted string without its quotes; `None` if the quotes do not match.
fn unquoted(text: &str) -> Option<String> {
    let Some(inner) = text.strip_prefix('"') else { return (!text.contains('"')).then(|| text.to_owned()) };
    let mut value = String::new();
    let mut chars = inner.chars();
    loop {
        match chars.next()? {
            '"' => return chars.as_str().is_empty().then_some(value),
            '\\' => value.push(chars.next()?),
            ch => value.push(ch),
        }
    }
}

/// Between separators that stand in no quotes.
fn split_unquoted(text: &str, separator: char) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |ch| {
        if std::mem::take(&mut escaped) {
            return false;
        }
        match ch {
            '\\' => escaped = quoted,
            '"' => quoted = !quoted,
            _ => return ch == separator && !quoted,
        }
        false
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_with_or_without_port() {
        for (text, address) in [
            ("1.2.3.4", "1.2.3.4"),
            (" 1.2.3.4:567 ", "1.2.3.4"),
            ("\"1.2.3.4:567\"", "1.2.3.4"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:DB8::1]", "2001:db8::1"),
            ("\"[2001:db8::1]:4711\"", "2001:db8::1"),
            ("[::1]:80", "::1"),
            ("::ffff:1.2.3.4", "1.2.3.4"),
            ("[::ffff:1.2.3.4]:80", "1.2.3.4"),
            ("1.2.3.4:_port", "1.2.3.4"),
        ] {
            assert_eq!(parse_node(text), Some(address.parse().unwrap()), "{text}");
        }
        for hidden in [
            "",
            "unknown",
            "_gateway",
            "_gateway:80",
            "ada2",
            "ada2:80",
            "1.2.3",
            "1.2.3.4:",
            "1.2.3.4:99999",
            "1.2.3.4:80:80",
            "1.2.3.4 5.6.7.8",
            "[1.2.3.4]",
            "[::1",
            "[::1]80",
            "[::1]:",
            "\"1.2.3.4",
            "1.2.3.4\"",
            "\"\"",
            "1.2.3.4:_",
            "1.2.3.4:-1",
        ] {
            assert_eq!(parse_node(hidden), None, "{hidden}");
        }
    }

    fn elements(lines: &[&str]) -> Vec<ForwardedElement> {
        let headers =
            lines.iter().map(|line| (axum::http::header::FORWARDED, line.parse().unwrap())).collect();
        ForwardedElement::parse_all(&headers)
    }

    #[test]
    fn forwarded_as_the_standard_writes_it() {
        let of = |client: &str, proto: &str, host: &str| {
            let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
            ForwardedElement { client: some(client), proto: some(proto), host: some(host) }
        };
        for (lines, expected) in [
            (
                &["for=192.0.2.43, for=198.51.100.17"][..],
                vec![of("192.0.2.43", "", ""), of("198.51.100.17", "", "")],
            ),
            (
                &["for=192.0.2.43", "for=198.51.100.17"],
                vec![of("192.0.2.43", "", ""), of("198.51.100.17", "", "")],
            ),
            (
                &["For=\"[2001:db8:cafe::17]:4711\"; PROTO=https;by=203.0.113.43 ;host=\"ai2.local:8800\""],
                vec![of("[2001:db8:cafe::17]:4711", "https", "ai2.local:8800")],
            ),
            (&["for=\"a,b;c=\\\"d\";proto=http"], vec![of("a,b;c=\"d", "http", "")]),
            (&["proto=https"], vec![of("", "https", "")]),
            (&[" , for=a,, "], vec![of("a", "", "")]),
            (&["for=1.2.3.4;for=5.6.7.8, for=a"], vec![ForwardedElement::unknown(), of("a", "", "")]),
            (&["for=\"1.2.3.4"], vec![ForwardedElement::unknown()]),
            (&["nonsense"], vec![ForwardedElement::unknown()]),
            (&["x\"y=z, for=1.2.3.4"], vec![ForwardedElement::unknown()]),
            (&["secret=x;for=a;"], vec![of("a", "", "")]),
            (&[""], vec![]),
        ] {
            assert_eq!(elements(lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn the_entry_of_the_outermost_trusted_proxy_counts() {
        let entries = ["a", "b", "c"];
        let at = |hops| from_right(&entries, hops).copied();
        assert_eq!([0, 1, 2, 3, 9].map(at), [Some("c"), Some("c"), Some("b"), Some("a"), Some("a")]);
        assert_eq!(from_right::<u8>(&[], 1), None);
    }
}
