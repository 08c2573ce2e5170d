//! Maps errors to responses: a stable code and a message for the client. No other file of the sidecar chooses an error
//! status, except for the readiness routes.

use std::time::Duration;

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::Value;
use service::{body::BodyError, client_info::AddressError, error_response::ErrorResponse, guard::GuardError};
use wire::openai::{error::ErrorCode, fields::FieldError};

use crate::{
    app::NotReady, engine::EngineError, images::choice, jobs::JobError, passthrough::PassThroughError,
    smi::SmiQueryError,
};

/// Everything that can end a request.
#[derive(Debug)]
pub(crate) enum ApiError {
    Guard(GuardError),
    Address(AddressError),
    PassThrough(PassThroughError),
    Unauthenticated,
    Body(BodyError),
    Field(FieldError),
    Model(choice::ModelChoiceError),
    NotReady(NotReady),
    /// All slots are taken.
    Busy {
        limit: usize,
    },
    /// Other clients' jobs wait in the engine.
    EngineBusy {
        waiting: u64,
    },
    Engine(EngineError),
    Timeout(Duration),
    /// The upload took all the time that the request has; there is no job yet.
    UploadTimeout(Duration),
    /// No such path, perhaps with a suggestion.
    UnknownPath(Option<&'static str>),
    CheckNotFound {
        known_checks: String,
    },
    ImageNotFound,
    /// An invalid query of the card.
    Query(SmiQueryError),
    /// Why there is no reading of the card.
    NoGpuReading(String),
    MethodNotAllowed,
    /// A panic.
    Internal,
}

impl ApiError {
    fn error_response(self) -> ErrorResponse {
        match self {
            Self::Guard(error) => ErrorResponse::guard(
                &error,
                "allowed_hosts (--allowed-hosts)",
                "allowed_origins (--allowed-origins)",
            ),
            Self::Address(error) => {
                ErrorResponse::address(error, "allow_from (--allow-from)", "--trusted-proxies")
            }
            Self::PassThrough(error) => passthrough_response(&error),
            Self::Unauthenticated => ErrorResponse::unauthenticated(),
            Self::Body(error) => ErrorResponse::body(error, "--max-request-bytes"),
            Self::Field(error) => field_response(error),
            Self::Model(error) => model_response(&error),
            Self::NotReady(NotReady(why)) => ErrorResponse::new(
                StatusCode::SERVICE_UNAVAILABLE,
                ErrorCode::BackendNotReady,
                format!("Not ready to generate images: {why}"),
            )
            .with_retry_after(30)
            .no_retry(),
            Self::Busy { limit } => busy_response(limit),
            Self::EngineBusy { waiting } => overloaded_response(format!(
                "The engine's queue holds {waiting} other jobs; try again in a few seconds."
            )),
            Self::Engine(error) => engine_response(&error),
            Self::Timeout(timeout) => {
                let message =
                    format!("The image was not finished within {timeout:?}; the job has been cancelled.");
                ErrorResponse::new(StatusCode::GATEWAY_TIMEOUT, ErrorCode::EngineTimeout, message).no_retry()
            }
            Self::UploadTimeout(timeout) => {
                let message = format!("The upload was not finished within {timeout:?}.");
                ErrorResponse::new(StatusCode::GATEWAY_TIMEOUT, ErrorCode::EngineTimeout, message).no_retry()
            }
            Self::UnknownPath(suggestion) => ErrorResponse::unknown_path(suggestion),
            Self::CheckNotFound { known_checks } => ErrorResponse::new(
                StatusCode::NOT_FOUND,
                ErrorCode::NotFound,
                format!("There is no such check. Checks: {known_checks}."),
            ),
            Self::Query(error) => query_response(&error),
            Self::NoGpuReading(why) => {
                ErrorResponse::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::BackendNotReady, why)
                    .with_retry_after(5)
                    .no_retry()
            }
            Self::ImageNotFound => ErrorResponse::new(
                StatusCode::NOT_FOUND,
                ErrorCode::NotFound,
                "This image does not exist or has expired; request b64_json to get images in the response.",
            ),
            Self::MethodNotAllowed => ErrorResponse::method_not_allowed(),
            Self::Internal => ErrorResponse::internal(),
        }
    }
}

fn field_response(FieldError { param, message }: FieldError) -> ErrorResponse {
    let code = match param.as_deref() {
        Some("size") => ErrorCode::InvalidSize,
        Some(_) => ErrorCode::InvalidValue,
        None => ErrorCode::InvalidBody,
    };
    ErrorResponse::new(StatusCode::BAD_REQUEST, code, message).with_param(param.as_deref())
}

fn busy_response(limit: usize) -> ErrorResponse {
    let taken = match limit {
        1 => "The only slot is".to_owned(),
        _ => format!("All {limit} slots are"),
    };
    overloaded_response(format!("{taken} taken; try again in a few seconds."))
}

