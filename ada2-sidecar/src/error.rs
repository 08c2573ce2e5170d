//! From a domain's failure to the answer: one table. The client gets a stable code and a sentence; causes go to the
//! log.

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
    InvalidToken,
    Body(BodyError),
    Field(FieldError),
    Model(choice::ModelChoiceError),
    /// The failing checks in words.
    NotReady(NotReady),
    Busy {
        limit: usize,
    },
    EngineBusy {
        waiting: u64,
    },
    Engine(EngineError),
    Timeout(Duration),
    /// Perhaps this route was meant.
    NotFound {
        suggestion: Option<&'static str>,
    },
    CheckNotFound {
        known_checks: String,
    },
    ImageNotFound,
    /// The card cannot be queried as asked.
    Query(SmiQueryError),
    /// There is no reading of the card to answer with, and why.
    NoGpuReading(String),
    MethodNotAllowed,
    Panic,
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
            Self::PassThrough(fault) => passthrough_response(&fault),
            Self::InvalidToken => ErrorResponse::unauthenticated(),
            Self::Body(error) => ErrorResponse::body(error, "--max-request-bytes"),
            Self::Field(FieldError { param, message }) => {
                let code = match param.as_deref() {
                    Some("size") => ErrorCode::InvalidSize,
                    Some(_) => ErrorCode::InvalidValue,
                    None => ErrorCode::InvalidBody,
                };
                ErrorResponse::new(StatusCode::BAD_REQUEST, code, message).with_param(param.as_deref())
            }
            Self::Model(refused) => model_response(&refused),
            Self::NotReady(NotReady(why)) => ErrorResponse::new(
                StatusCode::SERVICE_UNAVAILABLE,
                ErrorCode::BackendNotReady,
                format!("Not ready to make pictures: {why}"),
            )
            .with_retry_after(30)
            .no_retry(),
            Self::Busy { limit } => {
                let message = format!("All {limit} slots are taken; try again in a few seconds.");
                ErrorResponse::new(StatusCode::TOO_MANY_REQUESTS, ErrorCode::BackendOverloaded, message)
                    .with_retry_after(5)
            }
            Self::EngineBusy { waiting } => {
                let message =
                    format!("{waiting} jobs of others wait in the engine; try again in a few seconds.");
                ErrorResponse::new(StatusCode::TOO_MANY_REQUESTS, ErrorCode::BackendOverloaded, message)
                    .with_retry_after(5)
            }
            Self::Engine(error) => engine_response(&error),
            Self::Timeout(timeout) => {
                let message =
                    format!("The picture was not finished within {timeout:?}; the job has been cancelled.");
                ErrorResponse::new(StatusCode::GATEWAY_TIMEOUT, ErrorCode::EngineTimeout, message).no_retry()
            }
            Self::NotFound { suggestion } => ErrorResponse::unknown_path(suggestion),
            Self::CheckNotFound { known_checks: known } => ErrorResponse::new(
                StatusCode::NOT_FOUND,
                ErrorCode::NotFound,
                format!("There is no such check. Checks: {known}."),
            ),
            Self::Query(fault) => query_response(&fault),
            Self::NoGpuReading(why) => {
                ErrorResponse::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::BackendNotReady, why)
                    .with_retry_after(5)
                    .no_retry()
            }
            Self::ImageNotFound => ErrorResponse::new(
                StatusCode::NOT_FOUND,
                ErrorCode::NotFound,
                "This picture is not here, or no longer; ask for b64_json to get it in the answer.",
            ),
            Self::MethodNotAllowed => ErrorResponse::method_not_allowed(),
            Self::Panic => ErrorResponse::internal(),
        }
    }
}

fn query_response(fault: &SmiQueryError) -> ErrorResponse {
    let param = match fault {
        SmiQueryError::Field(_) => "query",
        SmiQueryError::Format(_) => "format",
    };
    ErrorResponse::new(StatusCode::BAD_REQUEST, ErrorCode::InvalidValue, fault.to_string())
        .with_param(Some(param))
}

/// What is not there is 404; what is there and cannot be used as asked is the request's fault.
fn model_response(refused: &choice::ModelChoiceError) -> ErrorResponse {
    let (status, code) = if refused.is_not_found() {
        (StatusCode::NOT_FOUND, ErrorCode::ModelNotFound)
    } else {
        (StatusCode::BAD_REQUEST, ErrorCode::InvalidValue)
    };
    ErrorResponse::new(status, code, refused.to_string()).with_param(Some("model"))
}

fn passthrough_response(fault: &PassThroughError) -> ErrorResponse {
    let (status, code) = match fault {
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
    let response = ErrorResponse::new(status, code, fault.to_string()).no_retry();
    if status == StatusCode::SERVICE_UNAVAILABLE { response.with_retry_after(5) } else { response }
}

fn engine_response(error: &EngineError) -> ErrorResponse {
    // The words may be a sentence of the engine's.
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
            with_cause("The engine could not make the picture"),
        )
        .no_retry(),
        EngineError::OutOfMemory(_) => {
            let what = "The GPU's memory did not suffice, and the engine has been asked to free its caches; try a smaller size";
            ErrorResponse::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::GpuOutOfMemory, with_cause(what))
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
            JobError::Panic => Self::Panic,
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
