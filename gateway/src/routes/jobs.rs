//! `DELETE /v1/gateway/jobs/{request_id}`: cancels the image requests with this id. A token cancels its own, and some cancel
//! all; any other request is 404, as one that is not running is.

use axum::{
    extract::State,
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
};
use tracing::info;

use super::AuthorizedRequest;
use crate::{app::App, error::ApiError};

pub(crate) async fn cancel(
    State(app): State<App>,
    authorized: AuthorizedRequest,
    uri: Uri,
) -> Result<Response, ApiError> {
    // From the raw path: an id needs no escapes.
    let id = uri.path().strip_prefix("/v1/gateway/jobs/").unwrap_or_default();
    if !app.jobs.cancel(id, &|owner| authorized.caller.sees(owner)) {
        return Err(ApiError::NotFound);
    }
    info!(cancelled_request_id = id, "image request cancelled on request");
    Ok(StatusCode::NO_CONTENT.into_response())
}
