//! Heads of requests and answers that are passed on: what belongs to one connection stays behind, and the next server is told
//! who asked. Pure.

use axum::http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONNECTION, CONTENT_LENGTH, FORWARDED, HOST, TRANSFER_ENCODING, UPGRADE},
};

use super::client_info::ClientInfo;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Drops what belongs to one connection. `Host` stays even where `Connection` names it: without it the request would be another.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .filter(|name| *name != HOST && *name != CONTENT_LENGTH)
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
}

/// Tells who asked, by which name and over what, in one set of headers. Only what a trusted peer said counts; a claim in
/// another form, which the next server might believe, does not travel.
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

    /// What the next server is told: for, proto, host, and whatever else speaks of it.
    fn told(trusted: bool, lines: &[(&'static str, &str)]) -> String {
        let mut headers: HeaderMap =
            lines.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
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
    fn what_is_passed_on_is_one_story_whoever_told_it_in_what_form() {
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
            assert_eq!(told(trusted, lines), expected, "{lines:?}");
        }
    }
}
