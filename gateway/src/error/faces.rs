//! The parts of the table that have several rows each: guards, bodies, denials, backends.

use axum::http::StatusCode;
use serde_json::Value;
use service::{body::BodyError, descriptors, guard::Refusal};
use wire::openai::error::Code;

use super::Face;
use crate::{
    admission::Busy,
    backend::{BackendFault, Said},
    policy::catalog::Denial,
    store::StoreFault,
};

pub(super) fn guard(refusal: &Refusal) -> Face {
    match refusal {
        Refusal::BadHost => {
            Face::new(StatusCode::BAD_REQUEST, Code::HostNotAllowed, "The request needs one readable Host")
        }
        Refusal::ForeignHost(host) => Face::new(
            StatusCode::MISDIRECTED_REQUEST,
            Code::HostNotAllowed,
            format!("{:?} is not a name of this gateway; GATEWAY_ALLOWED_HOSTS can make it one", short(host)),
        ),
        Refusal::ForeignOrigin(origin) => Face::new(
            StatusCode::FORBIDDEN,
            Code::CrossOrigin,
            format!(
                "Web pages of {:?} may not use this API; GATEWAY_ALLOWED_ORIGINS can allow it",
                short(origin)
            ),
        ),
    }
}

pub(super) fn body(fault: BodyError) -> Face {
    match fault {
        BodyError::Encoded => Face::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Code::EncodedBody,
            "The request body must not be compressed (Content-Encoding)",
        ),
        BodyError::TooLarge(limit) => Face::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            Code::RequestTooLarge,
            format!("The request body is larger than {limit} bytes (MAX_REQUEST_BYTES)"),
        ),
        BodyError::Busy => Face::new(
            StatusCode::TOO_MANY_REQUESTS,
            Code::BackendOverloaded,
            "The gateway holds too many request bodies at once",
        )
        .after(5),
        BodyError::CallerBusy => Face::new(
            StatusCode::TOO_MANY_REQUESTS,
            Code::BackendOverloaded,
            "Your other requests hold half of what the gateway takes of request bodies at once; send fewer at a time",
        )
        .after(5),
        BodyError::TooSlow => Face::new(
            StatusCode::REQUEST_TIMEOUT,
            Code::RequestTimeout,
            "The request body was not whole within 5 minutes",
        )
        .last(),
        BodyError::Stalled => {
            Face::new(StatusCode::REQUEST_TIMEOUT, Code::RequestTimeout, "The request body stopped arriving")
                .last()
        }
        BodyError::Broken => Face::new(
            StatusCode::BAD_REQUEST,
            Code::InvalidBody,
            "The request body broke off or is badly framed",
        ),
    }
}

pub(super) fn denied(denial: &Denial) -> Face {
    match denial {
        Denial::UnknownBackend { name, known } => Face::new(
            StatusCode::BAD_REQUEST,
            Code::BackendNotFound,
            format!("There is no backend {:?}; there are: {}", short(name), known.join(", ")),
        ),
        Denial::NoPictures { class } => Face::new(
            StatusCode::BAD_REQUEST,
            Code::BackendNotFound,
            format!(
                "Backend {class} is not configured: whoever runs this gateway gives it a base_url in \
                 backends_config.yaml (or IMAGES_HTTP_BASE_URL), or names another class in IMAGES_BACKEND_CLASS"
            ),
        )
        .with("backend_class", class.as_str()),
        Denial::Incapable { class, capability, supported } => Face::new(
            StatusCode::BAD_REQUEST,
            Code::CapabilityNotSupported,
            format!("Backend {class} does not support {capability}"),
        )
        .with("backend_class", class.as_str())
        .with("supported_capabilities", supported.clone()),
        Denial::NobodyAble(capability) => Face::new(
            StatusCode::BAD_REQUEST,
            Code::CapabilityNotSupported,
            format!("No backend supports {capability}"),
        )
        .with("supported_capabilities", Vec::<String>::new()),
        Denial::Base64Off { class } => Face::new(
            StatusCode::BAD_REQUEST,
            Code::InvalidValue,
            format!("Backend {class} hands out addresses only: response_format must be \"url\""),
        )
        .with("param", "response_format"),
        Denial::StreamOff { class } => Face::new(
            StatusCode::BAD_REQUEST,
            Code::InvalidValue,
            format!(
                "Backend {class} hands out addresses only, and streams carry base64: stream must be false"
            ),
        )
        .with("param", "stream"),
    }
}

pub(super) fn busy(busy: &Busy) -> Face {
    let message = match busy {
        Busy::Backend { class, capability } => {
            format!("Backend {class} is at capacity for {capability} requests")
        }
        Busy::Token { name, limit: 1 } => format!("Token {name} is at its limit of 1 request at once"),
        Busy::Token { name, limit } => format!("Token {name} is at its limit of {limit} requests at once"),
    };
    Face::new(StatusCode::TOO_MANY_REQUESTS, Code::BackendOverloaded, message).after(5)
}

