//! Tokens, addresses, hosts, origins, bodies.

use e2e::gateway::{Gateway, TOKEN, gpu_heavy};
use fakes::{
    TestResponse,
    raw_http::RawClient,
    upstream::{Upstream, UpstreamReply},
};
use reqwest::Method;
use serde_json::json;

async fn with(gateway: &Gateway, path: &str, lines: &[(&str, &str)]) -> TestResponse {
    let mut request = gateway.anonymous(Method::GET, path);
    for (name, value) in lines {
        request = request.header(*name, *value);
    }
    TestResponse::read(request.send().await.unwrap()).await
}

#[tokio::test]
async fn without_a_valid_token_no_details_are_reported() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    for path in ["/v1/models", "/v1/gateway/status", "/v1/images/generations", "/nothing"] {
        for lines in [&[][..], &[("authorization", "Bearer wrong")], &[("authorization", "Bearer ")]] {
            let answer = with(&gateway, path, lines).await;
            assert_eq!((answer.status, answer.code()), (401, "invalid_api_key"), "{path} {lines:?}");
            assert_eq!(answer.header("www-authenticate"), "Bearer");
        }
    }
    let request =
        gateway.anonymous(Method::POST, "/v1/images/generations").body(json!({"prompt": "p"}).to_string());
    assert_eq!(request.send().await.unwrap().status().as_u16(), 401);
    assert!(upstream.images().is_empty());
}

#[tokio::test]
async fn liveness_and_readiness_are_public_and_details_need_a_token() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    for path in ["/healthz", "/readyz"] {
        let answer = gateway.anonymous(Method::GET, path).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 200);
        let text = answer.text().await.unwrap();
        assert!(["ok\n", "ready\n"].contains(&text.as_str()), "{text}");
    }
    let detail = gateway.get("/readyz").await;
    assert_eq!(detail.json, json!({"status": "ready", "draining": false, "store": "writable"}));
    upstream.stop().await;
    assert_eq!(gateway.get("/readyz").await.status, 200, "its own state only, never a backend's");
    std::fs::remove_dir_all(&gateway.store).unwrap();
    let refused = async || Some(gateway.get("/readyz").await).filter(|detail| detail.status == 503);
    let detail = fakes::eventually("the next try, a second after the last", refused).await;
    assert_eq!(detail.json["status"], "not_ready");
}

#[tokio::test]
async fn a_request_of_http_1_0_need_not_name_a_host() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    for (version, headers, status) in
        [("1.0", "", 200), ("1.1", "", 400), ("1.0", "Origin: http://evil.example\r\n", 403)]
    {
        for path in ["/healthz", "/readyz"] {
            let mut wire = RawClient::to(&gateway.url).await;
            wire.send(format!("GET {path} HTTP/{version}\r\n{headers}\r\n")).await;
            let response = wire.response().await;
            assert_eq!(response.status(), status, "{path} {version} {headers}");
            // Other servers may read the bytes behind an ambiguous head differently.
            assert_eq!(response.header("connection") == "close", status == 400, "{version}");
        }
    }
    let mut wire = RawClient::to(&gateway.url).await;
    wire.send(format!("GET /v1/models HTTP/1.0\r\nAuthorization: Bearer {TOKEN}\r\n\r\n")).await;
    assert_eq!(wire.response().await.status(), 200);
}

#[tokio::test]
async fn a_foreign_host_is_421_everywhere_and_a_foreign_page_403_where_no_token_was_checked() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &["--gateway-allowed-hosts", "ai2.example.org"]).await;
    let bearer = format!("Bearer {TOKEN}");
    for path in ["/healthz", "/ui/images/x", "/v1/models", "/nothing"] {
        let answer = with(&gateway, path, &[("host", "evil.example"), ("authorization", &bearer)]).await;
        assert_eq!((answer.status, answer.code()), (421, "host_not_allowed"), "{path}");
        assert!(answer.message().contains("GATEWAY_ALLOWED_HOSTS"));
    }
    assert_eq!(with(&gateway, "/healthz", &[("host", "ai2.example.org")]).await.status, 200);
    let evil = ("origin", "https://evil.example");
    for path in ["/healthz", "/readyz", "/ui/images/x"] {
        let answer = with(&gateway, path, &[evil]).await;
        assert_eq!((answer.status, answer.code()), (403, "cross_origin"), "{path}");
        assert_eq!(with(&gateway, path, &[("origin", "null")]).await.status, 403, "{path}");
    }
    assert_eq!(with(&gateway, "/v1/models", &[evil, ("authorization", &bearer)]).await.status, 200);
    drop(gateway);
    let gateway = Gateway::start(&upstream, &["--gateway-auth", "off"]).await;
    assert_eq!(with(&gateway, "/v1/models", &[]).await.status, 200);
    assert_eq!(with(&gateway, "/v1/models", &[evil]).await.code(), "cross_origin");
    let request =
        gateway.anonymous(Method::POST, "/v1/images/generations").header("origin", "https://evil.example");
    assert_eq!(request.body(r#"{"prompt":"p"}"#).send().await.unwrap().status().as_u16(), 403);
    assert!(upstream.images().is_empty());
}

#[tokio::test]
async fn addresses_come_from_the_connection_unless_a_trusted_proxy_says_otherwise() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &["--ip-allowlist", "10.0.0.0/8"]).await;
    let answer = gateway.get("/v1/models").await;
    assert_eq!((answer.status, answer.code()), (403, "ip_not_allowed"), "before the token is looked at");
    let tale = ("x-forwarded-for", "10.1.1.1");
    let bearer = format!("Bearer {TOKEN}");
    let lines = [tale, ("authorization", bearer.as_str())];
    assert_eq!(with(&gateway, "/v1/models", &lines).await.status, 403, "untrusted headers are ignored");
    assert_eq!(with(&gateway, "/ui/images/x", &[]).await.status, 404);
    assert_eq!(with(&gateway, "/ui/images/x", &[tale]).await.status, 403);
    drop(gateway);
    let flags = ["--ip-allowlist", "10.0.0.0/8", "--trust-proxy-cidrs", "127.0.0.1"];
    let gateway = Gateway::start(&upstream, &flags).await;
    assert_eq!(with(&gateway, "/v1/models", &lines).await.status, 200);
    assert_eq!(
        with(&gateway, "/v1/models", &[("x-forwarded-for", "10.1.1.1, 8.8.8.8"), lines[1]]).await.status,
        403
    );
}

