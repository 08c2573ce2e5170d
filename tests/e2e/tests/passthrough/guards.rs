use fakes::raw_engine::RawEngine;

use super::{ask, before};

async fn status(sidecar: &e2e::sidecar::Sidecar, headers: &str) -> (u16, String) {
    let answer = ask(sidecar, &format!("GET /x HTTP/1.1\r\nHost: ada2:7860\r\n{headers}\r\n")).await;
    (answer.status(), answer.text())
}

#[tokio::test]
async fn the_engine_is_guarded_by_address_and_untrusted_headers_are_ignored() {
    let engine = RawEngine::start().await;
    let sidecar = before(&engine, &["--allow-from", "10.0.0.0/8"]).await;
    let (code, body) = status(&sidecar, "").await;
    assert_eq!(code, 403);
    assert!(body.contains("ip_not_allowed") && body.contains("--allow-from"), "{body}");
    for claim in ["X-Forwarded-For: 10.0.0.1", "X-Real-IP: 10.0.0.1", "Forwarded: for=10.0.0.1"] {
        let (code, body) = status(&sidecar, &format!("{claim}\r\n")).await;
        assert_eq!(code, 403, "{claim}");
        assert!(body.contains("--trusted-proxies"), "{body}");
    }
    let open = before(&engine, &[]).await;
    assert_eq!(status(&open, "").await.0, 200);
    assert_eq!(status(&open, "X-Forwarded-For: 127.0.0.1\r\n").await.0, 403, "loopback is no proof");
    let health = ask(&sidecar, "GET /healthz HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n").await;
    assert_eq!(health.status(), 200, "health is public");
}

#[tokio::test]
async fn a_configured_proxy_is_trusted() {
    let engine = RawEngine::start().await;
    let sidecar = before(&engine, &["--allow-from", "10.0.0.0/8", "--trusted-proxies", "127.0.0.1/32"]).await;
    assert_eq!(status(&sidecar, "X-Forwarded-For: 192.168.1.1\r\n").await.0, 403);
    let reported = "X-Forwarded-For: 192.168.1.1, 10.0.0.7\r\nX-Forwarded-Proto: https\r\n";
    assert_eq!(status(&sidecar, reported).await.0, 200);
    let request = &engine.requests("/x")[0];
    assert_eq!(request.header("x-forwarded-for"), ["192.168.1.1, 10.0.0.7, 127.0.0.1"]);
    assert_eq!(request.header("x-forwarded-proto"), ["https"]);
}

#[tokio::test]
async fn a_configured_proxy_may_give_the_address_in_any_notation_but_only_one() {
    let engine = RawEngine::start().await;
    let sidecar = before(&engine, &["--allow-from", "10.0.0.0/8", "--trusted-proxies", "127.0.0.1/32"]).await;
    for (lines, code, reported) in [
        ("X-Forwarded-For: 10.0.0.7:567\r\n", 200, "10.0.0.7:567, 127.0.0.1"),
        ("X-Real-IP: 10.0.0.7\r\n", 200, "10.0.0.7, 127.0.0.1"),
        ("Forwarded: for=\"10.0.0.7:567\";proto=https;host=pics.local\r\n", 200, "10.0.0.7, 127.0.0.1"),
        ("X-Forwarded-For: 10.0.0.7\r\nX-Real-IP: 10.0.0.8\r\n", 403, ""),
        ("Forwarded: for=unknown\r\n", 403, ""),
    ] {
        let before = engine.requests("/x").len();
        let (status, body) = status(&sidecar, lines).await;
        assert_eq!(status, code, "{lines}: {body}");
        let request = engine.requests("/x");
        if code == 200 {
            assert_eq!(request[before].header("x-forwarded-for"), [reported], "{lines}");
            assert!(request[before].header("forwarded").is_empty(), "one header for the address: {lines}");
            let https = lines.starts_with("Forwarded");
            let expected = if https { ["https", "pics.local"] } else { ["http", "ada2:7860"] };
            let reported =
                ["x-forwarded-proto", "x-forwarded-host"].map(|name| request[before].header(name)[0]);
            assert_eq!(reported, expected, "{lines}");
        } else {
            assert_eq!(request.len(), before, "{lines}");
        }
    }
}

