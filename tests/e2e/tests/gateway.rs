//! The gateway in front of a fake backend that plays a script and records its requests.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

/// Tokens, addresses, hosts, origins, bodies.
mod access;
/// Places: the limit, and how each is freed.
mod admission;
/// Images while they arrive from the backend.
mod arriving;
/// Several cards behind one address.
mod balancer;
/// Chat and embeddings: what passes, and how.
mod chat;
/// Chat answers that fail.
mod chat_failures;
/// The order of checks.
mod check_order;
/// Connections to a backend: reused, and never the reason that an image is made twice.
mod connections;
/// Edits: what passes byte for byte, and what is refused.
mod edits;
/// What becomes of a backend's failures, and of requests for nothing.
mod errors;
/// A store whose disk is full.
mod full_disk;
/// The list of stored images, and how they are deleted.
mod gallery;
/// Probes, and what requests find out.
mod health;
/// Images through the gateway: routing, delivery, what passes and what does not.
mod images;
/// The old gateway: what is passed on, and what never is.
mod legacy;
/// Lists of models: what counts, and for how long.
mod lists;
/// What is counted, and who may read it.
mod metrics;
/// Whose images a token sees, and how many places it may take.
mod owners;
/// The configuration read again: all of it or nothing.
mod reload;
/// Where chat and embeddings go, and that there is no fallback.
mod routing;
/// The machine sleeps and wakes.
mod sleep;
/// Clients that read or send slowly.
mod slow_clients;
/// Status and lists.
mod status;
/// Stored images and how they are served.
mod store;
/// Events as they happen.
mod stream;
/// Streams that go wrong.
mod stream_failures;
/// The listener's TLS.
mod tls;
