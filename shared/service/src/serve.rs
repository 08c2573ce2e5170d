//! The HTTP server. `axum::serve` cannot do what it does: limits on connections (in total and per address) and on heads
//! (time, number, size), dropped clients that stop reading, error responses that arrive, graceful shutdown.

mod accept_loop;
mod connection;
mod connection_limiter;
mod head_error;
mod https_only;
mod lingering_close;
mod socket;
mod tcp_info;

use std::{net::SocketAddr, time::Duration};

use axum::{Router, extract::Request, response::Response};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

pub use self::{accept_loop::accept, connection_limiter::ConnectionPermit, lingering_close::RequestBody};
use super::reload::Reloadable;

/// How long the rest of a request is read and discarded after its response.
const LINGER_TIMEOUT: Duration = Duration::from_secs(30);
/// How many bytes of it.
const MAX_LINGER_BYTES: u64 = 64 << 20;

/// Limits of a listener.
#[derive(Debug, Clone, Copy)]
pub struct ServerLimits {
    /// Connections in total. At the limit, a new one evicts the one that has waited longest for a request head, or for
    /// more of a body if more of them wait for that. If all are busy, the new one is closed.
    pub max_connections: usize,
    /// Connections from one address; at the limit, it evicts its own.
    pub max_per_address: usize,
    /// For a request head, for the TLS handshake, and between two requests on a connection.
    pub head_timeout: Duration,
    /// A client that reads no byte of its response for this long is dropped.
    pub stall_timeout: Duration,
    /// Header lines of a request.
    pub max_headers: usize,
    /// Bytes of a request head.
    pub max_head_bytes: usize,
    /// Bytes of a body that are read, and of a response that are kept for a client, at a time.
    pub max_buffer_bytes: usize,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_per_address: 256,
            head_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_mins(1),
            max_headers: 100,
            max_head_bytes: 64 * 1024,
            max_buffer_bytes: 256 * 1024,
        }
    }
}

/// The TCP peer; in every request's extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerAddr(pub SocketAddr);

/// Handles requests.
pub trait Handler: Clone + Send + Sync + 'static {
    /// Handles one request.
    fn handle(&self, request: Request<RequestBody>) -> impl Future<Output = Response> + Send;
}

impl Handler for Router {
    async fn handle(&self, request: Request<RequestBody>) -> Response {
        match tower_service::Service::call(&mut self.clone(), request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// A request stays with the handler that was current when it arrived.
impl<H: Handler> Handler for Reloadable<H> {
    async fn handle(&self, request: Request<RequestBody>) -> Response {
        let handler = self.load();
        handler.handle(request).await
    }
}

/// What a listener serves.
#[derive(Debug, Clone)]
pub struct HttpServer<H> {
    /// Handles the requests.
    pub handler: H,
    /// The limits.
    pub limits: ServerLimits,
    /// systemd holds the socket too, so that connections in its backlog are served by the next process.
    pub socket_activated: bool,
    /// None for plain HTTP.
    pub tls: Option<TlsAcceptor>,
}

impl<H: Handler> HttpServer<H> {
    /// Plain HTTP with default limits.
    pub fn plain(handler: H) -> Self {
        Self { handler, limits: ServerLimits::default(), socket_activated: false, tls: None }
    }
}

/// A TLS acceptor that implements `Debug`, which the library's does not.
#[derive(Clone)]
pub struct TlsAcceptor(pub tokio_rustls::TlsAcceptor);

impl std::fmt::Debug for TlsAcceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsAcceptor")
    }
}

/// Disables Nagle's algorithm, and detects a dead peer (a sleeping Mac, a pulled cable) within 30 s.
pub fn set_socket_options(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(5))
        .with_retries(3);
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

#[cfg(test)]
mod tests;
