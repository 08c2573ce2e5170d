use fakes::{raw_engine::RawEngine, raw_http::RawClient};

use super::{ask, before};

/// The request that an attacker wants the engine to see.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";

/// An attack's name, the statuses that are right (none at all is right as well), its lines, its body. `{hidden}` is the hidden
/// request, `{chunked}` an empty chunked body with it behind, `{length}` the latter's length. Unless the body is refused, what
/// lies behind the end that we see must not be taken for a request.
type Attack = (&'static str, &'static [u16], &'static str, &'static str);

const ATTACKS: &[Attack] = &[
    ("CL.TE", &[200, 400], "Content-Length: {length}\r\nTransfer-Encoding: chunked", "{chunked}"),
    ("TE.CL", &[200, 400], "Transfer-Encoding: chunked\r\nContent-Length: 4", "21\r\n{hidden}\r\n0\r\n\r\n"),
    (
        "TE.TE",
        &[400, 501],
        "Content-Length: {length}\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x",
        "{chunked}",
    ),
    ("TE unknown", &[400, 501], "Content-Length: {length}\r\nTransfer-Encoding: xchunked", "{chunked}"),
    ("TE with a tab", &[200, 400], "Content-Length: {length}\r\nTransfer-Encoding:\tchunked", "{chunked}"),
    (
        "TE, vertical tab",
        &[400, 501],
        "Content-Length: {length}\r\nTransfer-Encoding: \x0bchunked",
        "{chunked}",
    ),
    (
        "TE, space before the colon",
        &[400],
        "Content-Length: {length}\r\nTransfer-Encoding : chunked",
        "{chunked}",
    ),
    (
        "TE on a folded line",
        &[400],
        "Content-Length: {length}\r\nTransfer-Encoding:\r\n chunked",
        "{chunked}",
    ),
    ("TE not last", &[400, 501], "Transfer-Encoding: chunked, identity", "{chunked}"),
    ("TE after another", &[400], "Transfer-Encoding: gzip, chunked", "{chunked}"),
    ("TE after another line", &[400], "Transfer-Encoding: x\r\nTransfer-Encoding: chunked", "{chunked}"),
    ("TE twice", &[400], "Transfer-Encoding: chunked, chunked", "{chunked}"),
    (
        "a bare LF for the last line of chunks",
        &[200],
        "Transfer-Encoding: chunked",
        "0\r\n\n{hidden}{hidden}",
    ),
    ("a bare LF in trailers", &[200], "Transfer-Encoding: chunked", "0\r\nX: a\n\r\n{hidden}{hidden}"),
    ("two lengths", &[400], "Content-Length: 0\r\nContent-Length: 33", "{hidden}"),
    ("a list of lengths", &[400], "Content-Length: 0, 33", "{hidden}"),
    ("a signed length", &[400], "Content-Length: +33", "{hidden}"),
    ("a negative length", &[400], "Content-Length: -1", "{hidden}"),
    ("a length in hexadecimal", &[400], "Content-Length: 0x21", "{hidden}"),
    ("a length beyond 64 bits", &[400], "Content-Length: 18446744073709551616", "{hidden}"),
    ("an empty length", &[400], "Content-Length: ", "{hidden}"),
    ("a chunk size beyond 64 bits", &[400], "Transfer-Encoding: chunked", "fffffffffffffffff\r\n{hidden}"),
    ("a chunk size that is none", &[400], "Transfer-Encoding: chunked", "0x5\r\n{hidden}"),
    ("a chunk longer than it says", &[400], "Transfer-Encoding: chunked", "1\r\nab\r\n{chunked}"),
    ("a bare LF behind a chunk size", &[400], "Transfer-Encoding: chunked", "0\n\n{hidden}"),
    ("NUL in a value", &[400], "X: a\0b\r\nContent-Length: 0", "{hidden}"),
    ("CR in a value", &[400], "X: a\rContent-Length: 33\r\nContent-Length: 0", "{hidden}"),
    ("a folded line", &[400], "X: a\r\n b\r\nContent-Length: 0", "{hidden}"),
    ("a line without colon", &[400], "Content-Length", "{hidden}"),
    ("a name with a space", &[400], "Content Length: 44", "{hidden}"),
    ("two hosts", &[400], "Host: b\r\nContent-Length: 0", "{hidden}"),
];

fn bytes_of(lines: &str, body: &str) -> String {
    let chunked = format!("0\r\n\r\n{HIDDEN}");
    let filled = |text: &str| {
        text.replace("{length}", &chunked.len().to_string())
            .replace("{chunked}", &chunked)
            .replace("{hidden}", HIDDEN)
    };
    format!("POST /first HTTP/1.1\r\nHost: a\r\n{}\r\n\r\n{}", filled(lines), filled(body))
}