#[tokio::test]
async fn a_trusted_proxy_may_give_the_address_in_any_notation_but_only_one() {
    let upstream = Upstream::start().await;
    let flags = ["--ip-allowlist", "10.0.0.0/8,2001:db8::/32", "--trust-proxy-cidrs", "127.0.0.1"];
    let gateway = Gateway::start(&upstream, &flags).await;
    let bearer = format!("Bearer {TOKEN}");
    for (lines, status) in [
        (&[("x-forwarded-for", "10.1.1.1:567")][..], 200),
        (&[("x-forwarded-for", "[2001:db8::1]:80")], 200),
        (&[("x-forwarded-for", "\"[2001:db8::1]:4711\"")], 200),
        (&[("x-forwarded-for", "8.8.8.8, ::ffff:10.1.1.1")], 200),
        (&[("x-real-ip", "10.1.1.1")], 200),
        (&[("forwarded", "for=8.8.8.8, for=\"10.1.1.1:567\";proto=https")], 200),
        (&[("forwarded", "for=\"[2001:db8::1]:4711\""), ("x-real-ip", "2001:db8::1")], 200),
        (&[("x-forwarded-for", "8.8.8.8:567")], 403),
        (&[("x-real-ip", "8.8.8.8")], 403),
        (&[("forwarded", "for=10.1.1.1, for=8.8.8.8")], 403),
        (&[("forwarded", "for=_hidden")], 403),
        (&[("x-forwarded-for", "10.1.1.1"), ("x-real-ip", "10.1.1.2")], 403),
        (&[("x-forwarded-for", "10.1.1.1"), ("forwarded", "for=10.1.1.2")], 403),
    ] {
        let answer = with(&gateway, "/v1/models", &[lines, &[("authorization", &bearer)]].concat()).await;
        assert_eq!(answer.status, status, "{lines:?}: {answer:?}");
    }
    let lines = [("x-forwarded-for", "10.1.1.1"), ("x-forwarded-host", "evil.example")];
    let answer = with(&gateway, "/v1/models", &[&lines[..], &[("authorization", &bearer)]].concat()).await;
    assert_eq!((answer.status, answer.code()), (421, "host_not_allowed"));
    let untrusting = Gateway::start(&upstream, &[]).await;
    for line in
        [("x-forwarded-for", "127.0.0.1:1"), ("forwarded", "for=127.0.0.1"), ("x-real-ip", "127.0.0.1")]
    {
        let answer = with(&untrusting, "/ui", &[line]).await;
        assert_eq!((answer.status, answer.code()), (403, "ip_not_allowed"), "{line:?}");
        assert!(answer.message().contains("TRUST_PROXY_CIDRS"), "{answer:?}");
    }
}

#[tokio::test]
async fn an_old_gateway_gets_the_client_address_that_we_determined() {
    let (old, heavy) = (Upstream::start().await, Upstream::start().await);
    old.set("/tools", UpstreamReply::Respond(200, Vec::new(), b"ok".to_vec()));
    let claims = [("forwarded", "for=1.2.3.4;proto=https;host=pics.local"), ("x-real-ip", "1.2.3.4")];
    let bearer = format!("Bearer {TOKEN}");
    let lines = [&claims[..], &[("authorization", &bearer)]].concat();
    for (trusted, names_sent) in [
        (&[][..], ["127.0.0.1", "http", "", ""]),
        (&["--trust-proxy-cidrs", "127.0.0.1"], ["1.2.3.4, 127.0.0.1", "https", "", "1.2.3.4"]),
    ] {
        let flags = [&["--gateway-legacy-upstream", &old.url], trusted].concat();
        let gateway = Gateway::with_backends(&gpu_heavy(&heavy), &flags).await;
        assert_eq!(with(&gateway, "/tools", &lines).await.status, 200);
        let requests = old.requests("/tools");
        let request = requests.last().unwrap();
        let names = ["x-forwarded-for", "x-forwarded-proto", "forwarded", "x-real-ip"];
        assert_eq!(names.map(|name| request.header(name)), names_sent, "{trusted:?}");
    }
}

