//! The listener's TLS.

use std::path::Path;

use e2e::gateway::{Gateway, TOKEN};
use fakes::{raw_http::RawClient, upstream::Upstream};
use reqwest::{Certificate, Client, Version};
use service::outbound::{ConnectionPolicy, client_builder};

/// A client that trusts only the authority in a directory.
async fn trusting(dir: &Path) -> Client {
    let authority = dir.join("gateway-ca.pem");
    let pem = fakes::eventually("the authority", async || std::fs::read(&authority).ok()).await;
    client_builder(ConnectionPolicy::PerRequest)
        .tls_certs_only([Certificate::from_pem(&pem).unwrap()])
        .build()
        .unwrap()
}

#[tokio::test]
async fn a_client_that_trusts_the_local_authority_is_served_over_http_1_1() {
    let upstream = Upstream::start().await;
    let dir = fakes::fresh_dir("tls");
    let yaml = e2e::gateway::gpu_heavy(&upstream);
    let gateway = Gateway::start_in(dir.clone(), &yaml, &["--gateway-tls", "on"]).await;
    assert!(gateway.url.starts_with("https://"));
    let untrusting = client_builder(ConnectionPolicy::PerRequest).build().unwrap();
    let client = trusting(&dir).await;
    let answer = client.get(format!("{}/healthz", gateway.url)).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.version()), (200, Version::HTTP_11));
    assert!(untrusting.get(format!("{}/healthz", gateway.url)).send().await.is_err());
    let port = gateway.url.rsplit(':').next().unwrap();
    let named = client.get(format!("https://localhost:{port}/healthz")).send().await.unwrap();
    assert_eq!(named.status().as_u16(), 200);
}

#[tokio::test]
async fn trust_in_the_authority_outlasts_the_certificate_that_it_signed() {
    let upstream = Upstream::start().await;
    let dir = fakes::fresh_dir("tls-again");
    let yaml = e2e::gateway::gpu_heavy(&upstream);
    let flags = ["--gateway-tls", "on"];
    let gateway = Gateway::start_in(dir.clone(), &yaml, &flags).await;
    let client = trusting(&dir).await;
    let first = std::fs::read(dir.join("gateway-cert.pem")).unwrap();
    let works = async |gateway: &Gateway| {
        client.get(format!("{}/healthz", gateway.url)).send().await.is_ok_and(|answer| answer.status() == 200)
    };
    assert!(works(&gateway).await);
    // As at its end: the certificate has to be signed again.
    std::fs::remove_file(dir.join("gateway-cert.pem")).unwrap();
    gateway.lifecycle.request_reload();
    let signed = async || std::fs::read(dir.join("gateway-cert.pem")).ok().filter(|now| *now != first);
    fakes::eventually("another certificate", signed).await;
    assert!(works(&gateway).await, "with the trust that was given once");
    gateway.stop().await;
    let again = Gateway::start_in(dir.clone(), &yaml, &flags).await;
    fakes::eventually("the next start", async || works(&again).await.then_some(())).await;
}

#[tokio::test]
async fn a_lost_key_of_the_authority_is_reported_and_no_other_authority_is_made() {
    let upstream = Upstream::start().await;
    let dir = fakes::fresh_dir("tls-lost");
    let yaml = e2e::gateway::gpu_heavy(&upstream);
    let flags = ["--gateway-tls", "on"];
    let gateway = Gateway::start_in(dir.clone(), &yaml, &flags).await;
    let client = trusting(&dir).await;
    gateway.stop().await;
    let authority = std::fs::read(dir.join("gateway-ca.pem")).unwrap();
    std::fs::remove_file(dir.join("gateway-ca-key.pem")).unwrap();
    let gateway = Gateway::start_in(dir.clone(), &yaml, &flags).await;
    let url = format!("{}/healthz", gateway.url);
    fakes::eventually("the stored certificate is served", async || client.get(&url).send().await.ok()).await;
    gateway.stop().await;
    std::fs::remove_file(dir.join("gateway-cert.pem")).unwrap();
    let ended = Gateway::start_in(dir.clone(), &yaml, &flags).await.ended().await;
    let message = ended.unwrap_err().to_string();
    assert!(
        message.contains("GATEWAY_DATA_DIR: ") && message.contains("gateway-ca-key.pem is missing"),
        "{message}"
    );
    assert_eq!(std::fs::read(dir.join("gateway-ca.pem")).unwrap(), authority);
}

