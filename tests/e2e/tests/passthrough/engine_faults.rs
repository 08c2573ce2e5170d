use e2e::sidecar::Sidecar;
use fakes::{raw_engine::RawEngine, raw_http::RawClient};
use std::collections::HashSet;

use super::{ask, before};

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

/// An address without a listener.
async fn nowhere() -> String {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", socket.local_addr().unwrap())
}

#[tokio::test]
async fn connections_to_the_engine_are_pooled_and_a_closed_one_fails_no_request() {
    let engine = RawEngine::start().await;
    let sidecar = before(&engine, &[]).await;
    let mut wire = RawClient::to(&sidecar.url).await;
    for _ in 0..5 {
        wire.send(get("/kept")).await;
        assert_eq!(wire.response().await.status(), 200);
    }
    let used: HashSet<_> = engine.requests("/kept").iter().map(|request| request.connection).collect();
    assert!(used.len() < 5, "{used:?}");
    // From here on every idle connection is closed when it is used.
    for _ in 0..20 {
        wire.send(get("/once")).await;
        assert_eq!(wire.response().await.status(), 200);
    }
    assert_eq!(engine.requests("/once").len(), 20, "sent again only where it was not read");
}

#[tokio::test]
async fn unsafe_requests_get_a_new_connection_and_are_never_retried() {
    let engine = RawEngine::start().await;
    let sidecar = before(&engine, &[]).await;
    let mut wire = RawClient::to(&sidecar.url).await;
    wire.send(get("/warm")).await;
    wire.response().await;
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        for _ in 0..3 {
            wire.send(format!("{method} /work HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")).await;
            assert_eq!(wire.response().await.status(), 200);
        }
    }
    let mut used: Vec<_> = engine.requests("/work").iter().map(|request| request.connection).collect();
    used.sort_unstable();
    used.dedup();
    assert_eq!(used.len(), 12);
    wire.send("POST /drop HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").await;
    let dropped = wire.response().await;
    assert_eq!((dropped.status(), dropped.header("x-should-retry")), (502, "false"));
    assert_eq!(engine.requests("/drop").len(), 1);
}

#[tokio::test]
async fn a_broken_response_head_is_502_and_a_broken_body_resets_the_connection() {
    let engine = RawEngine::start().await;
    let sidecar = before(&engine, &[]).await;
    for path in ["/drop", "/nonsense"] {
        let answer = ask(&sidecar, &get(path)).await;
        assert_eq!((answer.status(), answer.header("content-type")), (502, "application/json"), "{path}");
        assert!(answer.text().contains("engine_unavailable"), "{}", answer.text());
    }
    assert_eq!(engine.requests("/drop").len(), 1, "nothing says that it was not read");
    let mut wire = RawClient::to(&sidecar.url).await;
    wire.send(get("/half")).await;
    let half = wire.rest().await;
    assert!(half.ends_with("only this"), "never padded, never a second answer: {half}");
    let mut wire = RawClient::to(&sidecar.url).await;
    wire.send(get("/half-chunked")).await;
    let half = wire.rest().await;
    assert!(!half.ends_with("0\r\n\r\n"), "{half}");
    let mut oldest = RawClient::to(&sidecar.url).await;
    oldest.send("GET /half-chunked HTTP/1.0\r\nHost: a\r\n\r\n").await;
    let (answer, end) = oldest.rest_and_end().await;
    assert!(end.is_err(), "without chunks only a reset shows it: {answer}");
}

#[tokio::test]
async fn ambiguous_response_framing_is_502() {
    let engine = RawEngine::start().await;
    let sidecar = before(&engine, &[]).await;
    for path in ["/both", "/both", "/twice", "/listed"] {
        let mut wire = RawClient::to(&sidecar.url).await;
        wire.send(get(path)).await;
        let answer = wire.response().await;
        let lengths = answer.head.to_ascii_lowercase().matches("content-length").count();
        let (coding, body) = (answer.header("transfer-encoding"), answer.text());
        if path == "/both" {
            assert_eq!((lengths, coding), (0, "chunked"), "{}", answer.head);
            assert!(body.contains("hello"), "{body:?}");
        } else {
            assert_eq!((lengths, answer.header("content-length"), coding), (1, "5", ""), "{}", answer.head);
            assert_eq!(body, "hello");
        }
    }
    let used: HashSet<_> = engine.requests("/both").iter().map(|request| request.connection).collect();
    assert_eq!(used.len(), 2, "the start of the next response is ambiguous");
    assert_eq!(engine.requests("/twice").len(), 1);
    for path in ["/differs", "/gzipped", "/gzipped-chunks", "/chunked-gzip"] {
        let answer = ask(&sidecar, &get(path)).await;
        assert_eq!(answer.status(), 502, "{path}: {}", answer.head);
        assert!(!answer.text().contains("hello"), "{path}: never raw");
    }
}

