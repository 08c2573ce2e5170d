//! The entries of `allowed_hosts` and `allowed_origins`. An entry that no request could match is an error that says what to
//! write instead. Pure.

use std::net::{IpAddr, Ipv6Addr};

use axum::http::uri::Authority;
use reqwest::Url;

/// Schemes of browser extensions and of desktop applications that run in a browser engine.
const APP_SCHEMES: &[&str] =
    &["app", "capacitor", "chrome-extension", "moz-extension", "safari-web-extension", "tauri"];

/// One entry of `allowed_hosts`, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPattern {
    /// Exactly this name.
    Name(String),
    /// Every name below this suffix, not the suffix itself. With its leading dot.
    Subdomains(String),
}

impl HostPattern {
    /// Parses an entry. The error says what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let name = text.to_ascii_lowercase();
        if is_address(&name) {
            return Ok(Self::Name(name)); // addresses always pass
        }
        if let Some((_, rest)) = name.split_once("://") {
            return Err(format!("expected a name without scheme, such as {}", suggest_name(rest)));
        }
        if name == "*" {
            return Err(
                "expected host names: `*` would accept every name, which is what a DNS rebinding attack needs"
                    .to_owned(),
            );
        }
        if let Some(suffix) = name.strip_prefix("*.").filter(|suffix| is_name(suffix)) {
            return Err(format!(
                "expected .{suffix}, which covers every name below it: `*` is not a wildcard here"
            ));
        }
        if let Some(suffix) = name.strip_prefix('.') {
            return dns_name(suffix).map(|()| Self::Subdomains(name.clone()));
        }
        dns_name(&name).map(|()| Self::Name(name.clone()))
    }

    /// Expects a name in lower case without a trailing dot.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Name(allowed) => allowed == name,
            Self::Subdomains(suffix) => name.strip_suffix(suffix).is_some_and(|label| !label.is_empty()),
        }
    }
}

/// A web origin in normal form: lower case, with the scheme's default port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebOrigin {
    pub(super) scheme: String,
    pub(super) host: String,
    pub(super) port: Option<u16>,
}

impl WebOrigin {
    /// Parses an `Origin` header; `None` for `null` and everything else that is not an origin.
    pub fn from_header(header: &str) -> Option<Self> {
        let (scheme, rest) = header.split_once("://")?;
        let authority: Authority = rest.parse().ok()?;
        let has_port = authority.host().len() < authority.as_str().len();
        let port = authority.port_u16();
        let is_valid = !scheme.is_empty() && !rest.contains('@') && has_port == port.is_some();
        let host = normalize_host(authority.host()).filter(|_| is_valid)?;
        let scheme = scheme.to_ascii_lowercase();
        let port = port.or_else(|| default_port(&scheme));
        Some(Self { scheme, host, port })
    }

    /// Parses an entry of `allowed_origins`. The error says what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let expected_origin = |example: &str| format!("expected full origins such as {example}");
        if text.eq_ignore_ascii_case("null") {
            return Err(format!(
                "{}: `null` is the origin of any sandboxed page and is never allowed",
                expected_origin("https://ui.example.org")
            ));
        }
        if text.contains('*') {
            return Err(format!(
                "{}, each written out: `*` is not a wildcard here",
                expected_origin("https://ui.example.org")
            ));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(expected_origin(&format!("https://{}, with the scheme", suggest_name(text))));
        };
        let scheme = scheme.to_ascii_lowercase();
        if default_port(&scheme).is_none() && !APP_SCHEMES.contains(&scheme.as_str()) {
            return Err(expected_origin("https://ui.example.org or http://ui.example.org:8080"));
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len()));
        if !path.is_empty() {
            let problem = if path == "/" { "without the trailing slash" } else { "without a path" };
            return Err(expected_origin(&format!("{scheme}://{}, {problem}", suggest_name(authority))));
        }
        let (host, port) = match authority.rsplit_once(':').filter(|(host, _)| !host.ends_with(':')) {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (authority, None),
        };
        let number = port.map(str::parse::<u16>);
        if number.is_some_and(|number| !number.is_ok_and(|number| number > 0)) {
            return Err(expected_origin(&format!(
                "{scheme}://{}, with a port from 1 to 65535 or without one",
                suggest_name(host)
            )));
        }
        if !is_address(host) {
            dns_name(&host.to_ascii_lowercase())?;
        }
        Self::from_header(&format!("{scheme}://{authority}"))
            .ok_or_else(|| expected_origin("https://ui.example.org"))
    }
}

