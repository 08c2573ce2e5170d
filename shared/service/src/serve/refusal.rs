//! hyper refuses a head that is no request by itself, with a bare status. Here it gets the words that every answer of ours has.

use std::{
    io::{self, ErrorKind, IoSlice},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tracing::warn;

use super::seats::State;
use wire::openai::error::{Code, Envelope};

use crate::request_id::RequestId;

/// The stream below hyper, above TLS.
#[derive(Debug)]
pub(super) struct InWords<S> {
    stream: S,
    peer: SocketAddr,
    state: Arc<State>,
    /// How many heads had come when something was last written: with more of them, a handler's answer is next.
    answered: u64,
    /// What is still to be written in the place of a bare refusal.
    words: Option<Bytes>,
}

impl<S> InWords<S> {
    pub(super) fn new(stream: S, peer: SocketAddr, state: Arc<State>) -> Self {
        Self { stream, peer, state, answered: 0, words: None }
    }

    /// Whether these bytes are a refusal of hyper's: no handler was asked, the head is still awaited.
    fn replaces(&mut self, bytes: &[u8]) -> bool {
        let unasked = self.state.wait_number().is_some() && self.answered == self.state.heads();
        if self.words.is_none() && unasked {
            self.words = in_words(bytes, self.peer);
        }
        self.words.is_some()
    }

    /// Notes what was written; `100 Continue` is no answer yet.
    fn wrote(&mut self, first: &[u8]) {
        if !first.starts_with(b"HTTP/1.1 1") {
            self.answered = self.state.heads();
        }
    }
}

/// The whole answer in the place of a bare one; `None` of anything else. A handler's own has further headers.
fn in_words(bytes: &[u8], peer: SocketAddr) -> Option<Bytes> {
    let bare = bytes.strip_suffix(b"\r\n\r\n").filter(|head| head.starts_with(b"HTTP/1.1 4"))?;
    let (line, headers) = std::str::from_utf8(bare).ok()?.split_once("\r\n")?;
    let (mut empty, mut date) = (false, "");
    for header in headers.split("\r\n") {
        match header.split_once(": ")? {
            ("content-length", length) => empty = length == "0",
            ("date", now) => date = now,
            ("connection", _) => {}
            _ => return None,
        }
    }
    let status = line.get(9..12).filter(|_| empty)?;
    let (code, message) = match status {
        "414" | "431" => (
            Code::RequestTooLarge,
            "The request's head is larger than is read here. Send fewer or shorter headers, or a shorter address.",
        ),
        _ => (
            Code::InvalidValue,
            "This cannot be read as a request of HTTP/1.1: its first line, a header or the length of its body is \
             malformed. Check the program that sent it, and any proxy on the way.",
        ),
    };
    let id = RequestId::accept(None);
    let id = id.as_str();
    warn!(request_id = id, %peer, status, "request refused: its head cannot be read");
    let body = serde_json::to_string(&Envelope::new(code, message)).ok()?;
    let length = body.len();
    Some(Bytes::from(format!(
        "{line}\r\ncontent-type: application/json\r\nx-request-id: {id}\r\ncontent-length: {length}\r\n\
         connection: close\r\ndate: {date}\r\n\r\n{body}"
    )))
}

impl<S: AsyncRead + Unpin> AsyncRead for InWords<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for InWords<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        this.replaces(bytes);
        let Some(words) = &mut this.words else {
            let written = ready!(Pin::new(&mut this.stream).poll_write(context, bytes));
            this.wrote(bytes);
            return Poll::Ready(written);
        };
        while words.has_remaining() {
            match ready!(Pin::new(&mut this.stream).poll_write(context, words))? {
                0 => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                written => words.advance(written),
            }
        }
        this.words = None;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first: &[u8] = bytes.iter().find(|slice| !slice.is_empty()).map_or(&[], |slice| slice);
        if self.replaces(first) {
            return self.poll_write(context, first);
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, bytes));
        self.wrote(first);
        Poll::Ready(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bare_refusal_is_put_into_words() {
        let peer = "127.0.0.1:1".parse().unwrap();
        let bare = "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\
                    date: Thu, 01 Jan 2026 00:00:00 GMT\r\n\r\n";
        let answer = in_words(bare.as_bytes(), peer).unwrap();
        let (head, body) = std::str::from_utf8(&answer).unwrap().split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n") && head.contains("GMT"));
        let envelope: Envelope = serde_json::from_str(body).unwrap();
        assert_eq!(envelope.error.code.as_deref(), Some("request_too_large"));
        for other in [
            bare.replace("431", "200"),
            bare.replace("length: 0", "length: 1"),
            bare.replace("date:", "x-request-id: a\r\ndate:"),
            format!("{bare}x"),
            format!("{bare}{bare}"),
        ] {
            assert!(in_words(other.as_bytes(), peer).is_none(), "{other}");
        }
    }
}
