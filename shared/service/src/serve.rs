//! The accept loop: connections bounded in all and per address, headers bounded in time, number and size, a client
//! that takes no byte dropped, refusals that arrive, and a graceful end. `axum::handle_connection` can do none of these.

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

/// Bounds of the listener.
#[derive(Debug, Clone, Copy)]
pub struct ServerLimits {
    /// Connections in all. For one more, the one that has waited longest for a request's head is closed, or for more of
    /// its body if more of them wait for that; if all are at work, it is closed itself.
    pub max_connections: usize,
    /// Connections from one address; the same among its own.
    pub max_per_address: usize,
    /// For a request's head, for the TLS handshake, and between requests on one connection.
    pub head_timeout: Duration,
    /// A client that takes no byte of its answer for this long is gone.
    pub stall_timeout: Duration,
    /// Header lines.
    pub max_headers: usize,
    /// Bytes of a request's head.
    pub max_head_bytes: usize,
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
        }
    }
}

/// The TCP peer; in every request's extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerAddr(pub SocketAddr);

/// What answers requests.
pub trait Handler: Clone + Send + Sync + 'static {
    /// Answers one.
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

/// A request is answered by the one that is there when it comes, to its end.
impl<H: Handler> Handler for Reloadable<H> {
    async fn handle(&self, request: Request<RequestBody>) -> Response {
        let handler = self.load();
        handler.handle(request).await
    }
}

/// What a listener serves, and how.
#[derive(Debug, Clone)]
pub struct HttpServer<H> {
    /// Who answers.
    pub handler: H,
    /// The bounds.
    pub limits: ServerLimits,
    /// Somebody else holds the socket too (systemd), so that who waits in its queue is served after us.
    pub socket_activated: bool,
    /// TLS, if the listener speaks it.
    pub tls: Option<TlsAcceptor>,
}

impl<H: Handler> HttpServer<H> {
    /// A listener that speaks plain HTTP.
    pub fn plain(handler: H) -> Self {
        Self { handler, limits: ServerLimits::default(), socket_activated: false, tls: None }
    }
}

/// A TLS acceptor; its own type because the library's prints nothing.
#[derive(Clone)]
pub struct TlsAcceptor(pub tokio_rustls::TlsAcceptor);

impl std::fmt::Debug for TlsAcceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsAcceptor")
    }
}

/// Sends without delay, and finds a peer that vanished without a word (a sleeping Mac, a pulled cable) within 30 s.
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
