//! The connection to an engine's events: one WebSocket, reconnected for as long as the service lasts.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::broadcast,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, Utf8Bytes, protocol::WebSocketConfig},
};
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
    pub(super) reply: Option<Utf8Bytes>,
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
        let Ok(Ok((socket, _))) = tokio::time::timeout(CONNECT_TIMEOUT, connect).await else {
            return "no connection";
        };
        self.follow(source, socket).await
    }

    /// Follows one connection to its end, and returns the reason.
    async fn follow<S: EventSource<Event = E>>(
        &self,
        source: &S,
        mut socket: WebSocketStream<impl AsyncRead + AsyncWrite + Unpin>,
    ) -> &'static str {
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

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, DuplexStream},
        sync::broadcast::error::TryRecvError,
    };
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;

    #[derive(Debug, Clone, PartialEq)]
    enum Event {
        Resync,
        Text(String),
    }

    /// `subscribe` is answered with `welcome`, `no` is a rejection, every other text is an event.
    struct Source;

    impl EventSource for Source {
        type Event = Event;
        const RESYNC: Event = Event::Resync;
        const PING: bool = true;

        fn next_url(&self) -> String {
            "ws://127.0.0.1:1/".to_owned()
        }

        fn greeting(&self) -> Option<String> {
            Some("hello".to_owned())
        }

        fn read(&self, frame: &Message) -> Result<Received<Event>, &'static str> {
            let received = Received { reply: None, is_subscribed: false, event: None };
            match frame {
                Message::Text(text) if text.as_str() == "no" => Err("rejected"),
                Message::Text(text) if text.as_str() == "subscribe" => {
                    Ok(Received { reply: Some("welcome".into()), is_subscribed: true, ..received })
                }
                Message::Text(text) => {
                    Ok(Received { event: Some(Event::Text(text.to_string())), ..received })
                }
                _ => Ok(received),
            }
        }
    }

    /// Our end of a connection, and the engine's.
    async fn connection() -> (WebSocketStream<DuplexStream>, DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        (WebSocketStream::from_raw_socket(ours, Role::Client, None).await, theirs)
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_says_nothing_is_given_up_and_was_pinged() {
        let (ours, mut theirs) = connection().await;
        let events = EventSocket::default();
        let started = tokio::time::Instant::now();
        assert_eq!(events.follow(&Source, ours).await, "silence");
        assert_eq!(started.elapsed(), IDLE_TIMEOUT);
        assert!(!events.is_connected());
        let mut sent = Vec::new();
        theirs.read_to_end(&mut sent).await.unwrap();
        // Opcode and length, and four bytes of mask, before what was sent.
        let (greeting, pings) = sent.split_at(2 + 4 + "hello".len());
        assert_eq!(greeting[..2], [0x81, 0x85]);
        let pings: Vec<_> = pings.chunks(2 + 4).map(|ping| &ping[..2]).collect();
        assert_eq!(pings, [[0x89, 0x80]; 4], "at once, and every 15 s");
    }

    #[tokio::test(start_paused = true)]
    async fn jobs_poll_once_after_the_subscription_and_see_every_event_behind_it() {
        let (ours, theirs) = connection().await;
        let mut theirs = WebSocketStream::from_raw_socket(theirs, Role::Server, None).await;
        let events = EventSocket::default();
        let mut received = events.subscribe();
        let engine = async {
            for text in ["subscribe", "one", "subscribe", "two", "no"] {
                theirs.send(Message::text(text)).await.unwrap();
            }
            let frames: Vec<_> = theirs.filter_map(|frame| std::future::ready(frame.ok())).collect().await;
            frames.into_iter().filter(Message::is_text).collect::<Vec<_>>()
        };
        let (reason, sent) = tokio::join!(events.follow(&Source, ours), engine);
        assert_eq!(reason, "rejected");
        assert_eq!(sent, ["hello", "welcome", "welcome"].map(Message::text));
        let text = |text: &str| Ok(Event::Text(text.to_owned()));
        for expected in [Ok(Event::Resync), text("one"), text("two"), Err(TryRecvError::Empty)] {
            assert_eq!(received.try_recv(), expected);
        }
        assert!(events.is_connected(), "until `run` sees that the connection has ended");
    }

    #[tokio::test(start_paused = true)]
    async fn jobs_poll_once_for_each_lost_connection() {
        let events = EventSocket::default();
        events.lock().take();
        let mut received = events.subscribe();
        let run = tokio::time::timeout(RECONNECT * 2 + Duration::from_millis(1), events.run(&Source));
        assert!(run.await.is_err(), "it goes on for ever");
        assert!(!events.is_connected());
        let polls = std::iter::from_fn(|| received.try_recv().ok());
        assert_eq!(polls.filter(|event| *event == Event::Resync).count(), 3, "every attempt is refused");
    }
}
