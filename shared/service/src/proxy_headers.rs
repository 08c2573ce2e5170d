//! Headers of forwarded messages: hop-by-hop headers are removed, and the next server gets the client's address. Pure.

use axum::http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        CONNECTION, CONTENT_LENGTH, FORWARDED, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
        TRANSFER_ENCODING, UPGRADE,
    },
};

use super::client_info::ClientInfo;

const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Removes the headers that belong to one connection: those of RFC 9110, 7.6.1, and those that `Connection` names.
/// `Host` and `Content-Length` stay even if it names them: without them the message would be another.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .filter(|name| *name != HOST && *name != CONTENT_LENGTH)
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// Tells the next server the client's address, and the host and scheme of its request, in `X-Forwarded-*` alone. Only a
/// trusted peer's claims count; those in other headers, which the next server might trust, are removed.
pub fn set_forwarded_headers(headers: &mut HeaderMap, client: &ClientInfo, own_scheme: &'static str) {
    let previous: Vec<_> =
        headers.get_all(FORWARDED_FOR).iter().filter_map(|line| line.to_str().ok()).collect();
    let previous = previous.join(", ");
    let (previous, peer) = (previous.trim(), client.peer);
    let chain = match client.trusted {
        true if !previous.is_empty() => format!("{previous}, {peer}"),
        true if client.address != peer => format!("{}, {peer}", client.address),
        _ => peer.to_string(),
    };
    headers.insert(FORWARDED_FOR, HeaderValue::from_str(&chain).expect("addresses and what was a header"));
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(client.scheme.unwrap_or(own_scheme)));
    headers.remove(FORWARDED);
    if !client.trusted {
        headers.remove(REAL_IP);
    }
    let requested_host = client.host.as_ref().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
    match requested_host.or_else(|| headers.get(HOST).cloned()) {
        Some(host) => headers.insert(FORWARDED_HOST, host),
        None => headers.remove(FORWARDED_HOST),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header_map(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn hop_by_hop_headers_stay_behind() {
        let mut headers = header_map(&[
            ("connection", "close, X-Named"),
            ("connection", "\u{e9}, x-other,, host"),
            ("connection", "content-length"),
            ("keep-alive", "timeout=5"),
            ("proxy-authenticate", "Basic"),
            ("proxy-authorization", "Basic x"),
            ("proxy-connection", "close"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("x-named", "1"),
            ("x-other", "2"),
            ("host", "ada2"),
            ("content-length", "5"),
            ("x-end-to-end", "3"),
        ]);
        remove_hop_by_hop(&mut headers);
        assert_eq!(headers, header_map(&[("host", "ada2"), ("content-length", "5"), ("x-end-to-end", "3")]));
    }

    /// What the next server learns: for, proto, host, `Forwarded`, `X-Real-IP`.
    fn forwarded(trusted: bool, lines: &[(&'static str, &str)]) -> String {
        let mut headers = header_map(lines);
        headers.insert(HOST, HeaderValue::from_static("ada2"));
        let proxies = if trusted { vec!["192.168.1.7/32".parse().unwrap()] } else { vec![] };
        let client = ClientInfo::from_request("192.168.1.7".parse().unwrap(), &headers, &proxies);
        set_forwarded_headers(&mut headers, &client, "http");
        let names = [FORWARDED_FOR, FORWARDED_PROTO, FORWARDED_HOST, FORWARDED, REAL_IP];
        names
            .map(|name| headers.get(name).map_or("-", |value| value.to_str().unwrap()).to_owned())
            .join(" | ")
    }

    #[test]
    fn the_forwarding_headers_agree_whatever_the_client_and_the_proxy_sent() {
        let all = [
            ("x-forwarded-for", "1.2.3.4:5"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "pics.example"),
            ("x-real-ip", "1.2.3.4"),
        ];
        let standard = [("forwarded", "for=\"[2001:db8::1]:80\";proto=https;host=pics.example")];
        let alone = "192.168.1.7 | http | ada2 | - | -";
        for (trusted, lines, expected) in [
            (true, &all[..], "1.2.3.4:5, 192.168.1.7 | https | pics.example | - | 1.2.3.4"),
            (true, &standard, "2001:db8::1, 192.168.1.7 | https | pics.example | - | -"),
            (true, &[("x-real-ip", "1.2.3.4")], "1.2.3.4, 192.168.1.7 | http | ada2 | - | 1.2.3.4"),
            (true, &[], alone),
            (false, &all, alone),
            (false, &standard, alone),
            (false, &[], alone),
        ] {
            assert_eq!(forwarded(trusted, lines), expected, "{lines:?}");
        }
    }
}
