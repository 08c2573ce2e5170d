//! A fake mlx_lm.server: HTTP/1.0 on a bare socket, as Python's `http.server` speaks it. It replays what mlx_lm 0.32.2 with
//! mlx 0.32.4 answered (`fixtures/mlx_lm`), byte for byte, and records its requests.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde_json::Value;
use service::lifecycle::Lifecycle;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

/// A recorded answer, head and all.
macro_rules! recorded {
    ($name:literal) => {
        include_bytes!(concat!("../../fixtures/mlx_lm/", $name, ".http")).as_slice()
    };
}

/// The answer to a chat request with `stream` and `stream_options`.
pub const CHAT_STREAM: &[u8] = recorded!("chat-stream");
/// The answer to a chat request without.
pub const CHAT: &[u8] = recorded!("chat");
/// The answer to a completion.
pub const COMPLETION: &[u8] = recorded!("completion");

/// The model whose answers lack their last bytes.
pub const CUT_SHORT: &str = "cut/short";

/// What follows a recorded answer's head.
pub fn body(recorded: &[u8]) -> &[u8] {
    let end = recorded.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head");
    &recorded[end + 4..]
}

/// A request that arrived.
#[derive(Debug, Clone, Default)]
pub struct MlxRequest {
    /// `POST /v1/chat/completions HTTP/1.1`.
    pub line: String,
    /// The header lines in lower case.
    pub headers: Vec<String>,
    /// The body; empty without a length.
    pub bytes: Bytes,
}

impl MlxRequest {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    }
}

/// A running fake. Dropping it ends it.
#[derive(Debug)]
pub struct FakeMlx {
    /// `http://127.0.0.1:port`.
    pub url: String,
    shared: Arc<Shared>,
    lifecycle: Lifecycle,
}

#[derive(Debug, Default)]
struct Shared {
    requests: Mutex<Vec<MlxRequest>>,
    /// What is answered to every POST, if not a recording.
    reply: Mutex<Option<Vec<u8>>>,
}

impl FakeMlx {
    /// One that has a model.
    pub async fn start() -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let url = format!("http://{}", socket.local_addr().expect("a bound socket has an address"));
        let (shared, lifecycle) = (Arc::default(), Lifecycle::new());
        lifecycle.spawn_worker("mlx", serve(socket, Arc::clone(&shared), lifecycle.clone()));
        Self { url, shared, lifecycle }
    }

    /// From now on every POST is answered with these bytes, head and all, and the connection closed.
    pub fn set(&self, reply: &[u8]) {
        *lock(&self.shared.reply) = Some(reply.to_vec());
    }

    /// What was posted.
    pub fn posted(&self) -> Vec<MlxRequest> {
        lock(&self.shared.requests)
            .iter()
            .filter(|request| request.line.starts_with("POST "))
            .cloned()
            .collect()
    }
}

impl Drop for FakeMlx {
    fn drop(&mut self) {
        self.lifecycle.begin_drain();
        self.lifecycle.aborting().cancel();
    }
}

async fn serve(socket: TcpListener, shared: Arc<Shared>, lifecycle: Lifecycle) {
    let ends = lifecycle.draining();
    loop {
        let (stream, _) = tokio::select! {
            accepted = socket.accept() => accepted.expect("loopback accepts"),
            () = ends.cancelled() => return,
        };
        let shared = Arc::clone(&shared);
        lifecycle.spawn("mlx request", async move {
            // One request, then the connection is closed, which ends a body without a length.
            let _ = answer(stream, &shared).await;
        });
    }
}

async fn answer(stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut request = MlxRequest::default();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        match line.trim_end() {
            "" => break,
            line if request.line.is_empty() => line.clone_into(&mut request.line),
            line => request.headers.push(line.to_ascii_lowercase()),
        }
    }
    if let Some(length) = request.header("content-length") {
        let mut body = vec![0; length.parse().expect("a number")];
        stream.read_exact(&mut body).await?;
        request.bytes = body.into();
    }
    let other = lock(&shared.reply).clone().filter(|_| request.line.starts_with("POST "));
    let reply = other.unwrap_or_else(|| recorded_reply(&request).to_vec());
    lock(&shared.requests).push(request);
    // A piece for each event, and one for the head.
    for piece in reply.split_inclusive(|byte| *byte == b'\n').collect::<Vec<_>>().chunks(2) {
        stream.write_all(&piece.concat()).await?;
        stream.flush().await?;
    }
    stream.shutdown().await
}

fn recorded_reply(request: &MlxRequest) -> &'static [u8] {
    let target = request.line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let post = request.line.starts_with("POST ");
    if post && request.header("content-length").is_none() {
        return recorded!("length-required");
    }
    let ask: Value = serde_json::from_slice(&request.bytes).unwrap_or_default();
    match target.as_str() {
        "GET /health" => recorded!("health"),
        "GET /v1/models" => recorded!("models"),
        "POST /v1/chat/completions" if ask["model"] == "no/such-model" => recorded!("no-such-model"),
        "POST /v1/chat/completions" if !ask["messages"].is_array() => recorded!("no-messages"),
        "POST /v1/chat/completions" if ask["stream"] == true => CHAT_STREAM,
        "POST /v1/chat/completions" if ask["model"] == CUT_SHORT => &CHAT[..CHAT.len() - 20],
        "POST /v1/chat/completions" => CHAT,
        "POST /v1/completions" => COMPLETION,
        _ => recorded!("not-found"),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
