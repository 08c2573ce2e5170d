//! The process that a fake engine runs in: its state under one lock, with a signal at every change, the requests that
//! it got, and a listener whose connections can be cut.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Extension, Router,
    body::Body,
    extract::{Request, State},
    http::{StatusCode, header::AUTHORIZATION},
    middleware::Next,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::watch,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::engine::FakeEngine;

/// One HTTP request.
#[derive(Debug, Clone)]
pub struct EngineRequest {
    /// `GET`, `POST`…
    pub method: String,
    /// With its query.
    pub path: String,
    /// The client's port: the same for all requests of one connection.
    pub connection: u16,
    /// The header of that name.
    pub authorization: Option<String>,
    /// As sent.
    pub body: Bytes,
    /// When it had arrived completely.
    pub at: Instant,
}

/// What all parts of a fake share.
#[derive(Debug)]
pub struct Core<E> {
    engine: Mutex<E>,
    changes: watch::Sender<()>,
    requests: Mutex<Vec<EngineRequest>>,
    /// Counts up when sockets are to be cut.
    pub(crate) sockets: watch::Sender<u32>,
}

impl<E: FakeEngine> Core<E> {
    pub(crate) fn look<T>(&self, read: impl FnOnce(&E) -> T) -> T {
        read(&lock(&self.engine))
    }

    pub(crate) fn change<T>(&self, write: impl FnOnce(&mut E) -> T) -> T {
        let result = write(&mut lock(&self.engine));
        self.changes.send_replace(());
        result
    }

    /// Waits until the engine's state gives an answer.
    pub(crate) async fn until<T>(&self, ask: impl Fn(&E) -> Option<T>) -> T {
        let mut changes = self.changes.subscribe();
        loop {
            if let Some(answer) = self.look(&ask) {
                return answer;
            }
            changes.changed().await.expect("the sender lives as long as self");
        }
    }

    /// Waits while the process is hung, which does nothing at all.
    pub async fn unless_hung(&self) {
        self.until(|engine| (!engine.is_hung()).then_some(())).await;
    }

    pub(crate) fn requests(&self) -> Vec<EngineRequest> {
        lock(&self.requests).clone()
    }

    /// Cuts every WebSocket now, without a close frame.
    pub(crate) fn drop_sockets(&self) {
        self.sockets.send_modify(|generation| *generation += 1);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A port, and what runs as long as the process does.
#[derive(Debug)]
pub(crate) struct Process<E> {
    pub(crate) core: Arc<Core<E>>,
    address: SocketAddr,
    tasks: Mutex<JoinSet<()>>,
    /// Reserves the port while stopped: bound and not listening, so connections are refused.
    parked: Mutex<Option<TcpSocket>>,
}

impl<E: FakeEngine> Process<E> {
    /// On this loopback port, a free one for 0.
    pub(crate) async fn start(engine: E, port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.expect("the port is free");
        let address = listener.local_addr().expect("a bound socket has an address");
        let core = Core {
            engine: Mutex::new(engine),
            changes: watch::Sender::new(()),
            requests: Mutex::default(),
            sockets: watch::Sender::new(0),
        };
        let process =
            Self { core: Arc::new(core), address, tasks: Mutex::default(), parked: Mutex::default() };
        process.run(listener);
        process
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn run(&self, listener: TcpListener) {
        let mut tasks = lock(&self.tasks);
        tasks.spawn(E::work(Arc::clone(&self.core)));
        tasks.spawn(accept(listener, E::router(Arc::clone(&self.core)), E::IDLE_TIMEOUT));
    }

    pub(crate) async fn stop(&self) {
        let mut tasks = std::mem::take(&mut *lock(&self.tasks));
        tasks.shutdown().await;
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("a fresh socket takes options");
        socket.bind(self.address).expect("the port was reserved");
        *lock(&self.parked) = Some(socket);
    }

    pub(crate) fn restart(&self) {
        let parked = lock(&self.parked).take().expect("it was stopped before");
        self.run(parked.listen(1024).expect("a bound socket listens"));
    }
}

/// What a handler may do to the connection that its request came on.
#[derive(Debug, Clone)]
pub struct ConnectionHandle {
    peer_port: u16,
    /// A WebSocket outlives its connection's task, so it watches this itself.
    pub(crate) cut: CancellationToken,
}

/// Our own accept loop, because handlers must be able to cut connections, and `stop` must cut them all.
async fn accept(listener: TcpListener, router: Router, idle: Duration) {
    let alive = CancellationToken::new();
    let _cut_all = alive.clone().drop_guard();
    let mut connections = JoinSet::new();
    while let Ok((stream, peer)) = listener.accept().await {
        // As Python's asyncio does; without it small frames wait for the peer's delayed acknowledgement.
        stream.set_nodelay(true).expect("a fresh socket takes options");
        let handle = ConnectionHandle { peer_port: peer.port(), cut: alive.child_token() };
        let service = TowerToHyperService::new(router.clone().layer(Extension(handle.clone())));
        connections.spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(idle)
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            tokio::select! {
                _ = connection => {}
                () = handle.cut.cancelled() => {}
            }
        });
    }
}

/// The outermost layer of an engine's router: keeps the request, then waits while the process is hung.
pub async fn record<E: FakeEngine>(
    State(core): State<Arc<Core<E>>>,
    Extension(connection): Extension<ConnectionHandle>,
    request: Request,
    next: Next,
) -> Response {
    let (parts, body) = request.into_parts();
    // It breaks off only with its connection, so nobody reads this answer.
    let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let received = EngineRequest {
        method: parts.method.to_string(),
        path: parts.uri.to_string(),
        connection: connection.peer_port,
        authorization: parts
            .headers
            .get(AUTHORIZATION)
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()),
        body: body.clone(),
        at: Instant::now(),
    };
    lock(&core.requests).push(received);
    core.unless_hung().await;
    next.run(Request::from_parts(parts, Body::from(body))).await
}
