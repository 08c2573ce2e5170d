//! The load: plain sockets, so that measuring costs little beside what is measured.

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

/// What is asked again and again.
#[derive(Clone)]
pub(crate) struct Ask {
    /// Sent once at the beginning of a connection; its answer has a head only.
    opening: Vec<u8>,
    request: Vec<u8>,
    /// The answer is as long as what was sent, and has no head.
    echo: bool,
}

impl Ask {
    pub(crate) fn get(path: &str) -> Self {
        let request = format!("GET {path} HTTP/1.1\r\nHost: ada2\r\n\r\n").into_bytes();
        Self { opening: Vec::new(), request, echo: false }
    }

    pub(crate) fn upload(path: &str, bytes: usize) -> Self {
        let head = format!("POST {path} HTTP/1.1\r\nHost: ada2\r\nContent-Length: {bytes}\r\n\r\n");
        Self { opening: Vec::new(), request: [head.into_bytes(), vec![b'u'; bytes]].concat(), echo: false }
    }

    pub(crate) fn echo(path: &str) -> Self {
        let opening = format!(
            "GET {path} HTTP/1.1\r\nHost: ada2\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        );
        Self { opening: opening.into_bytes(), request: vec![b'w'; 64], echo: true }
    }
}

pub(crate) struct Load;

impl Load {
    /// Asks over this many connections for that long, and gives how long each exchange took.
    pub(crate) async fn of(url: &str, ask: &Ask, connections: usize, time: Duration) -> Vec<Duration> {
        let address = url.trim_start_matches("http://").to_owned();
        let until = Instant::now() + time;
        let mut tasks = JoinSet::new();
        for _ in 0..connections {
            let (address, ask) = (address.clone(), ask.clone());
            tasks.spawn(async move { one(&address, &ask, until).await });
        }
        tasks.join_all().await.concat()
    }
}

async fn one(address: &str, ask: &Ask, until: Instant) -> Vec<Duration> {
    let mut stream = TcpStream::connect(address).await.expect("the contestant listens");
    stream.set_nodelay(true).expect("a TCP socket");
    let mut block = vec![0; 256 << 10];
    if !ask.opening.is_empty() {
        stream.write_all(&ask.opening).await.expect("the opening is sent");
        answer(&mut stream, &mut block).await;
    }
    let mut times = Vec::new();
    while Instant::now() < until {
        let begun = Instant::now();
        stream.write_all(&ask.request).await.expect("the request is sent");
        if ask.echo {
            stream.read_exact(&mut block[..ask.request.len()]).await.expect("it comes back");
        } else {
            answer(&mut stream, &mut block).await;
        }
        times.push(begun.elapsed());
    }
    times
}

/// Reads one answer, whose length is in its head.
async fn answer(stream: &mut TcpStream, block: &mut [u8]) {
    let mut filled = 0;
    let (head_ends, length) = loop {
        let read = stream.read(&mut block[filled..]).await.expect("an answer");
        assert!(read > 0, "hung up: {}", String::from_utf8_lossy(&block[..filled]));
        filled += read;
        if let Some(end) = block[..filled].windows(4).position(|four| four == b"\r\n\r\n") {
            break (end + 4, length_of(&block[..end]));
        }
    };
    let mut left = length.saturating_sub(filled - head_ends);
    while left > 0 {
        let read = stream.read(block).await.expect("more of the answer");
        assert!(read > 0, "hung up in the middle");
        left = left.saturating_sub(read);
    }
}

fn length_of(head: &[u8]) -> usize {
    let head = std::str::from_utf8(head).expect("a head is text");
    assert!(head.starts_with("HTTP/1.1 2") || head.starts_with("HTTP/1.1 101"), "{head}");
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    let length = lines.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    length.map_or(0, |(_, value)| value.trim().parse().expect("a number"))
}
