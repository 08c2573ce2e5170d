//! Paths that the sidecar does not serve itself, on their way to the engine and back.

/// What travels: heads, bodies, trailers, ranges, as they are.
mod bytes;
/// The engine goes away, is slow, breaks off, closes idle connections.
mod engine_faults;
/// Who may come: addresses, proxies, pages of other sites, tokens.
mod guards;
/// Attacks on the framing, and proof that the engine never sees a smuggled request.
mod smuggling;
/// WebSockets, and every other change of protocol.
mod upgrades;

use e2e::sidecar::Sidecar;
use fakes::{raw_engine::RawEngine, raw_http::RawClient};

/// A sidecar in front of an engine of which only the bytes matter. It is never ready.
async fn before(engine: &RawEngine, flags: &[&str]) -> Sidecar {
    Sidecar::invokeai(&engine.url, flags).await
}

/// One request, sent as it is, its one answer.
async fn ask(sidecar: &Sidecar, request: &str) -> fakes::raw_http::RawResponse {
    let mut wire = RawClient::to(&sidecar.url).await;
    wire.send(request).await;
    wire.response().await
}
