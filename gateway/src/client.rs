//! The HTTP clients for backends: their connections, and the certificates that they trust.

pub(crate) mod connect_error;

use std::sync::Arc;

use reqwest::{Client, ClientBuilder};
use service::{
    outbound::{ConnectionPolicy, client_builder},
    settings::Problem,
};
use tokio::sync::watch;
use tracing::error;

use crate::config::OutboundTls;

/// Two clients: one without connection reuse, one with a pool. A handle, cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct HttpClients {
    unpooled: Client,
    pooled: watch::Sender<Client>,
    outbound: Arc<OutboundTls>,
}

impl HttpClients {
    pub(crate) fn new(outbound: &OutboundTls) -> Result<Self, Problem> {
        let client = |connections| client(connections, outbound).map_err(|error| invalid_tls_files(&error));
        Ok(Self {
            unpooled: client(ConnectionPolicy::PerRequest)?,
            pooled: watch::Sender::new(client(ConnectionPolicy::Pooled)?),
            outbound: Arc::new(outbound.clone()),
        })
    }

    /// The current client with a pool: for probes, lists of models and images.
    pub(crate) fn pooled(&self) -> Client {
        self.pooled.borrow().clone()
    }

    /// The client that never reuses a connection: for chat and the legacy upstream, whose servers are not ours and may close idle
    /// connections at any time.
    pub(crate) fn unpooled(&self) -> &Client {
        &self.unpooled
    }

    /// Replaces the client with the pool: while the machine sleeps, its idle timeout stands still and the servers close the
    /// connections.
    pub(crate) fn drop_idle_connections(&self) {
        match client(ConnectionPolicy::Pooled, &self.outbound) {
            Ok(client) => drop(self.pooled.send_replace(client)),
            Err(error) => error!(%error, "cannot create a new client; the old one keeps its connections"),
        }
    }
}

fn client(connections: ConnectionPolicy, outbound: &OutboundTls) -> reqwest::Result<Client> {
    with_trust(with_user_timeout(client_builder(connections), connections), outbound).build()
}

/// Keep-alive probes detect a vanished backend only while no data is in flight to it. The images backend reads requests at once, so
/// unacknowledged data means it is gone; a chat server may be busy and read late. The library knows no such option for macOS.
#[cfg(target_os = "linux")]
fn with_user_timeout(builder: ClientBuilder, connections: ConnectionPolicy) -> ClientBuilder {
    match connections {
        ConnectionPolicy::Pooled => builder.tcp_user_timeout(std::time::Duration::from_secs(30)),
        ConnectionPolicy::PerRequest => builder,
    }
}

#[cfg(not(target_os = "linux"))]
fn with_user_timeout(builder: ClientBuilder, _: ConnectionPolicy) -> ClientBuilder {
    builder
}

fn with_trust(mut builder: ClientBuilder, outbound: &OutboundTls) -> ClientBuilder {
    builder = builder.user_agent(concat!("gateway/", env!("CARGO_PKG_VERSION")));
    if !outbound.verify_certificates {
        builder = builder.tls_danger_accept_invalid_certs(true);
    }
    if !outbound.root_certificates.is_empty() {
        builder = builder.tls_certs_merge(outbound.root_certificates.iter().cloned());
    }
    match &outbound.identity {
        Some(identity) => builder.identity(identity.clone()),
        None => builder,
    }
}

/// The library's own message may quote the files.
fn invalid_tls_files(_: &reqwest::Error) -> Problem {
    let expected = "expected certificates that TLS can use, and a key that belongs to its certificate";
    Problem::new("BACKEND_CA_BUNDLE", "BACKEND_CLIENT_CERT", expected)
}
