//! HTTP/1.1 over plain sockets: the load and the engines of the benches. It implements no more of HTTP than those need, runs on
//! one thread, and avoids copies, so that the load generator is not what is measured.

use std::{
    io::{self, Write},
    mem::MaybeUninit,
    sync::Arc,
    time::{Duration, Instant},
};

use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    task::JoinSet,
    time::timeout,
};

/// A head is shorter.
const HEAD: usize = 16 << 10;
/// What is read at a time.
const BLOCK: usize = 256 << 10;
/// The timeout of every wait; reaching it is a failure.
const TURN: Duration = Duration::from_mins(5);
/// Has Linux throw away what is received instead of copying it: tcp(7).
const MSG_TRUNC: i32 = 0x20;

/// Where load and engines run.
pub fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// A connection, from either side.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// What came behind the last message's end.
    rest: Vec<u8>,
    /// Never written to.
    discard_buffer: Vec<MaybeUninit<u8>>,
}

/// A request or an answer.
#[derive(Debug)]
pub struct Message {
    /// Its first line and its headers.
    pub head: String,
    /// Its body, if that is short. Another's begin: the rest is thrown away.
    pub body_start: Vec<u8>,
}

impl Connection {
    fn of(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a TCP socket");
        Self { stream, rest: Vec::new(), discard_buffer: vec![MaybeUninit::uninit(); BLOCK] }
    }

    /// To this `http://…` address.
    pub async fn to(url: &str) -> Self {
        Self::of(TcpStream::connect(url.trim_start_matches("http://")).await.expect("somebody listens"))
    }

    /// Sends these bytes. A closed connection shows when a message is read.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// The next message, once all of it came; none if the other side hung up.
    pub async fn message(&mut self) -> Option<Message> {
        let mut received = std::mem::take(&mut self.rest);
        let end = loop {
            if let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            assert!(received.len() < HEAD, "no head: {}", String::from_utf8_lossy(&received));
            self.more(&mut received).await?;
        };
        let mut begin = received.split_off(end);
        let head = String::from_utf8(received).expect("a head is text");
        let length = length_of(&head);
        while begin.len() < length.min(HEAD) {
            self.more(&mut begin).await?;
        }
        self.rest = begin.split_off(length.min(begin.len()));
        self.discard(length - begin.len()).await?;
        Some(Message { head, body_start: begin })
    }

    async fn more(&mut self, received: &mut Vec<u8>) -> Option<()> {
        received.reserve(HEAD);
        self.stream.read_buf(received).await.ok().filter(|read| *read > 0).map(drop)
    }

    async fn discard(&mut self, mut bytes: usize) -> Option<()> {
        let Self { stream, discard_buffer: thrown, .. } = self;
        while bytes > 0 {
            let block = &mut thrown[..bytes.min(BLOCK)];
            let receive = || SockRef::from(&*stream).recv_with_flags(block, MSG_TRUNC);
            bytes -= stream.async_io(Interest::READABLE, receive).await.ok().filter(|read| *read > 0)?;
        }
        Some(())
    }

    /// Reads so many bytes that are no message.
    pub async fn read(&mut self, bytes: usize) {
        let mut block = vec![0; bytes];
        self.stream.read_exact(&mut block).await.expect("it comes back");
    }

    /// Echoes until the peer closes.
    pub async fn echo(&mut self) {
        let mut block = vec![0; HEAD];
        while let Ok(read) = self.stream.read(&mut block).await
            && read > 0
        {
            self.send(&block[..read]).await;
        }
    }

    /// Sends a request and waits for a successful response.
    pub async fn ask(&mut self, request: &[u8]) {
        self.send(request).await;
        let answer = self.message().await.expect("an answer");
        let status = answer.head.split(' ').nth(1);
        assert!(matches!(status, Some("200" | "101")), "{}", answer.head);
    }
}

/// What a head announces.
fn length_of(head: &str) -> usize {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    let length = lines.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    length.map_or(0, |(_, value)| value.trim().parse().expect("a number"))
}

/// The repeated request.
#[derive(Debug)]
pub struct LoadRequest {
    /// Sent once at the start of a connection; everything after it is echoed.
    pub opening: Option<Vec<u8>>,
    /// The request.
    pub request: Vec<u8>,
}

impl LoadRequest {
    /// Over so many connections while there is more to ask: how long each exchange took.
    pub async fn over(
        self: &Arc<Self>,
        url: &str,
        connections: usize,
        more: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Vec<Duration> {
        let more = Arc::new(more);
        let mut tasks = JoinSet::new();
        for _ in 0..connections {
            let (url, ask, more) = (url.to_owned(), self.clone(), more.clone());
            tasks.spawn(async move { ask.one(&url, &*more).await });
        }
        timeout(TURN, tasks.join_all()).await.expect("every answer comes in time").concat()
    }

    async fn one(&self, url: &str, more: &(impl Fn() -> bool + Sync)) -> Vec<Duration> {
        let mut connection = Connection::to(url).await;
        if let Some(opening) = &self.opening {
            connection.ask(opening).await;
        }
        let mut times = Vec::new();
        while more() {
            let started = Instant::now();
            if self.opening.is_some() {
                connection.send(&self.request).await;
                connection.read(self.request.len()).await;
            } else {
                connection.ask(&self.request).await;
            }
            times.push(started.elapsed());
        }
        times
    }
}

/// Prints its address, and serves until the process is killed.
pub async fn serve<A>(answer: impl Fn(Message, Connection) -> A + Clone + Send + 'static)
where
    A: Future<Output = Connection> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    let _ = writeln!(io::stdout(), "http://{address}");
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let answer = answer.clone();
        connections.spawn(async move {
            let mut connection = Connection::of(stream);
            while let Some(request) = connection.message().await {
                connection = answer(request, connection).await;
            }
        });
        while connections.try_join_next().is_some() {}
    }
}
