//! From a domain's failure to the answer: one table. The client gets a stable code and a sentence; causes go to the
//! log.

use std::time::Duration;

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use service::{body::BodyError, client_info::ForwardingError, guard::GuardError};
use wire::openai::{
    error::{Code, ErrorEnvelope},
    fields::FieldError,
};

use crate::{
    app::NotReady, engine::EngineError, images::choice, jobs::JobError, passthrough::PassThroughError,
    smi::SmiQueryError,
};

/// Everything that can end a request.
#[derive(Debug)]
pub(crate) enum ApiError {
    Guard(GuardError),
    AddressNotAllowed,
    /// Nobody can tell for whom this is, and why.
    ClientAddressUnknown(ForwardingError),
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

/// How a failure looks from outside.
struct ErrorResponse {
    status: StatusCode,
    code: Code,
    message: String,
    param: Option<String>,
    /// Seconds, 1 to 55: larger values make some clients hammer.
    retry_after: Option<u8>,
    /// Whether a repeat at once would be in vain, or would spend GPU time again.
    no_retry: bool,
}

impl ErrorResponse {
    fn new(status: u16, code: Code, message: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(status).expect("the table has valid statuses");
        Self { status, code, message: message.into(), param: None, retry_after: None, no_retry: false }
    }

    fn param(mut self, param: Option<String>) -> Self {
        self.param = param;
        self
    }

