//! A WebSocket, once both sides have agreed to it: bytes both ways, for as long as both stay.

use std::{sync::Arc, time::Duration};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use service::{lifecycle::Lifecycle, serve::ConnectionPermit};
use tokio::{
    io::{AsyncWriteExt, copy, split},
    time::timeout,
};
use tracing::debug;

/// From the engine's agreement until the caller has it.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Not waited for when the service drains: a page connects again by itself.
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
            Ok(Ok((caller, engine))) => (TokioIo::new(caller), TokioIo::new(engine)),
            Ok(Err(error)) => return debug!(%error, "a WebSocket was not to be"),
            Err(_) => return debug!("a WebSocket was not to be: one side did not follow"),
        };
        let (mut from_caller, mut to_caller) = split(client);
        let (mut from_engine, mut to_engine) = split(engine);
        // A WebSocket has no half: when one side has ended, so has the other.
        tokio::select! {
            _ = copy(&mut from_caller, &mut to_engine) => {}
            _ = copy(&mut from_engine, &mut to_caller) => {}
        }
        let _ =
            timeout(HANDSHAKE_TIMEOUT, async { tokio::join!(to_caller.shutdown(), to_engine.shutdown()) })
                .await;
    });
}