#[tokio::test]
async fn ambiguous_framing_in_response_to_head_is_502() {
    let engine = RawEngine::start().await;
    let sidecar = before(&engine, &[]).await;
    for (path, status, length) in [
        ("/bare/twice", 200, Some("5")),
        ("/bare/both", 200, None),
        ("/bare/differs", 502, None),
        ("/bare/gzipped", 502, None),
    ] {
        let mut wire = RawClient::to(&sidecar.url).await;
        wire.send(format!("HEAD {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await;
        let head = wire.rest().await.to_ascii_lowercase();
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{path}: {head}");
        let lengths: Vec<_> = head.lines().filter_map(|line| line.strip_prefix("content-length: ")).collect();
        if status == 200 {
            assert_eq!(lengths, length.into_iter().collect::<Vec<_>>(), "{path}: {head}");
        }
        assert!(head.ends_with("\r\n\r\n") && head.matches("\r\n\r\n").count() == 1, "{path}: {head}");
    }
}

#[tokio::test]
async fn a_refusal_in_the_middle_of_an_upload_reaches_the_client() {
    let engine = RawEngine::start().await;
    let sidecar = before(&engine, &[]).await;
    let mut wire = RawClient::to(&sidecar.url).await;
    wire.send("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\nbegin").await;
    let head = wire.until(b"\r\n\r\n").await.unwrap();
    assert!(head.starts_with(b"HTTP/1.1 413"), "{}", String::from_utf8_lossy(&head));
}

#[tokio::test]
async fn an_unreachable_engine_is_a_page_for_browsers_and_json_for_programs() {
    let sidecar = Sidecar::invokeai(&nowhere().await, &["--engine-unit", "my<engine>.service"]).await;
    let program = ask(&sidecar, &get("/api/v1/app/version")).await;
    assert_eq!((program.status(), program.header("retry-after")), (503, "5"));
    assert!(program.text().contains("engine_unavailable") && program.text().contains("refused"));
    let accept = "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n";
    let person = ask(&sidecar, &format!("GET / HTTP/1.1\r\nHost: a\r\n{accept}\r\n")).await;
    assert_eq!((person.status(), person.header("content-type")), (503, "text/html; charset=utf-8"));
    assert_eq!(person.header("cache-control"), "no-store");
    let page = person.text();
    assert!(page.contains("my&lt;engine&gt;.service") && page.contains("/readyz/engine_reachable"), "{page}");
    let form = format!("POST / HTTP/1.1\r\nHost: a\r\n{accept}Content-Length: 0\r\n\r\n");
    assert!(ask(&sidecar, &form).await.text().starts_with('{'), "loading again would send it again");
}

#[tokio::test]
async fn a_client_that_disconnects_closes_the_engines_connection() {
    let engine = RawEngine::start().await;
    let sidecar = before(&engine, &[]).await;
    let mut wire = RawClient::to(&sidecar.url).await;
    wire.send(get("/hold")).await;
    let held = engine.until("/hold", |request| request.complete).await;
    let mut large = RawClient::to(&sidecar.url).await;
    large.send(get("/bytes/1000000000")).await;
    large.until(b"xxxx").await.unwrap();
    let mut upload = RawClient::to(&sidecar.url).await;
    upload.send("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf").await;
    engine.until("/upload", |request| request.body == b"half").await;
    engine.until_open(|open| open >= 3).await;
    drop((wire, large, upload));
    // What is left are the sidecar's own requests.
    engine.until_open(|open| open <= 2).await;
    assert!(!engine.requests("/upload")[0].complete && held.complete);
}

#[tokio::test]
async fn a_client_that_half_closes_is_still_answered_or_disconnected_at_once() {
    let engine = RawEngine::start().await;
    let sidecar = before(&engine, &[]).await;
    let mut wire = RawClient::to(&sidecar.url).await;
    wire.send("POST /half-closed HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf").await;
    wire.half_close().await;
    let message = wire.rest().await;
    assert!(message.is_empty() || message.starts_with("HTTP/1.1 400"), "{message}");
    assert!(engine.requests("/half-closed").iter().all(|request| !request.complete));
}
