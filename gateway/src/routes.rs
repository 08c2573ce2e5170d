//! The handlers, one file per resource.

pub(crate) mod events;
pub(crate) mod gallery;
pub(crate) mod images;
pub(crate) mod jobs;
pub(crate) mod legacy;
pub(crate) mod metrics;
pub(crate) mod models;
pub(crate) mod page;
pub(crate) mod probes;
mod relay;
pub(crate) mod status;
pub(crate) mod text;
pub(crate) mod ui;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderValue, header, request::Parts},
};
use service::request_id::RequestId;

use crate::{
    error::ApiError,
    middleware::{access_log::RequestRecord, auth::Caller},
    store::metadata::Provenance,
};

/// Every path in the router, for the hint that an unknown path gets.
pub(crate) const ROUTE_PATHS: &[&str] = &[
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/models",
    "/v1/models/{*id}",
    "/v1/gateway/status",
    "/v1/gateway/events",
    "/v1/gateway/images",
    "/v1/gateway/images/{name}",
    "/v1/gateway/jobs/{request_id}",
    "/metrics",
    "/ui",
    "/ui/page/{*path}",
    "/ui/images/{name}",
    "/ui/thumbnails/{name}",
    "/healthz",
    "/readyz",
];

/// What the layers have found out about a request that they let through.
#[derive(Debug)]
pub(crate) struct AuthorizedRequest {
    /// For the access log.
    record: RequestRecord,
    id: RequestId,
    caller: Caller,
}

impl AuthorizedRequest {
    /// What is recorded with the images of the request.
    fn provenance(&self) -> Provenance {
        Provenance {
            owner: self.caller.owner().map(str::to_owned),
            request_id: Some(self.id.as_str().to_owned()),
            ..Provenance::default()
        }
    }
}

impl<S: Sync> FromRequestParts<S> for AuthorizedRequest {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        // The auth layer opens some routes to clients without a token, but none whose handler takes this.
        let caller = parts.extensions.get::<Caller>().cloned().ok_or(ApiError::Unauthenticated)?;
        let (record, id) = (parts.extensions.get().cloned(), parts.extensions.get().cloned());
        let (record, id) = record.zip(id).ok_or(ApiError::Internal)?;
        Ok(Self { record, id, caller })
    }
}

/// The class or legacy name in `X-Backend`.
fn requested_backend(headers: &HeaderMap) -> Option<String> {
    let name = String::from_utf8_lossy(headers.get("x-backend")?.as_bytes()).trim().to_owned();
    (!name.is_empty()).then_some(name)
}

/// Whether the client has this content already.
fn is_cached(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let lines = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|line| line.to_str().ok());
    let mut tags = lines.flat_map(|line| line.split(',')).map(str::trim);
    tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag).as_bytes() == etag.as_bytes())
}
