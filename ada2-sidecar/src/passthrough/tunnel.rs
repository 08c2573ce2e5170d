//! A WebSocket, once both sides have agreed to it: bytes both ways, for as long as both stay.

use std::{sync::Arc, time::Duration};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use service::{lifecycle::Lifecycle, serve::Seat};
use tokio::{
    io::{AsyncWriteExt, copy, split},
    time::timeout,
};
use tracing::debug;

/// From the engine's agreement until the caller has it.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Not waited for when the service drains: a page connects again by itself.
pub(super) fn open(lifecycle: &Lifecycle, caller: OnUpgrade, engine: OnUpgrade, seat: Option<Arc<Seat>>) {
    lifecycle.beside("websocket", async move {
        let _seat = seat;
        let agreed = timeout(HANDSHAKE, async { tokio::try_join!(caller, engine) }).await;
        let (caller, engine) = match agreed {
            Ok(Ok((caller, engine))) => (TokioIo::new(caller), TokioIo::new(engine)),
            Ok(Err(error)) => return debug!(%error, "a WebSocket was not to be"),
            Err(_) => return debug!("a WebSocket was not to be: one side did not follow"),
        };
        let (mut from_caller, mut to_caller) = split(caller);
        let (mut from_engine, mut to_engine) = split(engine);
        // A WebSocket has no half: when one side has ended, so has the other.
        tokio::select! {
            _ = copy(&mut from_caller, &mut to_engine) => {}
            _ = copy(&mut from_engine, &mut to_caller) => {}
        }
        let _ = timeout(HANDSHAKE, async { tokio::join!(to_caller.shutdown(), to_engine.shutdown()) }).await;
    });
}