async fn with_tls() -> (Upstream, Gateway, String) {
    let upstream = Upstream::start().await;
    let yaml = e2e::gateway::gpu_heavy(&upstream);
    let gateway = Gateway::start_in(fakes::fresh_dir("tls"), &yaml, &["--gateway-tls", "on"]).await;
    let plain = gateway.url.replace("https://", "http://");
    (upstream, gateway, plain)
}

#[tokio::test]
async fn plain_http_on_the_tls_port_gets_the_https_url() {
    let (upstream, gateway, plain) = with_tls().await;
    let port = plain.rsplit(':').next().unwrap();
    for (request, place) in [
        (format!("GET /ui HTTP/1.1\r\nHost: ai2.local:{port}\r\n\r\n"), format!("https://ai2.local:{port}")),
        (
            format!("GET / HTTP/1.1\r\nHost: localhost:{port}\r\nAccept: text/html\r\n\r\n"),
            format!("https://localhost:{port}"),
        ),
        (
            format!("GET /v1/models HTTP/1.1\r\nHost: ai2\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"),
            format!("https://ai2:{port}"),
        ),
        ("GET /healthz HTTP/1.0\r\n\r\n".to_owned(), format!("https://HOST:{port}")),
        ("OPTIONS * HTTP/1.1\r\nHost: a b\r\n\r\n".to_owned(), format!("https://HOST:{port}")),
    ] {
        let mut wire = RawClient::to(&plain).await;
        wire.send(&request).await;
        let answer = wire.response().await;
        assert_eq!(answer.status(), 400, "{request}");
        let error: serde_json::Value = serde_json::from_str(&answer.text()).unwrap();
        assert_eq!(error["error"]["code"], "https_required", "{request}");
        assert!(error["detail"].as_str().unwrap().contains(&place), "{request}: {error}");
        assert_eq!(
            (answer.header("content-type"), answer.header("connection")),
            ("application/json", "close")
        );
        assert!(!answer.header("x-request-id").is_empty());
        assert_eq!(wire.rest().await, "", "and closed");
    }
    assert!(upstream.images().is_empty());
    drop(gateway);
}

#[tokio::test]
async fn a_large_plain_http_body_on_the_tls_port_still_gets_the_response() {
    let (_upstream, _gateway, plain) = with_tls().await;
    let length = 4 << 20;
    for _ in 0..8 {
        let mut wire = RawClient::to(&plain).await;
        let head = format!("POST /v1/images/edits HTTP/1.1\r\nHost: ai2\r\nContent-Length: {length}\r\n\r\n");
        wire.send(head).await;
        wire.send(vec![b'x'; length]).await;
        let answer = wire.response().await;
        assert_eq!(answer.status(), 400);
        assert!(answer.text().contains("https_required"));
    }
}

#[tokio::test]
async fn other_protocols_on_the_tls_port_are_closed() {
    let (_upstream, gateway, plain) = with_tls().await;
    for garbage in [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        b"\x00\x01\x02garbage\r\n\r\n",
        b"\x16\x03\x01\xff\xffgarbage",
        b"\x80\x2e\x01\x00\x02",
        b"nonsense\r\n\r\n",
        b" GET / HTTP/1.1\r\n\r\n",
    ] {
        let mut wire = RawClient::to(&plain).await;
        wire.send(garbage).await;
        // A record that is cut off is waited for.
        if garbage.starts_with(b"\x16") {
            wire.half_close().await;
        }
        let answer = wire.rest().await;
        assert!(!answer.contains("HTTP/1.1 200"), "{answer}");
    }
    let client =
        client_builder(ConnectionPolicy::PerRequest).tls_danger_accept_invalid_certs(true).build().unwrap();
    let answer = client.get(format!("{}/healthz", gateway.url)).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
}
