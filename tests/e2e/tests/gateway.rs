//! The gateway in front of a fake backend that plays a script and writes down what it saw.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

/// Tokens, addresses, hosts, origins, bodies.
mod access;
/// Places: the limit, and how each is freed.
mod admission;
/// Pictures while they arrive.
mod arriving;
/// Several cards behind one address.
mod balancer;
/// Words and numbers: what passes, and how.
mod chat;
/// Words that do not come.
mod chat_failures;
/// Those to a backend: kept, and never the reason that a picture is made twice.
mod connections;
/// Pictures from pictures: what passes byte for byte, and what is refused.
mod edits;
/// What becomes of a backend's failures, and of requests for nothing.
mod errors;
/// A store whose disk is full.
mod full_disk;
/// The list of stored pictures, and how they go.
mod gallery;
/// Probes, and what requests find out.
mod health;
/// Pictures through the gateway: routing, delivery, what passes and what does not.
mod images;
/// The old gateway behind: what is passed on, and what never is.
mod legacy;
/// Lists of models: what of them counts, and for how long.
mod lists;
/// What is counted, and who may read it.
mod metrics;
/// The order of checks.
mod order;
/// Whose pictures a token sees, and how many places it may take.
mod people;
/// The configuration read again: all of it or nothing.
mod reload;
/// Where chat and embeddings go, and that no other backend is asked instead.
mod routing;
/// Who takes or sends slowly.
mod slow_callers;
/// Status and lists.
mod status;
/// Stored pictures and how they are served.
mod store;
/// Events as they happen.
mod stream;
/// Streams that go wrong.
mod stream_failures;
/// The listener's TLS.
mod tls;
/// The machine sleeps and wakes.
mod wake;
