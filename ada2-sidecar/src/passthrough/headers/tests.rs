//! What travels, as tables: a head goes in, a head comes out.

use axum::http::{Method, Request};
use proptest::prelude::*;

use super::*;

fn head(lines: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').unwrap();
        headers.append(name.parse::<HeaderName>().unwrap(), value.trim().parse().unwrap());
    }
    headers
}

fn sorted_lines(headers: &HeaderMap) -> Vec<String> {
    let mut lines: Vec<_> =
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    lines.sort_unstable();
    lines
}

/// Who asks with this head, through a trusted proxy or not.
fn client(trusted: bool, headers: &HeaderMap) -> ClientInfo {
    let proxies = if trusted { vec!["192.168.1.7/32".parse().unwrap()] } else { vec![] };
    ClientInfo::from_request("::ffff:192.168.1.7".parse().unwrap(), headers, &proxies)
}

/// The lines that the engine sees, but for those that are always the same.
fn sent(lines: &str, trusted: bool, websocket: bool) -> Vec<String> {
    let mut parts = Request::builder().uri("/x").body(()).unwrap().into_parts().0;
    parts.headers = head(lines);
    let client = client(trusted, &parts.headers);
    prepare_request(&mut parts, &client, &HeaderValue::from_static("id"), websocket);
    let always = ["x-forwarded-for: 192.168.1.7", "x-forwarded-proto: http", "x-request-id: id"];
    let mut seen = sorted_lines(&parts.headers);
    let host = parts.headers.get(HOST).map(|host| format!("x-forwarded-host: {}", host.to_str().unwrap()));
    seen.retain(|line| !always.contains(&line.as_str()) && Some(line) != host.as_ref());
    seen
}

#[test]
fn hop_by_hop_headers_are_dropped_and_all_others_forwarded() {
    for (given, expected) in [
        (
            "host: ada2\ncookie: a\ncookie: b\naccept: */*",
            &["accept: */*", "cookie: a", "cookie: b", "host: ada2"][..],
        ),
        (
            "host: a\nconnection: keep-alive\nkeep-alive: timeout=5\nproxy-connection: keep-alive",
            &["host: a"],
        ),
        ("host: a\nconnection: x-mine, close\nx-mine: 1\nx-other: 2", &["host: a", "x-other: 2"]),
        ("host: a\nconnection: host, content-length\ncontent-length: 3", &["content-length: 3", "host: a"]),
        ("host: a\ntransfer-encoding: chunked\ntrailer: x-sum", &["host: a"]),
        ("host: a\nte: trailers, deflate;q=0.5\nconnection: te", &["host: a", "te: trailers"]),
        ("host: a\nte: deflate", &["host: a"]),
        ("host: a\nexpect: 100-continue\nproxy-authorization: Basic x", &["host: a"]),
        ("host: a\nconnection: upgrade\nupgrade: h2c\nhttp2-settings: x", &["host: a", "http2-settings: x"]),
        ("host: a\nsec-fetch-site: same-origin\nsec-fetch-mode: cors\nsec-fetch-dest: empty", &["host: a"]),
        ("host: a\nauthorization: Bearer theirs", &["authorization: Bearer theirs", "host: a"]),
        ("host: a:7860\norigin: https://ui.example", &["host: a:7860", "origin: http://a:7860"]),
        ("host: a\nx-request-id: theirs\nx-forwarded-for: 1.2.3.4\nx-forwarded-host: evil", &["host: a"]),
    ] {
        assert_eq!(sent(given, false, false), expected, "{given}");
    }
}

#[test]
fn an_upgrade_is_forwarded_in_one_form() {
    let given = "host: a\nconnection: keep-alive, Upgrade\nupgrade: WebSocket\nsec-websocket-key: k";
    assert!(is_websocket(&head(given)));
    let expected = ["connection: upgrade", "host: a", "sec-websocket-key: k", "upgrade: websocket"];
    assert_eq!(sent(given, false, true), expected);
    for other in [
        "upgrade: websocket",
        "connection: upgrade",
        "connection: upgrade\nupgrade: h2c",
        "connection: upgrade\nupgrade: websocket, h2c",
        "connection: upgrade\nupgrade: websocket\nupgrade: h2c",
        "connection: close\nupgrade: websocket",
    ] {
        assert!(!is_websocket(&head(other)), "{other}");
    }
}

#[test]
fn forwarding_headers_of_a_trusted_proxy_are_extended() {
    let given = "host: a\nx-forwarded-for: 9.9.9.9\nx-forwarded-for: 8.8.8.8\nx-forwarded-proto: https\nx-forwarded-host: pics.example";
    let expected = [
        "host: a",
        "x-forwarded-for: 9.9.9.9, 8.8.8.8, 192.168.1.7",
        "x-forwarded-host: pics.example",
        "x-forwarded-proto: https",
    ];
    assert_eq!(sent(given, true, false), expected);
}

#[test]
fn the_target_loses_only_scheme_and_host() {
    for (given, expected) in [
        ("/a/../b/%2e%2e//c;d?x=%20&y=1+1", "/a/../b/%2e%2e//c;d?x=%20&y=1+1"),
        ("http://ada2:7860/x?y", "/x?y"),
        ("http://ada2:7860", "/"),
        ("http://ada2:7860?q", "/?q"),
        ("*", "*"),
    ] {
        let mut parts =
            Request::builder().method(Method::OPTIONS).uri(given).body(()).unwrap().into_parts().0;
        let client = client(false, &parts.headers);
        prepare_request(&mut parts, &client, &HeaderValue::from_static("id"), false);
        assert_eq!(parts.uri.to_string(), expected, "{given}");
    }
}

#[test]
fn responses_lose_hop_by_hop_headers() {
    let mut headers = head(
        "connection: close, x-hop\nx-hop: 1\nkeep-alive: timeout=5\nserver: uvicorn\nset-cookie: a\nset-cookie: b",
    );
    prepare_response(&mut headers, false);
    assert_eq!(sorted_lines(&headers), ["server: uvicorn", "set-cookie: a", "set-cookie: b"]);
}

proptest! {
    /// Whatever a client sends: hop-by-hop headers are never forwarded, `Host` always is, and no other address
    /// is reported as the client's.
    #[test]
    fn no_client_can_forge_forwarding_headers(
        named in prop::collection::vec("[a-z-]{1,20}|host|x-forwarded-for|content-length", 0..4),
        forwarded_for in prop::option::of("[0-9., ]{0,20}"),
        websocket: bool,
    ) {
        let mut parts = Request::builder().uri("/x").body(()).unwrap().into_parts().0;
        parts.headers.insert(HOST, HeaderValue::from_static("ada2"));
        parts.headers.insert(CONNECTION, named.join(", ").parse().unwrap());
        if let Some(forwarded_for) = forwarded_for {
            parts.headers.insert("x-forwarded-for", forwarded_for.parse().unwrap());
        }
        let client = client(false, &parts.headers);
        prepare_request(&mut parts, &client, &HeaderValue::from_static("id"), websocket);
        prop_assert_eq!(&parts.headers[HOST], "ada2");
        prop_assert_eq!(&parts.headers["x-forwarded-for"], "192.168.1.7");
        prop_assert_eq!(parts.headers.contains_key(CONNECTION), websocket);
        prop_assert!(!parts.headers.contains_key("transfer-encoding"));
    }
}
