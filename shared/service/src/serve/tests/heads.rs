//! Connections whose client owes us the rest of a request make room for others.

use axum::{extract::Request, routing::post};

use super::*;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

async fn connect(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

async fn status(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn endless_heads_block_no_other_client() {
    for bounds in [
        ServerLimits { max_connections: 8, ..ServerLimits::default() },
        ServerLimits { max_per_address: 8, ..ServerLimits::default() },
    ] {
        let (address, _life) = start(hello(), bounds).await;
        let mut endless = Vec::new();
        for _ in 0..24 {
            endless.push(connect(address, b"GET / HTTP/1.1\r\nX-Slow: ").await);
        }
        let mut active = connect(address, REQUEST).await;
        assert_eq!(status(&mut active).await, b"HTTP/1.1 200");
        // The first are closed, the last are still open.
        assert_eq!(endless[0].read(&mut [0]).await.unwrap_or(0), 0);
        let mut last = endless.pop().unwrap();
        last.write_all(b"x\r\nHost: a\r\n\r\n").await.unwrap();
        assert_eq!(status(&mut last).await, b"HTTP/1.1 200");
    }
}

#[tokio::test]
async fn an_idle_connection_is_evicted_and_a_busy_one_is_not() {
    let (opened, mut open) = tokio::sync::mpsc::unbounded_channel();
    let held = get(async move || {
        let (answer, body) = tokio::sync::mpsc::unbounded_channel::<std::io::Result<Bytes>>();
        let _ = opened.send(answer);
        let body = futures_util::stream::unfold(body, async |mut body| Some((body.recv().await?, body)));
        Body::from_stream(body)
    });
    let (address, _life) =
        start(hello().route("/held", held), ServerLimits { max_connections: 2, ..ServerLimits::default() })
            .await;
    let mut at_work = connect(address, b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(status(&mut at_work).await, b"HTTP/1.1 200");
    let mut idle = connect(address, REQUEST).await;
    assert_eq!(status(&mut idle).await, b"HTTP/1.1 200");
    assert_eq!(status(&mut connect(address, REQUEST).await).await, b"HTTP/1.1 200");
    let mut rest = Vec::new();
    let _ = idle.read_to_end(&mut rest).await;
    assert!(rest.ends_with(b"hello"), "it made room");
    let answer = open.recv().await.unwrap();
    answer.send(Ok(Bytes::from_static(b"here"))).unwrap();
    drop(answer);
    let mut rest = Vec::new();
    while !rest.ends_with(b"0\r\n\r\n") {
        assert!(at_work.read_buf(&mut rest).await.unwrap() > 0, "it was never closed");
    }
    assert!(String::from_utf8_lossy(&rest).contains("here"));
}

const UPLOAD: &[u8] =
    b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n";

/// Reads a body to its end, and answers then.
fn reading() -> Router {
    hello().route("/upload", post(async |body: String| body))
}

/// The head of an upload whose body is being waited for, which the server says.
async fn upload(address: SocketAddr) -> TcpStream {
    let mut stream = connect(address, UPLOAD).await;
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).await.expect("it is admitted");
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream
}

#[tokio::test]
async fn endless_bodies_block_no_other_client() {
    for bounds in [
        ServerLimits { max_connections: 8, ..ServerLimits::default() },
        ServerLimits { max_per_address: 8, ..ServerLimits::default() },
    ] {
        let (address, _life) = start(reading(), bounds).await;
        let mut endless = Vec::new();
        for _ in 0..24 {
            endless.push(upload(address).await);
        }
        let mut active = connect(address, REQUEST).await;
        assert_eq!(status(&mut active).await, b"HTTP/1.1 200");
        assert_eq!(endless[0].read(&mut [0]).await.unwrap_or(0), 0, "the first is closed");
        let mut last = endless.pop().unwrap();
        last.write_all(b"abc").await.unwrap();
        assert_eq!(status(&mut last).await, b"HTTP/1.1 200");
    }
}

/// Where the server is to continue, the connection stays: a complete request, a response in progress.
#[tokio::test]
async fn complete_bodies_and_begun_responses_are_not_evicted() {
    let (complete, mut completed) = tokio::sync::mpsc::unbounded_channel();
    let works = post(async move |_: String| {
        let _ = complete.send(());
        std::future::pending::<()>().await;
    });
    let echo = post(async |request: Request| Body::new(request.into_body()));
    let router = Router::new().route("/works", works).route("/echo", echo);
    let (address, life) = start(router, ServerLimits { max_connections: 2, ..ServerLimits::default() }).await;
    let works = b"POST /works HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    let _works = connect(address, works).await;
    completed.recv().await.unwrap();
    let mut echoes = connect(address, b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab").await;
    assert_eq!(status(&mut echoes).await, b"HTTP/1.1 200");
    let mut closed = TcpStream::connect(address).await.unwrap();
    assert_eq!(closed.read(&mut [0]).await.unwrap_or(0), 0);
    assert_eq!(life.inflight(), 2);
    echoes.write_all(b"c").await.unwrap();
    let mut rest = Vec::new();
    while !rest.ends_with(b"abc") {
        assert!(echoes.read_buf(&mut rest).await.unwrap() > 0, "it was closed");
    }
}
