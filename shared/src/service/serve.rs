//! The accept loop: connections bounded in all and per address, headers bounded in time, number and size, a client
//! that takes no byte dropped, and a graceful end. `axum::serve` can do none of these.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Router, extract::Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};
use tokio_io_timeout::TimeoutStream;
use tracing::{debug, warn};

use super::lifecycle::Lifecycle;

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

/// What a listener serves, and how.
#[derive(Debug, Clone)]
pub struct Listener {
    /// The routes.
    pub router: Router,
    /// The bounds.
    pub bounds: Bounds,
    /// TLS, if the listener speaks it.
    #[cfg(feature = "tls")]
    pub tls: Option<TlsAcceptor>,
}

impl Listener {
    /// A listener that speaks plain HTTP.
    pub fn plain(router: Router) -> Self {
        Self {
            router,
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
pub async fn accept(socket: TcpListener, listener: Listener, lifecycle: Lifecycle) {
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
            let _seat = seat;
            connection(stream, peer, listener, life).await;
        });
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, listener: Listener, life: Lifecycle) {
    let _ = stream.set_nodelay(true);
    // A peer that vanished without a word (a sleeping Mac, a pulled cable) is found within 30 s.
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(5))
        .with_retries(3);
    let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
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
            Ok(Ok(stream)) => http(stream, peer, listener, life).await,
            Ok(Err(error)) => debug!(%peer, %error, "TLS handshake failed"),
            Err(_) => debug!(%peer, "TLS handshake took too long"),
        }
        return;
    }
    http(stream, peer, listener, life).await;
}

async fn http<S>(stream: S, peer: SocketAddr, listener: Listener, life: Lifecycle)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Listener { router, bounds, .. } = listener;
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        tower_service::Service::call(&mut router.clone(), request)
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head_time)
        .max_headers(bounds.headers)
        .max_buf_size(bounds.head_bytes);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
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

/// How many connections there are, in all and per address.
#[derive(Debug, Clone)]
struct Counts {
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
    total: usize,
    each: usize,
}

impl Counts {
    fn new(bounds: &Bounds) -> Self {
        Self { open: Arc::default(), total: bounds.connections, each: bounds.per_address }
    }

    fn enter(&self, address: IpAddr) -> Option<Seat> {
        let address = address.to_canonical();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = open.values().sum();
        let here = open.get(&address).copied().unwrap_or(0);
        if all >= self.total || here >= self.each {
            return None;
        }
        open.insert(address, here + 1);
        Some(Seat { counts: self.clone(), address })
    }
}

struct Seat {
    counts: Counts,
    address: IpAddr,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.counts.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(here) = open.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                open.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests;
