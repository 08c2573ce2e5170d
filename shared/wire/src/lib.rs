//! What `ada2-sidecar` and `gateway` say to each other and to their clients: OpenAI shapes and the readiness report.

pub mod health;
pub mod openai;
