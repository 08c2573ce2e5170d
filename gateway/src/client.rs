//! The HTTP clients to the backends: which connections they keep, and whom they trust.

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

/// The two clients: one that never reuses a connection, and one that keeps them for a while. Cheap to clone; all clones are
/// the same.
#[derive(Debug, Clone)]
pub(crate) struct HttpClients {
    unpooled: Client,
    pooled: watch::Sender<Client>,
    outbound: Arc<OutboundTls>,
}

impl HttpClients {
    /// The clients, trusting whom the configuration trusts.
    pub(crate) fn new(outbound: &OutboundTls) -> Result<Self, Problem> {
        let client = |connections| client(connections, outbound).map_err(|error| invalid_tls_files(&error));
        Ok(Self {
            unpooled: client(ConnectionPolicy::PerRequest)?,
            pooled: watch::Sender::new(client(ConnectionPolicy::Pooled)?),
            outbound: Arc::new(outbound.clone()),
        })
    }

    /// The client that keeps connections, as it is now: for probes, lists and pictures.
    pub(crate) fn pooled(&self) -> Client {
        self.pooled.borrow().clone()
    }

    /// The client that never uses a connection twice: for chat and the old gateway behind, whose servers are
    /// not ours and may close what is kept at any time.
    pub(crate) fn unpooled(&self) -> &Client {
        &self.unpooled
    }

    /// Drops the idle connections, by dropping the client that has them: while the machine sleeps its timer for them
    /// stands still, and their other ends go away.
    pub(crate) fn drop_idle_connections(&self) {
        match client(ConnectionPolicy::Pooled, &self.outbound) {
            Ok(client) => drop(self.pooled.send_replace(client)),
            Err(error) => error!(%error, "no new client for backends; the old one keeps its connections"),
        }
    }
}

fn client(connections: ConnectionPolicy, outbound: &OutboundTls) -> reqwest::Result<Client> {
    with_trust(with_user_timeout(client_builder(connections), connections), outbound).build()
}

/// Keep-alive probes find a vanished backend only while nothing is on its way to it. Pictures go to a server that reads what
/// it is sent at once; one for chat may leave it lying while it is at work, and is not to be taken for gone. macOS has no
/// such option that the library knows.
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

/// The library's own message may quote what the files hold.
fn invalid_tls_files(_: &reqwest::Error) -> Problem {
    let expected = "expected certificates, and a key that belongs to its certificate, that TLS can use";
    Problem::new("BACKEND_CA_BUNDLE", "BACKEND_CLIENT_CERT", expected)
}
