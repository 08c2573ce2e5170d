//! Headers that say who the client is, and which of our names it used.

use std::net::{IpAddr, Ipv4Addr};

use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, header, uri::Authority};
use ipnet::IpNet;
use reqwest::Url;
use service::{
    client_info::ClientInfo,
    guard::{Guard, HostPattern, WebOrigin, is_private_name},
};

const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
/// The peer of our proxy, and so the client.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));

fn proxies() -> [IpNet; 1] {
    [IpNet::from(PROXY)]
}

/// Lines of the form `name: value`; others are left out.
fn header_lines(data: &[u8]) -> HeaderMap {
    let lines = data.split(|byte| *byte == b'\n').filter_map(|line| {
        let colon = memchr::memchr(b':', line)?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        Some((name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?))
    });
    let mut headers = HeaderMap::new();
    for (name, value) in lines.take(64) {
        headers.append(name, value);
    }
    headers
}

/// The same headers after a proxy that appends to this one: to the last line, or as a line of its own.
fn appended(headers: &HeaderMap, name: &HeaderName, value: &str, own_line: bool) -> HeaderMap {
    let mut headers = headers.clone();
    let mut lines: Vec<_> = headers.get_all(name).iter().cloned().collect();
    let last = if own_line { None } else { lines.pop() };
    let value = match last {
        Some(last) => [last.as_bytes(), b", ", value.as_bytes()].concat(),
        None => value.as_bytes().to_vec(),
    };
    headers.remove(name);
    lines.extend(HeaderValue::from_bytes(&value));
    for line in lines {
        headers.append(name.clone(), line);
    }
    headers
}

/// Forwarding headers: nothing that a client sends changes what our proxy says of it, unless that is noticed.
pub fn forwarding(data: &[u8]) {
    let headers = header_lines(data);
    let direct = ClientInfo::from_request(CLIENT, &headers, &proxies());
    assert_eq!((direct.address, direct.trusted, direct.scheme, direct.host), (CLIENT, false, None, None));
    for own_line in [true, false] {
        let listed = appended(&headers, &HeaderName::from_static("x-forwarded-for"), "203.0.113.9", own_line);
        let client = ClientInfo::from_request(PROXY, &listed, &proxies());
        assert!(client.address == CLIENT || client.forwarding_error.is_some(), "{client:?}");

        let element = "for=203.0.113.9;proto=https;host=ours.example";
        let standard = appended(&headers, &header::FORWARDED, element, own_line);
        let client = ClientInfo::from_request(PROXY, &standard, &proxies());
        let host = client.host.as_ref().map(Authority::as_str);
        let is_ours = (client.address, client.scheme, host) == (CLIENT, Some("https"), Some("ours.example"));
        assert!(is_ours || client.forwarding_error.is_some(), "{client:?}");
    }
}

/// `Host` and `Origin`: what passes is, as browsers read it, an address, a private name, or allowed.
pub fn host_and_origin(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for entry in text.lines().take(16) {
        if let Ok(pattern) = HostPattern::parse(entry) {
            assert!(!entry.contains(char::is_whitespace), "{pattern:?}");
        }
        if let Ok(origin) = WebOrigin::parse(entry) {
            assert_eq!(WebOrigin::from_header(entry), Some(origin), "an entry matches itself");
        }
    }
    let host = |entry| HostPattern::parse(entry).into_iter();
    let guard = Guard {
        allowed_hosts: host("ui.example.org").chain(host(".lan.example.org")).collect(),
        allowed_origins: WebOrigin::parse("https://ui.example.org").into_iter().collect(),
    };
    let mut request = Request::new(());
    *request.headers_mut() = header_lines(data);
    let client = ClientInfo::from_request(IpAddr::V4(Ipv4Addr::LOCALHOST), request.headers(), &[]);
    let one = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    if let (Ok(()), Some(host)) = (guard.check_host(&request, &client), one(header::HOST))
        && let Some(name) = Url::parse(&format!("http://{host}/")).ok().as_ref().and_then(Url::domain)
    {
        let name = name.strip_suffix('.').unwrap_or(name);
        let allowed = name == "ui.example.org" || name.ends_with(".lan.example.org");
        assert!(allowed || is_private_name(name), "{host:?} is {name:?} to a browser");
    }
    if let (Ok(()), Some(origin)) = (guard.check_origin(request.headers(), &client), one(header::ORIGIN)) {
        let page = Url::parse(origin).expect("only URLs pass");
        let host =
            one(header::HOST).and_then(|host| Url::parse(&format!("{}://{host}/", page.scheme())).ok());
        let is_allowed = page.origin().ascii_serialization() == "https://ui.example.org";
        assert!(is_allowed || host.is_some_and(|host| host.origin() == page.origin()), "{page}");
    }
}