#[tokio::test]
async fn a_browser_at_the_root_path_gets_a_page() {
    let (old, heavy) = (Upstream::start().await, Upstream::start().await);
    old.set("/", UpstreamReply::Respond(200, Vec::new(), b"old".to_vec()));
    let browser = [("accept", "text/html,application/xhtml+xml,*/*;q=0.8"), ("sec-fetch-dest", "document")];
    for legacy in [&[][..], &["--gateway-legacy-upstream", &old.url]] {
        let gateway = Gateway::with_backends(&gpu_heavy(&heavy), legacy).await;
        let answer = with(&gateway, "/", &browser).await;
        assert_eq!((answer.status, answer.header("location")), (303, "/ui"), "{legacy:?}");
        assert_eq!(with(&gateway, "/", &[]).await.code(), "invalid_api_key");
        let page = gateway.anonymous(Method::GET, "/ui").send().await.unwrap();
        assert_eq!(page.status().as_u16(), 200);
        assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
        assert!(
            page.headers()["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'")
        );
        assert_eq!(page.headers()["x-content-type-options"], "nosniff");
        let text = page.text().await.unwrap();
        assert!(text.starts_with("<!doctype html>") && !text.contains(TOKEN), "{text}");
        let head = gateway.anonymous(Method::HEAD, "/ui").send().await.unwrap();
        assert_eq!(head.status().as_u16(), 200);
        let wrong = TestResponse::read(gateway.anonymous(Method::POST, "/ui").send().await.unwrap()).await;
        assert_eq!((wrong.status, wrong.code()), (405, "method_not_allowed"));
        let api = with(&gateway, "/v1/models", &browser).await;
        assert_eq!((api.status, api.code()), (401, "invalid_api_key"), "programs' paths stay as they are");
    }
    assert!(old.requests("/").is_empty());
    let closed = Gateway::start(&heavy, &["--ui-ip-allowlist", "10.0.0.0/8"]).await;
    assert_eq!(with(&closed, "/ui", &browser).await.code(), "ip_not_allowed");
}

#[tokio::test]
async fn bodies_are_bounded_and_never_compressed() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &["--max-request-bytes", "1000"]).await;
    let long = json!({"prompt": "x".repeat(2000)});
    let answer = gateway.generate(&long).await;
    assert_eq!((answer.status, answer.code()), (413, "request_too_large"));
    assert!(answer.message().contains("1000 bytes"), "{}", answer.message());
    let packed = gateway
        .image_request(&json!({"prompt": "p"}))
        .header("content-encoding", "gzip")
        .send()
        .await
        .unwrap();
    assert_eq!(packed.status().as_u16(), 415);
    drop(gateway);
    let gateway = Gateway::start(&upstream, &["--max-request-bytes", "0"]).await;
    assert_eq!(gateway.generate(&long).await.status, 200, "0 is no limit of its own");
}

#[tokio::test]
async fn an_invalid_request_id_is_replaced() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    let valid = with(&gateway, "/healthz", &[("x-request-id", "abc.1")]).await;
    assert_eq!(valid.header("x-request-id"), "abc.1");
    let replaced = with(&gateway, "/healthz", &[("x-request-id", "a b\"c")]).await;
    assert_eq!(replaced.header("x-request-id").len(), 36);
}

#[tokio::test]
async fn undecodable_requests_get_the_error_envelope() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    let long = format!("/v1/models/{}", "x".repeat(8000));
    for (path, status, code) in [
        ("/v1/models/%ff", 404, "model_not_found"),
        ("/v1/models/a/%ff/b", 404, "model_not_found"),
        (long.as_str(), 404, "model_not_found"),
        ("/ui/images/%ff", 404, "not_found"),
        ("/readyz/%ff", 404, "not_found"),
        ("/v1/%ff", 404, "not_found"),
        ("/v1/gateway/images/%ff", 404, "not_found"),
        ("/v1/gateway/images?limit=%ff", 400, "invalid_value"),
        ("/v1/gateway/images?before=%ff", 400, "invalid_value"),
    ] {
        let answer = gateway.get(path).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{path:.100}");
        assert_eq!(answer.header("content-type"), "application/json", "{path:.100}");
        assert!(answer.message().len() < 2000, "{path:.100}: {}", answer.message());
    }
}
