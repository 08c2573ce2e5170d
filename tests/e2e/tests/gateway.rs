//! The gateway in front of a fake backend that plays a script and records its requests.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

/// Tokens, addresses, hosts, origins, bodies.
mod access;
/// Slots: the limit, and how each is freed.
mod admission;
/// Chat and embeddings: what is relayed, and how.
mod chat;
/// Chat answers that fail.
mod chat_failures;
/// The order of checks.
mod check_order;
/// Connections to a backend: reused, and never the reason that an image is made twice.
mod connections;
/// Edits: what passes byte for byte, and what is refused.
mod edits;
/// Failures of a backend, and unknown paths.
mod errors;
/// The events that feed the page.
mod events;
/// A store whose disk is full.
mod full_disk;
/// The list of stored images, and how they are deleted.
mod gallery;
/// Probes, and what requests show about a backend's health.
mod health;
/// Images through the gateway: routing, delivery, what is relayed and what is not.
mod images;
/// Image requests that outlive their client, and those that are cancelled by their id.
mod jobs;
/// The old gateway: what is proxied, and what never is.
mod legacy;
/// Several cards behind one address.
mod load_balancer;
/// The metrics, and who may read them.
mod metrics;
/// Lists of models: which entries count, and for how long.
mod model_lists;
/// Whose images a token sees, and how many slots it may take.
mod owners;
/// The web page and its files.
mod page;
/// Images while they arrive from the backend.
mod receiving;
/// Reloads of the configuration: all of it or nothing.
mod reload;
/// Where chat and embeddings go, and that there is no fallback.
mod routing;
/// The settings that are kept beside each image.
mod settings;
/// After the machine has slept.
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
/// Thumbnails of stored images.
mod thumbnails;
/// The listener's TLS.
mod tls;
