//! The HTTP clients that we are: no redirects, no system proxy, no retries, no decompression, and a bounded
//! connect. Both binaries build theirs here, so that no client exists without these rules.

use std::{error::Error, io::ErrorKind, time::Duration};

use bytes::{Bytes, BytesMut};
use reqwest::{Client, ClientBuilder};

/// Connecting takes no longer than this; hosts on the same network answer in milliseconds.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Which connections a client may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connections {
    /// Kept for a while and used again. Stays below the idle close of the servers behind (uvicorn: 5 s). A request is put on
    /// another connection only where the kept one was found dead before any of it was written.
    Pooled,
    /// A new one for every request; for requests that spend GPU time at a server that may close a kept connection at any
    /// moment: one that dies while a request is being written leaves it unknown whether it arrived.
    Fresh,
}

/// A client builder with our rules; TLS trust can be added to it.
pub fn builder(connections: Connections) -> ClientBuilder {
    // The client library panics without a process-wide TLS provider; a second installation is refused, harmlessly.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .connect_timeout(CONNECT_TIMEOUT)
        // A peer that vanished without a word is found within 30 s.
        .tcp_keepalive(Duration::from_secs(10))
        .tcp_keepalive_interval(Duration::from_secs(5))
        .tcp_keepalive_retries(3)
        .tcp_nodelay(true)
        .http1_only()
        .pool_idle_timeout(Duration::from_secs(4))
        .pool_max_idle_per_host(if connections == Connections::Fresh { 0 } else { 8 })
}

/// What the operating system said, if it was what failed. `ConnectionRefused`: nobody listens there.
pub fn io_kind(error: &reqwest::Error) -> Option<ErrorKind> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        source = error.source();
    }
    None
}

/// Why an answer's body could not be had.
#[derive(Debug)]
pub enum BodyFault {
    /// It is longer than the limit.
    TooLong,
    /// The connection broke, or the time was up.
    Broken(reqwest::Error),
}

/// Reads an answer's body whole, up to `limit` bytes.
pub async fn read_limited(mut answer: reqwest::Response, limit: usize) -> Result<Bytes, BodyFault> {
    let announced = answer.content_length().unwrap_or(0);
    if announced > limit as u64 {
        return Err(BodyFault::TooLong);
    }
    let mut body = BytesMut::with_capacity(usize::try_from(announced).unwrap_or(0));
    while let Some(chunk) = answer.chunk().await.map_err(BodyFault::Broken)? {
        if body.len() + chunk.len() > limit {
            return Err(BodyFault::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}
