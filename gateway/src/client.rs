//! The HTTP clients to the backends: which connections they keep, and whom they trust.

pub(crate) mod connect_error;

use std::sync::Arc;

use reqwest::{Client, ClientBuilder};
use service::{
    outbound::{Connections, builder},
    settings::Problem,
};
use tokio::sync::watch;
use tracing::error;

use crate::config::Outbound;

/// The two clients: one that never reuses a connection, and one that keeps them for a while. Cheap to clone; all clones are
/// the same.
#[derive(Debug, Clone)]
pub(crate) struct Clients {
    fresh: Client,
    pooled: watch::Sender<Client>,
    outbound: Arc<Outbound>,
}

impl Clients {
    /// The clients, trusting whom the configuration trusts.
    pub(crate) fn new(outbound: &Outbound) -> Result<Self, Problem> {
        let client = |connections| client(connections, outbound).map_err(|error| unusable_identity(&error));
        Ok(Self {
            fresh: client(Connections::Fresh)?,
            pooled: watch::Sender::new(client(Connections::Pooled)?),
            outbound: Arc::new(outbound.clone()),
        })
    }

    /// The client that keeps connections, as it is now: for probes, lists and pictures.
    pub(crate) fn pooled(&self) -> Client {
        self.pooled.borrow().clone()
    }

    /// The client that never uses a connection twice: for chat and the old gateway behind, whose servers are
    /// not ours and may close what is kept at any time.
    pub(crate) fn fresh(&self) -> &Client {
        &self.fresh
    }

    /// Drops the idle connections, by dropping the client that has them: while the machine sleeps its timer for them
    /// stands still, and their other ends go away.
    pub(crate) fn drop_idle(&self) {
        match client(Connections::Pooled, &self.outbound) {
            Ok(client) => drop(self.pooled.send_replace(client)),
            Err(error) => error!(%error, "no new client for backends; the old one keeps its connections"),
        }
    }
}

fn client(connections: Connections, outbound: &Outbound) -> reqwest::Result<Client> {
    trusting(found_when_gone(builder(connections), connections), outbound).build()
}

/// Keep-alive probes find a vanished backend only while nothing is on its way to it. Pictures go to a server that reads what
/// it is sent at once; one for chat may leave it lying while it is at work, and is not to be taken for gone. macOS has no
/// such option that the library knows.
#[cfg(target_os = "linux")]
fn found_when_gone(builder: ClientBuilder, connections: Connections) -> ClientBuilder {
    match connections {
        Connections::Pooled => builder.tcp_user_timeout(std::time::Duration::from_secs(30)),
        Connections::Fresh => builder,
    }
}

#[cfg(not(target_os = "linux"))]
fn found_when_gone(builder: ClientBuilder, _: Connections) -> ClientBuilder {
    builder
}

fn trusting(mut builder: ClientBuilder, outbound: &Outbound) -> ClientBuilder {
    builder = builder.user_agent(concat!("gateway/", env!("CARGO_PKG_VERSION")));
    if !outbound.verify {
        builder = builder.tls_danger_accept_invalid_certs(true);
    }
    if !outbound.authorities.is_empty() {
        builder = builder.tls_certs_merge(outbound.authorities.iter().cloned());
    }
    match &outbound.identity {
        Some(identity) => builder.identity(identity.clone()),
        None => builder,
    }
}

/// The library's own message may quote what the files hold.
fn unusable_identity(_: &reqwest::Error) -> Problem {
    let expected = "expected certificates, and a key that belongs to its certificate, that TLS can use";
    Problem::new("BACKEND_CA_BUNDLE", "BACKEND_CLIENT_CERT", expected)
}
