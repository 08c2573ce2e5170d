//! Two guards against the browser as an attacker: which `Host` we answer to (DNS rebinding), and which `Origin`
//! may speak where no token was checked (drive-by posts). And which addresses may come. Pure rules.

use std::net::IpAddr;

use axum::http::{HeaderMap, Request, Uri, Version, header, uri::Authority};
use ipnet::IpNet;

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
    pub allowed_hosts: Vec<String>,
    /// Further values of `Origin`, as browsers write them.
    pub allowed_origins: Vec<String>,
}

impl Guard {
    /// Passes IP addresses, names without a dot, names under private endings, and `allowed_hosts`; and a request of
    /// HTTP/1.0 that names no host, which no browser sends.
    pub fn host<B>(&self, request: &Request<B>) -> Result<(), Refusal> {
        let target = request.uri().authority();
        let mut given = request.headers().get_all(header::HOST).iter();
        let host: Authority = match (given.next(), target) {
            (Some(host), _) => {
                host.to_str().ok().and_then(|host| host.parse().ok()).ok_or(Refusal::BadHost)?
            }
            (None, _) if request.version() > Version::HTTP_10 => return Err(Refusal::BadHost),
            (None, Some(target)) => target.clone(),
            (None, None) => return Ok(()),
        };
        let one = given.next().is_none() && !host.as_str().contains('@');
        let same = target.is_none_or(|target| target == &host);
        if !one || !same {
            return Err(Refusal::BadHost);
        }
        let name = host.host().trim_end_matches('.').to_ascii_lowercase();
        let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
        let named = self.allowed_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(&name));
        if address || is_private_name(&name) || named {
            Ok(())
        } else {
            Err(Refusal::ForeignHost(cut(&name)))
        }
    }

    /// Passes a request without `Origin`, one whose origin's host and port are those of `Host`, and
    /// `allowed_origins`. `null` never passes.
    pub fn origin(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let mut given = headers.get_all(header::ORIGIN).iter();
        let Some(origin) = given.next() else { return Ok(()) };
        let text = origin.to_str().unwrap_or("unreadable");
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let own = host.is_some_and(|host| same_place(text, host));
        let named =
            text != "null" && self.allowed_origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(text));
        if given.next().is_none() && (own || named) { Ok(()) } else { Err(Refusal::ForeignOrigin(cut(text))) }
    }
}

/// Whether a name, in lower case and without a dot at its end, is one that the public DNS cannot hand out.
pub fn is_private_name(name: &str) -> bool {
    !name.contains('.') || PRIVATE_ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// Foreign text for an answer or a log.
fn cut(text: &str) -> String {
    text.chars().take(100).collect()
}

fn same_place(origin: &str, host: &str) -> bool {
    let port_of = |scheme: &str| match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    let (Ok(origin), Ok(host)) = (origin.parse::<Uri>(), host.parse::<Authority>()) else { return false };
    let (Some(default), Some(from)) = (origin.scheme_str().and_then(port_of), origin.authority()) else {
        return false;
    };
    from.host().eq_ignore_ascii_case(host.host())
        && from.port_u16().unwrap_or(default) == host.port_u16().unwrap_or(default)
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
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (name.parse::<header::HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap())
            })
            .collect()
    }

    #[test]
    fn hosts() {
        let guard = Guard { allowed_hosts: vec!["ada2.example.org".into()], ..Guard::default() };
        let of = |version: Version, uri: &'static str, hosts: &[&str]| {
            let mut request = Request::builder().version(version).uri(uri).body(()).unwrap();
            for host in hosts {
                request.headers_mut().append("host", HeaderValue::from_str(host).unwrap());
            }
            guard.host(&request)
        };
        let check = |host: &str| of(Version::HTTP_11, "/", &[host]);
        for ours in [
            "127.0.0.1:7860",
            "[::1]:7860",
            "ada2",
            "ada2:7860",
            "ADA2.local",
            "ada2.local.:7860",
            "x.home.arpa",
            "localhost",
            "a.localhost:1",
            "ada2.example.org",
            "ada2.lan",
            "gpu.internal",
        ] {
            assert_eq!(check(ours), Ok(()), "{ours}");
        }
        for foreign in
            ["evil.example", "ada2.local.evil.example:7860", "127.0.0.1.evil.example", "xlocal.com"]
        {
            assert!(matches!(check(foreign), Err(Refusal::ForeignHost(_))), "{foreign}");
        }
        for bad in ["", "a b", "me@ada2"] {
            assert_eq!(check(bad), Err(Refusal::BadHost), "{bad:?}");
        }
        let (old, new) = (Version::HTTP_10, Version::HTTP_11);
        assert_eq!(of(new, "/", &[]), Err(Refusal::BadHost));
        assert_eq!(of(old, "/", &[]), Ok(()));
        assert_eq!(of(old, "http://ada2/x", &[]), Ok(()));
        for version in [old, new] {
            assert_eq!(of(version, "http://evil.example/x", &["ada2"]), Err(Refusal::BadHost));
            assert_eq!(of(version, "/", &["ada2", "evil.example"]), Err(Refusal::BadHost));
        }
        for (uri, hosts) in [("/", &["evil.example"][..]), ("http://evil.example/x", &[])] {
            assert!(matches!(of(old, uri, hosts), Err(Refusal::ForeignHost(_))), "{uri} {hosts:?}");
        }
    }

    #[test]
    fn origins() {
        let guard =
            Guard { allowed_origins: vec!["https://ui.example".into(), "null".into()], ..Guard::default() };
        let check =
            |origin: &str, host: &str| guard.origin(&headers(&[("origin", origin), ("host", host)])).is_ok();
        assert!(guard.origin(&headers(&[("host", "ada2")])).is_ok());
        assert!(check("http://ada2:7860", "ada2:7860"));
        assert!(check("http://ADA2", "ada2:80") && check("https://ada2", "ada2"));
        assert!(check("https://ui.example", "ada2:7860"));
        for (origin, host) in [
            ("http://evil.example", "ada2:7860"),
            ("http://ada2:7861", "ada2:7860"),
            ("http://ada2", "ada2:7860"),
            ("null", "ada2:7860"),
            ("", "ada2:7860"),
            ("file://", "ada2"),
            ("ada2:7860", "ada2:7860"),
            ("http://ada2.evil.example:7860", "ada2:7860"),
        ] {
            assert!(!check(origin, host), "{origin} at {host}");
        }
        let long = format!("http://{}", "x".repeat(5000));
        let refusal = guard.origin(&headers(&[("origin", &long), ("host", "ada2")]));
        assert!(
            matches!(refusal, Err(Refusal::ForeignOrigin(text)) if text.len() == 100),
            "foreign text is cut"
        );
        let mut twice = headers(&[("origin", "http://ada2"), ("host", "ada2")]);
        twice.append("origin", HeaderValue::from_static("http://evil.example"));
        assert!(guard.origin(&twice).is_err());
    }

    #[test]
    fn mapped_addresses_are_unmapped() {
        let ranges: Vec<IpNet> =
            PRIVATE_RANGES.split(',').map(|range| range.trim().parse().unwrap()).collect();
        for inside in ["127.0.0.1", "::1", "::ffff:192.168.1.7", "100.100.1.1", "fe80::1"] {
            assert!(in_ranges(inside.parse().unwrap(), &ranges), "{inside}");
        }
        for outside in ["8.8.8.8", "::ffff:8.8.8.8", "2001:db8::1", "100.128.0.1"] {
            assert!(!in_ranges(outside.parse().unwrap(), &ranges), "{outside}");
        }
    }
}
