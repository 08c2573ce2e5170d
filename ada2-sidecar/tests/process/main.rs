//! The binary as a service manager and a person at a terminal meet it.

/// `ada2-sidecar reload`, and what else the administration socket is asked.
mod admin;
/// What large bodies cost.
mod bodies;
/// `ada2-sidecar check-port`.
mod check_port;
/// `ada2-sidecar gpu`, `readyz`, `ack`.
mod commands;
/// What decoding costs.
mod decoding;
/// `ada2-sidecar doctor`.
mod doctor;
/// SIGHUP.
mod reload;
/// The harness.
mod running;
/// Exit codes, signals, kill -9.
mod service;
/// The first moments after the start.
mod start;
/// What earlier versions left.
mod upgrade;
