//! An answer that came before its request was read arrives, whatever the client still sends.

use axum::{extract::Request, http::StatusCode, routing::any};

use super::*;

const TEN: usize = 10 << 20;

/// Refuses without reading the body, except for `/half`, which reads the first chunk.
fn refusing() -> Router {
    use http_body_util::BodyExt;
    let half = any(async |mut request: Request| {
        let _ = request.body_mut().frame().await;
        StatusCode::PAYLOAD_TOO_LARGE
    });
    Router::new().route("/half", half).fallback(async || (StatusCode::UNAUTHORIZED, "who are you?"))
}

fn announced(path: &str, length: usize) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n").into_bytes()
}

/// Writes all of it before it reads a byte.
async fn send_all_then_read(address: SocketAddr, request: &[u8]) -> std::io::Result<(TcpStream, String)> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request).await?;
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await?;
    Ok((stream, String::from_utf8_lossy(&answer).into_owned()))
}

#[tokio::test]
async fn a_client_that_writes_everything_before_it_reads_gets_the_error_and_keeps_its_connection() {
    let (address, _life) = start(refusing(), ServerLimits::default()).await;
    let chunks = format!("{:x}\r\n{}\r\n", 1 << 20, "x".repeat(1 << 20)).repeat(10) + "0\r\n\r\n";
    let chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (request, status) in [
        ([announced("/", TEN), vec![b'x'; TEN]].concat(), "HTTP/1.1 401"),
        ([announced("/half", TEN), vec![b'x'; TEN]].concat(), "HTTP/1.1 413"),
        ([&chunked[..], chunks.as_bytes()].concat(), "HTTP/1.1 401"),
    ] {
        for _ in 0..8 {
            let (mut stream, answer) = send_all_then_read(address, &request).await.expect("no reset");
            assert_eq!(answer, status);
            stream.write_all(b"GET /again HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
            let rest = String::from_utf8_lossy(&rest);
            assert!(rest.contains("HTTP/1.1 401"), "the next request is read where the body ends: {rest}");
        }
    }
}

#[tokio::test]
async fn the_error_response_to_a_malformed_head_arrives() {
    let (address, _life) = start(hello(), ServerLimits::default()).await;
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Long: {}\r\n\r\n", "x".repeat(4 << 20));
    let malformed = [&b"POST / HTTP/1.1\r\nHost: a\r\nno header\r\n\r\n"[..], &vec![b'x'; 4 << 20]].concat();
    for (request, status) in [(long.as_bytes(), "HTTP/1.1 431"), (&malformed[..], "HTTP/1.1 400")] {
        for _ in 0..8 {
            let (_, answer) = send_all_then_read(address, request).await.expect("no reset");
            assert_eq!(answer, status);
        }
    }
}

/// A handler's bare response stays as it is; the malformed head after it gets our error response.
#[tokio::test]
async fn a_handlers_bare_response_is_not_replaced() {
    let bare = Router::new().fallback(async || StatusCode::BAD_REQUEST);
    let (address, _life) = start(bare, ServerLimits::default()).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    for _ in 0..2 {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            assert!(stream.read_buf(&mut answer).await.unwrap() > 0);
        }
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("content-length: 0\r\n"), "{answer}");
    }
    stream.write_all(b"nonsense\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("\"invalid_value\""), "{answer}");
}

#[tokio::test]
async fn a_client_that_waits_for_100_continue_gets_the_response_and_the_end() {
    let (address, _life) = start(refusing(), ServerLimits::default()).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let mut answer = String::new();
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_string(&mut answer));
    read.await.expect("nothing is waited for").unwrap();
    assert!(answer.starts_with("HTTP/1.1 401") && !answer.contains("100 Continue"), "{answer}");
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn the_body_of_a_refused_request_is_discarded_for_30_s_and_64_mib() {
    let (address, life) = start(refusing(), ServerLimits::default()).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&announced("/", TEN)).await.unwrap();
    let started = Instant::now();
    let mut answer = Vec::new();
    let drip = async |mut half: tokio::net::tcp::OwnedWriteHalf| {
        while half.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let (mut reading, writing) = stream.into_split();
    tokio::select! {
        read = reading.read_to_end(&mut answer) => drop(read),
        () = drip(writing) => {}
    }
    assert!(answer.starts_with(b"HTTP/1.1 401"));
    assert!((30..=32).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());

    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&announced("/", 100 << 20)).await.unwrap();
    let mut answer = vec![0; 300];
    let read = stream.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
    assert!(answer.contains("\r\nconnection: close\r\n"), "more than is read on: {answer}");
    let (mut written, piece) = (0, vec![b'x'; 1 << 20]);
    while stream.write_all(&piece).await.is_ok() {
        written += 1;
        assert!(written < 100, "it is read without end");
    }
    assert!(written >= 64, "only {written} MiB were read");
    while life.inflight() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn draining_waits_for_no_refused_body() {
    let (address, life) = start(refusing(), ServerLimits::default()).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&announced("/", TEN)).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    let started = std::time::Instant::now();
    life.begin_drain();
    assert_eq!(life.wait_until_stopped(Duration::from_secs(30)).await, Ok(()));
    assert!(started.elapsed() < Duration::from_secs(5));
}

/// The statuses of all responses until the connection closes.
async fn statuses(address: SocketAddr, request: &str) -> Vec<String> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answers = Vec::new();
    stream.read_to_end(&mut answers).await.unwrap();
    let answers = String::from_utf8(answers).unwrap();
    answers.split("HTTP/1.1 ").skip(1).map(|answer| answer[..3].to_owned()).collect()
}

#[tokio::test]
async fn no_request_is_served_behind_trailers() {
    let (address, _life) = start(refusing(), ServerLimits::default()).await;
    let next = "GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    for (end, expected) in [
        ("\r\n".to_owned(), &["401", "401"][..]),
        ("X: 1\r\n\r\n".to_owned(), &["401", "400"]),
        // Two requests to a server that takes the bare LF for the end of the body.
        (format!("\n{next}"), &["401", "400"]),
    ] {
        let request =
            format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n{end}{next}");
        assert_eq!(statuses(address, &request).await, expected, "{request}");
    }
}

#[tokio::test]
async fn a_coding_that_stays_on_the_body_is_refused() {
    let (address, _life) = start(hello(), ServerLimits::default()).await;
    for coding in ["gzip, chunked", "chunked, chunked", "identity\r\nTransfer-Encoding: chunked"] {
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: {coding}\r\n\r\n0\r\n\r\n");
        assert_eq!(statuses(address, &request).await, ["400"], "{coding}");
    }
}
