//! What pages of other origins may read of both programs.

use e2e::{
    gateway::{Gateway, TOKEN, gpu_heavy},
    sidecar::Sidecar,
};
use fakes::{
    TestResponse,
    raw_engine::RawEngine,
    upstream::{Upstream, UpstreamReply},
};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::json;

const UI: &str = "https://ui.example";
const EVIL: &str = "https://evil.example";
const EXPOSED: &str = "X-Request-Id, X-Backend-Used, X-Model-Used, Retry-After, x-should-retry";

fn ask(method: Method, url: &str, path: &str) -> RequestBuilder {
    fakes::http().request(method, format!("{url}{path}"))
}

async fn preflight(url: &str, path: &str, origin: &str) -> TestResponse {
    let request = ask(Method::OPTIONS, url, path)
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,content-type,x-stainless-os")
        .header("access-control-request-private-network", "true");
    TestResponse::read(request.send().await.unwrap()).await
}

/// Sends it from the allowed origin, from another one and from none; returns the first answer.
async fn from_all_origins(status: u16, foreign: u16, request: impl Fn() -> RequestBuilder) -> Response {
    let what = format!("{:?}", request());
    let read = request().header("origin", UI).send().await.unwrap();
    assert_eq!(read.status().as_u16(), status, "{what}");
    assert_eq!(read.headers()["access-control-allow-origin"], UI, "{what}");
    assert_eq!(read.headers()["access-control-expose-headers"], EXPOSED, "{what}");
    assert!(read.headers().contains_key("x-request-id"), "{what}");
    for (origin, status) in [(Some(EVIL), foreign), (Some("null"), foreign), (None, status)] {
        let request = origin.into_iter().fold(request(), |request, origin| request.header("origin", origin));
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{origin:?} {what}");
        assert!(!answer.headers().contains_key("access-control-allow-origin"), "{origin:?} {what}");
        assert_eq!(answer.headers()["vary"], "Origin", "caches must know: {origin:?} {what}");
    }
    assert_eq!(read.headers()["vary"], "Origin", "{what}");
    read
}

/// The preflight is answered without token to the one origin alone.
async fn preflights(url: &str, paths: &[&str]) {
    for path in paths {
        let answer = preflight(url, path, UI).await;
        assert_eq!(answer.status, 204, "{path}");
        for (name, value) in [
            ("access-control-allow-origin", UI),
            ("access-control-allow-headers", "authorization, content-type, x-stainless-os"),
            ("access-control-allow-private-network", "true"),
            ("access-control-max-age", "600"),
        ] {
            assert_eq!(answer.header(name), value, "{path}");
        }
        for method in ["GET", "POST", "DELETE"] {
            assert!(answer.header("access-control-allow-methods").contains(method), "{path}");
        }
        let vary: Vec<_> = answer.headers.get_all("vary").iter().map(|line| line.to_str().unwrap()).collect();
        let vary = vary.join(", ");
        for name in ["Origin", "Access-Control-Request-Headers", "Access-Control-Request-Method"] {
            assert!(vary.contains(name), "{path}: {vary}");
        }
        assert!(!answer.headers.contains_key("access-control-allow-credentials"), "{path}");
        for origin in [EVIL, "null", "http://ui.example", "https://ui.example.evil.example"] {
            let answer = preflight(url, path, origin).await;
            assert_eq!((answer.status, answer.code()), (403, "cross_origin"), "{path} {origin}");
            assert!(answer.header("access-control-allow-origin").is_empty(), "{path} {origin}");
        }
    }
}

