//! Connections to the engine that are kept for a moment. hyper's own client with a pool costs a sixth more processor time
//! on small requests; this one hands back what was not sent, which that needs as well.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use reqwest::Url;
use service::{lifecycle::Lifecycle, outbound::CONNECT_TIMEOUT, serve::set_socket_options};
use tokio::{
    net::{TcpStream, lookup_host},
    time::{Instant, timeout},
};
use tracing::debug;

use super::body::Upload;

/// Below the idle close of uvicorn, which InvokeAI runs on (5 s, measured on 6.14.2).
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// More than a household's browsers use at once.
const MAX_IDLE: usize = 64;

/// One side of a connection to the engine.
pub(super) type Sender = SendRequest<Upload>;

/// Why there is no connection.
#[derive(Debug)]
pub(super) struct ConnectError(pub(super) String);

#[derive(Debug)]
pub(super) struct Pool {
    host: String,
    port: u16,
    /// The one used last is the last.
    idle: Mutex<Vec<IdleConnection>>,
    lifecycle: Lifecycle,
}

#[derive(Debug)]
struct IdleConnection {
    sender: Sender,
    since: Instant,
}

impl Pool {
    pub(super) fn new(engine: &Url, lifecycle: Lifecycle) -> Arc<Self> {
        // In brackets an IPv6 address is a URL's; without, the resolver's.
        let host = engine.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = engine.port_or_known_default().unwrap_or(80);
        Arc::new(Self { host, port, idle: Mutex::default(), lifecycle })
    }

    /// A connection that is open and free now.
    pub(super) fn take(&self) -> Option<Sender> {
        let mut idle = self.lock_idle();
        // From the end: what lies before one that is too old is older.
        for index in (0..idle.len()).rev() {
            if idle[index].since.elapsed() > IDLE_TIMEOUT {
                idle.drain(..=index);
                return None;
            }
            // One that is neither has just ended its answer, and is free in a moment.
            if idle[index].sender.is_closed() {
                idle.remove(index);
            } else if idle[index].sender.is_ready() {
                return Some(idle.remove(index).sender);
            }
        }
        None
    }

    /// For the next request, once its answer has ended.
    pub(super) fn put(&self, sender: Sender) {
        if sender.is_closed() || self.lifecycle.draining().is_cancelled() {
            return;
        }
        let mut idle = self.lock_idle();
        if idle.len() >= MAX_IDLE {
            idle.remove(0);
        }
        idle.push(IdleConnection { sender, since: Instant::now() });
    }

    /// A new connection.
    pub(super) async fn connect(&self) -> Result<Sender, ConnectError> {
        let timed_out = || ConnectError(format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()));
        let stream = timeout(CONNECT_TIMEOUT, self.dial()).await.map_err(|_| timed_out())??;
        set_socket_options(&stream);
        let (sender, connection) = http1::Builder::new()
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| ConnectError(error.to_string()))?;
        self.lifecycle.spawn_background("engine connection", async move {
            if let Err(error) = connection.with_upgrades().await {
                debug!(%error, "connection to the engine ended");
            }
        });
        Ok(sender)
    }

    async fn dial(&self) -> Result<TcpStream, ConnectError> {
        let found = lookup_host((self.host.as_str(), self.port)).await;
        let unresolved =
            |_| ConnectError(format!("the name {:?} cannot be resolved (--engine-url)", self.host));
        let addresses: Vec<_> = found.map_err(unresolved)?.collect();
        TcpStream::connect(&addresses[..]).await.map_err(|error| ConnectError(error.to_string()))
    }

    fn lock_idle(&self) -> MutexGuard<'_, Vec<IdleConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
