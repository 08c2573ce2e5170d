//! The old gateway behind: what is passed on, and what never is.

use e2e::gateway::{Gateway, TOKEN, gpu_heavy};
use fakes::{
    TestResponse,
    raw_engine::RawEngine,
    raw_http::RawClient,
    stream_client::StreamClient,
    upstream::{Upstream, UpstreamReply, sse::SseStep},
};
use reqwest::Method;

async fn in_front(old: &Upstream, flags: &[&str]) -> (Upstream, Gateway) {
    let heavy = Upstream::start().await;
    let legacy = ["--gateway-legacy-upstream", &old.url];
    let gateway = Gateway::with_backends(&gpu_heavy(&heavy), &[&legacy[..], flags].concat()).await;
    (heavy, gateway)
}

#[tokio::test]
async fn other_paths_are_proxied_unchanged() {
    let old = Upstream::start().await;
    let (_heavy, gateway) = in_front(&old, &[]).await;
    let target = "/v1/tools/a%20b;c//d?x=%2F&y=1&y=2";
    let reply = UpstreamReply::Respond(418, Vec::new(), b"\x00short and stout".to_vec());
    old.set(
        target,
        reply
            .with_header("x-tool", "tea")
            .with_header("x-backend-used", "old gateway")
            .with_header("keep-alive", "5"),
    );
    let request = gateway.request(Method::PATCH, target).header("x-mine", "yes").header("cookie", "a=b");
    let request = request.header("x-request-id", "tool-1").header("connection", "x-hop").header("x-hop", "1");
    let answer = request.body("some\0bytes").send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 418);
    let headers = answer.headers().clone();
    assert_eq!(
        (&headers["x-tool"], &headers["x-backend-used"]),
        (&"tea".parse().unwrap(), &"legacy".parse().unwrap())
    );
    assert_eq!(headers["x-request-id"], "tool-1");
    assert_eq!(answer.bytes().await.unwrap(), &b"\x00short and stout"[..]);
    let request = &old.requests(target)[0];
    assert_eq!(
        (request.line.as_str(), &request.bytes[..]),
        (format!("PATCH {target}").as_str(), &b"some\0bytes"[..])
    );
    for (name, value) in [
        ("x-mine", "yes"),
        ("cookie", "a=b"),
        ("content-length", "10"),
        ("x-request-id", "tool-1"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", gateway.url.trim_start_matches("http://")),
        ("authorization", ""),
        ("x-hop", ""),
    ] {
        assert_eq!(request.header(name), value, "{name}");
    }
}

#[tokio::test]
async fn our_paths_are_never_proxied_however_they_are_spelt() {
    let old = Upstream::start().await;
    let (heavy, gateway) = in_front(&old, &[]).await;
    for (method, path) in [
        (Method::POST, "/v1/images/variations"),
        (Method::POST, "/v1/%69mages/generations"),
        (Method::POST, "//v1/images/generations"),
        (Method::POST, "/V1/chat/completions"),
        (Method::POST, "/v1/embeddings/"),
        (Method::GET, "/v1/gateway/other"),
        (Method::GET, "/ui/other"),
    ] {
        let answer = TestResponse::read(gateway.request(method, path).body("{}").send().await.unwrap()).await;
        assert_eq!((answer.status, answer.code()), (404, "not_found"), "{path}");
    }
    assert_eq!(gateway.get("/v1/images/generations").await.status, 405);
    assert!(old.images().is_empty() && heavy.images().is_empty());
    for path in ["/v1/%69mages/generations", "//v1/images/generations", "/V1/chat/completions"] {
        assert!(old.requests(path).is_empty(), "{path}");
    }
}

