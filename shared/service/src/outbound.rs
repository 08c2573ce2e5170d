//! The HTTP clients that we are: no redirects, no system proxy, no retries, no decompression, and a bounded
//! connect. Both binaries build theirs here, so that no client exists without these rules.

use std::{error::Error, fmt, io::ErrorKind, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use reqwest::{
    Client, ClientBuilder,
    dns::{Addrs, Name, Resolve, Resolving},
};

use super::descriptors::is_emfile_or_enfile;

/// Connecting takes no longer than this; hosts on the same network answer in milliseconds.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Which connections a client may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionPolicy {
    /// Kept for a while and used again. Stays below the idle close of the servers behind (uvicorn: 5 s). A request is put on
    /// another connection only where the kept one was found dead before any of it was written.
    Pooled,
    /// A new one for every request; for requests that spend GPU time at a server that may close a kept connection at any
    /// moment: one that dies while a request is being written leaves it unknown whether it arrived.
    PerRequest,
}

/// A client builder with our rules; TLS trust can be added to it.
pub fn client_builder(connections: ConnectionPolicy) -> ClientBuilder {
    // The client library panics without a process-wide TLS provider; a second installation is refused, harmlessly.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .dns_resolver(Arc::new(SystemResolver))
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
        .pool_max_idle_per_host(if connections == ConnectionPolicy::PerRequest { 0 } else { 8 })
}

/// The same for plain HTTP alone. Trusts no certificate, and so works on a host that has none: with the system's, a client
/// cannot be built there.
pub fn plaintext_client_builder(connections: ConnectionPolicy) -> ClientBuilder {
    client_builder(connections).tls_certs_only([])
}

/// What the operating system said, if it was what failed. `ConnectionRefused`: nobody listens there.
pub fn io_error_kind(error: &reqwest::Error) -> Option<ErrorKind> {
    sources(error).find_map(|source| source.downcast_ref::<std::io::Error>()).map(std::io::Error::kind)
}

/// The system's resolver, whose failures can be told from broken connections.
#[derive(Debug)]
struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found = tokio::net::lookup_host((host.as_str(), 0)).await.map(Iterator::collect::<Vec<_>>);
            match found {
                Ok(found) => Ok(Box::new(found.into_iter()) as Addrs),
                // Without a descriptor there was nothing to ask with; that says nothing of the name.
                Err(error) if error.raw_os_error().is_some_and(is_emfile_or_enfile) => Err(error.into()),
                Err(error) => Err(ResolveError { host, reason: error.to_string() }.into()),
            }
        })
    }
}

/// A name that the system has no address for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolveError {
    /// The name.
    pub host: String,
    /// What the system says.
    pub reason: String,
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the host name {:?} cannot be resolved ({})", self.host, self.reason)
    }
}

impl Error for ResolveError {}

/// The name that could not be resolved, if that was what failed.
pub fn resolve_error(error: &reqwest::Error) -> Option<&ResolveError> {
    sources(error).find_map(|source| source.downcast_ref())
}

/// Whether the process had no descriptor left for the connection. Nothing was sent then.
pub fn is_out_of_descriptors(error: &reqwest::Error) -> bool {
    let code = |source: &(dyn Error + 'static)| source.downcast_ref::<std::io::Error>()?.raw_os_error();
    sources(error).filter_map(code).any(is_emfile_or_enfile)
}

fn sources(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |&error| error.source())
}

/// Why an answer's body could not be had.
#[derive(Debug)]
pub enum ReadBodyError {
    /// It is longer than the limit.
    TooLarge,
    /// The connection broke, or the time was up.
    Transport(reqwest::Error),
}

/// Reads an answer's body whole, up to `limit` bytes.
pub async fn read_limited(mut response: reqwest::Response, limit: usize) -> Result<Bytes, ReadBodyError> {
    let announced = response.content_length().unwrap_or(0);
    if announced > limit as u64 {
        return Err(ReadBodyError::TooLarge);
    }
    let mut body = BytesMut::with_capacity(usize::try_from(announced).unwrap_or(0));
    while let Some(chunk) = response.chunk().await.map_err(ReadBodyError::Transport)? {
        if body.len() + chunk.len() > limit {
            return Err(ReadBodyError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_without_address_is_told_by_name() {
        let client = client_builder(ConnectionPolicy::PerRequest).build().unwrap();
        let error = client.get("http://ada2.invalid:7860/").send().await.unwrap_err();
        let told = resolve_error(&error).expect("that is what failed");
        assert_eq!(told.host, "ada2.invalid");
        assert!(told.to_string().contains("\"ada2.invalid\" cannot be resolved"), "{told}");
        let error = client.get("http://127.0.0.1:9/").send().await.unwrap_err();
        assert_eq!(resolve_error(&error), None);
    }
}
