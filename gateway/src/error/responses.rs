//! The parts of the table that have several rows each: guards, bodies, denials, backends.

use axum::http::StatusCode;
use serde_json::Value;
use service::{descriptors, error_response::ErrorResponse, text::ellipsize};
use wire::openai::error::ErrorCode;

use super::MAX_QUOTED_CHARS;
use crate::{
    admission::Busy,
    backend::{BackendError, UpstreamError},
    policy::RoutingError,
    store::StoreError,
};

pub(super) fn denied(denial: &RoutingError) -> ErrorResponse {
    match denial {
        RoutingError::UnknownBackend { name, known } => ErrorResponse::new(
            StatusCode::BAD_REQUEST,
            ErrorCode::BackendNotFound,
            format!("There is no backend {:?}; there are: {}", ellipsize(name, MAX_QUOTED_CHARS), known.join(", ")),
        ),
        RoutingError::NoImageBackend { class } => ErrorResponse::new(
            StatusCode::BAD_REQUEST,
            ErrorCode::BackendNotFound,
            format!(
                "Backend {class} is not configured: whoever runs this gateway gives it a base_url in \
                 backends_config.yaml (or IMAGES_HTTP_BASE_URL), or names another class in IMAGES_BACKEND_CLASS"
            ),
        )
        .with_field("backend_class", class.as_str()),
        RoutingError::UnsupportedCapability { class, capability, supported } => ErrorResponse::new(
            StatusCode::BAD_REQUEST,
            ErrorCode::CapabilityNotSupported,
            format!("Backend {class} does not support {capability}"),
        )
        .with_field("backend_class", class.as_str())
        .with_field("supported_capabilities", supported.clone()),
        RoutingError::NoCapableBackend(capability) => ErrorResponse::new(
            StatusCode::BAD_REQUEST,
            ErrorCode::CapabilityNotSupported,
            format!("No backend supports {capability}"),
        )
        .with_field("supported_capabilities", Vec::<String>::new()),
        RoutingError::Base64Disabled { class } => ErrorResponse::new(
            StatusCode::BAD_REQUEST,
            ErrorCode::InvalidValue,
            format!("Backend {class} hands out addresses only: response_format must be \"url\""),
        )
        .with_field("param", "response_format"),
        RoutingError::StreamingDisabled { class } => ErrorResponse::new(
            StatusCode::BAD_REQUEST,
            ErrorCode::InvalidValue,
            format!(
                "Backend {class} hands out addresses only, and streams carry base64: stream must be false"
            ),
        )
        .with_field("param", "stream"),
    }
}

pub(super) fn busy(busy: &Busy) -> ErrorResponse {
    let message = match busy {
        Busy::Backend { class, capability } => {
            format!("Backend {class} is at capacity for {capability} requests")
        }
        Busy::Token { name, limit: 1 } => format!("Token {name} is at its limit of 1 request at once"),
        Busy::Token { name, limit } => format!("Token {name} is at its limit of {limit} requests at once"),
    };
    ErrorResponse::new(StatusCode::TOO_MANY_REQUESTS, ErrorCode::BackendOverloaded, message)
        .with_retry_after(5)
}

pub(super) fn not_ready(class: &str, error: &str, retry_after: Option<u64>) -> ErrorResponse {
    let message = format!("Backend {class} is not ready to accept requests: {error}");
    ErrorResponse::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::BackendNotReady, message)
        .with_field("backend_class", class)
        .with_field("health_error", error)
        .with_retry_after(retry_after.unwrap_or(30))
        .no_retry()
}

pub(super) fn store(fault: &StoreError) -> ErrorResponse {
    match fault {
        StoreError::Full => ErrorResponse::new(
            StatusCode::INSUFFICIENT_STORAGE,
            ErrorCode::StorageFull,
            "The picture store's disk is full",
        )
        .no_retry(),
        StoreError::InsufficientSpace { .. } => ErrorResponse::new(
            StatusCode::INSUFFICIENT_STORAGE,
            ErrorCode::StorageFull,
            format!("The picture store has no room: {fault}"),
        )
        .no_retry(),
        StoreError::TooManyOpenFiles => no_descriptor(),
        StoreError::Collision(_) | StoreError::Io(_) => ErrorResponse::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            ErrorCode::Internal,
            "The picture could not be stored",
        )
        .no_retry(),
    }
}

