//! An engine for byte-exact tests: it records what arrives, byte by byte, and responds by path, in order or
//! out of it. A plain loop over TCP, so that no HTTP library of ours hides what a proxy really sent.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// One request as it came.
#[derive(Debug, Clone, Default)]
pub struct RawRequest {
    /// The request line and the headers, without the empty line.
    pub head: String,
    /// Of a chunked body with its framing.
    pub body: Vec<u8>,
    /// The client's port: the same for all requests of one connection.
    pub connection: u16,
    /// The body came to its end.
    pub complete: bool,
}

impl RawRequest {
    /// A header's values as sent, whatever the case of its name.
    pub fn header(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.filter(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
    }

    /// The request line.
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    /// The second part of its first line.
    pub fn target(&self) -> &str {
        self.line().split(' ').nth(1).unwrap_or_default()
    }
}

/// A running engine. Dropping it ends it.
#[derive(Debug)]
pub struct RawEngine {
    /// `http://127.0.0.1:port`.
    pub url: String,
    shared: Arc<Shared>,
    end: CancellationToken,
}

#[derive(Debug)]
struct Shared {
    requests: Mutex<Vec<RawRequest>>,
    /// Rings at every change of `seen` and of the gate.
    bell: watch::Sender<()>,
    /// Lets answers under `/gate` go on.
    gate: watch::Sender<usize>,
    /// Connections open now.
    open: watch::Sender<usize>,
}

impl RawEngine {
    /// On a free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let url = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
        let shared = Arc::new(Shared {
            requests: Mutex::default(),
            bell: watch::Sender::new(()),
            gate: watch::Sender::new(0),
            open: watch::Sender::new(0),
        });
        let end = CancellationToken::new();
        let (accepting, stop) = (shared.clone(), end.clone());
        #[expect(clippy::disallowed_methods, reason = "ends with the token")]
        tokio::spawn(async move { stop.run_until_cancelled(accept(listener, accepting)).await });
        Self { url, shared, end }
    }

    /// The requests for paths with this prefix. The sidecar's own requests have other paths.
    pub fn requests(&self, path: &str) -> Vec<RawRequest> {
        let requests = self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.iter().filter(|request| request.target().starts_with(path)).cloned().collect()
    }

    /// Waits until a request for a path that begins like this matches (bounded), and returns it.
    pub async fn until(&self, path: &str, condition: impl Fn(&RawRequest) -> bool) -> RawRequest {
        let mut bell = self.shared.bell.subscribe();
        crate::bounded(path, async {
            loop {
                bell.borrow_and_update();
                if let Some(found) = self.requests(path).into_iter().find(|request| condition(request)) {
                    return found;
                }
                bell.changed().await.expect("the sender lives as long as self");
            }
        })
        .await
    }

    /// Lets each answer under `/gate` go one part further.
    pub fn open_gate(&self) {
        self.shared.gate.send_modify(|parts| *parts += 1);
    }

    /// Waits until this holds of the number of open connections (bounded).
    pub async fn until_open(&self, condition: impl Fn(usize) -> bool) {
        let mut open = self.shared.open.subscribe();
        crate::bounded("connections", open.wait_for(|open| condition(*open)))
            .await
            .expect("the sender lives");
    }
}

impl Drop for RawEngine {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let tasks = TaskTracker::new();
    let end = CancellationToken::new();
    let _ended_with_us = end.clone().drop_guard();
    loop {
        let Ok((stream, peer)) = listener.accept().await else { return };
        let _ = stream.set_nodelay(true);
        let (shared, end) = (shared.clone(), end.clone());
        tasks.spawn(async move {
            shared.open.send_modify(|open| *open += 1);
            end.run_until_cancelled(
                Connection { stream, peer, shared: shared.clone(), rest: Vec::new() }.serve(),
            )
            .await;
            shared.open.send_modify(|open| *open -= 1);
        });
    }
}

struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    shared: Arc<Shared>,
    /// Read and not yet used.
    rest: Vec<u8>,
}

/// Whether the connection stays open.
type KeepGoing = Option<()>;

