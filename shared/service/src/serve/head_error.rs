//! Replaces hyper's bare responses to malformed heads with our error response.

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

use super::connection_limiter::ConnectionState;
use wire::openai::error::{ErrorCode, ErrorEnvelope};

use crate::request_id::RequestId;

/// The stream below hyper, above TLS.
#[derive(Debug)]
pub(super) struct HeadErrorStream<S> {
    stream: S,
    peer: SocketAddr,
    state: Arc<ConnectionState>,
    /// How many heads had arrived at the last write: if more have, a handler's response is next.
    answered_heads: u64,
    /// What is left to write in place of hyper's response.
    replacement: Option<Bytes>,
}

impl<S> HeadErrorStream<S> {
    pub(super) fn new(stream: S, peer: SocketAddr, state: Arc<ConnectionState>) -> Self {
        Self { stream, peer, state, answered_heads: 0, replacement: None }
    }

    /// Whether these bytes are hyper's own response: no handler ran, the head is still incomplete.
    fn intercepts(&mut self, bytes: &[u8]) -> bool {
        let no_handler_ran =
            self.state.head_wait().is_some() && self.answered_heads == self.state.heads_received();
        if self.replacement.is_none() && no_handler_ran {
            self.replacement = error_response(bytes, self.peer);
        }
        self.replacement.is_some()
    }

    /// `100 Continue` is not a response yet.
    fn record_write(&mut self, first: &[u8]) {
        if !first.starts_with(b"HTTP/1.1 1") {
            self.answered_heads = self.state.heads_received();
        }
    }
}

/// The replacement for a bare response; `None` for anything else. A handler's response has further headers.
fn error_response(bytes: &[u8], peer: SocketAddr) -> Option<Bytes> {
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
            ErrorCode::RequestTooLarge,
            "The request head is too large. Send fewer or shorter headers, or a shorter URL.",
        ),
        _ => (
            ErrorCode::InvalidValue,
            "This is not a valid HTTP/1.1 request: its request line, a header or its body length is malformed. Check \
             the client that sent it, and any proxy in between.",
        ),
    };
    let id = RequestId::from_header(None);
    let id = id.as_str();
    warn!(request_id = id, %peer, status, "request refused: its head is malformed or too large");
    let body = serde_json::to_string(&ErrorEnvelope::new(code, message)).ok()?;
    let length = body.len();
    Some(Bytes::from(format!(
        "{line}\r\ncontent-type: application/json\r\nx-request-id: {id}\r\ncontent-length: {length}\r\n\
         connection: close\r\ndate: {date}\r\n\r\n{body}"
    )))
}

impl<S: AsyncRead + Unpin> AsyncRead for HeadErrorStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HeadErrorStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        this.intercepts(bytes);
        let Some(replacement) = &mut this.replacement else {
            let written = ready!(Pin::new(&mut this.stream).poll_write(context, bytes));
            this.record_write(bytes);
            return Poll::Ready(written);
        };
        while replacement.has_remaining() {
            match ready!(Pin::new(&mut this.stream).poll_write(context, replacement))? {
                0 => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                written => replacement.advance(written),
            }
        }
        this.replacement = None;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first: &[u8] = bytes.iter().find(|slice| !slice.is_empty()).map_or(&[], |slice| slice);
        if self.intercepts(first) {
            return self.poll_write(context, first);
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, bytes));
        self.record_write(first);
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
    fn only_a_bare_response_is_replaced() {
        let peer = "127.0.0.1:1".parse().unwrap();
        let bare = "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\
                    date: Thu, 01 Jan 2026 00:00:00 GMT\r\n\r\n";
        let answer = error_response(bare.as_bytes(), peer).unwrap();
        let (head, body) = std::str::from_utf8(&answer).unwrap().split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n") && head.contains("GMT"));
        let envelope: ErrorEnvelope = serde_json::from_str(body).unwrap();
        assert_eq!(envelope.error.code.as_deref(), Some("request_too_large"));
        for other in [
            bare.replace("431", "200"),
            bare.replace("length: 0", "length: 1"),
            bare.replace("date:", "x-request-id: a\r\ndate:"),
            format!("{bare}x"),
            format!("{bare}{bare}"),
        ] {
            assert!(error_response(other.as_bytes(), peer).is_none(), "{other}");
        }
    }
}
