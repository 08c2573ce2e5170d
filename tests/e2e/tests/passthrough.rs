//! Paths that the sidecar does not serve itself, on their way to the engine and back.

/// What is relayed unchanged: heads, bodies, trailers, ranges.
mod bytes;
/// Engines that stop, are slow, break connections, or close idle ones.
mod engine_faults;
/// Access: addresses, proxies, pages of other sites, tokens.
mod guards;
/// Attacks on the framing, and proof that the engine never sees a smuggled request.
mod smuggling;
/// WebSockets, and every other change of protocol.
mod upgrades;

use e2e::sidecar::Sidecar;
use fakes::{raw_engine::RawEngine, raw_http::RawClient};

/// A sidecar in front of a raw engine. It is never ready.
async fn before(engine: &RawEngine, flags: &[&str]) -> Sidecar {
    Sidecar::invokeai(&engine.url, flags).await
}

/// One request, sent as it is, its one answer.
async fn ask(sidecar: &Sidecar, request: &str) -> fakes::raw_http::RawResponse {
    let mut wire = RawClient::to(&sidecar.url).await;
    wire.send(request).await;
    wire.response().await
}