#[tokio::test]
async fn proxied_paths_have_the_same_access_checks_and_body_limit() {
    let old = Upstream::start().await;
    old.set("/tools", UpstreamReply::Respond(200, vec![], b"ok".to_vec()));
    let (_heavy, gateway) = in_front(&old, &["--max-request-bytes", "1000"]).await;
    assert_eq!(gateway.anonymous(Method::GET, "/tools").send().await.unwrap().status().as_u16(), 401);
    let post = |body: reqwest::Body| gateway.request(Method::POST, "/tools").body(body).send();
    let pieces = || {
        let piece = Ok::<_, std::io::Error>(vec![b'x'; 600]);
        reqwest::Body::wrap_stream(futures_util::stream::iter([piece, Ok(vec![b'x'; 600])]))
    };
    for body in [reqwest::Body::from(vec![b'x'; 1001]), pieces()] {
        let answer = TestResponse::read(post(body).await.unwrap()).await;
        assert_eq!((answer.status, answer.code()), (413, "request_too_large"));
    }
    assert_eq!(post(reqwest::Body::from(vec![b'x'; 1000])).await.unwrap().status().as_u16(), 200);
    let without = Gateway::start(&old, &[]).await;
    assert_eq!(without.get("/tools").await.code(), "not_found", "without an old gateway it is not found");
}

#[tokio::test]
async fn the_old_gateways_own_token_replaces_the_clients() {
    let old = Upstream::start().await;
    let (_heavy, gateway) = in_front(&old, &[]).await;
    gateway.set_env(&format!("GATEWAY_BEARER_TOKEN={TOKEN}\nGATEWAY_LEGACY_BEARER_TOKEN=theirs-1\n"));
    gateway.reload(TOKEN).await;
    gateway.get("/tools").await;
    assert_eq!(old.requests("/tools")[0].header("authorization"), "Bearer theirs-1");
}

#[tokio::test]
async fn a_response_is_relayed_as_it_arrives_and_a_client_disconnect_closes_it() {
    let old = Upstream::start().await;
    old.set(
        "/stream",
        UpstreamReply::Events(vec![
            SseStep::Send("data: 1\n\n".into()),
            SseStep::Wait,
            SseStep::Send("data: 2\n\n".into()),
        ]),
    );
    let (_heavy, gateway) = in_front(&old, &[]).await;
    let mut client = StreamClient::start(gateway.request(Method::GET, "/stream")).await;
    assert_eq!(client.header("x-backend-used"), "legacy");
    client.until(b"data: 1\n\n").await;
    old.step();
    assert!(client.end().await);
    assert_eq!(client.received, b"data: 1\n\ndata: 2\n\n");
    old.set(
        "/endless",
        UpstreamReply::Events(vec![SseStep::Send("data: 1\n\n".into()), SseStep::Wait, SseStep::Wait]),
    );
    let mut leaver = StreamClient::start(gateway.request(Method::GET, "/endless")).await;
    leaver.until(b"data: 1\n\n").await;
    drop(leaver);
    old.until_disconnected(1).await;
}

#[tokio::test]
async fn an_unreachable_or_interrupted_old_gateway_gets_the_error_envelope() {
    let old = Upstream::start().await;
    let (_heavy, gateway) = in_front(&old, &[]).await;
    old.set(
        "/broken",
        UpstreamReply::Events(vec![SseStep::Send("data: 1\n\n".into()), SseStep::Wait, SseStep::Break]),
    );
    let mut client = StreamClient::start(gateway.request(Method::GET, "/broken")).await;
    old.step();
    assert!(!client.end().await, "a truncated response must not look complete");
    old.stop().await;
    let answer = gateway.get("/tools").await;
    assert_eq!((answer.status, answer.code()), (503, "backend_not_ready"));
    assert_eq!(
        (answer.header("x-backend-used"), &answer.json["error"]["backend_class"]),
        ("legacy", &"legacy".into())
    );
}