#[tokio::test]
async fn ambiguous_framing_never_smuggles_a_request() {
    let engine = RawEngine::start().await;
    let sidecar = before(&engine, &[]).await;
    assert_eq!(HIDDEN.len(), 33, "the table counts on it");
    for (name, first, lines, body) in ATTACKS {
        let mut wire = RawClient::to(&sidecar.url).await;
        wire.send(bytes_of(lines, body)).await;
        wire.half_close().await;
        let message = wire.rest().await;
        let statuses: Vec<u16> = message
            .split("HTTP/1.1 ")
            .skip(1)
            .filter_map(|answer| answer.get(..3).and_then(|status| status.parse().ok()))
            .collect();
        assert!(statuses.iter().all(|status| first.contains(status)), "{name}: {message}");
        assert!(engine.requests("/hidden").is_empty(), "{name}: {message}");
        for request in engine.requests("/first") {
            assert!(
                request.header("content-length").is_empty() || request.header("transfer-encoding").is_empty(),
                "{name}: {request:?}"
            );
        }
    }
    assert_eq!(ask(&sidecar, "GET /alive HTTP/1.1\r\nHost: a\r\n\r\n").await.status(), 200);
}

#[tokio::test]
async fn a_body_is_never_parsed_as_a_request() {
    let engine = RawEngine::start().await;
    let sidecar = before(&engine, &[]).await;
    let mut wire = RawClient::to(&sidecar.url).await;
    wire.send(format!("POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{HIDDEN}", HIDDEN.len()))
        .await;
    assert_eq!(wire.response().await.status(), 200);
    // An equal second length means the same, and is sent on once.
    wire.send("POST /equal HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi").await;
    let equal = wire.response().await.status();
    assert!(matches!(equal, 200 | 400), "{equal}");
    assert!(engine.requests("/equal").iter().all(|request| request.header("content-length") == ["2"]));
    assert_eq!(engine.requests("/body")[0].body, HIDDEN.as_bytes());
    assert!(engine.requests("/hidden").is_empty());
}

#[tokio::test]
async fn a_chunked_body_arrives_whatever_the_method() {
    let engine = RawEngine::start().await;
    let sidecar = before(&engine, &[]).await;
    for method in ["GET", "POST", "DELETE"] {
        let path = format!("/body/{method}");
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
        );
        assert_eq!(ask(&sidecar, &request).await.status(), 200);
        assert_eq!(engine.requests(&path)[0].body, b"2\r\nhi\r\n0\r\n\r\n", "{method}");
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let engine = RawEngine::start().await;
    let sidecar = before(&engine, &[]).await;
    let mut wire = RawClient::to(&sidecar.url).await;
    let all: Vec<_> = (0..10).map(|nth| format!("GET /nth/{nth} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    wire.send(all.concat()).await;
    for nth in 0..10 {
        let answer = wire.response().await;
        assert!(answer.text().starts_with(&format!("GET /nth/{nth} ")), "{answer:?}");
    }
}

#[tokio::test]
async fn absolute_targets_of_other_servers_are_refused() {
    let engine = RawEngine::start().await;
    let sidecar = before(&engine, &[]).await;
    for (line, host, status) in [
        ("GET http://a/absolute HTTP/1.1", "a", 200),
        ("GET http://evil.example/x HTTP/1.1", "a", 400),
        ("GET http://169.254.169.254/x HTTP/1.1", "169.254.169.254", 200),
        ("GET evil.example/x HTTP/1.1", "a", 400),
        ("GET /a b HTTP/1.1", "a", 400),
        ("GET /x HTTP/1.1 ", "a", 400),
        ("GET /x HTTP/3.0", "a", 400),
        ("GET\t/x\tHTTP/1.1", "a", 400),
        ("CONNECT evil.example:443 HTTP/1.1", "evil.example:443", 421),
    ] {
        let answer = ask(&sidecar, &format!("{line}\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(answer.status(), status, "{line}: {answer:?}");
    }
    assert_eq!(engine.requests("/absolute")[0].line(), "GET /absolute HTTP/1.1");
    // Whatever the target names, there is one engine.
    assert_eq!(engine.requests("/x")[0].header("host"), ["169.254.169.254"]);
}

#[tokio::test]
async fn heads_are_bounded_in_size_and_number() {
    let engine = RawEngine::start().await;
    let sidecar = before(&engine, &[]).await;
    let many = "X: 1\r\n".repeat(101);
    let large = format!("X: {}\r\n", "x".repeat(200_000));
    for (headers, what) in [(many, "number"), (large, "size")] {
        let answer = ask(&sidecar, &format!("GET /x HTTP/1.1\r\nHost: a\r\n{headers}\r\n")).await;
        assert_eq!(answer.status(), 431, "{what}");
    }
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(200_000));
    let answer = ask(&sidecar, &long).await;
    assert!(matches!(answer.status(), 414 | 431), "{answer:?}");
    assert!(engine.requests("/x").is_empty());
}
