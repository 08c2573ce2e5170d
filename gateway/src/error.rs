//! The one table from failures to answers. No other file chooses a status, except for `/readyz`.

mod responses;
mod stream_error;

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use service::{
    body::BodyError, client_info::AddressError, error_response::ErrorResponse, guard::GuardError,
    text::ellipsize,
};
use wire::openai::error::ErrorCode;

use crate::{
    admission::{Busy, NotReady},
    backend::BackendError,
    policy::RoutingError,
    request::image_request::Malformed,
    store::StoreError,
};

/// Characters of foreign text that a message quotes.
const MAX_QUOTED_CHARS: usize = 100;

/// Every way in which a request fails.
#[derive(Debug)]
pub(crate) enum ApiError {
    /// `Host` or `Origin` is not ours.
    Guard(GuardError),
    Address(AddressError),
    /// No token, or none of ours.
    Unauthenticated,
    /// The body was not read.
    Body(BodyError),
    /// The body is not what the route reads.
    Malformed(Malformed),
    /// It may not go there.
    Denied(RoutingError),
    /// The backend is down.
    NotReady(NotReady),
    /// There is no room.
    Busy(Busy),
    /// The backend of this class failed.
    Backend(String, BackendError),
    /// The store would not take the pictures; no backend was asked.
    StoreNotReady(StoreError),
    /// The pictures could not be kept.
    Store(StoreError),
    /// No backend that is up lists a model of this name.
    UnknownModel(String),
    /// No such picture.
    NotFound,
    /// No such path; perhaps this route was meant.
    UnknownPath(Option<&'static str>),
    /// The path exists, the method does not.
    MethodNotAllowed,
    /// A fault of ours.
    Internal,
}

/// Why, for the log; in the answer's extensions.
#[derive(Debug, Clone)]
pub(crate) struct ErrorCause(pub(crate) String);

/// The gateway itself refused, before any backend was asked; in the answer's extensions, for the metrics.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rejected(pub(crate) ErrorCode);

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
            Self::Denied(denial) => responses::denied(denial),
            Self::NotReady(NotReady { class, error }) => responses::not_ready(class, error, None),
            Self::Busy(busy) => responses::busy(busy),
            Self::Backend(class, fault) => responses::backend(class, fault),
            Self::StoreNotReady(fault) | Self::Store(fault) => responses::store(fault),
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

    /// The face, naming what the request was and which backend it was for; and the cause, for the log.
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

    /// The answer.
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

    /// The status that would have told it, and why, for the log: of a failure after the head was sent.
    pub(crate) fn status_and_cause(&self) -> (u16, ErrorCause) {
        let (response, cause) = self.error_response_for(None, None);
        (response.status.as_u16(), cause)
    }

    /// Whether the gateway itself refused. Otherwise the backend was asked, or we failed.
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
            | Self::UnknownModel(_)
            | Self::NotFound
            | Self::UnknownPath(_)
            | Self::MethodNotAllowed => true,
            Self::Backend(..) | Self::Store(_) | Self::Internal => false,
        }
    }

    /// What the log says: the caller's message, and what is not for the caller.
    fn cause(&self, message: &str) -> String {
        match self {
            Self::Backend(_, BackendError::Broken(detail)) => format!("{message}: {detail}"),
            Self::StoreNotReady(fault) | Self::Store(fault) => fault.to_string(),
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