#[tokio::test]
async fn origin_wide_headers_of_the_old_gateway_are_removed() {
    let old = Upstream::start().await;
    let (_heavy, gateway) = in_front(&old, &[]).await;
    let reply =
        UpstreamReply::Respond(200, vec![("content-type", "text/html".into())], b"<p>old</p>".to_vec());
    let reply = reply.with_header("clear-site-data", "\"*\"").with_header("service-worker-allowed", "/");
    old.set(
        "/v1/old",
        reply.with_header("strict-transport-security", "max-age=9").with_header("set-cookie", "a=b"),
    );
    let answer = gateway.request(Method::GET, "/v1/old").send().await.unwrap();
    for name in ["clear-site-data", "service-worker-allowed", "strict-transport-security"] {
        assert!(!answer.headers().contains_key(name), "{name}");
    }
    assert_eq!(answer.headers()["set-cookie"], "a=b", "its own pages keep their sessions");
    assert_eq!(answer.text().await.unwrap(), "<p>old</p>");
}

#[tokio::test]
async fn our_token_is_never_forwarded_and_a_path_of_escapes_blocks_no_other_request() {
    let old = Upstream::start().await;
    let (_heavy, gateway) = in_front(&old, &[]).await;
    let target = "/v1/tools";
    old.set(target, UpstreamReply::Respond(200, Vec::new(), Vec::new()));
    let both = gateway.request(Method::GET, target).header("authorization", "Basic bWU6bWU=");
    assert_eq!(both.send().await.unwrap().status().as_u16(), 401, "two credentials are ambiguous");
    assert!(old.requests(target).is_empty());
    // Each round of decoding takes one `25` of it: a reader who starts anew each time reads a gigabyte,
    // which takes a debug build half a minute.
    let chain = format!("/v1/%{}69mages/generations", "25".repeat(31_000));
    let begin = std::time::Instant::now();
    let answer = gateway.get(&chain).await;
    assert_eq!((answer.status, answer.code()), (404, "not_found"), "a spelling of a path of ours");
    assert!(begin.elapsed() < std::time::Duration::from_secs(5), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_chunked_body_arrives_with_get_as_well() {
    let (old, heavy) = (RawEngine::start().await, Upstream::start().await);
    let gateway = Gateway::with_backends(&gpu_heavy(&heavy), &["--gateway-legacy-upstream", &old.url]).await;
    for method in ["GET", "POST"] {
        let path = format!("/body/{method}");
        let mut wire = RawClient::to(&gateway.url).await;
        wire.send(format!(
            "{method} {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\nTransfer-Encoding: chunked\r\n\r\n\
             2\r\nhi\r\n0\r\n\r\n"
        ))
        .await;
        assert_eq!(wire.response().await.status(), 200);
        assert_eq!(old.requests(&path)[0].body, b"2\r\nhi\r\n0\r\n\r\n", "{method}");
    }
}

#[tokio::test]
async fn ambiguous_response_framing_is_502() {
    let (old, heavy) = (RawEngine::start().await, Upstream::start().await);
    let legacy = ["--gateway-legacy-upstream", &old.url];
    let gateway = Gateway::with_backends(&gpu_heavy(&heavy), &legacy).await;
    for path in ["/both", "/twice", "/listed"] {
        let answer = gateway.request(Method::GET, path).send().await.unwrap();
        let lengths: Vec<_> = answer.headers().get_all("content-length").iter().cloned().collect();
        assert!(lengths == ["5"] || path == "/both" && lengths.is_empty(), "{path}: {lengths:?}");
        assert_eq!(answer.text().await.unwrap(), "hello", "{path}");
    }
    for path in ["/differs", "/gzipped", "/gzipped-chunks", "/chunked-gzip"] {
        let answer = gateway.get(path).await;
        assert_eq!((answer.status, answer.code()), (502, "backend_error"), "{path}: {answer:?}");
    }
    let head = gateway.request(Method::HEAD, "/bare/twice").send().await.unwrap();
    assert_eq!(head.headers().get_all("content-length").iter().collect::<Vec<_>>(), ["5"]);
    for path in ["/bare/differs", "/bare/gzipped"] {
        let head = gateway.request(Method::HEAD, path).send().await.unwrap();
        assert_eq!(head.status().as_u16(), 502, "{path}");
    }
}