/// The paths, their answers, and whether the connection stays open. Besides these: `/hold` never answers; `/once` answers the
/// first request of a connection and hangs up on every other, unread; `/gate` waits between two parts; `/bytes/N` is so
/// long; `/echo` echoes; all others return the request.
const FIXED: &[(&str, &str, bool)] = &[
    ("/drop", "", false),
    ("/early", "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", false),
    ("/half", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this", false),
    ("/half-chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\n", false),
    ("/nonsense", "SSH-2.0-OpenSSH_9.2\r\n\r\n", false),
    ("/old", "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nold", false),
    (
        "/switch",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        false,
    ),
    (
        "/trailers",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 42\r\n\r\n",
        true,
    ),
    (
        "/both",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        true,
    ),
    ("/twice", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", true),
    ("/listed", "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello", true),
    ("/differs", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", false),
    ("/gzipped", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello", false),
    (
        "/gzipped-chunks",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        false,
    ),
    ("/chunked-gzip", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\nhello", false),
    ("/bare/twice", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", true),
    ("/bare/differs", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", true),
    ("/bare/gzipped", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", true),
    ("/bare/both", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", true),
    (
        "/range",
        "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 2-4/10\r\nContent-Length: 3\r\nETag: \"e\"\r\n\r\ncde",
        true,
    ),
];

const SWITCHING_PROTOCOLS: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Accept: x\r\n\r\n";

fn fine(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nX-Engine: raw\r\n\r\n{body}", body.len())
}

impl Connection {
    async fn serve(mut self) {
        while self.one().await.is_some() {}
    }

    async fn one(&mut self) -> KeepGoing {
        let head = loop {
            if let Some(end) = find(&self.rest, b"\r\n\r\n") {
                let head: Vec<u8> = self.rest.drain(..end + 4).collect();
                break String::from_utf8_lossy(&head[..end]).into_owned();
            }
            self.more().await?;
        };
        let request = RawRequest { head, connection: self.peer.port(), ..RawRequest::default() };
        let place = self.record(request.clone());
        let length = request.header("content-length").first().and_then(|length| length.parse().ok());
        let early = request.target().starts_with("/early");
        if !early && request.header("transfer-encoding").iter().any(|coding| coding.contains("chunked")) {
            let end = |body: &[u8]| {
                find(body, b"0\r\n")
                    .and_then(|last| find(&body[last..], b"\r\n\r\n").map(|end| last + end + 4))
            };
            self.body(place, end).await?;
        } else if !early && let Some(length) = length {
            self.body(place, |body: &[u8]| (body.len() >= length).then_some(length)).await?;
        } else {
            self.change(place, |request| request.complete = true);
        }
        self.answer(&request).await
    }

    async fn body(&mut self, place: usize, end: impl Fn(&[u8]) -> Option<usize>) -> KeepGoing {
        loop {
            if let Some(end) = end(&self.rest) {
                let body: Vec<u8> = self.rest.drain(..end).collect();
                self.change(place, |request| (request.body, request.complete) = (body, true));
                return Some(());
            }
            let so_far = self.rest.clone();
            self.change(place, |request| request.body = so_far);
            self.more().await?;
        }
    }

    async fn answer(&mut self, request: &RawRequest) -> KeepGoing {
        let path = request.target().split('?').next().unwrap_or_default();
        if let Some((_, bytes, goes)) = FIXED.iter().find(|(fixed, ..)| *fixed == path) {
            self.write(bytes.as_bytes()).await?;
            return goes.then_some(());
        }
        match path {
            "/hold" => std::future::pending().await,
            "/once" => {
                self.write(fine("once").as_bytes()).await?;
                self.more().await?;
                None
            }
            "/echo" if !request.header("upgrade").is_empty() => {
                self.write(SWITCHING_PROTOCOLS.as_bytes()).await?;
                self.echo().await
            }
            "/gate" => self.gated().await,
            _ if path.starts_with("/bytes/") => {
                self.many(path["/bytes/".len()..].parse().unwrap_or_default()).await
            }
            _ if request.line().starts_with("HEAD ") => {
                self.write(b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n").await
            }
            _ => self.write(fine(&request.head).as_bytes()).await,
        }
    }

    /// The second part of the answer is sent when the gate opens.
    async fn gated(&mut self) -> KeepGoing {
        let mut gate = self.shared.gate.subscribe();
        let begun = *gate.borrow_and_update();
        self.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").await?;
        gate.wait_for(|parts| *parts > begun).await.ok()?;
        self.write(b"4\r\nlast\r\n0\r\n\r\n").await
    }

    async fn many(&mut self, length: usize) -> KeepGoing {
        self.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").as_bytes()).await?;
        let block = vec![b'x'; 64 << 10];
        let mut left = length;
        while left > 0 {
            let part = left.min(block.len());
            self.write(&block[..part]).await?;
            left -= part;
        }
        Some(())
    }

    /// Echoes.
    async fn echo(&mut self) -> KeepGoing {
        loop {
            let rest = std::mem::take(&mut self.rest);
            self.write(&rest).await?;
            self.more().await?;
        }
    }

    async fn more(&mut self) -> KeepGoing {
        let mut block = vec![0; 64 << 10];
        let read = self.stream.read(&mut block).await.ok().filter(|read| *read > 0)?;
        self.rest.extend_from_slice(&block[..read]);
        Some(())
    }

    async fn write(&mut self, bytes: &[u8]) -> KeepGoing {
        self.stream.write_all(bytes).await.ok()
    }

    fn record(&self, request: RawRequest) -> usize {
        let mut requests = self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.push(request);
        let place = requests.len() - 1;
        drop(requests);
        self.shared.bell.send_replace(());
        place
    }

    fn change(&self, index: usize, change: impl FnOnce(&mut RawRequest)) {
        change(&mut self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner)[index]);
        self.shared.bell.send_replace(());
    }
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}
