//! The sidecar behind a trusted proxy: the client's address, and the name it used.

use e2e::sidecar::Sidecar;
use fakes::{
    TestResponse,
    raw_http::{RawClient, RawResponse},
};
use serde_json::json;

async fn get(sidecar: &Sidecar, headers: &str) -> RawResponse {
    let mut wire = RawClient::to(&sidecar.url).await;
    wire.send(format!("GET /v1/models HTTP/1.1\r\n{headers}\r\n")).await;
    wire.response().await
}

#[tokio::test]
async fn image_urls_use_the_address_that_the_client_used() {
    let flags = ["--trusted-proxies", "127.0.0.1", "--allowed-hosts", ".example.org"];
    let (behind, direct) = (Sidecar::builtin(&flags).await, Sidecar::builtin(&flags[2..]).await);
    let send = async |sidecar: &Sidecar, lines: &[(&str, &str)]| {
        sidecar.until_ready().await;
        let ask = json!({"prompt": "a boat", "size": "64x64", "response_format": "url"});
        let request =
            fakes::http().post(format!("{}/v1/images/generations", sidecar.url)).body(ask.to_string());
        let request = request.header("content-type", "application/json").header("host", "ada2:7860");
        let request = lines.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        TestResponse::read(request.send().await.unwrap()).await
    };
    let (client, proto) = (("x-forwarded-for", "127.0.0.1"), ("x-forwarded-proto", "https"));
    for (lines, base) in [
        (&[][..], "http://ada2:7860"),
        (&[client, proto], "https://ada2:7860"),
        (&[client, proto, ("x-forwarded-host", "pics.example.org")], "https://pics.example.org"),
        (
            &[client, ("x-forwarded-host", "evil.example, pics.example.org:8443")],
            "http://pics.example.org:8443",
        ),
        (
            &[("forwarded", "for=\"127.0.0.1:9\";proto=https;host=pics.example.org")],
            "https://pics.example.org",
        ),
    ] {
        let made = send(&behind, lines).await;
        let url = made.json["data"][0]["url"].as_str().unwrap_or_default();
        assert!(url.starts_with(&format!("{base}/v1/images/files/")), "{lines:?}: {made:?}");
    }
    let foreign = send(&behind, &[client, ("x-forwarded-host", "evil.example.com")]).await;
    assert_eq!((foreign.status, foreign.code()), (421, "host_not_allowed"));
    let made = send(&direct, &[proto, ("x-forwarded-host", "pics.example.org")]).await;
    let url = made.json["data"][0]["url"].as_str().unwrap_or_default();
    assert!(url.starts_with("http://ada2:7860/"), "untrusted headers are ignored: {url}");
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_origin_is_compared_with_the_forwarded_host() {
    let flags = ["--trusted-proxies", "127.0.0.1", "--allowed-hosts", "pics.example.org"];
    let sidecar = Sidecar::builtin(&flags).await;
    for (origin, forwarded, status) in [
        ("https://pics.example.org", "X-Forwarded-Host: pics.example.org\r\n", 200),
        ("https://pics.example.org", "X-Forwarded-Host: pics.example.org:443\r\n", 200),
        ("https://pics.example.org", "Forwarded: for=127.0.0.1;host=pics.example.org\r\n", 200),
        ("http://ada2:7860", "X-Forwarded-Host: pics.example.org\r\n", 403),
        ("https://evil.example", "X-Forwarded-Host: evil.example\r\n", 421),
        ("https://pics.example.org", "", 403),
        ("http://ada2:7860", "", 200),
    ] {
        let headers = format!("Host: ada2:7860\r\nOrigin: {origin}\r\n{forwarded}");
        let answer = get(&sidecar, &headers).await;
        assert_eq!(answer.status(), status, "{headers}: {answer:?}");
    }
}
