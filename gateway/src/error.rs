//! Maps errors to responses. No other file of the gateway chooses an error status, except for `/readyz`.

mod responses;

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde_json::json;
use service::{
    body::BodyError, client_info::AddressError, error_response::ErrorResponse, guard::GuardError,
    text::ellipsize,
};
use wire::openai::error::ErrorCode;

use crate::{
    admission::{Busy, NotReady},
    backend::BackendError,
    jobs::JobError,
    policy::RoutingError,
    request::image_request::Malformed,
    store::StoreError,
};

/// Characters of foreign text that a message quotes.
const MAX_QUOTED_CHARS: usize = 100;

/// Everything that can end a request.
#[derive(Debug)]
pub(crate) enum ApiError {
    Guard(GuardError),
    Address(AddressError),
    /// No token, or an unknown one.
    Unauthenticated,
    Body(BodyError),
    Malformed(Malformed),
    /// It has no suitable backend.
    Denied(RoutingError),
    NotReady(NotReady),
    Busy(Busy),
    /// The backend of this class failed.
    Backend(String, BackendError),
    /// The store cannot take images, so no backend was asked.
    StoreNotReady(StoreError),
    /// The images could not be stored.
    Store(StoreError),
    /// Too many wait for thumbnails.
    ThumbnailsBusy,
    /// Cancelled by another request of its owner.
    Cancelled,
    /// No ready backend lists this model.
    UnknownModel(String),
    /// No such image.
    NotFound,
    /// No such path, perhaps with a suggestion.
    UnknownPath(Option<&'static str>),
    MethodNotAllowed,
    /// A panic or a bug.
    Internal,
}

/// The cause, for the log; in the response's extensions.
#[derive(Debug, Clone)]
pub(crate) struct ErrorCause(pub(crate) String);

/// The gateway itself refused, before any backend was asked; in the response's extensions, for the metrics.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rejected(pub(crate) ErrorCode);

/// A failure after a stream has begun. Its status was sent, so the error is an event. SDKs raise an error only for
/// `event: error` with a nested `error`.
#[derive(Debug)]
pub(crate) struct StreamError {
    /// The event.
    pub(crate) event: Bytes,
    /// The status that the response would have had.
    pub(crate) status: u16,
    /// The cause, for the log.
    pub(crate) cause: ErrorCause,
}

impl ApiError {
    fn error_response(&self) -> ErrorResponse {
        match self {
            Self::Guard(error) => {
                ErrorResponse::guard(error, "GATEWAY_ALLOWED_HOSTS", "GATEWAY_ALLOWED_ORIGINS")
            }
            Self::Address(error) => {
                ErrorResponse::address(*error, "IP_ALLOWLIST or UI_IP_ALLOWLIST", "TRUST_PROXY_CIDRS")
            }
            Self::Unauthenticated => ErrorResponse::unauthenticated(),
            Self::Body(error) => ErrorResponse::body(*error, "MAX_REQUEST_BYTES"),
            Self::Malformed(Malformed::Field(error)) => {
                let code =
                    if error.param.is_some() { ErrorCode::InvalidValue } else { ErrorCode::InvalidBody };
                ErrorResponse::new(StatusCode::BAD_REQUEST, code, &error.message)
                    .with_param(error.param.as_deref())
            }
            Self::Malformed(Malformed::Size(message)) => {
                ErrorResponse::new(StatusCode::BAD_REQUEST, ErrorCode::InvalidSize, message)
                    .with_param(Some("size"))
            }
            Self::Denied(error) => responses::denied(error),
            Self::NotReady(NotReady { class, error }) => responses::not_ready(class, error, None),
            Self::Busy(busy) => responses::busy(busy),
            Self::Backend(class, error) => responses::backend(class, error),
            Self::StoreNotReady(error) | Self::Store(error) => responses::store(error),
            Self::ThumbnailsBusy => responses::thumbnails_busy(),
            Self::Cancelled => ErrorResponse::new(
                StatusCode::CONFLICT,
                ErrorCode::Cancelled,
                "The image request was cancelled by its owner (DELETE /v1/gateway/jobs/{request_id}); send it again if the image is \
                 still wanted",
            )
            .no_retry(),
            Self::UnknownModel(id) => ErrorResponse::new(
                StatusCode::NOT_FOUND,
                ErrorCode::ModelNotFound,
                format!(
                    "No ready backend lists the model {:?}; GET /v1/models shows the available ones",
                    ellipsize(id, MAX_QUOTED_CHARS)
                ),
            )
            .with_param(Some("model")),
            Self::NotFound => ErrorResponse::unknown_path(None),
            Self::UnknownPath(suggestion) => ErrorResponse::unknown_path(*suggestion),
            Self::MethodNotAllowed => ErrorResponse::method_not_allowed(),
            Self::Internal => ErrorResponse::internal(),
        }
    }

