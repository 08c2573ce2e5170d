//! The error response of both programs: status, envelope and the headers that go with them, and the errors that both
//! answer alike.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::Value;
use wire::openai::error::{ErrorCode, ErrorEnvelope};

use super::{body::BodyError, client_info::AddressError, guard::GuardError};

/// An error as the client sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct ErrorResponse {
    /// The status.
    pub status: StatusCode,
    /// The envelope. A JSON value, because a backend's own may have further fields.
    pub body: Value,
    /// Seconds, 1 to 55: larger values make some clients hammer.
    pub retry_after: Option<u64>,
    /// Whether SDKs may repeat the request by themselves.
    pub should_retry: Option<bool>,
    close_connection: bool,
}

impl ErrorResponse {
    /// A response with this code and message.
    pub fn new(status: StatusCode, code: ErrorCode, message: impl Into<String>) -> Self {
        let body =
            serde_json::to_value(ErrorEnvelope::new(code, message)).expect("an envelope is plain text");
        Self::from_body(status, body)
    }

    /// A response with an envelope that a backend sent.
    pub const fn from_body(status: StatusCode, body: Value) -> Self {
        Self { status, body, retry_after: None, should_retry: None, close_connection: false }
    }

    /// Sets a field of the envelope's inner object.
    #[must_use]
    pub fn with_field(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.body["error"][name] = value.into();
        self
    }

    /// Names the request's field that is wrong.
    #[must_use]
    pub fn with_param(self, param: Option<&str>) -> Self {
        self.with_field("param", param)
    }

    /// Asks the client to wait for so many seconds.
    #[must_use]
    pub const fn with_retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Keeps SDKs from repeating the request: that would be useless, or cost GPU time again.
    #[must_use]
    pub const fn no_retry(mut self) -> Self {
        self.should_retry = Some(false);
        self
    }

    /// The code, if it is one of ours and not a backend's own.
    pub fn code(&self) -> Option<ErrorCode> {
        ErrorCode::ALL.iter().copied().find(|code| self.body["error"]["code"] == code.as_str())
    }

    /// The message.
    pub fn message(&self) -> &str {
        self.body["error"]["message"].as_str().unwrap_or_default()
    }

    /// `hosts` and `origins` name the settings that would allow the request.
    pub fn guard(error: &GuardError, hosts: &str, origins: &str) -> Self {
        match error {
            // Other servers may read the bytes behind an ambiguous head differently, too.
            GuardError::InvalidHost => Self {
                close_connection: true,
                ..Self::new(
                    StatusCode::BAD_REQUEST,
                    ErrorCode::HostNotAllowed,
                    "The request must have exactly one valid Host header.",
                )
            },
            GuardError::HostNotAllowed(host) => Self::new(
                StatusCode::MISDIRECTED_REQUEST,
                ErrorCode::HostNotAllowed,
                format!(
                    "This server does not serve the host name {host:?}. If the name is yours, add it to {hosts}."
                ),
            ),
            GuardError::OriginNotAllowed(origin) => Self::new(
                StatusCode::FORBIDDEN,
                ErrorCode::CrossOrigin,
                format!(
                    "Web pages of {origin:?} may not use this server. If the page is yours, add its origin to {origins}."
                ),
            ),
        }
    }

    /// Other servers may read the request, or the bytes behind it, differently.
    pub fn ambiguous_framing(message: &str) -> Self {
        Self {
            close_connection: true,
            ..Self::new(StatusCode::BAD_REQUEST, ErrorCode::InvalidValue, message)
        }
    }

    /// `ranges` names the setting that lists the allowed addresses, `proxies` the one that lists trusted proxies.
    pub fn address(error: AddressError, ranges: &str, proxies: &str) -> Self {
        let message = match error {
            AddressError::NotAllowed => format!("Your address is not in {ranges}."),
            AddressError::Uncertain(error) => error.message(proxies),
        };
        Self::new(StatusCode::FORBIDDEN, ErrorCode::IpNotAllowed, message)
    }

    /// No valid token.
    pub fn unauthenticated() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            ErrorCode::InvalidApiKey,
            "A valid token is required: send `Authorization: Bearer TOKEN`.",
        )
    }

    /// `limit` names the setting of the largest body.
    pub fn body(error: BodyError, limit: &str) -> Self {
        let timeout =
            |message| Self::new(StatusCode::REQUEST_TIMEOUT, ErrorCode::RequestTimeout, message).no_retry();
        let overloaded = |message| {
            Self::new(StatusCode::TOO_MANY_REQUESTS, ErrorCode::BackendOverloaded, message)
                .with_retry_after(5)
        };
        match error {
            BodyError::Encoded => Self::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                ErrorCode::EncodedBody,
                "The request body must not be compressed (Content-Encoding).",
            ),
            BodyError::TooLarge(bytes) => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                ErrorCode::RequestTooLarge,
                format!("The request body is larger than {bytes} bytes ({limit})."),
            ),
            BodyError::BudgetExhausted => {
                overloaded("Too many request bodies are held in memory; try again in a few seconds.")
            }
            BodyError::CallerBudgetExhausted => overloaded(
                "Your other requests already use half of the memory for request bodies; send fewer at a time.",
            ),
            BodyError::TooSlow => timeout("The request body did not arrive completely within 5 minutes."),
            BodyError::Stalled => timeout("The request body stopped arriving."),
            BodyError::ReadFailed => Self::new(
                StatusCode::BAD_REQUEST,
                ErrorCode::InvalidBody,
                "The request body ended early or is malformed.",
            ),
        }
    }

    /// No such path; perhaps the client meant `suggestion`.
    pub fn unknown_path(suggestion: Option<&str>) -> Self {
        let hint = suggestion.map(|route| format!(" Did you mean {route}?")).unwrap_or_default();
        Self::new(StatusCode::NOT_FOUND, ErrorCode::NotFound, format!("There is nothing at this path.{hint}"))
    }

    /// The path exists, the method does not.
    pub fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            ErrorCode::MethodNotAllowed,
            "This path does not support this method; see the Allow header.",
        )
    }

    /// A fault of ours.
    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            ErrorCode::Internal,
            "Internal error; the log has the cause under this request ID.",
        )
        .no_retry()
    }
}

impl IntoResponse for ErrorResponse {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        let headers = response.headers_mut();
        if self.close_connection {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if let Some(should_retry) = self.should_retry {
            let value = if should_retry { "true" } else { "false" };
            headers.insert("x-should-retry", HeaderValue::from_static(value));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_headers_follow_from_the_error() {
        let header = |error: ErrorResponse, name: &str| {
            error.into_response().headers().get(name).map(|value| value.to_str().unwrap().to_owned())
        };
        let ambiguous = ErrorResponse::guard(&GuardError::InvalidHost, "a", "b");
        assert_eq!(header(ambiguous, "connection").as_deref(), Some("close"));
        assert_eq!(header(ErrorResponse::unauthenticated(), "www-authenticate").as_deref(), Some("Bearer"));
        assert_eq!(header(ErrorResponse::internal(), "x-should-retry").as_deref(), Some("false"));
        let busy = || ErrorResponse::body(BodyError::BudgetExhausted, "limit");
        assert_eq!(header(busy(), "retry-after").as_deref(), Some("5"));
        assert_eq!((header(busy(), "x-should-retry"), header(busy(), "connection")), (None, None));
    }
}
