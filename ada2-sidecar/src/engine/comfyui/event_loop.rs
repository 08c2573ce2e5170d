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
    events::{self, ComfyUiEvent},
};

/// Between attempts to connect.
const RECONNECT: Duration = Duration::from_millis(500);
const CONNECT: Duration = Duration::from_secs(5);
/// The server never pings, so we do: this is how a dead connection is found.
const PING: Duration = Duration::from_secs(15);
/// Nothing heard for this long, not even an answer to a ping. A checkpoint that is being loaded can hold the server's
/// interpreter for ten seconds and more.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);
/// Without events for this long although the engine answers: a warning.
const DISCONNECT_WARNING_DELAY: Duration = Duration::from_secs(5);
/// A frame holds a preview picture; none is near this.
const MAX_FRAME: usize = 16 << 20;

/// The connection that events come over, or the next one.
#[derive(Debug)]
pub(super) struct EventConnection {
    /// What the engine knows it by: whoever orders under this name has his events sent there. A new one for every
    /// connection: while the server still holds an old one of the same name, the new one stays silent for ever once the
    /// old one ends.
    client_id: String,
    /// Since when no events come; none while they do.
    disconnected_since: Option<Instant>,
}

impl EventConnection {
    pub(super) fn new(tag: &str) -> Self {
        Self { client_id: new_client_id(tag), disconnected_since: Some(Instant::now()) }
    }
}

/// What the names of all our clients begin with.
pub(super) fn client_prefix(tag: &str) -> String {
    format!("{tag}.")
}

fn new_client_id(tag: &str) -> String {
    format!("{}{}", client_prefix(tag), uuid::Uuid::new_v4())
}

impl ComfyUi {
    /// Follows the engine's events for as long as the service lasts.
    pub async fn run_event_loop(&self) {
        loop {
            let reason = self.run_connection().await;
            self.lock_connection().disconnected_since.get_or_insert_with(Instant::now);
            debug!(reason, "the engine's events are not connected; trying again");
            // Whoever waits for an event must look for himself now, and once more when we are back.
            let _ = self.events.send(ComfyUiEvent::Resync);
            tokio::time::sleep(RECONNECT).await;
        }
    }

    async fn run_connection(&self) -> &'static str {
        let client_id = new_client_id(&self.tag);
        self.lock_connection().client_id.clone_from(&client_id);
        let config =
            WebSocketConfig::default().max_message_size(Some(MAX_FRAME)).max_frame_size(Some(MAX_FRAME));
        let connect =
            tokio_tungstenite::connect_async_with_config(self.api.events_url(&client_id), Some(config), true);
        let Ok(Ok((mut socket, _))) = tokio::time::timeout(CONNECT, connect).await else {
            return "no connection";
        };
        if socket.send(Message::text(events::feature_flags_message())).await.is_err() {
            return "closed";
        }
        let mut ping = tokio::time::interval(PING);
        let mut heard = Instant::now();
        loop {
            let frame = tokio::select! {
                frame = socket.next() => frame,
                _ = ping.tick() => {
                    if heard.elapsed() > IDLE_TIMEOUT {
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
                        self.previews.publish(&prompt, || Some(Bytes::copy_from_slice(preview)));
                    }
                    None
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return "closed",
                Some(Ok(_)) => None,
            };
            if self.lock_connection().disconnected_since.take().is_some() {
                // Whatever happened before is not told again.
                let _ = self.events.send(ComfyUiEvent::Resync);
            }
            if let Some(event) = event.filter(|event| self.concerns(event)) {
                let _ = self.events.send(event);
            }
        }
    }

    /// Whether it is of a prompt that a request waits for. Others are nothing to us, and may be called anything.
    fn concerns(&self, event: &ComfyUiEvent) -> bool {
        match event {
            ComfyUiEvent::Progress { prompt, .. } | ComfyUiEvent::Ended { prompt } => {
                self.state().active_prompts.contains(prompt)
            }
            ComfyUiEvent::Resync => true,
        }
    }

    /// Whom events are sent to now.
    pub(super) fn client_id(&self) -> String {
        self.lock_connection().client_id.clone()
    }

    /// Whether events of what this client ordered come.
    pub(super) fn receives_events_of(&self, client_id: &str) -> bool {
        let connection = self.lock_connection();
        connection.disconnected_since.is_none() && connection.client_id == client_id
    }

    /// Whether events have not come for so long that it wants attention.
    pub(super) fn is_disconnected(&self) -> bool {
        self.lock_connection()
            .disconnected_since
            .is_some_and(|since| since.elapsed() > DISCONNECT_WARNING_DELAY)
    }

    fn lock_connection(&self) -> std::sync::MutexGuard<'_, EventConnection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
