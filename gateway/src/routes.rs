//! The handlers, one file per thing that is asked for.

pub(crate) mod files;
pub(crate) mod gallery;
pub(crate) mod images;
pub(crate) mod legacy;
pub(crate) mod metrics;
pub(crate) mod models;
pub(crate) mod probes;
pub(crate) mod status;
pub(crate) mod text;

use axum::http::HeaderMap;

/// The class or legacy name in `X-Backend`.
fn named_backend(headers: &HeaderMap) -> Option<String> {
    let name = String::from_utf8_lossy(headers.get("x-backend")?.as_bytes()).trim().to_owned();
    (!name.is_empty()).then_some(name)
}