fn overloaded_response(message: String) -> ErrorResponse {
    ErrorResponse::new(StatusCode::TOO_MANY_REQUESTS, ErrorCode::BackendOverloaded, message)
        .with_retry_after(5)
}

fn query_response(error: &SmiQueryError) -> ErrorResponse {
    let param = match error {
        SmiQueryError::Field(_) => "query",
        SmiQueryError::Format(_) => "format",
    };
    ErrorResponse::new(StatusCode::BAD_REQUEST, ErrorCode::InvalidValue, error.to_string())
        .with_param(Some(param))
}

/// An unknown model is 404; a known one that cannot be used for the request is 400.
fn model_response(error: &choice::ModelChoiceError) -> ErrorResponse {
    let (status, code) = if error.is_not_found() {
        (StatusCode::NOT_FOUND, ErrorCode::ModelNotFound)
    } else {
        (StatusCode::BAD_REQUEST, ErrorCode::InvalidValue)
    };
    ErrorResponse::new(status, code, error.to_string()).with_param(Some("model"))
}

fn passthrough_response(error: &PassThroughError) -> ErrorResponse {
    let (status, code) = match error {
        PassThroughError::Unreachable(_) => (StatusCode::SERVICE_UNAVAILABLE, ErrorCode::EngineUnavailable),
        PassThroughError::ConnectionBroken(_) => (StatusCode::BAD_GATEWAY, ErrorCode::EngineUnavailable),
        PassThroughError::UnexpectedUpgrade | PassThroughError::Framing(_) => {
            (StatusCode::BAD_GATEWAY, ErrorCode::EngineError)
        }
        PassThroughError::ResponseTimeout => (StatusCode::GATEWAY_TIMEOUT, ErrorCode::EngineTimeout),
        PassThroughError::UploadTooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::RequestTooLarge),
        PassThroughError::UploadStalled => (StatusCode::REQUEST_TIMEOUT, ErrorCode::RequestTimeout),
        PassThroughError::UploadAborted => (StatusCode::BAD_REQUEST, ErrorCode::InvalidBody),
    };
    let response = ErrorResponse::new(status, code, error.to_string()).no_retry();
    if status == StatusCode::SERVICE_UNAVAILABLE { response.with_retry_after(5) } else { response }
}

fn engine_response(error: &EngineError) -> ErrorResponse {
    // The engine's own message may be a sentence.
    let message = error.to_string();
    let with_cause = |summary: &str| format!("{summary}: {}.", message.trim_end_matches('.'));
    match error {
        EngineError::ConnectionRefused(_)
        | EngineError::Unresponsive(_)
        | EngineError::HostUnresolved(_)
        | EngineError::LoginRequired(_)
        | EngineError::UnexpectedResponse(_) => ErrorResponse::new(
            StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::EngineUnavailable,
            with_cause("The engine is not available"),
        )
        .with_retry_after(30)
        .no_retry(),
        EngineError::Failed(_) | EngineError::Interrupted(_) => ErrorResponse::new(
            StatusCode::BAD_GATEWAY,
            ErrorCode::EngineError,
            with_cause("The engine could not make the image"),
        )
        .no_retry(),
        EngineError::OutOfMemory(_) => {
            let summary =
                "The GPU ran out of memory, and the engine was asked to free its caches; try a smaller size";
            ErrorResponse::new(
                StatusCode::SERVICE_UNAVAILABLE,
                ErrorCode::GpuOutOfMemory,
                with_cause(summary),
            )
            .with_retry_after(10)
            .no_retry()
        }
        EngineError::QueueFull => ErrorResponse::new(
            StatusCode::TOO_MANY_REQUESTS,
            ErrorCode::BackendOverloaded,
            with_cause("Try again in a few seconds"),
        )
        .with_retry_after(5),
        EngineError::Cancelled => ErrorResponse::new(
            StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::EngineUnavailable,
            with_cause("The service is stopping"),
        )
        .with_retry_after(30)
        .no_retry(),
    }
}

impl ApiError {
    /// The inner object, for a stream whose status was sent before.
    pub(crate) fn error_object(self) -> Value {
        self.error_response().body["error"].take()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.error_response().into_response()
    }
}

impl From<JobError> for ApiError {
    fn from(error: JobError) -> Self {
        match error {
            JobError::Input(error) => Self::Field(error),
            JobError::Engine(error) => Self::Engine(error),
            JobError::Panic => Self::Internal,
        }
    }
}

macro_rules! from {
    ($($domain:ty => $variant:ident),* $(,)?) => {
        $(impl From<$domain> for ApiError {
            fn from(error: $domain) -> Self {
                Self::$variant(error)
            }
        })*
    };
}

from!(GuardError => Guard, AddressError => Address, BodyError => Body, FieldError => Field, choice::ModelChoiceError => Model, NotReady => NotReady, EngineError => Engine, SmiQueryError => Query);

#[cfg(test)]
mod tests;
