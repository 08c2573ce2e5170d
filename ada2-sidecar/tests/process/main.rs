//! The binary as a service manager and a person at a terminal meet it.

/// What large bodies cost.
mod bodies;
/// `ada2-sidecar gpu`, `readyz`, `ack`.
mod commands;
/// SIGHUP.
mod reload;
/// The harness.
mod running;
/// Exit codes, signals, kill -9.
mod service;
