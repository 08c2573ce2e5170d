//! A truncated response does not look complete to its client, whatever ends it.

use std::io::{Error, ErrorKind, Result};

use futures_util::{StreamExt, stream};

use super::*;

fn router() -> Router {
    let pieces = || stream::iter([Ok::<_, Error>(Bytes::from_static(b"piece"))]);
    // Later, so that the piece before it is on its way.
    let later = || {
        stream::once(async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Err(Error::other("the backend died"))
        })
    };
    Router::new()
        .route("/breaks", get(async move || Body::from_stream(pieces().chain(later()))))
        .route("/ends", get(async move || Body::from_stream(pieces())))
        .route("/waits", get(async move || Body::from_stream(pieces().chain(pending()))))
}

async fn ask(address: SocketAddr, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{request}\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
    stream
}

async fn rest(stream: &mut TcpStream) -> (String, Result<usize>) {
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer).await;
    (String::from_utf8_lossy(&answer).into_owned(), read)
}

#[tokio::test]
async fn a_truncated_close_delimited_body_is_reset() {
    let (address, _life) = start(router(), ServerLimits::default()).await;
    let (answer, read) = rest(&mut ask(address, "GET /breaks HTTP/1.0").await).await;
    assert!(answer.starts_with("HTTP/1.0 200") && answer.ends_with("\r\n\r\npiece"), "{answer}");
    assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn complete_and_self_delimited_responses_are_closed_normally() {
    let (address, _life) = start(router(), ServerLimits::default()).await;
    for (request, end) in [
        ("GET /ends HTTP/1.0", "\r\n\r\npiece"),
        ("HEAD /breaks HTTP/1.0", "\r\n\r\n"),
        ("GET /nothing HTTP/1.0", "\r\n\r\n"),
        ("GET /breaks HTTP/1.1", "\r\n\r\n5\r\npiece\r\n"),
    ] {
        let (answer, read) = rest(&mut ask(address, request).await).await;
        assert!(read.is_ok() && answer.ends_with(end), "{request}: {read:?} {answer}");
    }
}

#[tokio::test]
async fn a_response_that_the_shutdown_truncates_is_reset() {
    let (address, life) = start(router(), ServerLimits::default()).await;
    let mut stream = ask(address, "GET /waits HTTP/1.0").await;
    let mut answer = Vec::new();
    while !answer.ends_with(b"piece") {
        assert!(stream.read_buf(&mut answer).await.unwrap() > 0);
    }
    life.begin_drain();
    let _ = life.wait_until_stopped(Duration::ZERO).await;
    let (_, read) = rest(&mut stream).await;
    assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset);
}
