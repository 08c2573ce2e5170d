//! A WebSocket once both sides have agreed to it: bytes in both directions until either side ends.

use std::{sync::Arc, time::Duration};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use service::{lifecycle::Lifecycle, serve::ConnectionPermit};
use tokio::{
    io::{AsyncWriteExt, copy, split},
    time::timeout,
};
use tracing::debug;

/// From the engine's 101 until the client has switched, and for closing.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A background task, so draining does not wait for it: a page reconnects by itself.
pub(super) fn spawn(
    lifecycle: &Lifecycle,
    client: OnUpgrade,
    engine: OnUpgrade,
    permit: Option<Arc<ConnectionPermit>>,
) {
    lifecycle.spawn_background("websocket", async move {
        let _permit = permit;
        let upgraded = timeout(HANDSHAKE_TIMEOUT, async { tokio::try_join!(client, engine) }).await;
        let (client, engine) = match upgraded {
            Ok(Ok((client, engine))) => (TokioIo::new(client), TokioIo::new(engine)),
            Ok(Err(error)) => return debug!(%error, "WebSocket upgrade failed"),
            Err(_) => return debug!("WebSocket upgrade timed out"),
        };
        let (mut from_client, mut to_client) = split(client);
        let (mut from_engine, mut to_engine) = split(engine);
        // A WebSocket cannot be half-closed: when one side ends, so does the other.
        tokio::select! {
            _ = copy(&mut from_client, &mut to_engine) => {}
            _ = copy(&mut from_engine, &mut to_client) => {}
        }
        let shutdown = async { tokio::join!(to_client.shutdown(), to_engine.shutdown()) };
        let _ = timeout(HANDSHAKE_TIMEOUT, shutdown).await;
    });
}
