//! The connection to the engine's events, for as long as the service lasts.

use std::{
    sync::PoisonError,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::{Message, protocol::WebSocketConfig};
use tracing::debug;

use super::{
    ComfyUi,
    events::{self, Event},
};

/// Between attempts to connect.
const RECONNECT: Duration = Duration::from_millis(500);
const CONNECT: Duration = Duration::from_secs(5);
/// The server never pings, so we do: this is how a dead connection is found.
const PING: Duration = Duration::from_secs(15);
/// Nothing heard for this long, not even an answer to a ping. A checkpoint that is being loaded can hold the server's
/// interpreter for ten seconds and more.
const SILENCE: Duration = Duration::from_secs(50);
/// Without events for this long although the engine answers: a warning.
const DEAF: Duration = Duration::from_secs(5);
/// A frame holds a preview picture; none is near this.
const MAX_FRAME: usize = 16 << 20;

/// The connection that events come over, or the next one.
#[derive(Debug)]
pub(super) struct Socket {
    /// What the engine knows it by: whoever orders under this name has his events sent there. A new one for every
    /// connection: while the server still holds an old one of the same name, the new one stays silent for ever once the
    /// old one ends.
    client: String,
    /// Since when no events come; none while they do.
    deaf: Option<Instant>,
}

impl Socket {
    pub(super) fn new(tag: &str) -> Self {
        Self { client: client(tag), deaf: Some(Instant::now()) }
    }
}

/// What the names of all our clients begin with.
pub(super) fn client_prefix(tag: &str) -> String {
    format!("{tag}.")
}

fn client(tag: &str) -> String {
    format!("{}{}", client_prefix(tag), uuid::Uuid::new_v4())
}

impl ComfyUi {
    /// Follows the engine's events for as long as the service lasts.
    pub async fn follow(&self) {
        loop {
            let reason = self.follow_once().await;
            self.socket().deaf.get_or_insert_with(Instant::now);
            debug!(reason, "the engine's events are not connected; trying again");
            // Whoever waits for an event must look for himself now, and once more when we are back.
            let _ = self.events.send(Event::Interrupted);
            tokio::time::sleep(RECONNECT).await;
        }
    }

    async fn follow_once(&self) -> &'static str {
        let client = client(&self.tag);
        self.socket().client.clone_from(&client);
        let config =
            WebSocketConfig::default().max_message_size(Some(MAX_FRAME)).max_frame_size(Some(MAX_FRAME));
        let connect =
            tokio_tungstenite::connect_async_with_config(self.api.events_url(&client), Some(config), true);
        let Ok(Ok((mut socket, _))) = tokio::time::timeout(CONNECT, connect).await else {
            return "no connection";
        };
        if socket.send(Message::text(events::hello())).await.is_err() {
            return "closed";
        }
        let mut ping = tokio::time::interval(PING);
        let mut heard = Instant::now();
        loop {
            let frame = tokio::select! {
                frame = socket.next() => frame,
                _ = ping.tick() => {
                    if heard.elapsed() > SILENCE {
                        return "silence";
                    }
                    if socket.send(Message::Ping(Bytes::new())).await.is_err() {
                        return "closed";
                    }
                    continue;
                }
            };
            heard = Instant::now();
            let event = match frame {
                Some(Ok(Message::Text(text))) => events::read_text(&text),
                Some(Ok(Message::Binary(frame))) => {
                    if let Some((prompt, preview)) = events::read_binary(&frame) {
                        // A copy: a part of the frame would hold all of what was read with it.
                        self.previews.put(&prompt, || Some(Bytes::copy_from_slice(preview)));
                    }
                    None
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return "closed",
                Some(Ok(_)) => None,
            };
            if self.socket().deaf.take().is_some() {
                // Whatever happened before is not told again.
                let _ = self.events.send(Event::Interrupted);
            }
            if let Some(event) = event.filter(|event| self.concerns(event)) {
                let _ = self.events.send(event);
            }
        }
    }

    /// Whether it is of a prompt that a request waits for. Others are nothing to us, and may be called anything.
    fn concerns(&self, event: &Event) -> bool {
        match event {
            Event::Progress { prompt, .. } | Event::Ended { prompt } => self.state().live.contains(prompt),
            Event::Interrupted => true,
        }
    }

    /// Whom events are sent to now.
    pub(super) fn client(&self) -> String {
        self.socket().client.clone()
    }

    /// Whether events of what this client ordered come.
    pub(super) fn hears(&self, client: &str) -> bool {
        let socket = self.socket();
        socket.deaf.is_none() && socket.client == client
    }

    /// Whether events have not come for so long that it wants attention.
    pub(super) fn is_deaf(&self) -> bool {
        self.socket().deaf.is_some_and(|since| since.elapsed() > DEAF)
    }

    fn socket(&self) -> std::sync::MutexGuard<'_, Socket> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
