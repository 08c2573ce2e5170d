use fakes::{raw_engine::RawEngine, raw_http::RawClient};

use super::{ask, before};

#[tokio::test]
async fn requests_and_responses_are_relayed_unchanged() {
    let engine = RawEngine::start().await;
    let sidecar = before(&engine, &[]).await;
    let answer = ask(
        &sidecar,
        "PROPFIND /a/../b/%2e%2e//c%00;d?x=%20&y=1+1#no HTTP/1.1\r\nHost: ada2:7860\r\nCookie: a\r\nX-Odd: \x09 b \r\n\
         Cookie: c\r\nContent-Length: 5\r\n\r\nhello",
    )
    .await;
    assert_eq!((answer.status(), answer.header("x-engine")), (200, "raw"), "{answer:?}");
    let request = &engine.requests("/a/")[0];
    // A fragment is no part of a request; nginx drops it too.
    assert_eq!(request.line(), "PROPFIND /a/../b/%2e%2e//c%00;d?x=%20&y=1+1 HTTP/1.1");
    assert_eq!((request.header("cookie"), request.header("x-odd")), (vec!["a", "c"], vec!["b"]));
    assert_eq!((request.body.as_slice(), request.header("content-length")), (b"hello".as_slice(), vec!["5"]));
    assert_eq!(request.header("host"), ["ada2:7860"], "the engine's redirects stay on this address");
    assert_eq!(request.header("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(request.header("x-forwarded-proto"), ["http"]);
    assert_eq!(request.header("x-forwarded-host"), ["ada2:7860"]);
    assert_eq!(request.header("x-request-id"), [answer.header("x-request-id")], "one id in both logs");
}

#[tokio::test]
async fn our_paths_never_reach_the_engine_and_readiness_does_not_gate_it() {
    let engine = RawEngine::start().await;
    let sidecar = before(&engine, &[]).await;
    assert!(!sidecar.readyz().await.admits(), "this engine is none");
    for path in ["/v1", "/v1/", "/v1/images", "/v1/x/y", "/gpu/x", "/readyz/none", "/readyz/"] {
        let answer = ask(&sidecar, &format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert_eq!((answer.status(), answer.header("x-engine")), (404, ""), "{path}");
    }
    let post = ask(&sidecar, "POST /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(post.status(), 405);
    for path in ["/", "/index.html", "/healthz/", "/%68ealthz", "//v1/models", "/V1/models", "/gpus"] {
        let answer = ask(&sidecar, &format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert_eq!((answer.status(), answer.header("x-engine")), (200, "raw"), "{path}");
    }
}

#[tokio::test]
async fn range_head_and_options_requests_and_http_1_0_servers_work() {
    let engine = RawEngine::start().await;
    let sidecar = before(&engine, &[]).await;
    let range =
        ask(&sidecar, "GET /range HTTP/1.1\r\nHost: a\r\nRange: bytes=2-4\r\nIf-Range: \"e\"\r\n\r\n").await;
    assert_eq!(
        (range.status(), range.header("content-range"), range.text()),
        (206, "bytes 2-4/10", "cde".into())
    );
    assert_eq!(engine.requests("/range")[0].header("range"), ["bytes=2-4"]);

    let mut wire = RawClient::to(&sidecar.url).await;
    wire.send("HEAD /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let head = wire.rest().await;
    assert!(
        head.to_lowercase().contains("content-length: 12345\r\n") && head.ends_with("\r\n\r\n"),
        "{head}"
    );

    let options = ask(&sidecar, "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!((options.status(), engine.requests("*")[0].line()), (200, "OPTIONS * HTTP/1.1"));

    let old = ask(&sidecar, "GET /old HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(old.head.starts_with("HTTP/1.1 200"), "{old:?}");
    assert_eq!(old.text(), "3\r\nold\r\n0\r\n\r\n");
    let mut oldest = RawClient::to(&sidecar.url).await;
    oldest.send("GET /x HTTP/1.0\r\nHost: a\r\n\r\n").await;
    assert!(oldest.rest().await.contains("x-engine: raw"), "an old client is answered and hung up on");
    assert_eq!(engine.requests("/x")[1].line(), "GET /x HTTP/1.1");
}

#[tokio::test]
async fn an_http_1_0_client_without_host_works_and_the_engine_gets_its_own() {
    let engine = RawEngine::start().await;
    let sidecar = before(&engine, &[]).await;
    let mut wire = RawClient::to(&sidecar.url).await;
    wire.send("GET /x HTTP/1.0\r\n\r\n").await;
    assert!(wire.rest().await.contains("x-engine: raw"));
    let request = &engine.requests("/x")[0];
    assert_eq!(request.header("host"), [engine.url.strip_prefix("http://").unwrap()]);
    assert!(request.header("x-forwarded-host").is_empty(), "the client sent none");
    let mut wire = RawClient::to(&sidecar.url).await;
    wire.send("GET /x HTTP/1.1\r\n\r\n").await;
    assert_eq!((wire.response().await.status(), engine.requests("/x").len()), (400, 1));
}

#[tokio::test]
async fn expect_100_continue_is_answered() {
    let engine = RawEngine::start().await;
    let sidecar = before(&engine, &[]).await;
    let mut wire = RawClient::to(&sidecar.url).await;
    wire.send("POST /upload HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").await;
    assert_eq!(wire.response().await.status(), 100);
    wire.send("hello").await;
    assert_eq!(wire.response().await.status(), 200);
    assert_eq!(engine.requests("/upload")[0].body, b"hello");
    assert!(engine.requests("/upload")[0].header("expect").is_empty(), "it is answered");
}

#[tokio::test]
async fn trailers_of_a_response_are_relayed_and_those_of_a_request_dropped() {
    let engine = RawEngine::start().await;
    let sidecar = before(&engine, &[]).await;
    let up = "POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 7\r\n\r\n";
    let answer = ask(&sidecar, up).await;
    assert_eq!((answer.status(), answer.header("connection")), (200, "close"));
    // aiohttp takes them for headers of the next request, uvicorn for headers of this one.
    let request = &engine.requests("/up")[0];
    assert_eq!((&request.body[..], request.header("trailer")), (&b"2\r\nhi\r\n0\r\n\r\n"[..], vec![]));
    let down =
        ask(&sidecar, "GET /trailers HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n").await;
    assert!(down.text().to_lowercase().ends_with("0\r\nx-sum: 42\r\n\r\n"), "{down:?}");
}

#[tokio::test]
async fn both_directions_stream() {
    let engine = RawEngine::start().await;
    let sidecar = before(&engine, &[]).await;
    let mut wire = RawClient::to(&sidecar.url).await;
    wire.send("POST /stream HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").await;
    let request = engine.until("/stream", |request| request.body.starts_with(b"5\r\nfirst")).await;
    assert!(!request.complete, "the rest has not been sent yet");
    wire.send("4\r\nlast\r\n0\r\n\r\n").await;
    assert_eq!(wire.response().await.status(), 200);

    wire.send("GET /gate HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let begun = wire.until(b"first\r\n").await.unwrap();
    assert!(begun.starts_with(b"HTTP/1.1 200"), "before the engine has made the rest");
    engine.open_gate();
    assert!(wire.until(b"0\r\n\r\n").await.unwrap().ends_with(b"last\r\n0\r\n\r\n"));
}

#[tokio::test]
async fn uploads_are_bounded_only_if_configured() {
    let engine = RawEngine::start().await;
    let sidecar = before(&engine, &["--max-upload-bytes", "1KiB"]).await;
    let announced = ask(&sidecar, "POST /u HTTP/1.1\r\nHost: a\r\nContent-Length: 1025\r\n\r\n").await;
    assert_eq!(announced.status(), 413);
    assert!(announced.text().contains("request_too_large") && announced.text().contains("max-upload-bytes"));
    assert!(engine.requests("/u").is_empty());
    let chunk = "x".repeat(1024);
    let unannounced = format!(
        "POST /u HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n{chunk}\r\n1\r\nx\r\n0\r\n\r\n"
    );
    assert_eq!(ask(&sidecar, &unannounced).await.status(), 413);
    engine.until_open(|_| engine.requests("/u").iter().all(|request| !request.complete)).await;
    let fits = format!("POST /fits HTTP/1.1\r\nHost: a\r\nContent-Length: 1024\r\n\r\n{chunk}");
    assert_eq!(ask(&sidecar, &fits).await.status(), 200);
}
