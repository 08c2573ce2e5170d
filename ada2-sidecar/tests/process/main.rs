//! The binary as a service manager and a person at a terminal meet it.

/// `ada2-sidecar reload`, and other requests to the administration socket.
mod admin;
/// `ada2-sidecar check-port`.
mod check_port;
/// `ada2-sidecar gpu`, `readyz`, `ack`.
mod commands;
/// What large bodies and images cost.
mod costs;
/// `ada2-sidecar doctor`.
mod doctor;
/// The login at an InvokeAI in multi-user mode.
mod engine_login;
/// What a host says of the families that it has, and of those that it has not.
mod hosts;
/// SIGHUP.
mod reload;
/// The harness.
mod running;
/// Exit codes, signals, kill -9.
mod service;
/// The first moments after the start.
mod start;
/// `ada2-sidecar template`.
mod template;
/// What earlier versions left.
mod upgrade;