/// The normal form of a host: lower case, without the dot of a fully qualified name; IPv6 addresses in their shortest form.
/// `None` if nothing is left.
pub(super) fn normalize_host(host: &str) -> Option<String> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if let Some(address) = bare.and_then(|address| address.parse::<Ipv6Addr>().ok()) {
        return Some(address.to_string());
    }
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    (!name.is_empty()).then_some(name)
}

/// Whether a host is an IP address; IPv6 with or without brackets.
pub(super) fn is_address(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse::<IpAddr>().is_ok()
}

pub(super) fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// The name at the start of an invalid entry: most likely what the operator meant.
fn suggest_name(text: &str) -> String {
    let name = text.split(['/', '?', '#', ':', ' ']).next().unwrap_or_default();
    let name = name.trim_matches(['.', '*']).to_ascii_lowercase();
    if is_name(&name) { name } else { "ada2.example.org".to_owned() }
}

fn is_name(text: &str) -> bool {
    dns_name(text).is_ok()
}

/// Whether a text in lower case can be the name in a `Host` header; if not, why.
fn dns_name(name: &str) -> Result<(), String> {
    if !name.is_ascii() {
        let ascii = Url::parse(&format!("http://{name}/")).ok();
        let ascii = ascii
            .as_ref()
            .and_then(Url::host_str)
            .filter(|host| host.starts_with("xn--") || host.contains(".xn--"));
        return Err(match ascii {
            Some(ascii) => format!("expected {ascii}: browsers send this name in that form (Punycode)"),
            None => "expected a name in ASCII: browsers send others as xn--… (Punycode)".to_owned(),
        });
    }
    if name.contains(char::is_whitespace) {
        return Err("expected a name without spaces; names are separated by commas".to_owned());
    }
    if name.contains('/') {
        return Err(format!("expected a name without a path, such as {}", name_before(name, '/')));
    }
    if name.contains(':') {
        return Err(format!("expected {} without a port: names match on every port", name_before(name, ':')));
    }
    if name.contains('*') {
        return Err(
            "expected a name, or .example.org for every name below it: `*` is not a wildcard here".to_owned()
        );
    }
    if let Some(rest) = name.strip_suffix('.').filter(|rest| !rest.ends_with('.') && is_name(rest)) {
        return Err(format!("expected {rest}, without the trailing dot"));
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    if name.len() <= 253 && name.split('.').all(label) {
        Ok(())
    } else {
        Err("expected a name such as ada2.example.org: letters, digits and hyphens in labels separated by single dots"
            .to_owned())
    }
}

fn name_before(name: &str, separator: char) -> &str {
    let prefix = name.split(separator).next().unwrap_or_default();
    if is_name(prefix) { prefix } else { "ada2.example.org" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_entry_is_a_name_or_a_suffix() {
        for (entry, matching, other) in [
            ("ada2.example.org", &["ada2.example.org"][..], &["x.ada2.example.org", "example.org"][..]),
            ("ADA2.Example.ORG", &["ada2.example.org"], &[]),
            (
                ".fritz.box",
                &["ada2.fritz.box", "a.b.fritz.box"],
                &["fritz.box", ".fritz.box", "xfritz.box", "ada2.fritz.box.evil.example"],
            ),
            (".Box", &["fritz.box"], &["box"]),
            ("a_b.example", &["a_b.example"], &[]),
            ("xn--mller-kva.example", &["xn--mller-kva.example"], &[]),
            ("192.168.1.7", &["192.168.1.7"], &[]),
            ("ada2", &["ada2"], &[]),
        ] {
            let pattern = HostPattern::parse(entry).unwrap();
            for name in matching {
                assert!(pattern.matches(name), "{entry}: {name}");
            }
            for name in other {
                assert!(!pattern.matches(name), "{entry}: {name}");
            }
        }
        assert!(HostPattern::parse("[::1]").is_ok() && HostPattern::parse("::1").is_ok());
    }

    #[test]
    fn a_host_entry_that_could_never_match_says_what_to_write() {
        for (entry, expected) in [
            ("*.fritz.box", "expected .fritz.box, which covers every name below it"),
            ("*", "DNS rebinding"),
            ("ada*.example.org", ".example.org for every name below it"),
            ("*fritz.box", "`*` is not a wildcard here"),
            ("https://ada2.example.org", "without scheme, such as ada2.example.org"),
            ("https://ada2.example.org:8800/x", "without scheme, such as ada2.example.org"),
            ("ada2.example.org:7860", "expected ada2.example.org without a port"),
            ("192.168.1.7:7860", "expected 192.168.1.7 without a port"),
            ("[::1]:7860", "without a port"),
            ("ada2.example.org/", "without a path, such as ada2.example.org"),
            ("ada2.example.org.", "expected ada2.example.org, without the trailing dot"),
            (".fritz.box.", "expected fritz.box, without the trailing dot"),
            ("ada2.example.org ai2.example.org", "separated by commas"),
            ("ada2..example.org", "separated by single dots"),
            ("..fritz.box", "separated by single dots"),
            (".", "separated by single dots"),
            ("me@ada2.example.org", "letters, digits and hyphens"),
            ("m\u{fc}ller.example", "expected xn--mller-kva.example"),
            (&format!("{}.example", "x".repeat(64)), "letters, digits and hyphens"),
            (&format!("example{}", ".".repeat(1 << 20)), "separated by single dots"),
        ] {
            let why = HostPattern::parse(entry).unwrap_err();
            assert!(why.contains(expected), "{entry}: {why}");
        }
    }

    #[test]
    fn equal_origins_are_equal_however_they_are_written() {
        for (entry, sent) in [
            ("https://ui.example.org", "https://ui.example.org"),
            ("https://ui.example.org:443", "https://ui.example.org"),
            ("http://UI.example.org:80", "http://ui.example.org"),
            ("HTTPS://ui.example.org", "https://ui.example.org"),
            ("http://localhost:5173", "http://localhost:5173"),
            ("http://192.168.1.7:3000", "http://192.168.1.7:3000"),
            ("http://[::1]:3000", "http://[::1]:3000"),
            ("http://[0:0::1]", "http://[::1]"),
            ("app://obsidian.md", "app://obsidian.md"),
            ("chrome-extension://abcdefghijklmnop", "chrome-extension://abcdefghijklmnop"),
        ] {
            assert_eq!(WebOrigin::parse(entry).ok(), WebOrigin::from_header(sent), "{entry}");
        }
        for (entry, sent) in [
            ("https://ui.example.org", "http://ui.example.org"),
            ("https://ui.example.org", "https://ui.example.org:8443"),
            ("https://ui.example.org", "https://x.ui.example.org"),
            ("https://ui.example.org", "https://ui.example.org.evil.example"),
        ] {
            assert_ne!(WebOrigin::parse(entry).ok(), WebOrigin::from_header(sent), "{entry}");
        }
        for none in [
            "null",
            "",
            "https://",
            "https://a/",
            "https://a:",
            "https://a:99999",
            "https://me@a",
            "a",
            "://a",
        ] {
            assert_eq!(WebOrigin::from_header(none), None, "{none}");
        }
    }

    #[test]
    fn an_origin_entry_that_could_never_match_says_what_to_write() {
        for (entry, expected) in [
            ("https://*.example", "full origins such as https://ui.example.org, each written out"),
            ("*", "full origins"),
            ("null", "never allowed"),
            ("ui.example.org", "https://ui.example.org, with the scheme"),
            ("ui.example.org:8080", "https://ui.example.org, with the scheme"),
            ("//ui.example.org", "with the scheme"),
            ("https://ui.example.org/", "https://ui.example.org, without the trailing slash"),
            ("https://ui.example.org/app", "https://ui.example.org, without a path"),
            ("https://ui.example.org?x", "without a path"),
            ("https://ui.example.org:", "with a port from 1 to 65535"),
            ("https://ui.example.org:0", "with a port from 1 to 65535"),
            ("https://ui.example.org:99999", "with a port from 1 to 65535"),
            ("https://ui.example.org:x", "with a port from 1 to 65535"),
            ("ftp://ui.example.org", "full origins such as https://ui.example.org or"),
            ("https://", "letters, digits and hyphens"),
            ("https://.example.org", "letters, digits and hyphens"),
            ("https://a..b", "letters, digits and hyphens"),
            ("https://a.example.", "without the trailing dot"),
            ("https://a b", "without spaces"),
            ("https://m\u{fc}ller.example", "expected xn--mller-kva.example"),
        ] {
            let why = WebOrigin::parse(entry).unwrap_err();
            assert!(why.contains(expected), "{entry}: {why}");
        }
    }
}
