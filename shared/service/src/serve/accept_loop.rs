//! The accept loop, which keeps going when file descriptors run out.

use std::{
    io::{Error, ErrorKind},
    iter,
    net::SocketAddr,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    time::Instant,
};
use tracing::{debug, warn};

use super::{
    Handler, HttpServer,
    connection::{Connection, serve_http},
    connection_limiter::ConnectionLimiter,
    https_only::serve_tls,
    set_socket_options,
    socket::ClientStream,
};
use crate::lifecycle::Lifecycle;

/// Before the next attempt while accepting fails: no busy loop.
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// The same after a connection was evicted.
const EVICTION_RETRY_DELAY: Duration = Duration::from_millis(5);
/// Between two log lines about it.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Accepts until the service drains, and then, unless systemd holds the socket too, what is in its backlog. Every connection
/// is a task of the lifecycle.
pub fn accept<H: Handler>(
    socket: TcpListener,
    listener: HttpServer<H>,
    lifecycle: Lifecycle,
) -> impl Future<Output = ()> + Send + 'static {
    // Now, not at the first poll.
    let drain_guard = lifecycle.drain_guard();
    async move {
        let limiter = ConnectionLimiter::new(&listener.limits);
        let admit = |stream: TcpStream, peer: SocketAddr| {
            let Some(permit) = limiter.try_acquire(peer.ip()) else {
                return debug!(%peer, "connection closed: too many connections, all busy");
            };
            let (listener, life) = (listener.clone(), lifecycle.clone());
            lifecycle.spawn("connection", async move {
                serve_connection(stream, Connection { peer, permit }, listener, life).await;
            });
        };
        accept_until_draining(&socket, &lifecycle, &limiter, &admit).await;
        if !listener.socket_activated {
            drain_backlog(socket).for_each(|(stream, peer)| admit(stream, peer));
        }
        drop(drain_guard);
    }
}

async fn serve_connection<H: Handler>(
    stream: TcpStream,
    connection: Connection,
    listener: HttpServer<H>,
    life: Lifecycle,
) {
    set_socket_options(&stream);
    let state = connection.permit.state().clone();
    if let Some(tls) = listener.tls.clone() {
        serve_tls(stream, connection, (tls, listener), life).await;
    } else {
        let stream = ClientStream::new(stream, listener.limits.stall_timeout, state.clone());
        serve_http(stream, connection, listener, life).await;
    }
    // A WebSocket that still holds the permit waits for no head.
    state.head_received();
}

async fn accept_until_draining(
    socket: &TcpListener,
    lifecycle: &Lifecycle,
    limiter: &ConnectionLimiter,
    admit: &(impl Fn(TcpStream, SocketAddr) + Sync),
) {
    let mut last_warned = None;
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = lifecycle.draining().cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => admit(stream, peer),
            Err(error) if is_connection_error(&error) => {
                debug!(%error, "a connection failed before it was accepted");
            }
            Err(error) => {
                warn_rate_limited(&mut last_warned, &error);
                // Most likely out of file descriptors: a connection without a request gives up its own.
                let delay = if limiter.evict_one() { EVICTION_RETRY_DELAY } else { RETRY_DELAY };
                tokio::time::sleep(delay).await;
            }
        }
    }
}

/// The connections in the backlog. Closing the socket would reset them, and their clients could not know whether their
/// requests were handled.
fn drain_backlog(socket: TcpListener) -> impl Iterator<Item = (TcpStream, SocketAddr)> {
    let socket = socket.into_std().ok();
    iter::from_fn(move || {
        let socket = socket.as_ref()?;
        loop {
            match socket.accept() {
                Ok((stream, peer)) => {
                    stream.set_nonblocking(true).ok()?;
                    return Some((TcpStream::from_std(stream).ok()?, peer));
                }
                Err(error) if is_connection_error(&error) => {}
                Err(_) => return None,
            }
        }
    })
}

/// Whether the error is about the connection that was to be accepted, not about accepting.
fn is_connection_error(error: &Error) -> bool {
    use ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

fn warn_rate_limited(last_warned: &mut Option<Instant>, error: &Error) {
    if last_warned.is_none_or(|at: Instant| at.elapsed() >= LOG_INTERVAL) {
        *last_warned = Some(Instant::now());
        warn!(%error, "cannot accept connections; closing those without a request and retrying. \
            If this persists, raise the limit of open files (LimitNOFILE, NumberOfFiles)");
    }
}
