//! The connection to an engine's events: one WebSocket, reconnected for as long as the service lasts.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::sync::broadcast;
use tokio_tungstenite::tungstenite::{Message, protocol::WebSocketConfig};
use tracing::debug;

/// Between attempts to connect.
const RECONNECT: Duration = Duration::from_millis(500);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For engines that do not ping: this is how a dead connection is noticed.
const PING_INTERVAL: Duration = Duration::from_secs(15);
/// Without a frame for this long the connection is dead. InvokeAI pings every 25 s and gives up after 20 more; loading a
/// checkpoint can block either server for ten seconds and more.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);
/// Disconnected for this long although the engine answers: a warning.
const DISCONNECT_WARNING_DELAY: Duration = Duration::from_secs(5);
/// A frame holds at most a preview image, which is far smaller.
const MAX_FRAME: usize = 16 << 20;
const EVENT_BACKLOG: usize = 1024;
/// For [`probe`]: the connection and the frame together.
const PROBE_TIMEOUT: Duration = Duration::from_secs(4);

/// What differs between engines: address, greeting, frames.
pub(super) trait EventSource: Sync {
    /// Sent to jobs.
    type Event: Clone + Send;
    /// Events may have been missed: every job must poll once.
    const RESYNC: Self::Event;
    /// Whether we have to ping, because the engine does not.
    const PING: bool;

    /// The address of the next connection; called before each.
    fn next_url(&self) -> String;

    /// Our first message.
    fn greeting(&self) -> Option<String> {
        None
    }

    /// Reads any frame but the closing one. `Err`: the engine rejects the connection, and why.
    fn read(&self, frame: &Message) -> Result<Received<Self::Event>, &'static str>;
}

/// What a frame means.
#[derive(Debug)]
pub(super) struct Received<E> {
    /// To be sent back.
    pub(super) reply: Option<&'static str>,
    /// Whether events arrive from now on.
    pub(super) is_subscribed: bool,
    pub(super) event: Option<E>,
}

/// The events of an engine, and whether they arrive.
#[derive(Debug)]
pub(super) struct EventSocket<E> {
    sender: broadcast::Sender<E>,
    /// None while connected.
    disconnected_since: Mutex<Option<Instant>>,
}

impl<E: Clone> Default for EventSocket<E> {
    fn default() -> Self {
        Self {
            sender: broadcast::channel(EVENT_BACKLOG).0,
            disconnected_since: Mutex::new(Some(Instant::now())),
        }
    }
}

impl<E: Clone> EventSocket<E> {
    pub(super) fn subscribe(&self) -> broadcast::Receiver<E> {
        self.sender.subscribe()
    }

    pub(super) fn is_connected(&self) -> bool {
        self.lock().is_none()
    }

    /// Whether it has been disconnected for so long that an operator should know.
    pub(super) fn needs_attention(&self) -> bool {
        self.lock().is_some_and(|since| since.elapsed() > DISCONNECT_WARNING_DELAY)
    }

    /// Follows the events for as long as the service lasts.
    pub(super) async fn run<S: EventSource<Event = E>>(&self, source: &S) {
        loop {
            let reason = self.run_connection(source).await;
            self.lock().get_or_insert_with(Instant::now);
            debug!(reason, "the engine's events are disconnected; reconnecting");
            self.send(S::RESYNC);
            tokio::time::sleep(RECONNECT).await;
        }
    }

    async fn run_connection<S: EventSource<Event = E>>(&self, source: &S) -> &'static str {
        let config =
            WebSocketConfig::default().max_message_size(Some(MAX_FRAME)).max_frame_size(Some(MAX_FRAME));
        let connect = tokio_tungstenite::connect_async_with_config(source.next_url(), Some(config), true);
        let Ok(Ok((mut socket, _))) = tokio::time::timeout(CONNECT_TIMEOUT, connect).await else {
            return "no connection";
        };
        if let Some(greeting) = source.greeting()
            && socket.send(Message::text(greeting)).await.is_err()
        {
            return "closed";
        }
        let mut ping = tokio::time::interval(PING_INTERVAL);
        let mut last_frame = tokio::time::Instant::now();
        loop {
            let frame = tokio::select! {
                biased;
                frame = socket.next() => frame,
                () = tokio::time::sleep_until(last_frame + IDLE_TIMEOUT) => return "silence",
                _ = ping.tick(), if S::PING => {
                    if socket.send(Message::Ping(Bytes::new())).await.is_err() {
                        return "closed";
                    }
                    continue;
                }
            };
            last_frame = tokio::time::Instant::now();
            let received = match frame {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return "closed",
                Some(Ok(frame)) => match source.read(&frame) {
                    Ok(received) => received,
                    Err(reason) => return reason,
                },
            };
            if let Some(reply) = received.reply
                && socket.send(Message::text(reply)).await.is_err()
            {
                return "closed";
            }
            // Events from before the subscription are not repeated.
            if received.is_subscribed && self.lock().take().is_some() {
                self.send(S::RESYNC);
            }
            if let Some(event) = received.event {
                self.send(event);
            }
        }
    }

    fn send(&self, event: E) {
        // There may be no job to receive it.
        let _ = self.sender.send(event);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.disconnected_since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connects and waits for a text frame with this beginning: proof that nothing in between swallows upgrade or frames.
pub(super) async fn probe(url: String, beginning: &str) -> Result<(), String> {
    let connect = async {
        let (mut socket, _) =
            tokio_tungstenite::connect_async(url).await.map_err(|error| error.to_string())?;
        match socket.next().await {
            Some(Ok(Message::Text(text))) if text.starts_with(beginning) => Ok(()),
            Some(Ok(_)) => Err("its first frame is not the engine's".to_owned()),
            Some(Err(error)) => Err(error.to_string()),
            None => Err("closed without a frame".to_owned()),
        }
    };
    let timed_out = |_| Err(format!("no frame within {} s", PROBE_TIMEOUT.as_secs()));
    tokio::time::timeout(PROBE_TIMEOUT, connect).await.unwrap_or_else(timed_out)
}