pub(super) fn not_ready(class: &str, error: &str, retry_after: Option<u64>) -> Face {
    let message = format!("Backend {class} is not ready to accept requests: {error}");
    Face::new(StatusCode::SERVICE_UNAVAILABLE, Code::BackendNotReady, message)
        .with("backend_class", class)
        .with("health_error", error)
        .after(retry_after.unwrap_or(30))
        .last()
}

pub(super) fn store(fault: &StoreFault) -> Face {
    match fault {
        StoreFault::Full => {
            Face::new(StatusCode::INSUFFICIENT_STORAGE, Code::StorageFull, "The picture store's disk is full")
                .last()
        }
        StoreFault::Scarce { .. } => Face::new(
            StatusCode::INSUFFICIENT_STORAGE,
            Code::StorageFull,
            format!("The picture store has no room: {fault}"),
        )
        .last(),
        StoreFault::NoDescriptor => no_descriptor(),
        StoreFault::Collision(_) | StoreFault::Io(_) => {
            Face::new(StatusCode::INTERNAL_SERVER_ERROR, Code::Internal, "The picture could not be stored")
                .last()
        }
    }
}

/// Nothing was sent to anybody.
fn no_descriptor() -> Face {
    Face::new(
        StatusCode::SERVICE_UNAVAILABLE,
        Code::GatewayOverloaded,
        format!(
            "The gateway has no file descriptor left of its {}: raise its limit (NumberOfFiles under launchd, `ulimit -n` \
             in a shell)",
            descriptors::limit()
        ),
    )
    .after(5)
    .last()
}

pub(super) fn backend(class: &str, fault: &BackendFault) -> Face {
    let failed =
        |status, why: String| Face::new(status, Code::BackendError, format!("Backend {class} {why}"));
    match fault {
        BackendFault::NotConnected(error) => not_ready(class, &error.to_string(), None),
        BackendFault::Unreachable(words) => not_ready(class, words, None),
        BackendFault::SaidNotReady { words, retry_after } => not_ready(class, words, *retry_after),
        BackendFault::NoDescriptor => no_descriptor(),
        BackendFault::TimedOut => Face::new(
            StatusCode::GATEWAY_TIMEOUT,
            Code::BackendTimeout,
            format!("Backend {class} did not answer in time"),
        )
        .last(),
        BackendFault::Broken(_) => {
            failed(StatusCode::BAD_GATEWAY, "broke off the connection".to_owned()).last()
        }
        BackendFault::Unusable(why) => {
            failed(StatusCode::BAD_GATEWAY, format!("sent an unusable answer: {why}")).last()
        }
        BackendFault::Failed(words) => failed(StatusCode::BAD_GATEWAY, format!("failed: {words}")).last(),
        BackendFault::Said(said) => kept(said),
        BackendFault::Status { status, words, retry_after } => {
            let words = words.as_ref().filter(|_| status.is_client_error());
            let why = format!("answered {}", status.as_u16());
            let why = words.map_or(why.clone(), |words| format!("{why}: {words}"));
            match *status {
                StatusCode::TOO_MANY_REQUESTS => {
                    Face::new(*status, Code::BackendOverloaded, format!("Backend {class} {why}"))
                        .after(retry_after.unwrap_or(5))
                }
                // Its quarrel with our token is not the caller's.
                StatusCode::UNAUTHORIZED
                | StatusCode::FORBIDDEN
                | StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                    failed(StatusCode::BAD_GATEWAY, "does not accept the gateway's credential".to_owned())
                        .last()
                }
                StatusCode::SERVICE_UNAVAILABLE => failed(*status, why).last(),
                other if other.is_client_error() => failed(other, why).last(),
                _ => failed(StatusCode::BAD_GATEWAY, why).last(),
            }
        }
    }
}

/// The backend's own words, whole; only what our clients need is added.
fn kept(said: &Said) -> Face {
    let mut body = said.body.clone();
    if body["detail"].is_null() {
        body["detail"] = body["error"]["message"].clone();
    }
    for name in ["param", "code"] {
        if body["error"].get(name).is_none() {
            body["error"][name] = Value::Null;
        }
    }
    // A server error that says nothing about repeating may have cost GPU time.
    let should_retry = said.should_retry.or_else(|| said.status.is_server_error().then_some(false));
    let retry_after =
        said.retry_after.or_else(|| (said.status == StatusCode::TOO_MANY_REQUESTS).then_some(5));
    Face { status: said.status, body, retry_after, should_retry }
}

/// Foreign text for a sentence.
pub(super) fn short(text: &str) -> String {
    text.chars().take(100).collect()
}
