//! The limits of the accept loop, over real sockets; time is paused.

mod breaks;
mod heads;
mod https;
mod refusals;
mod slow;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{Extension, Router, body::Body, routing::get};
use bytes::Bytes;
use futures_util::stream::pending;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::Instant,
};

use super::{connection_limiter::ConnectionLimiter, *};
use crate::lifecycle::Lifecycle;

#[test]
fn connections_are_limited_in_total_and_per_address() {
    let counts = ConnectionLimiter::new(&ServerLimits {
        max_connections: 3,
        max_per_address: 2,
        ..ServerLimits::default()
    });
    let (here, there): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
    let enter = |address| counts.try_acquire(address).inspect(|permit| permit.state().head_received());
    let first = enter(here);
    let second = enter("::ffff:10.0.0.1".parse().unwrap());
    assert!(first.is_some() && second.is_some());
    assert!(counts.try_acquire(here).is_none(), "two from one address");
    let third = enter(there);
    assert!(third.is_some() && counts.try_acquire("10.0.0.3".parse().unwrap()).is_none(), "three in all");
    drop(first);
    assert!(counts.try_acquire(here).is_some());
}

async fn start(router: Router, bounds: ServerLimits) -> (SocketAddr, Lifecycle) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let lifecycle = Lifecycle::new();
    let listener = HttpServer { limits: bounds, ..HttpServer::plain(router) };
    lifecycle.spawn_worker("accept", accept(socket, listener, lifecycle.clone()));
    (address, lifecycle)
}

fn hello() -> Router {
    Router::new().route("/", get(async || "hello"))
}

#[tokio::test(start_paused = true)]
async fn an_endless_head_times_out() {
    let (address, _life) = start(hello(), ServerLimits::default()).await;
    let started = Instant::now();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow").await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
    assert_eq!(started.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_nothing_is_dropped_after_the_timeout() {
    let large = Router::new().route("/", get(async || vec![0u8; 64 << 20]));
    let (address, life) = start(large, ServerLimits::default()).await;
    let started = Instant::now();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    while life.inflight() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    while life.inflight() > 0 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(started.elapsed() < Duration::from_secs(70), "the connection is still held");
    }
    assert!(started.elapsed() >= Duration::from_secs(59));
}

#[tokio::test]
async fn more_connections_than_allowed_are_closed_at_once() {
    let endless = || Body::from_stream(pending::<std::io::Result<Bytes>>());
    let router = hello().route("/endless", get(async move || endless()));
    let (address, _life) =
        start(router, ServerLimits { max_per_address: 1, ..ServerLimits::default() }).await;
    let mut first = TcpStream::connect(address).await.unwrap();
    first.write_all(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    first.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    let mut second = TcpStream::connect(address).await.unwrap();
    let mut rest = Vec::new();
    let _ = second.read_to_end(&mut rest).await;
    assert!(rest.is_empty());
}

#[tokio::test]
async fn draining_ends_idle_connections_and_accepts_no_new_ones() {
    let (address, life) = start(hello(), ServerLimits::default()).await;
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    idle.read_exact(&mut answer).await.unwrap();
    life.begin_drain();
    assert_eq!(life.wait_until_stopped(Duration::from_secs(30)).await, Ok(()));
    assert!(TcpStream::connect(address).await.is_err());
}

/// Clients that have connected and sent a request, and are not accepted yet.
async fn waiting(address: SocketAddr) -> Vec<TcpStream> {
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        clients.push(client);
    }
    clients
}

/// Serves a socket while already draining, to the end.
async fn drain_on(socket: TcpListener, socket_activated: bool) {
    let life = Lifecycle::new();
    life.begin_drain();
    let listener = HttpServer { socket_activated, ..HttpServer::plain(hello()) };
    life.spawn_worker("accept", accept(socket, listener, life.clone()));
    assert_eq!(life.wait_until_stopped(Duration::from_secs(30)).await, Ok(()));
}

async fn all_are_answered(clients: Vec<TcpStream>) {
    for mut client in clients {
        let mut answer = [0; 12];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
}

#[tokio::test]
async fn the_backlog_of_a_draining_service_is_answered() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let clients = waiting(socket.local_addr().unwrap()).await;
    drain_on(socket, false).await;
    all_are_answered(clients).await;
}

#[tokio::test]
async fn a_socket_that_outlives_the_service_keeps_its_backlog_for_the_next_one() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap().into_std().unwrap();
    let clients = waiting(socket.local_addr().unwrap()).await;
    drain_on(TcpListener::from_std(socket.try_clone().unwrap()).unwrap(), true).await;
    let life = Lifecycle::new();
    let socket = TcpListener::from_std(socket).unwrap();
    life.spawn_worker("accept", accept(socket, HttpServer::plain(hello()), life.clone()));
    all_are_answered(clients).await;
}

/// As a WebSocket does, whose HTTP connection has ended.
#[tokio::test]
async fn a_held_permit_counts_as_a_connection() {
    let (sender, mut permits) = tokio::sync::mpsc::unbounded_channel();
    let hold_permit = get(async move |Extension(permit): Extension<Arc<ConnectionPermit>>| {
        let _ = sender.send(permit);
        "kept"
    });
    let bounds = ServerLimits { max_per_address: 1, ..ServerLimits::default() };
    let (address, life) = start(Router::new().route("/", hold_permit), bounds).await;
    let ask = async || {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        answer.starts_with(b"HTTP/1.1 200")
    };
    assert!(ask().await);
    let permit = permits.recv().await.unwrap();
    while life.inflight() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(!ask().await, "the connection has ended, its permit is taken");
    drop(permit);
    assert!(ask().await);
}

#[tokio::test(start_paused = true)]
async fn a_client_connected_before_the_drain_is_answered_and_a_silent_one_is_not_waited_for() {
    let (address, life) = start(hello(), ServerLimits::default()).await;
    let mut active = TcpStream::connect(address).await.unwrap();
    let _silent = TcpStream::connect(address).await.unwrap();
    while life.inflight() < 2 {
        tokio::task::yield_now().await;
    }
    let started = Instant::now();
    life.begin_drain();
    tokio::time::sleep(Duration::from_millis(500)).await;
    active.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    active.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(b"hello"));
    assert_eq!(life.wait_until_stopped(Duration::from_secs(30)).await, Ok(()));
    assert_eq!(started.elapsed(), connection::FIRST_REQUEST_TIMEOUT);
}

/// Also after half of a head, which may otherwise take 10 s.
#[tokio::test(start_paused = true)]
async fn draining_does_not_wait_for_the_rest_of_a_head() {
    let (address, life) = start(hello(), ServerLimits::default()).await;
    let mut halves = Vec::new();
    for _ in 0..2 {
        let mut half = TcpStream::connect(address).await.unwrap();
        half.write_all(b"GET / HTTP/1.1\r\nHost").await.unwrap();
        halves.push(half);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(life.inflight(), 2);
    let started = Instant::now();
    life.begin_drain();
    assert_eq!(life.wait_until_stopped(Duration::from_secs(30)).await, Ok(()));
    assert_eq!(started.elapsed(), connection::FIRST_REQUEST_TIMEOUT);
}
