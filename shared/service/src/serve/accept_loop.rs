//! Taking connections in, also when descriptors run out.

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

/// Between two tries while none can be taken in: connections end meanwhile, and nothing spins.
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// The same where one was closed to make room.
const EVICTION_RETRY_DELAY: Duration = Duration::from_millis(5);
/// Between two lines of the log about it.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Accepts until the service drains, and then, unless somebody else holds the socket, whoever is waiting in its queue. Every
/// connection is a task of the lifecycle.
pub fn accept<H: Handler>(
    socket: TcpListener,
    listener: HttpServer<H>,
    lifecycle: Lifecycle,
) -> impl Future<Output = ()> + Send + 'static {
    // From now on, not from the first poll.
    let admission = lifecycle.drain_guard();
    async move {
        let limiter = ConnectionLimiter::new(&listener.limits);
        let admit = |stream: TcpStream, peer: SocketAddr| {
            let Some(permit) = limiter.try_acquire(peer.ip()) else {
                return debug!(%peer, "connection closed: too many, and all at work");
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
        drop(admission);
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
    match listener.tls.clone() {
        Some(tls) => serve_tls(stream, connection, (tls, listener), life).await,
        None => {
            let stream = ClientStream::new(stream, listener.limits.stall_timeout, state.clone());
            serve_http(stream, connection, listener, life).await;
        }
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
                debug!(%error, "a connection broke before it was accepted");
            }
            Err(error) => {
                warn_rate_limited(&mut last_warned, &error);
                // Out of descriptors, most likely. Those without a request give theirs up first.
                let pause = if limiter.evict_one() { EVICTION_RETRY_DELAY } else { RETRY_DELAY };
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// Those who have connected and were not taken in. Closing the socket would reset them, and leave them in doubt whether
/// what they asked was done.
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

/// Whether the error is about the connection that was to be accepted, so that the next can be at once.
fn is_connection_error(error: &Error) -> bool {
    use ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

fn warn_rate_limited(last_warned: &mut Option<Instant>, error: &Error) {
    if last_warned.is_none_or(|told: Instant| told.elapsed() >= LOG_INTERVAL) {
        *last_warned = Some(Instant::now());
        warn!(%error, "cannot accept connections; those without a request are closed, and it is tried again. \
            If this stays, raise the limit of open files (LimitNOFILE, NumberOfFiles)");
    }
}
