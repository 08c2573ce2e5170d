//! Outgoing HTTP: no redirects, no system proxy, no retries, no decompression, and a connect timeout. Both programs build
//! every client here, so that none exists without these rules.

use std::{error::Error, fmt, io::ErrorKind, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use reqwest::{
    Client, ClientBuilder,
    dns::{Addrs, Name, Resolve, Resolving},
};

use super::descriptors::is_emfile_or_enfile;

/// Hosts on the same network answer in milliseconds.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Which connections a client may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionPolicy {
    /// Idle connections are reused, for less than the servers' idle timeout (uvicorn: 5 s). A request moves to another
    /// connection only if the idle one was found dead before any of it was written.
    Pooled,
    /// A new one per request. For requests that spend GPU time: if an idle connection dies while one is being written,
    /// nobody knows whether it arrived.
    PerRequest,
}

/// A client builder with our rules; the caller adds TLS trust.
pub fn client_builder(connections: ConnectionPolicy) -> ClientBuilder {
    // reqwest panics without a process-wide TLS provider; installing a second one fails, harmlessly.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .dns_resolver(Arc::new(SystemResolver))
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .connect_timeout(CONNECT_TIMEOUT)
        // A dead peer is found within 30 s.
        .tcp_keepalive(Duration::from_secs(10))
        .tcp_keepalive_interval(Duration::from_secs(5))
        .tcp_keepalive_retries(3)
        .tcp_nodelay(true)
        .http1_only()
        .pool_idle_timeout(Duration::from_secs(4))
        .pool_max_idle_per_host(if connections == ConnectionPolicy::PerRequest { 0 } else { 8 })
}

/// The same for plain HTTP alone. Trusts no certificate, and so works on a host without a certificate store, where
/// building a client with the system's fails.
pub fn plaintext_client_builder(connections: ConnectionPolicy) -> ClientBuilder {
    client_builder(connections).tls_certs_only([])
}

/// The operating system's error, if that is the cause. `ConnectionRefused`: nobody listens there.
pub fn io_error_kind(error: &reqwest::Error) -> Option<ErrorKind> {
    sources(error).find_map(|source| source.downcast_ref::<std::io::Error>()).map(std::io::Error::kind)
}

/// The system's resolver, with an error type that distinguishes its failures from broken connections.
#[derive(Debug)]
struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found = tokio::net::lookup_host((host.as_str(), 0)).await.map(Iterator::collect::<Vec<_>>);
            match found {
                Ok(found) => Ok(Box::new(found.into_iter()) as Addrs),
                // Running out of descriptors says nothing about the name.
                Err(error) if error.raw_os_error().is_some_and(is_emfile_or_enfile) => Err(error.into()),
                Err(error) => Err(ResolveError { host, reason: error.to_string() }.into()),
            }
        })
    }
}

/// The system could not resolve a host name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolveError {
    /// The host name.
    pub host: String,
    /// The system's error.
    pub reason: String,
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the host name {:?} cannot be resolved ({})", self.host, self.reason)
    }
}

impl Error for ResolveError {}

/// The failed name resolution, if that is the cause.
pub fn resolve_error(error: &reqwest::Error) -> Option<&ResolveError> {
    sources(error).find_map(|source| source.downcast_ref())
}

/// Whether the process had no file descriptor left for the connection: then nothing was sent.
pub fn is_out_of_descriptors(error: &reqwest::Error) -> bool {
    let code = |source: &(dyn Error + 'static)| source.downcast_ref::<std::io::Error>()?.raw_os_error();
    sources(error).filter_map(code).any(is_emfile_or_enfile)
}

fn sources(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |&error| error.source())
}

/// Why a response body could not be read.
#[derive(Debug)]
pub enum ReadBodyError {
    /// It is longer than the limit.
    TooLarge,
    /// The connection broke, or the timeout expired.
    Transport(reqwest::Error),
}

/// Reads a response body of up to `limit` bytes.
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
    async fn a_failed_resolution_names_the_host() {
        let client = client_builder(ConnectionPolicy::PerRequest).build().unwrap();
        let error = client.get("http://ada2.invalid:7860/").send().await.unwrap_err();
        let failed = resolve_error(&error).expect("that is what failed");
        assert_eq!(failed.host, "ada2.invalid");
        assert!(failed.to_string().contains("\"ada2.invalid\" cannot be resolved"), "{failed}");
        let error = client.get("http://127.0.0.1:9/").send().await.unwrap_err();
        assert_eq!(resolve_error(&error), None);
    }
}