    /// The response with route kind and backend class, and the cause for the log.
    fn error_response_for(
        &self,
        route_kind: Option<&str>,
        class: Option<&str>,
    ) -> (ErrorResponse, ErrorCause) {
        let mut response = self.error_response();
        let cause = self.cause(response.message());
        for (name, value) in [("route_kind", route_kind), ("backend_class", class)] {
            if let (Some(value), true) = (value, response.body["error"][name].is_null()) {
                response = response.with_field(name, value);
            }
        }
        (response, ErrorCause(cause))
    }

    /// The response, with extensions for log and metrics.
    pub(crate) fn to_response(&self, route_kind: Option<&str>, class: Option<&str>) -> Response {
        let (error_response, cause) = self.error_response_for(route_kind, class);
        let rejected = self.is_rejection().then(|| error_response.code()).flatten();
        let mut response = error_response.into_response();
        response.extensions_mut().insert(cause);
        if let Some(code) = rejected {
            response.extensions_mut().insert(Rejected(code));
        }
        response
    }

    /// The failure as the last event of a stream.
    pub(crate) fn to_stream_error(&self, route_kind: &str, class: &str) -> StreamError {
        let (response, cause) = self.error_response_for(Some(route_kind), Some(class));
        let data = json!({"type": "error", "error": response.body["error"]});
        let event = format!("event: error\ndata: {data}\n\n").into();
        StreamError { event, status: response.status.as_u16(), cause }
    }

    /// The failure in the list of jobs.
    pub(crate) fn to_job_error(&self) -> JobError {
        JobError::from_response(&self.error_response())
    }

    /// Status and cause for the log, after the head was sent.
    pub(crate) fn status_and_cause(&self) -> (u16, ErrorCause) {
        let (response, cause) = self.error_response_for(None, None);
        (response.status.as_u16(), cause)
    }

    /// Whether the gateway refused the request. Otherwise a backend was asked, or we failed.
    const fn is_rejection(&self) -> bool {
        match self {
            Self::Guard(_)
            | Self::Address(_)
            | Self::Unauthenticated
            | Self::Body(_)
            | Self::Malformed(_)
            | Self::Denied(_)
            | Self::NotReady(_)
            | Self::Busy(_)
            | Self::StoreNotReady(_)
            | Self::ThumbnailsBusy
            | Self::UnknownModel(_)
            | Self::NotFound
            | Self::UnknownPath(_)
            | Self::MethodNotAllowed => true,
            Self::Backend(..) | Self::Store(_) | Self::Cancelled | Self::Internal => false,
        }
    }

    /// The cause for the log: the message, and what the client must not see.
    fn cause(&self, message: &str) -> String {
        match self {
            Self::Backend(_, BackendError::Broken(detail)) => format!("{message}: {detail}"),
            Self::StoreNotReady(error) | Self::Store(error) => error.to_string(),
            _ => message.to_owned(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.to_response(None, None)
    }
}

#[cfg(test)]
mod tests;
