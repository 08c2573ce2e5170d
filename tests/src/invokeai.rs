//! A fake InvokeAI 6.14: one worker, one queue, HTTP and Socket.IO, playing recordings of the real one. It behaves
//! like the real one wherever the sidecar depends on it, writes down everything that it is asked, and misbehaves as
//! its [`Script`] says. No graph is really run: a picture is painted from prompt, seed and size.

mod api;
mod queue;
mod recording;
mod script;
mod socket;
#[cfg(test)]
mod tests;
mod worker;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::Router;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::watch,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use queue::State;
pub use queue::{Item, Seen, Status};
pub use script::{Failure, PictureBytes, Script, VersionAnswer};

/// Where a stranger's jobs go: the web page's own destination.
const STRANGER: &str = "canvas";

/// A running fake, and the hands that move it. Everything ends with it.
#[derive(Debug)]
pub struct FakeInvoke {
    core: Arc<Core>,
    address: SocketAddr,
    tasks: Mutex<JoinSet<()>>,
}

impl FakeInvoke {
    /// Starts on a free loopback port, with one SD 1.5 and one SDXL model, idle.
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let fake = Self { core: Arc::new(Core::new()), address, tasks: Mutex::default() };
        fake.run(listener);
        fake
    }

    /// `http://127.0.0.1:port`, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Changes how it behaves, from now on: what waits for a changed setting sees the change at once.
    pub fn script(&self, change: impl FnOnce(&mut Script)) {
        self.core.change(|state| change(&mut state.script));
    }

    /// Every HTTP request so far, WebSocket handshakes included, oldest first.
    pub fn seen(&self) -> Vec<Seen> {
        self.core.look(|state| state.seen.clone())
    }

    /// The requests among them that cancel something.
    pub fn cancels(&self) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.path.contains("cancel")).collect()
    }

    /// Every queue item so far, oldest first.
    pub fn items(&self) -> Vec<Item> {
        self.core.look(|state| state.items.clone())
    }

    /// Names of the pictures that the gallery holds.
    pub fn gallery(&self) -> Vec<String> {
        self.core.look(|state| state.pictures.keys().cloned().collect())
    }

    /// Waits until the items are as `wanted` says (bounded).
    pub async fn until(&self, wanted: impl Fn(&[Item]) -> bool) {
        crate::bounded("items", self.core.until(|state| wanted(&state.items).then_some(()))).await;
    }

    /// Waits until nothing runs, not even the rest of a cancelled step.
    pub async fn until_idle(&self) {
        let idle =
            self.core.until(|state| (!state.processing && state.next_pending().is_none()).then_some(()));
        crate::bounded("the engine is idle", idle).await;
    }

    /// Waits until `count` sockets follow the events.
    pub async fn until_followed(&self, count: usize) {
        let followed = self.core.until(|state| (state.frames.receiver_count() == count).then_some(()));
        crate::bounded("the events are followed", followed).await;
    }

    /// Enqueues a job of somebody else and gives its item id. Its [`Item::status`] and [`Self::cancels`] tell
    /// whether anybody touched it.
    pub fn stranger_job(&self) -> u32 {
        let mut batch: serde_json::Value =
            serde_json::from_str(include_str!("../fixtures/invokeai/stranger.json")).expect("a JSON fixture");
        batch["batch"]["destination"] = json!(STRANGER);
        let enqueued = self.core.change(|state| state.enqueue(&batch)).expect("the fixture is a valid batch");
        u32::try_from(enqueued["item_ids"][0].as_u64().expect("one item")).expect("few items")
    }

    /// Pauses or resumes the queue, as the web page does.
    pub fn pause(&self, paused: bool) {
        self.core.change(|state| state.started = !paused);
    }

    /// Cuts every WebSocket now, without a close frame.
    pub fn drop_sockets(&self) {
        self.core.sockets.send_modify(|generation| *generation += 1);
    }

    /// Removes every picture from the gallery.
    pub fn delete_pictures(&self) {
        self.core.change(|state| state.pictures.clear());
    }

    /// When the event that told of the item's completion was first written to a socket.
    pub fn finished_event_at(&self, item: u32) -> Option<Instant> {
        self.core.look(|state| state.finished.get(&item).copied())
    }

    /// Ends at once, as a killed process does: connections break, new ones are refused. The port stays ours.
    pub async fn stop(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
        let parked = TcpSocket::new_v4().expect("a socket");
        parked.set_reuseaddr(true).expect("a fresh socket takes options");
        parked.bind(self.address).expect("the port was ours a moment ago");
        self.core.change(|state| state.parked = Some(parked));
    }

    /// Starts again on the same port after [`Self::stop`]: the item that ran is cancelled, waiting ones run again by
    /// themselves, a pause is forgotten.
    pub fn restart(&self) {
        let parked = self.core.change(|state| {
            state.restart();
            state.parked.take().expect("it was stopped before")
        });
        self.run(parked.listen(1024).expect("a bound socket listens"));
    }

    fn run(&self, listener: TcpListener) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.spawn(worker::work(Arc::clone(&self.core)));
        tasks.spawn(accept(listener, api::router(Arc::clone(&self.core))));
    }
}

/// What a handler may do to the connection that its request came on.
#[derive(Debug, Clone)]
struct Line {
    peer_port: u16,
    /// A WebSocket outlives its connection's task, so it watches this itself.
    cut: CancellationToken,
}

/// Our own accept loop, because handlers must be able to cut connections, and `stop` must cut them all.
async fn accept(listener: TcpListener, router: Router) {
    let alive = CancellationToken::new();
    let _cut_all = alive.clone().drop_guard();
    let mut connections = JoinSet::new();
    while let Ok((stream, peer)) = listener.accept().await {
        // As Python's asyncio does; without it small frames wait for the peer's delayed acknowledgement.
        stream.set_nodelay(true).expect("a fresh socket takes options");
        let line = Line { peer_port: peer.port(), cut: alive.child_token() };
        let service = TowerToHyperService::new(router.clone().layer(axum::Extension(line.clone())));
        connections.spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                // The real server closes idle connections after 5 s.
                .header_read_timeout(Duration::from_secs(5))
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            tokio::select! {
                _ = connection => {}
                () = line.cut.cancelled() => {}
            }
        });
    }
}

/// What all parts share: the state under one lock, and a bell that rings at every change.
#[derive(Debug)]
struct Core {
    state: Mutex<State>,
    bell: watch::Sender<()>,
    /// Counts up when sockets are to be cut.
    sockets: watch::Sender<u32>,
}

impl Core {
    fn new() -> Self {
        Self { state: Mutex::new(State::new()), bell: watch::Sender::new(()), sockets: watch::Sender::new(0) }
    }

    fn look<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn change<T>(&self, write: impl FnOnce(&mut State) -> T) -> T {
        let result = write(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.bell.send_replace(());
        result
    }

    /// Waits until the state gives what is wanted.
    async fn until<T>(&self, wanted: impl Fn(&State) -> Option<T>) -> T {
        let mut bell = self.bell.subscribe();
        loop {
            if let Some(found) = self.look(&wanted) {
                return found;
            }
            bell.changed().await.expect("the sender lives as long as self");
        }
    }

    /// A hung process does nothing at all: everything that it does waits here first.
    async fn unless_hung(&self) {
        self.until(|state| (!state.script.hang).then_some(())).await;
    }
}