#[tokio::test]
async fn a_page_of_an_allowed_origin_reads_every_answer_of_the_gateway() {
    let upstream = Upstream::start().await;
    let flags = ["--gateway-allowed-origins", UI, "--max-request-bytes", "1000"];
    let gateway = Gateway::start(&upstream, &flags).await;
    let url = &gateway.url;
    preflights(url, &["/v1/models", "/v1/images/generations", "/v1/images/edits", "/v1/nothing", "/healthz"])
        .await;
    let generate = |body: serde_json::Value| {
        let request = ask(Method::POST, url, "/v1/images/generations").bearer_auth(TOKEN);
        request.header("content-type", "application/json").body(body.to_string())
    };
    from_all_origins(200, 200, || ask(Method::GET, url, "/v1/models").bearer_auth(TOKEN)).await;
    from_all_origins(401, 401, || ask(Method::GET, url, "/v1/models")).await;
    from_all_origins(404, 404, || ask(Method::GET, url, "/v1/nothing").bearer_auth(TOKEN)).await;
    from_all_origins(405, 405, || ask(Method::PUT, url, "/v1/images/edits").bearer_auth(TOKEN)).await;
    from_all_origins(400, 400, || generate(json!({"prompt": ""}))).await;
    from_all_origins(413, 413, || generate(json!({"prompt": "x".repeat(2000)}))).await;
    from_all_origins(200, 403, || ask(Method::GET, url, "/healthz")).await;
    let made = from_all_origins(200, 200, || generate(json!({"prompt": "p"}))).await;
    assert_eq!(made.headers()["x-backend-used"], "gpu_heavy");
    let image = TestResponse::read(made).await.json["data"][0]["url"].as_str().unwrap().to_owned();
    from_all_origins(200, 403, || ask(Method::GET, url, &image)).await;
    preflights(url, &[&image]).await;
    upstream.stop().await;
    let refused = || generate(json!({"prompt": "p"})).header("origin", UI).send();
    let refused = fakes::eventually("the backend's end", async || {
        Some(refused().await.unwrap()).filter(|answer| answer.status().as_u16() == 503)
    });
    let refused = refused.await;
    assert_eq!(
        (&refused.headers()["access-control-allow-origin"], refused.headers().contains_key("retry-after")),
        (&UI.parse().unwrap(), true)
    );
}

#[tokio::test]
async fn addresses_and_hosts_are_checked_before_a_preflight() {
    let upstream = Upstream::start().await;
    let flags = ["--gateway-allowed-origins", UI, "--ip-allowlist", "10.0.0.0/8", "--ui-ip-allowlist", ""];
    let gateway = Gateway::start(&upstream, &flags).await;
    for path in ["/v1/models", "/ui/images/x.png"] {
        let answer = preflight(&gateway.url, path, UI).await;
        assert_eq!((answer.status, answer.code()), (403, "ip_not_allowed"), "{path}");
    }
    let sidecar = Sidecar::builtin(&["--allowed-origins", UI, "--allow-from", "10.0.0.0/8"]).await;
    let answer = preflight(&sidecar.url, "/v1/models", UI).await;
    assert_eq!((answer.status, answer.code()), (403, "ip_not_allowed"));
    assert_eq!(preflight(&sidecar.url, "/healthz", UI).await.status, 204);
    for url in [&gateway.url, &sidecar.url] {
        let request = ask(Method::OPTIONS, url, "/v1/models").header("host", "rebound.example");
        let request = request.header("origin", UI).header("access-control-request-method", "GET");
        assert_eq!(request.send().await.unwrap().status().as_u16(), 421);
        let plain = ask(Method::OPTIONS, url, "/healthz").header("origin", UI).send().await.unwrap();
        assert_eq!(plain.status().as_u16(), 405, "no preflight");
    }
}

#[tokio::test]
async fn without_allowed_origins_no_header_mentions_them() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    let sidecar = Sidecar::builtin(&[]).await;
    for url in [&gateway.url, &sidecar.url] {
        let answer = preflight(url, "/v1/models", UI).await;
        assert_eq!((answer.status, answer.code()), (403, "cross_origin"));
        let answer = ask(Method::GET, url, "/healthz").send().await.unwrap();
        assert!(
            !answer.headers().contains_key("vary")
                && !answer.headers().contains_key("access-control-allow-origin")
        );
    }
}