    fn retry_after(mut self, seconds: u8) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    fn no_retry(mut self) -> Self {
        self.no_retry = true;
        self
    }
}

impl ApiError {
    fn error_response(self) -> ErrorResponse {
        match self {
            Self::Guard(refusal) => guard_response(&refusal),
            Self::AddressNotAllowed => address_response(None),
            Self::ClientAddressUnknown(doubt) => address_response(Some(doubt)),
            Self::PassThrough(fault) => passthrough_response(&fault),
            Self::InvalidToken => ErrorResponse::new(
                401,
                Code::InvalidApiKey,
                "This server wants its token: send the header Authorization: Bearer TOKEN.",
            ),
            Self::Body(error) => body_response(error),
            Self::Field(FieldError { param, message }) => {
                let code = match param.as_deref() {
                    Some("size") => Code::InvalidSize,
                    Some(_) => Code::InvalidValue,
                    None => Code::InvalidBody,
                };
                ErrorResponse::new(400, code, message).param(param)
            }
            Self::Model(refused) => model_response(&refused),
            Self::NotReady(NotReady(why)) => {
                ErrorResponse::new(503, Code::BackendNotReady, format!("Not ready to make pictures: {why}"))
                    .retry_after(30)
                    .no_retry()
            }
            Self::Busy { limit } => {
                let message = format!("All {limit} slots are taken; try again in a few seconds.");
                ErrorResponse::new(429, Code::BackendOverloaded, message).retry_after(5)
            }
            Self::EngineBusy { waiting } => {
                let message =
                    format!("{waiting} jobs of others wait in the engine; try again in a few seconds.");
                ErrorResponse::new(429, Code::BackendOverloaded, message).retry_after(5)
            }
            Self::Engine(error) => engine_response(&error),
            Self::Timeout(timeout) => {
                let message =
                    format!("The picture was not finished within {timeout:?}; the job has been cancelled.");
                ErrorResponse::new(504, Code::EngineTimeout, message).no_retry()
            }
            Self::NotFound { suggestion: near } => {
                let hint = near.map(|near| format!(" Did you mean {near}?")).unwrap_or_default();
                ErrorResponse::new(404, Code::NotFound, format!("There is nothing at this path.{hint}"))
            }
            Self::CheckNotFound { known_checks: known } => {
                ErrorResponse::new(404, Code::NotFound, format!("There is no such check. Checks: {known}."))
            }
            Self::Query(fault) => query_response(&fault),
            Self::NoGpuReading(why) => {
                ErrorResponse::new(503, Code::BackendNotReady, why).retry_after(5).no_retry()
            }
            Self::ImageNotFound => ErrorResponse::new(
                404,
                Code::NotFound,
                "This picture is not here, or no longer; ask for b64_json to get it in the answer.",
            ),
            Self::MethodNotAllowed => ErrorResponse::new(
                405,
                Code::MethodNotAllowed,
                "This path does not take this method; see the Allow header.",
            ),
            Self::Panic => ErrorResponse::new(
                500,
                Code::Internal,
                "A fault of ours ended this request; the log has the cause under this request id.",
            )
            .no_retry(),
        }
    }
}

fn query_response(fault: &SmiQueryError) -> ErrorResponse {
    let param = match fault {
        SmiQueryError::Field(_) => "query",
        SmiQueryError::Format(_) => "format",
    };
    ErrorResponse::new(400, Code::InvalidValue, fault.to_string()).param(Some(param.to_owned()))
}

fn address_response(doubt: Option<ForwardingError>) -> ErrorResponse {
    let not_allowed = || "Your address may not use the engine here; --allow-from says who may.".to_owned();
    let message = doubt.map_or_else(not_allowed, |doubt| doubt.message("--trusted-proxies"));
    ErrorResponse::new(403, Code::IpNotAllowed, message)
}

/// What is not there is 404; what is there and cannot be used as asked is the request's fault.
fn model_response(refused: &choice::ModelChoiceError) -> ErrorResponse {
    let (status, code) =
        if refused.is_not_found() { (404, Code::ModelNotFound) } else { (400, Code::InvalidValue) };
    ErrorResponse::new(status, code, refused.to_string()).param(Some("model".to_owned()))
}

fn guard_response(refusal: &GuardError) -> ErrorResponse {
    match refusal {
        GuardError::InvalidHost => ErrorResponse::new(
            400,
            Code::HostNotAllowed,
            "The request needs exactly one Host header that names this server.",
        ),
        GuardError::HostNotAllowed(host) => ErrorResponse::new(
            421,
            Code::HostNotAllowed,
            format!(
                "This server does not answer to the name {host:?}; if it is ours, add it to allowed_hosts (--allowed-hosts)."
            ),
        ),
        GuardError::OriginNotAllowed(origin) => ErrorResponse::new(
            403,
            Code::CrossOrigin,
            format!(
                "A page from {origin:?} may not use this server; if it is yours, add it to allowed_origins (--allowed-origins)."
            ),
        ),
    }
}

fn body_response(error: BodyError) -> ErrorResponse {
    match error {
        BodyError::Encoded => {
            ErrorResponse::new(415, Code::EncodedBody, "Send the body without Content-Encoding.")
        }
        BodyError::TooLarge(limit) => ErrorResponse::new(
            413,
            Code::RequestTooLarge,
            format!("The body has more than {limit} bytes (--max-request-bytes)."),
        ),
        BodyError::BudgetExhausted => ErrorResponse::new(
            429,
            Code::BackendOverloaded,
            "Too many large requests at once; try again in a few seconds.",
        )
        .retry_after(5),
        BodyError::CallerBudgetExhausted => ErrorResponse::new(
            429,
            Code::BackendOverloaded,
            "Your other requests hold half of what is taken of bodies at once; send fewer at a time.",
        )
        .retry_after(5),
        BodyError::TooSlow => {
            ErrorResponse::new(408, Code::RequestTimeout, "The body was not whole within 5 minutes.")
                .no_retry()
        }
        BodyError::Stalled => {
            ErrorResponse::new(408, Code::RequestTimeout, "The body stopped arriving.").no_retry()
        }
        BodyError::ReadFailed => {
            ErrorResponse::new(400, Code::InvalidBody, "The body could not be read to its end.")
        }
    }
}

fn passthrough_response(fault: &PassThroughError) -> ErrorResponse {
    let (status, code) = match fault {
        PassThroughError::Unreachable(_) => (503, Code::EngineUnavailable),
        PassThroughError::ConnectionBroken(_) => (502, Code::EngineUnavailable),
        PassThroughError::UnexpectedUpgrade | PassThroughError::Framing(_) => (502, Code::EngineError),
        PassThroughError::ResponseTimeout => (504, Code::EngineTimeout),
        PassThroughError::UploadTooLarge(_) => (413, Code::RequestTooLarge),
        PassThroughError::UploadStalled => (408, Code::RequestTimeout),
        PassThroughError::UploadAborted => (400, Code::InvalidBody),
    };
    let face = ErrorResponse::new(status, code, fault.to_string()).no_retry();
    if status == 503 { face.retry_after(5) } else { face }
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
        | EngineError::UnexpectedResponse(_) => {
            ErrorResponse::new(503, Code::EngineUnavailable, with_cause("The engine is not available"))
                .retry_after(30)
                .no_retry()
        }
        EngineError::Failed(_) | EngineError::Interrupted(_) => {
            ErrorResponse::new(502, Code::EngineError, with_cause("The engine could not make the picture"))
                .no_retry()
        }
        EngineError::OutOfMemory(_) => {
            let what = "The GPU's memory did not suffice, and the engine has been asked to free its caches; try a smaller size";
            ErrorResponse::new(503, Code::GpuOutOfMemory, with_cause(what)).retry_after(10).no_retry()
        }
        EngineError::QueueFull => {
            ErrorResponse::new(429, Code::BackendOverloaded, with_cause("Try again in a few seconds"))
                .retry_after(5)
        }
        EngineError::Cancelled => {
            ErrorResponse::new(503, Code::EngineUnavailable, with_cause("The service is stopping"))
                .retry_after(30)
                .no_retry()
        }
    }
}

impl ApiError {
    /// What the client is told, where no status can be sent any more.
    pub(crate) fn envelope(self) -> ErrorEnvelope {
        let ErrorResponse { code, message, param, .. } = self.error_response();
        ErrorEnvelope::new(code, message).with_param(param.as_deref())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let ambiguous = matches!(self, Self::Guard(GuardError::InvalidHost));
        let ErrorResponse { status, code, message, param, retry_after, no_retry: final_ } =
            self.error_response();
        let envelope = ErrorEnvelope::new(code, message).with_param(param.as_deref());
        let mut response = (status, Json(envelope)).into_response();
        let headers = response.headers_mut();
        if ambiguous {
            // Whoever sends such a head may mean the bytes behind it as something else, too.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(u16::from(seconds)));
        }
        if final_ {
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
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

from!(GuardError => Guard, BodyError => Body, FieldError => Field, choice::ModelChoiceError => Model, NotReady => NotReady, EngineError => Engine, SmiQueryError => Query);

#[cfg(test)]
mod tests;
