//! What a fake engine stands on: one state under one lock with a bell that rings at every change, the requests that it
//! saw, and a listener whose connections can be cut. Which engine it is, this file must not know.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Extension, Router,
    body::Body,
    extract::{Request, State},
    http::StatusCode,
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

/// One HTTP request.
#[derive(Debug, Clone)]
pub struct EngineRequest {
    /// `GET`, `POST`…
    pub method: String,
    /// With its query.
    pub path: String,
    /// The client's port: the same for all requests of one connection.
    pub connection: u16,
    /// As sent.
    pub body: Bytes,
    /// When it had arrived whole.
    pub at: Instant,
}

/// What every engine's state has.
pub(crate) trait Scripted: Send + 'static {
    /// Connections are accepted and nothing is answered, sent or done.
    fn is_hung(&self) -> bool;

    /// Where requests are written down.
    fn requests(&mut self) -> &mut Vec<EngineRequest>;
}

/// What all parts of a fake share.
#[derive(Debug)]
pub(crate) struct Core<S> {
    state: Mutex<S>,
    changes: watch::Sender<()>,
    /// Counts up when sockets are to be cut.
    pub(crate) sockets: watch::Sender<u32>,
}

impl<S: Scripted> Core<S> {
    pub(crate) fn look<T>(&self, read: impl FnOnce(&S) -> T) -> T {
        read(&self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn change<T>(&self, write: impl FnOnce(&mut S) -> T) -> T {
        let result = write(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changes.send_replace(());
        result
    }

    /// Waits until the state gives what is wanted.
    pub(crate) async fn until<T>(&self, wanted: impl Fn(&S) -> Option<T>) -> T {
        let mut bell = self.changes.subscribe();
        loop {
            if let Some(found) = self.look(&wanted) {
                return found;
            }
            bell.changed().await.expect("the sender lives as long as self");
        }
    }

    /// A hung process does nothing at all: everything that it does waits here first.
    pub(crate) async fn unless_hung(&self) {
        self.until(|state| (!state.is_hung()).then_some(())).await;
    }

    /// Cuts every WebSocket now, without a close frame.
    pub(crate) fn drop_sockets(&self) {
        self.sockets.send_modify(|generation| *generation += 1);
    }
}

/// The process: a port, and what runs as long as it does.
#[derive(Debug)]
pub(crate) struct Process<S> {
    pub(crate) core: Arc<Core<S>>,
    address: SocketAddr,
    tasks: Mutex<JoinSet<()>>,
    /// Holds the port while stopped: bound and not listening, so connections are refused.
    parked: Mutex<Option<TcpSocket>>,
}

impl<S: Scripted> Process<S> {
    /// On this loopback port, a free one for 0; nothing runs yet.
    pub(crate) async fn bind(state: S, port: u16) -> (Self, TcpListener) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.expect("the port is free");
        let address = listener.local_addr().expect("a bound socket has an address");
        let core = Core {
            state: Mutex::new(state),
            changes: watch::Sender::new(()),
            sockets: watch::Sender::new(0),
        };
        (Self { core: Arc::new(core), address, tasks: Mutex::default(), parked: Mutex::default() }, listener)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Idle connections are closed after `idle`.
    pub(crate) fn run(
        &self,
        listener: TcpListener,
        router: Router,
        idle: Duration,
        worker: impl Future<Output = ()> + Send + 'static,
    ) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.spawn(worker);
        tasks.spawn(accept(listener, router, idle));
    }

    /// Ends at once, as a killed process does: connections break, new ones are refused. The port stays ours.
    pub(crate) async fn stop(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("a fresh socket takes options");
        socket.bind(self.address).expect("the port was ours a moment ago");
        *self.parked.lock().unwrap_or_else(PoisonError::into_inner) = Some(socket);
    }

    /// The port again, after [`Self::stop`].
    pub(crate) fn listen_again(&self) -> TcpListener {
        let parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner).take();
        parked.expect("it was stopped before").listen(1024).expect("a bound socket listens")
    }
}

/// What a handler may do to the connection that its request came on.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionHandle {
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
        let line = ConnectionHandle { peer_port: peer.port(), cut: alive.child_token() };
        let service = TowerToHyperService::new(router.clone().layer(Extension(line.clone())));
        connections.spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(idle)
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            tokio::select! {
                _ = connection => {}
                () = line.cut.cancelled() => {}
            }
        });
    }
}

/// Writes the request down, then does nothing while hung.
pub(crate) async fn record<S: Scripted>(
    State(core): State<Arc<Core<S>>>,
    Extension(line): Extension<ConnectionHandle>,
    request: Request,
    next: Next,
) -> Response {
    let (parts, body) = request.into_parts();
    // It breaks off only with its connection, so nobody reads this answer.
    let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let seen = EngineRequest {
        method: parts.method.to_string(),
        path: parts.uri.to_string(),
        connection: line.peer_port,
        body: body.clone(),
        at: Instant::now(),
    };
    core.change(|state| state.requests().push(seen));
    core.unless_hung().await;
    next.run(Request::from_parts(parts, Body::from(body))).await
}