/// Nothing was sent to anybody.
fn no_descriptor() -> ErrorResponse {
    ErrorResponse::new(
        StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::GatewayOverloaded,
        format!(
            "The gateway has no file descriptor left of its {}: raise its limit (NumberOfFiles under launchd, `ulimit -n` \
             in a shell)",
            descriptors::limit()
        ),
    )
    .with_retry_after(5)
    .no_retry()
}

pub(super) fn backend(class: &str, fault: &BackendError) -> ErrorResponse {
    let failed = |status, why: String| {
        ErrorResponse::new(status, ErrorCode::BackendError, format!("Backend {class} {why}"))
    };
    match fault {
        BackendError::NotConnected(error) => not_ready(class, &error.to_string(), None),
        BackendError::Unreachable(words) => not_ready(class, words, None),
        BackendError::UpstreamNotReady { message: words, retry_after } => {
            not_ready(class, words, *retry_after)
        }
        BackendError::NoDescriptor => no_descriptor(),
        BackendError::TimedOut => ErrorResponse::new(
            StatusCode::GATEWAY_TIMEOUT,
            ErrorCode::BackendTimeout,
            format!("Backend {class} did not answer in time"),
        )
        .no_retry(),
        BackendError::Broken(_) => {
            failed(StatusCode::BAD_GATEWAY, "broke off the connection".to_owned()).no_retry()
        }
        BackendError::Unusable(why) => {
            failed(StatusCode::BAD_GATEWAY, format!("sent an unusable answer: {why}")).no_retry()
        }
        BackendError::Failed(words) => failed(StatusCode::BAD_GATEWAY, format!("failed: {words}")).no_retry(),
        BackendError::Upstream(upstream) => from_upstream(upstream),
        BackendError::Status { status, message: words, retry_after } => {
            let words = words.as_ref().filter(|_| status.is_client_error());
            let why = format!("answered {}", status.as_u16());
            let why = words.map_or(why.clone(), |words| format!("{why}: {words}"));
            match *status {
                StatusCode::TOO_MANY_REQUESTS => ErrorResponse::new(
                    *status,
                    ErrorCode::BackendOverloaded,
                    format!("Backend {class} {why}"),
                )
                .with_retry_after(retry_after.unwrap_or(5)),
                // Its quarrel with our token is not the caller's.
                StatusCode::UNAUTHORIZED
                | StatusCode::FORBIDDEN
                | StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                    failed(StatusCode::BAD_GATEWAY, "does not accept the gateway's credential".to_owned())
                        .no_retry()
                }
                StatusCode::SERVICE_UNAVAILABLE => failed(*status, why).no_retry(),
                other if other.is_client_error() => failed(other, why).no_retry(),
                _ => failed(StatusCode::BAD_GATEWAY, why).no_retry(),
            }
        }
    }
}

/// The backend's own words, whole; only what our clients need is added.
fn from_upstream(upstream: &UpstreamError) -> ErrorResponse {
    let mut body = upstream.body.clone();
    if body["detail"].is_null() {
        body["detail"] = body["error"]["message"].clone();
    }
    for name in ["param", "code"] {
        if body["error"].get(name).is_none() {
            body["error"][name] = Value::Null;
        }
    }
    // A server error that says nothing about repeating may have cost GPU time.
    let should_retry = upstream.should_retry.or_else(|| upstream.status.is_server_error().then_some(false));
    let retry_after =
        upstream.retry_after.or_else(|| (upstream.status == StatusCode::TOO_MANY_REQUESTS).then_some(5));
    let mut response = ErrorResponse::from_body(upstream.status, body);
    (response.retry_after, response.should_retry) = (retry_after, should_retry);
    response
}
