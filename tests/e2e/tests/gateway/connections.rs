//! The gateway's connections to a backend: reused between images, and never the reason that an image is made twice.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use base64_simd::STANDARD;
use e2e::gateway::Gateway;
use fakes::{
    eventually,
    upstream::{Upstream, fake_image},
};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use wire::openai::images::ImageSize;

/// What happens to a connection over which an image was sent.
#[derive(Debug, Clone, Copy)]
enum Then {
    /// The backend closes it without `Connection: close`.
    Closed,
    /// It stays open, and breaks once another request was read from it.
    Broken,
}

#[derive(Debug, Default)]
struct Counted {
    requests: AtomicUsize,
    /// Connections that both ends have closed.
    closed: AtomicUsize,
}

#[tokio::test]
async fn images_one_after_another_share_connections() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    for _ in 0..10 {
        assert_eq!(gateway.generate(&json!({"prompt": "p", "size": "8x8"})).await.status, 200);
    }
    let connections: HashSet<_> = upstream.images().iter().map(|request| request.connection).collect();
    assert!(connections.len() < 10, "each had one of its own");
}

#[tokio::test]
async fn a_pooled_connection_that_the_backend_closed_is_replaced() {
    let (url, counted, _backend) = backend(Then::Closed).await;
    let gateway = gateway(&url).await;
    for nth in 1..=5 {
        assert_eq!(gateway.generate(&json!({"prompt": "p"})).await.status, 200);
        eventually("both ends closed", async || (counted.closed.load(SeqCst) == nth).then_some(())).await;
    }
    assert_eq!(counted.requests.load(SeqCst), 5);
}

#[tokio::test]
async fn a_request_read_by_the_backend_is_never_sent_again() {
    let (url, counted, _backend) = backend(Then::Broken).await;
    let gateway = gateway(&url).await;
    let mut last = gateway.generate(&json!({"prompt": "p"})).await;
    assert_eq!(last.status, 200);
    // The first on the reused connection, which may have returned to the pool only after the one before it.
    let mut sent = 1;
    while last.status == 200 && sent < 10 {
        last = gateway.generate(&json!({"prompt": "p"})).await;
        sent += 1;
    }
    assert_eq!((last.status, last.code()), (502, "backend_error"), "{:?}", last.json);
    assert_eq!(counted.requests.load(SeqCst), sent);
}

async fn gateway(url: &str) -> Gateway {
    let yaml = format!(
        "backends:\n  gpu_heavy:\n    base_url: {url}\n    supported_capabilities: [images]\n    \
         concurrency_limits: {{images: 1}}\n"
    );
    let gateway = Gateway::with_backends(&yaml, &[]).await;
    gateway.until_ready("gpu_heavy", true).await;
    gateway
}

/// A backend whose connections end badly; it ends with its tasks.
async fn backend(then: Then) -> (String, Arc<Counted>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let counted = Arc::<Counted>::default();
    let counts = counted.clone();
    let mut accepting = JoinSet::new();
    accepting.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(connection(stream, then, counts.clone()));
        }
    });
    (url, counted, accepting)
}

async fn connection(stream: TcpStream, then: Then, counted: Arc<Counted>) {
    let mut stream = BufReader::new(stream);
    let mut images = 0;
    while let Some(is_post) = request(&mut stream).await {
        if !is_post {
            say(&mut stream, "ok").await;
            continue;
        }
        counted.requests.fetch_add(1, SeqCst);
        if images > 0 {
            return;
        }
        images += 1;
        let base64 = STANDARD.encode_to_string(fake_image("p", 7, ImageSize::new(8, 8)));
        say(&mut stream, &json!({"created": 1, "data": [{"b64_json": base64}]}).to_string()).await;
        if matches!(then, Then::Closed) {
            stream.get_mut().shutdown().await.unwrap();
            let _ = stream.read(&mut [0]).await;
            counted.closed.fetch_add(1, SeqCst);
            return;
        }
    }
}

/// Reads a request; whether it asks for images. None at the end.
async fn request(stream: &mut BufReader<TcpStream>) -> Option<bool> {
    let (mut is_post, mut length) = (false, 0);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        is_post |= line.starts_with("POST ");
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line.trim_end().is_empty() {
            break;
        }
    }
    stream.read_exact(&mut vec![0; length]).await.ok()?;
    Some(is_post)
}

async fn say(stream: &mut BufReader<TcpStream>, body: &str) {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json";
    let answer = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let _ = stream.get_mut().write_all(answer.as_bytes()).await;
}
