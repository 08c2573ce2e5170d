//! What `ada2-sidecar` and `gateway` share, in two floors.
//!
//! Without features: the wire (OpenAI shapes, the readiness report, what counts as a picture), serde only.
//! With `service`: what a long-running HTTP service needs. No policy, no engine, no GPU enters here.

pub mod health;
pub mod openai;
pub mod picture;
#[cfg(feature = "service")]
pub mod service;
