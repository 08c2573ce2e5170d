//! The one table from failures to answers. No other file chooses a status, except for `/readyz`.

mod responses;
mod stream_error;

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::Value;
use service::{body::BodyError, client_info::ForwardingError, guard::GuardError};
use wire::openai::error::{Code, ErrorEnvelope};

use crate::{
    admission::{Busy, NotReady},
    backend::BackendError,
    policy::RoutingError,
    request::image_request::Malformed,
    store::StoreError,
};

/// Every way in which a request fails.
#[derive(Debug)]
pub(crate) enum ApiError {
    /// `Host` or `Origin` is not ours.
    Guard(GuardError),
    /// The caller's address is not on the list.
    AddressNotAllowed,
    /// Nobody can tell whose request this is, and why.
    AddressUncertain(ForwardingError),
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
pub(crate) struct Rejected(pub(crate) Code);

/// What of a failure the caller sees.
#[derive(Debug)]
struct ErrorResponse {
    status: StatusCode,
    body: Value,
    retry_after: Option<u64>,
    should_retry: Option<bool>,
}

impl ErrorResponse {
    fn new(status: StatusCode, code: Code, message: impl Into<String>) -> Self {
        Self::from_envelope(status, ErrorEnvelope::new(code, message))
    }

    fn from_envelope(status: StatusCode, envelope: ErrorEnvelope) -> Self {
        let body = serde_json::to_value(envelope).expect("an envelope is plain text");
        Self { status, body, retry_after: None, should_retry: None }
    }

    /// Names a field of the inner object.
    fn with_field(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.body["error"][name] = value.into();
        self
    }

    /// The code, if it is one of ours and not a backend's own.
    fn code(&self) -> Option<Code> {
        Code::ALL.iter().copied().find(|code| self.body["error"]["code"] == code.as_str())
    }

    fn with_retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// A repeat would only cost: SDKs make none.
    fn no_retry(mut self) -> Self {
        self.should_retry = Some(false);
        self
    }
}

impl ApiError {
    fn error_response(&self) -> ErrorResponse {
        match self {
            Self::Guard(refusal) => responses::guard(refusal),
            Self::AddressNotAllowed => ErrorResponse::new(
                StatusCode::FORBIDDEN,
                Code::IpNotAllowed,
                "Your address is not allowed here",
            ),
            Self::AddressUncertain(doubt) => ErrorResponse::new(
                StatusCode::FORBIDDEN,
                Code::IpNotAllowed,
                doubt.message("TRUST_PROXY_CIDRS"),
            ),
            Self::Unauthenticated => ErrorResponse::new(
                StatusCode::UNAUTHORIZED,
                Code::InvalidApiKey,
                "A valid token is needed: send `Authorization: Bearer …`",
            ),
            Self::Body(fault) => responses::body(*fault),
            Self::Malformed(Malformed::Field(error)) => {
                let code = if error.param.is_some() { Code::InvalidValue } else { Code::InvalidBody };
                let envelope = ErrorEnvelope::new(code, &error.message).with_param(error.param.as_deref());
                ErrorResponse::from_envelope(StatusCode::BAD_REQUEST, envelope)
            }
            Self::Malformed(Malformed::Size(message)) => ErrorResponse::from_envelope(
                StatusCode::BAD_REQUEST,
                ErrorEnvelope::new(Code::InvalidSize, message).with_param(Some("size")),
            ),
            Self::Denied(denial) => responses::denied(denial),
            Self::NotReady(NotReady { class, error }) => responses::not_ready(class, error, None),
            Self::Busy(busy) => responses::busy(busy),
            Self::Backend(class, fault) => responses::backend(class, fault),
            Self::StoreNotReady(fault) | Self::Store(fault) => responses::store(fault),
            Self::UnknownModel(id) => ErrorResponse::from_envelope(
                StatusCode::NOT_FOUND,
                ErrorEnvelope::new(
                    Code::ModelNotFound,
                    format!(
                        "No backend that is up now has a model {:?}; GET /v1/models lists those there are",
                        responses::truncated(id)
                    ),
                )
                .with_param(Some("model")),
            ),
            Self::NotFound => {
                ErrorResponse::new(StatusCode::NOT_FOUND, Code::NotFound, "There is nothing at this path")
            }
            Self::UnknownPath(near) => {
                let hint = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
                ErrorResponse::new(
                    StatusCode::NOT_FOUND,
                    Code::NotFound,
                    format!("There is nothing at this path{hint}"),
                )
            }
            Self::MethodNotAllowed => ErrorResponse::new(
                StatusCode::METHOD_NOT_ALLOWED,
                Code::MethodNotAllowed,
                "This path does not take this method; `Allow` names those that it takes",
            ),
            Self::Internal => ErrorResponse::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                Code::Internal,
                "Internal error; the log has the cause",
            )
            .no_retry(),
        }
    }

    /// The face, naming what the request was and which backend it was for; and the cause, for the log.
    fn error_response_for(
        &self,
        route_kind: Option<&str>,
        class: Option<&str>,
    ) -> (ErrorResponse, ErrorCause) {
        let mut response = self.error_response();
        let cause = self.cause(response.body["error"]["message"].as_str().unwrap_or_default());
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
        let mut response = (error_response.status, Json(error_response.body)).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = error_response.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if let Some(should_retry) = error_response.should_retry {
            let value = if should_retry { "true" } else { "false" };
            headers.insert("x-should-retry", HeaderValue::from_static(value));
        }
        if error_response.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
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
            | Self::AddressNotAllowed
            | Self::AddressUncertain(_)
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
