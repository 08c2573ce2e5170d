//! The responses to routing, admission, store and backend errors.

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

pub(super) fn denied(error: &RoutingError) -> ErrorResponse {
    match error {
        RoutingError::UnknownBackend { name, configured } => ErrorResponse::new(
            StatusCode::BAD_REQUEST,
            ErrorCode::BackendNotFound,
            format!("There is no backend {:?}; there are: {}", ellipsize(name, MAX_QUOTED_CHARS), configured.join(", ")),
        ),
        RoutingError::NoImageBackend { class } => ErrorResponse::new(
            StatusCode::BAD_REQUEST,
            ErrorCode::BackendNotFound,
            format!(
                "Backend {class} is not configured: the gateway's operator sets its base_url in backends_config.yaml (or \
                 IMAGES_HTTP_BASE_URL), or another class in IMAGES_BACKEND_CLASS"
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
            format!("Backend {class} returns URLs only: response_format must be \"url\""),
        )
        .with_field("param", "response_format"),
        RoutingError::StreamingDisabled { class } => ErrorResponse::new(
            StatusCode::BAD_REQUEST,
            ErrorCode::InvalidValue,
            format!(
                "Backend {class} returns URLs only, and streams carry base64: stream must be false"
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
        Busy::Streams { token: Some(name), limit } => {
            format!(
                "Token {name} has {limit} event streams open, and may have no more; close a page that shows them"
            )
        }
        Busy::Streams { token: None, limit } => {
            format!("{limit} event streams are open, and there may be no more; close a page that shows them")
        }
    };
    let code = match busy {
        Busy::Streams { .. } => ErrorCode::TooManyStreams,
        Busy::Backend { .. } | Busy::Token { .. } => ErrorCode::BackendOverloaded,
    };
    ErrorResponse::new(StatusCode::TOO_MANY_REQUESTS, code, message).with_retry_after(5)
}

pub(super) fn not_ready(class: &str, error: &str, retry_after: Option<u64>) -> ErrorResponse {
    let message = format!("Backend {class} is not ready to accept requests: {error}");
    ErrorResponse::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::BackendNotReady, message)
        .with_field("backend_class", class)
        .with_field("health_error", error)
        .with_retry_after(retry_after.unwrap_or(30))
        .no_retry()
}

pub(super) fn store(error: &StoreError) -> ErrorResponse {
    match error {
        StoreError::Full => ErrorResponse::new(
            StatusCode::INSUFFICIENT_STORAGE,
            ErrorCode::StorageFull,
            "The image store's disk is full",
        )
        .no_retry(),
        StoreError::InsufficientSpace { .. } => ErrorResponse::new(
            StatusCode::INSUFFICIENT_STORAGE,
            ErrorCode::StorageFull,
            format!("The image store has no room: {error}"),
        )
        .no_retry(),
        StoreError::TooManyOpenFiles => no_descriptor(),
        StoreError::Io(error) => ErrorResponse::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            ErrorCode::Internal,
            // Only the kind: the whole text may have a path.
            format!(
                "The image could not be stored: {}; check the disk and the permissions of UI_IMAGE_DIR",
                error.kind()
            ),
        )
        .no_retry(),
        StoreError::Collision(_) => ErrorResponse::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            ErrorCode::Internal,
            "The image could not be stored",
        )
        .no_retry(),
    }
}

pub(super) fn thumbnails_busy() -> ErrorResponse {
    ErrorResponse::new(
        StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::GatewayOverloaded,
        "Too many thumbnails are being made: ask again in a second",
    )
    .with_retry_after(1)
    .no_retry()
}

fn no_descriptor() -> ErrorResponse {
    ErrorResponse::new(
        StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::GatewayOverloaded,
        format!(
            "The gateway has used all of its {} file descriptors: raise the limit (NumberOfFiles under launchd, `ulimit -n` \
             in a shell)",
            descriptors::limit()
        ),
    )
    .with_retry_after(5)
    .no_retry()
}

pub(super) fn backend(class: &str, error: &BackendError) -> ErrorResponse {
    let failed = |status, why: String| {
        ErrorResponse::new(status, ErrorCode::BackendError, format!("Backend {class} {why}"))
    };
    match error {
        BackendError::NotConnected(error) => not_ready(class, &error.to_string(), None),
        BackendError::Unreachable(message) => not_ready(class, message, None),
        BackendError::UpstreamNotReady { message, retry_after } => not_ready(class, message, *retry_after),
        BackendError::NoDescriptor => no_descriptor(),
        BackendError::TimedOut => ErrorResponse::new(
            StatusCode::GATEWAY_TIMEOUT,
            ErrorCode::BackendTimeout,
            format!("Backend {class} did not answer in time"),
        )
        .no_retry(),
        BackendError::Broken(_) => {
            failed(StatusCode::BAD_GATEWAY, "closed the connection early".to_owned()).no_retry()
        }
        BackendError::Unusable(why) => {
            failed(StatusCode::BAD_GATEWAY, format!("returned an invalid response: {why}")).no_retry()
        }
        BackendError::Failed(message) => {
            failed(StatusCode::BAD_GATEWAY, format!("failed: {message}")).no_retry()
        }
        BackendError::Upstream(upstream) => from_upstream(upstream),
        BackendError::Status { status, message, retry_after } => {
            let message = message.as_ref().filter(|_| status.is_client_error());
            let why = format!("answered {}", status.as_u16());
            let why = message.map_or(why.clone(), |message| format!("{why}: {message}"));
            match *status {
                StatusCode::TOO_MANY_REQUESTS => ErrorResponse::new(
                    *status,
                    ErrorCode::BackendOverloaded,
                    format!("Backend {class} {why}"),
                )
                .with_retry_after(retry_after.unwrap_or(5)),
                // The client cannot fix our token.
                StatusCode::UNAUTHORIZED
                | StatusCode::FORBIDDEN
                | StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                    failed(StatusCode::BAD_GATEWAY, "rejected the gateway's credential".to_owned()).no_retry()
                }
                StatusCode::SERVICE_UNAVAILABLE => failed(*status, why).no_retry(),
                other if other.is_client_error() => failed(other, why).no_retry(),
                _ => failed(StatusCode::BAD_GATEWAY, why).no_retry(),
            }
        }
    }
}

/// The backend's own envelope, with the fields added that our clients need.
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
    // A server error without `x-should-retry` may have cost GPU time.
    let should_retry = upstream.should_retry.or_else(|| upstream.status.is_server_error().then_some(false));
    let retry_after =
        upstream.retry_after.or_else(|| (upstream.status == StatusCode::TOO_MANY_REQUESTS).then_some(5));
    let mut response = ErrorResponse::from_body(upstream.status, body);
    (response.retry_after, response.should_retry) = (retry_after, should_retry);
    response
}
