//! The handlers, one file per thing that is asked for.

pub(crate) mod files;
pub(crate) mod gallery;
pub(crate) mod images;
pub(crate) mod legacy;
pub(crate) mod metrics;
pub(crate) mod models;
pub(crate) mod page;
pub(crate) mod probes;
pub(crate) mod status;
pub(crate) mod text;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, request::Parts},
};
use service::request_id::RequestId;

use crate::{
    error::ApiError,
    middleware::{access_log::RequestRecord, auth::Caller},
    store::metadata::Provenance,
};

/// Every path in the router, so that a path that is none can be told what is near.
pub(crate) const ROUTE_PATHS: &[&str] = &[
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/models",
    "/v1/models/{*id}",
    "/v1/gateway/status",
    "/v1/gateway/images",
    "/v1/gateway/images/{name}",
    "/metrics",
    "/ui",
    "/ui/images/{name}",
    "/healthz",
    "/readyz",
];

/// A request that the layers let in, and what they noted of it.
#[derive(Debug)]
pub(crate) struct AuthorizedRequest {
    /// What its log line will say.
    record: RequestRecord,
    id: RequestId,
    /// Whose token it came with.
    caller: Caller,
}

impl AuthorizedRequest {
    /// What is noted of the pictures that it makes.
    fn provenance(&self) -> Provenance {
        Provenance {
            owner: self.caller.owner().map(str::to_owned),
            request_id: Some(self.id.as_str().to_owned()),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for AuthorizedRequest {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        // The gate lets others come to what is guarded by address alone.
        let caller = parts.extensions.get::<Caller>().cloned().ok_or(ApiError::Unauthenticated)?;
        let (account, id) = (parts.extensions.get().cloned(), parts.extensions.get().cloned());
        let (account, id) = account.zip(id).ok_or(ApiError::Internal)?;
        Ok(Self { record: account, id, caller })
    }
}

/// The class or legacy name in `X-Backend`.
fn requested_backend(headers: &HeaderMap) -> Option<String> {
    let name = String::from_utf8_lossy(headers.get("x-backend")?.as_bytes()).trim().to_owned();
    (!name.is_empty()).then_some(name)
}
