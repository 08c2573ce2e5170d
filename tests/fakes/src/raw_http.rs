//! A client that sends exactly the given bytes.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A connection.
#[derive(Debug)]
pub struct RawClient {
    stream: TcpStream,
    rest: Vec<u8>,
}

/// An answer as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawResponse {
    /// Status line and headers.
    pub head: String,
    /// Of a chunked body with its framing.
    pub body: Vec<u8>,
}

impl RawResponse {
    /// The status.
    pub fn status(&self) -> u16 {
        self.head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
    }

    /// A header; empty if absent.
    pub fn header(&self, name: &str) -> &str {
        let mut lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.find(|(given, _)| given.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value.trim())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl RawClient {
    /// To this `http://…` address.
    pub async fn to(url: &str) -> Self {
        let address = url.strip_prefix("http://").expect("plain HTTP");
        let stream = TcpStream::connect(address).await.expect("somebody listens");
        stream.set_nodelay(true).expect("a TCP socket");
        Self { stream, rest: Vec::new() }
    }

    /// Sends these bytes. A peer that has closed the connection is no failure.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = crate::bounded("sending", self.stream.write_all(bytes.as_ref())).await;
    }

    /// Closes the sending side.
    pub async fn half_close(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// The next answer to anything but HEAD.
    pub async fn response(&mut self) -> RawResponse {
        let head = self.until(b"\r\n\r\n").await.expect("a head");
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut answer = RawResponse { head, body: Vec::new() };
        let bodiless = matches!(answer.status(), 100..=199 | 204 | 304);
        if answer.header("transfer-encoding") == "chunked" {
            let mut body = self.until(b"0\r\n").await.expect("the last chunk");
            while !self.rest.starts_with(b"\r\n") {
                body.extend(self.until(b"\r\n").await.expect("trailers"));
            }
            body.extend(self.until(b"\r\n").await.expect("the end"));
            answer.body = body;
        } else if !bodiless {
            let length: usize = answer.header("content-length").parse().expect("a length");
            while self.rest.len() < length {
                assert!(self.more().await, "the body breaks off: {answer:?}");
            }
            answer.body = self.rest.drain(..length).collect();
        }
        answer
    }

    /// Up to the end of these bytes; `None` if the connection ends before.
    pub async fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(place) = self.rest.windows(end.len()).position(|window| window == end) {
                return Some(self.rest.drain(..place + end.len()).collect());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// Everything until the peer closes.
    pub async fn rest(mut self) -> String {
        while self.more().await {}
        String::from_utf8_lossy(&self.rest).into_owned()
    }

    /// The same, and whether the peer closed the connection cleanly.
    pub async fn rest_and_end(mut self) -> (String, std::io::Result<()>) {
        let mut block = vec![0; 64 << 10];
        loop {
            match crate::bounded("more bytes", self.stream.read(&mut block)).await {
                Ok(0) => return (String::from_utf8_lossy(&self.rest).into_owned(), Ok(())),
                Ok(read) => self.rest.extend_from_slice(&block[..read]),
                Err(error) => return (String::from_utf8_lossy(&self.rest).into_owned(), Err(error)),
            }
        }
    }

    async fn more(&mut self) -> bool {
        let mut block = vec![0; 64 << 10];
        let read = crate::bounded("more bytes", self.stream.read(&mut block)).await.unwrap_or(0);
        self.rest.extend_from_slice(&block[..read]);
        read > 0
    }
}