#[tokio::test]
async fn pages_of_other_sites_cannot_reach_the_engine() {
    let engine = RawEngine::start().await;
    let sidecar = before(&engine, &["--allowed-origins", "https://ui.example"]).await;
    let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\n";
    for foreign in [
        "Origin: http://evil.example\r\n".to_owned(),
        "Origin: null\r\n".to_owned(),
        "Origin: http://ada2:9090\r\n".to_owned(),
        format!("Origin: http://evil.example\r\n{upgrade}"),
        "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: image\r\n".to_owned(),
        "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: iframe\r\n".to_owned(),
    ] {
        let (code, body) = status(&sidecar, &foreign).await;
        assert_eq!(code, 403, "{foreign}");
        assert!(body.contains("cross_origin"), "{body}");
    }
    let rebound = ask(&sidecar, "GET /x HTTP/1.1\r\nHost: rebound.example\r\n\r\n").await;
    assert_eq!(rebound.status(), 421);
    assert!(engine.requests("/x").is_empty());
    for ours in [
        "Origin: http://ada2:7860\r\n",
        "Origin: https://ui.example\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: cors\r\n",
        "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n",
        "Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: image\r\n",
    ] {
        assert_eq!(status(&sidecar, ours).await.0, 200, "{ours}");
    }
    for request in engine.requests("/x") {
        assert!(request.header("origin").iter().all(|origin| *origin == "http://ada2:7860"), "{request:?}");
        assert!(request.header("sec-fetch-site").is_empty());
    }
}

#[tokio::test]
async fn cross_site_links_are_allowed_and_cross_site_forms_are_not() {
    let engine = RawEngine::start().await;
    let sidecar = before(&engine, &[]).await;
    let navigation = "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n";
    for (method, code) in
        [("GET", 200), ("HEAD", 200), ("POST", 403), ("PUT", 403), ("DELETE", 403), ("LINK", 403)]
    {
        let mut wire = fakes::raw_http::RawClient::to(&sidecar.url).await;
        let head = "Host: ada2:7860\r\nContent-Length: 0\r\nConnection: close\r\n";
        wire.send(format!("{method} /x HTTP/1.1\r\n{head}{navigation}\r\n")).await;
        let answer = wire.rest().await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{method}: {answer}");
    }
    assert_eq!(engine.requests("/x").len(), 2);
}

#[tokio::test]
async fn our_token_is_removed_from_every_header() {
    let engine = RawEngine::start().await;
    let sidecar = before(&engine, &["--token", "a-long-secret-token"]).await;
    let (ours, theirs) = ("Bearer a-long-secret-token", "Basic bWU6bWU=");
    for (lines, expected) in [
        (vec![theirs, ours], vec![theirs]),
        (vec![ours, theirs], vec![theirs]),
        (vec![ours, ours], vec![]),
        (vec!["bearer\ta-long-secret-token"], vec![]),
        (vec!["Bearer x, Bearer a-long-secret-token"], vec![]),
        (vec!["Bearer a-long-secret-token-2"], vec!["Bearer a-long-secret-token-2"]),
        (vec![theirs, "Digest a=\"b\", c=d"], vec![theirs, "Digest a=\"b\", c=d"]),
    ] {
        let headers: Vec<_> = lines.iter().map(|line| format!("Authorization: {line}\r\n")).collect();
        let headers = headers.concat();
        assert_eq!(status(&sidecar, &headers).await.0, 200, "{lines:?}");
        let request = engine.requests("/x");
        assert_eq!(request.last().unwrap().header("authorization"), expected, "{lines:?}");
    }
}

#[tokio::test]
async fn our_token_is_removed_and_every_other_credential_is_relayed() {
    let engine = RawEngine::start().await;
    let sidecar = before(&engine, &["--token", "a-long-secret-token"]).await;
    assert_eq!(status(&sidecar, "Authorization: Bearer a-long-secret-token\r\n").await.0, 200);
    assert_eq!(status(&sidecar, "Authorization: Basic bWU6bWU=\r\n").await.0, 200);
    let request: Vec<_> =
        engine.requests("/x").iter().map(|request| request.header("authorization").join("|")).collect();
    assert_eq!(request, ["", "Basic bWU6bWU="]);
}