#[tokio::test]
async fn cors_headers_of_the_old_gateway_count_for_its_own_paths_only() {
    let (old, heavy) = (Upstream::start().await, Upstream::start().await);
    let flags = ["--gateway-legacy-upstream", &old.url, "--gateway-allowed-origins", UI];
    let gateway = Gateway::with_backends(&gpu_heavy(&heavy), &flags).await;
    for path in ["/v1/tools", "/tools"] {
        let reply = UpstreamReply::Respond(200, Vec::new(), b"ok".to_vec());
        old.set(
            path,
            reply
                .with_header("access-control-allow-origin", "*")
                .with_header("access-control-allow-credentials", "true"),
        );
    }
    let tools = || ask(Method::GET, &gateway.url, "/v1/tools").bearer_auth(TOKEN);
    let read = from_all_origins(200, 200, tools).await;
    assert!(!read.headers().contains_key("access-control-allow-credentials"));
    preflights(&gateway.url, &["/v1/tools"]).await;
    let own = ask(Method::GET, &gateway.url, "/tools").bearer_auth(TOKEN).send().await.unwrap();
    assert_eq!(own.headers()["access-control-allow-origin"], "*");
}

#[tokio::test]
async fn a_page_of_an_allowed_origin_reads_every_answer_of_the_sidecar() {
    let flags = ["--allowed-origins", UI, "--token", "a-long-secret-token", "--max-request-bytes", "2KiB"];
    let sidecar = Sidecar::builtin(&flags).await;
    sidecar.until_ready().await;
    let url = &sidecar.url;
    preflights(url, &["/v1/models", "/v1/images/generations", "/v1/nothing", "/readyz", "/gpu", "/metrics"])
        .await;
    let with_token = |method: Method, path: &str| ask(method, url, path).bearer_auth("a-long-secret-token");
    let generate = |body: serde_json::Value| {
        let request = with_token(Method::POST, "/v1/images/generations");
        request.header("content-type", "application/json").body(body.to_string())
    };
    from_all_origins(200, 200, || with_token(Method::GET, "/v1/models")).await;
    from_all_origins(401, 403, || ask(Method::GET, url, "/v1/models")).await;
    from_all_origins(404, 404, || with_token(Method::GET, "/v1/nothing")).await;
    from_all_origins(405, 405, || with_token(Method::GET, "/v1/images/generations")).await;
    from_all_origins(413, 413, || generate(json!({"prompt": "x".repeat(3000)}))).await;
    for path in ["/healthz", "/readyz", "/metrics"] {
        from_all_origins(200, 403, || ask(Method::GET, url, path)).await;
    }
    let small = |more: serde_json::Value| {
        let mut body = json!({"prompt": "p", "size": "64x64", "steps": 1});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let stream = from_all_origins(200, 200, || generate(small(json!({"stream": true})))).await;
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let made = from_all_origins(200, 200, || generate(small(json!({"response_format": "url"})))).await;
    let image = TestResponse::read(made).await.json["data"][0]["url"].as_str().unwrap().to_owned();
    let image = image.strip_prefix(url.as_str()).unwrap();
    from_all_origins(200, 403, || ask(Method::GET, url, image)).await;
}

#[tokio::test]
async fn the_engines_paths_keep_the_engines_cors_headers() {
    let engine = RawEngine::start().await;
    let sidecar = Sidecar::comfyui(&engine.url, &["--allowed-origins", UI]).await;
    let answer = ask(Method::GET, &sidecar.url, "/x").header("origin", UI).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    assert!(!answer.headers().contains_key("access-control-allow-origin"));
    assert!(preflight(&sidecar.url, "/x", UI).await.header("access-control-allow-origin").is_empty());
    assert_eq!(preflight(&sidecar.url, "/x", EVIL).await.code(), "cross_origin");
}
