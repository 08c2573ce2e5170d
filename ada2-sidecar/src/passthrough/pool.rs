//! Idle connections to the engine, and the response bodies that return their connection to the pool. Compared with this
//! pool, hyper's own pooling client takes a sixth more CPU time on small requests, and does not hand back a request that
//! was not sent.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::{
    body::{Body, Incoming, SizeHint},
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use reqwest::Url;
use service::{lifecycle::Lifecycle, outbound::CONNECT_TIMEOUT, serve::set_socket_options};
use tokio::{
    net::{TcpStream, lookup_host},
    time::{Instant, timeout},
};
use tracing::debug;

use super::{
    ENGINE_TIMEOUT,
    upload::{BoxError, FramePoll, IdleTimeout, IdleTimer, Upload},
};

/// Below the keep-alive timeout of uvicorn, which InvokeAI runs on (5 s, measured on 6.14.2).
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// More than the browsers of a household use at once.
const MAX_IDLE: usize = 64;

pub(super) type Sender = SendRequest<Upload>;

/// Why there is no connection.
#[derive(Debug)]
pub(super) struct ConnectError(pub(super) String);

#[derive(Debug)]
pub(super) struct Pool {
    host: String,
    port: u16,
    /// The most recently used is last.
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
        // A URL has brackets around an IPv6 address; the resolver takes none.
        let host = engine.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = engine.port_or_known_default().unwrap_or(80);
        Arc::new(Self { host, port, idle: Mutex::default(), lifecycle })
    }

    /// An idle connection that is open and ready.
    pub(super) fn take(&self) -> Option<Sender> {
        let mut idle = self.lock_idle();
        // From the end: all before an expired one are older.
        for index in (0..idle.len()).rev() {
            if idle[index].since.elapsed() > IDLE_TIMEOUT {
                idle.drain(..=index);
                return None;
            }
            // A connection that is neither closed nor ready has just ended its response, and is ready in a moment.
            if idle[index].sender.is_closed() {
                idle.remove(index);
            } else if idle[index].sender.is_ready() {
                return Some(idle.remove(index).sender);
            }
        }
        None
    }

    fn put(&self, sender: Sender) {
        if sender.is_closed() || self.lifecycle.draining().is_cancelled() {
            return;
        }
        let mut idle = self.lock_idle();
        if idle.len() >= MAX_IDLE {
            idle.remove(0);
        }
        idle.push(IdleConnection { sender, since: Instant::now() });
    }

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
        let resolved = lookup_host((self.host.as_str(), self.port)).await;
        let unresolved =
            |_| ConnectError(format!("the name {:?} cannot be resolved (--engine-url)", self.host));
        let addresses: Vec<_> = resolved.map_err(unresolved)?.collect();
        TcpStream::connect(&addresses[..]).await.map_err(|error| ConnectError(error.to_string()))
    }

    fn lock_idle(&self) -> MutexGuard<'_, Vec<IdleConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The engine's response body. A body that has ended returns its connection to the pool; one dropped earlier closes it.
#[derive(Debug)]
pub(super) struct ResponseBody {
    body: Incoming,
    idle_timer: IdleTimer,
    ended: bool,
    /// Taken on drop.
    sender: Option<Sender>,
    /// None where the connection must not be used again.
    pool: Option<Arc<Pool>>,
}

impl ResponseBody {
    pub(super) fn new(body: Incoming, sender: Sender, pool: Option<Arc<Pool>>) -> Self {
        Self { body, idle_timer: IdleTimer::new(ENGINE_TIMEOUT), ended: false, sender: Some(sender), pool }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> FramePoll {
        let this = &mut *self;
        let polled = Pin::new(&mut this.body).poll_frame(context);
        let frame = ready!(this.idle_timer.poll_progress(polled, context))
            .map_err(|IdleTimeout| "the engine stopped sending")?;
        this.ended = frame.is_none();
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if (self.ended || self.body.is_end_stream())
            && let (Some(sender), Some(pool)) = (self.sender.take(), &self.pool)
        {
            pool.put(sender);
        }
    }
}
