//! The accept loop: connections bounded in all and per address, headers bounded in time, number and size, a client
//! that takes no byte dropped, and a graceful end. `axum::serve` can do none of these.

mod seats;

use std::{convert::Infallible, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{Router, extract::Request, response::Response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};
use tokio_io_timeout::TimeoutStream;
use tracing::{debug, warn};

use self::seats::Counts;
pub use self::seats::Seat;
use super::{lifecycle::Lifecycle, reload::Switch};

/// Bounds of the listener.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Connections in all; more are closed at once.
    pub connections: usize,
    /// Connections from one address.
    pub per_address: usize,
    /// For a request's head, for the TLS handshake, and between requests on one connection.
    pub head_time: Duration,
    /// A client that takes no byte of its answer for this long is gone.
    pub stall: Duration,
    /// Header lines.
    pub headers: usize,
    /// Bytes of a request's head.
    pub head_bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 1024,
            per_address: 256,
            head_time: Duration::from_secs(10),
            stall: Duration::from_mins(1),
            headers: 100,
            head_bytes: 64 * 1024,
        }
    }
}

/// The TCP peer; in every request's extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// What answers requests.
pub trait Handler: Clone + Send + Sync + 'static {
    /// Answers one.
    fn handle(&self, request: Request<Incoming>) -> impl Future<Output = Response> + Send;
}

impl Handler for Router {
    async fn handle(&self, request: Request<Incoming>) -> Response {
        match tower_service::Service::call(&mut self.clone(), request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// A request is answered by the one that is there when it comes, to its end.
impl<H: Handler> Handler for Switch<H> {
    async fn handle(&self, request: Request<Incoming>) -> Response {
        let handler = self.now();
        handler.handle(request).await
    }
}

/// What a listener serves, and how.
#[derive(Debug, Clone)]
pub struct Listener<H> {
    /// Who answers.
    pub handler: H,
    /// The bounds.
    pub bounds: Bounds,
    /// TLS, if the listener speaks it.
    #[cfg(feature = "tls")]
    pub tls: Option<TlsAcceptor>,
}

impl<H: Handler> Listener<H> {
    /// A listener that speaks plain HTTP.
    pub fn plain(handler: H) -> Self {
        Self {
            handler,
            bounds: Bounds::default(),
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}

/// A TLS acceptor; its own type because the library's prints nothing.
#[cfg(feature = "tls")]
#[derive(Clone)]
pub struct TlsAcceptor(pub tokio_rustls::TlsAcceptor);

#[cfg(feature = "tls")]
impl std::fmt::Debug for TlsAcceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsAcceptor")
    }
}

/// Accepts until the service drains. Every connection is a task of the lifecycle.
pub async fn accept<H: Handler>(socket: TcpListener, listener: Listener<H>, lifecycle: Lifecycle) {
    let counts = Counts::new(&listener.bounds);
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = lifecycle.draining().cancelled() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: a pause lets connections end instead of spinning.
                warn!(%error, "cannot accept connections; trying again in 100 ms");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(seat) = counts.enter(peer.ip()) else {
            debug!(%peer, "connection closed: too many");
            continue;
        };
        let (listener, life) = (listener.clone(), lifecycle.clone());
        lifecycle.spawn("connection", async move {
            connection(stream, Visit { peer, seat }, listener, life).await;
        });
    }
}

/// Sends without delay, and finds a peer that vanished without a word (a sleeping Mac, a pulled cable) within 30 s.
pub fn prepare(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(5))
        .with_retries(3);
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

/// Who is connected.
struct Visit {
    peer: SocketAddr,
    seat: Arc<Seat>,
}

async fn connection<H: Handler>(stream: TcpStream, visit: Visit, listener: Listener<H>, life: Lifecycle) {
    prepare(&stream);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(listener.bounds.stall));
    let stream = Box::pin(stream);
    #[cfg(feature = "tls")]
    if let Some(tls) = &listener.tls {
        let handshake = tokio::time::timeout(listener.bounds.head_time, tls.0.accept(stream));
        let shaken = tokio::select! {
            shaken = handshake => shaken,
            () = life.draining().cancelled() => return,
        };
        match shaken {
            Ok(Ok(stream)) => http(stream, visit, listener, life).await,
            Ok(Err(error)) => debug!(peer = %visit.peer, %error, "TLS handshake failed"),
            Err(_) => debug!(peer = %visit.peer, "TLS handshake took too long"),
        }
        return;
    }
    http(stream, visit, listener, life).await;
}

async fn http<H, S>(stream: S, visit: Visit, listener: Listener<H>, life: Lifecycle)
where
    H: Handler,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Listener { handler, bounds, .. } = listener;
    let Visit { peer, seat } = visit;
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        request.extensions_mut().insert(seat.clone());
        let handler = handler.clone();
        async move { Ok::<_, Infallible>(handler.handle(request).await) }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head_time)
        .max_headers(bounds.headers)
        .max_buf_size(bounds.head_bytes);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service).with_upgrades());
    let mut draining = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    debug!(%peer, %error, "connection ended");
                }
                return;
            }
            () = life.draining().cancelled(), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
            () = life.aborting().cancelled() => return,
        }
    }
}

#[cfg(test)]
mod tests;
