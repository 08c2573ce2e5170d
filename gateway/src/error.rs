//! The one table from failures to answers. No other file chooses a status, except for `/readyz`.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::Value;
use shared::{
    openai::error::{Code, Envelope},
    service::{body::BodyError, guard::Refusal},
};

use crate::{
    backend::{BackendFault, Said},
    health::NotReady,
    policy::{admission::Busy, catalog::Denial, demand::Malformed},
    store::StoreFault,
};

/// Every way in which a request fails.
#[derive(Debug)]
pub(crate) enum ApiError {
    /// `Host` or `Origin` is not ours.
    Guard(Refusal),
    /// The caller's address is not on the list.
    AddressNotAllowed,
    /// No token, or none of ours.
    Unauthenticated,
    /// The body was not read.
    Body(BodyError),
    /// The body is not what the route reads.
    Malformed(Malformed),
    /// It may not go there.
    Denied(Denial),
    /// The backend is down.
    NotReady(NotReady),
    /// There is no room.
    Busy(Busy),
    /// The backend of this class failed.
    Backend(String, BackendFault),
    /// The pictures could not be kept.
    Store(StoreFault),
    /// No such path, or no such picture.
    NotFound,
    /// The path exists, the method does not.
    WrongMethod,
    /// A fault of ours.
    Internal,
}

/// Why, for the log; in the answer's extensions.
#[derive(Debug, Clone)]
pub(crate) struct Cause(pub(crate) String);

/// What of a failure the caller sees.
#[derive(Debug)]
struct Face {
    status: StatusCode,
    body: Value,
    retry_after: Option<u64>,
    should_retry: Option<bool>,
}

impl Face {
    fn new(status: StatusCode, code: Code, message: impl Into<String>) -> Self {
        Self::of(status, Envelope::new(code, message))
    }

    fn of(status: StatusCode, envelope: Envelope) -> Self {
        let body = serde_json::to_value(envelope).expect("an envelope is plain text");
        Self { status, body, retry_after: None, should_retry: None }
    }

    /// Names a field of the inner object.
    fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.body["error"][name] = value.into();
        self
    }

    fn after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// A repeat would only cost: SDKs make none.
    fn last(mut self) -> Self {
        self.should_retry = Some(false);
        self
    }
}

impl ApiError {
    fn face(&self) -> Face {
        match self {
            Self::Guard(refusal) => guard(refusal),
            Self::AddressNotAllowed => {
                Face::new(StatusCode::FORBIDDEN, Code::IpNotAllowed, "Your address is not allowed here")
            }
            Self::Unauthenticated => Face::new(
                StatusCode::UNAUTHORIZED,
                Code::InvalidApiKey,
                "A valid token is needed: send `Authorization: Bearer …`",
            ),
            Self::Body(fault) => body(*fault),
            Self::Malformed(Malformed::Field(error)) => {
                let code = if error.param.is_some() { Code::InvalidValue } else { Code::InvalidBody };
                let envelope = Envelope::new(code, &error.message).param(error.param.as_deref());
                Face::of(StatusCode::BAD_REQUEST, envelope)
            }
            Self::Malformed(Malformed::Size(message)) => Face::of(
                StatusCode::BAD_REQUEST,
                Envelope::new(Code::InvalidSize, message).param(Some("size")),
            ),
            Self::Denied(denial) => denied(denial),
            Self::NotReady(NotReady { class, error }) => not_ready(class, error, None),
            Self::Busy(Busy { class, capability }) => Face::new(
                StatusCode::TOO_MANY_REQUESTS,
                Code::BackendOverloaded,
                format!("Backend {class} is at capacity for {capability} requests"),
            )
            .after(5),
            Self::Backend(class, fault) => backend(class, fault),
            Self::Store(StoreFault::Full) => Face::new(
                StatusCode::INSUFFICIENT_STORAGE,
                Code::StorageFull,
                "The picture store's disk is full",
            )
            .last(),
            Self::Store(StoreFault::Collision(_) | StoreFault::Io(_)) => Face::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                Code::Internal,
                "The picture could not be stored",
            )
            .last(),
            Self::NotFound => {
                Face::new(StatusCode::NOT_FOUND, Code::NotFound, "There is nothing at this path")
            }
            Self::WrongMethod => Face::new(
                StatusCode::METHOD_NOT_ALLOWED,
                Code::MethodNotAllowed,
                "This path does not take this method; `Allow` names those that it takes",
            ),
            Self::Internal => Face::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                Code::Internal,
                "Internal error; the log has the cause",
            )
            .last(),
        }
    }

    /// The answer, naming what the request was and which backend it was for.
    pub(crate) fn answer(&self, route_kind: Option<&str>, class: Option<&str>) -> Response {
        let mut face = self.face();
        for (name, value) in [("route_kind", route_kind), ("backend_class", class)] {
            if let (Some(value), true) = (value, face.body["error"][name].is_null()) {
                face = face.with(name, value);
            }
        }
        let mut response = (face.status, Json(face.body)).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = face.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if let Some(should_retry) = face.should_retry {
            let value = if should_retry { "true" } else { "false" };
            headers.insert("x-should-retry", HeaderValue::from_static(value));
        }
        if face.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(Cause(format!("{self:?}")));
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.answer(None, None)
    }
}

fn guard(refusal: &Refusal) -> Face {
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
                "Web pages of {:?} may not speak here; GATEWAY_ALLOWED_ORIGINS can allow it",
                short(origin)
            ),
        ),
    }
}

fn body(fault: BodyError) -> Face {
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

fn denied(denial: &Denial) -> Face {
    match denial {
        Denial::UnknownBackend { name, known } => Face::new(
            StatusCode::BAD_REQUEST,
            Code::BackendNotFound,
            format!("There is no backend {:?}; there are: {}", short(name), known.join(", ")),
        ),
        Denial::Incapable { class, capability, supported } => Face::new(
            StatusCode::BAD_REQUEST,
            Code::CapabilityNotSupported,
            format!("Backend {class} does not support {capability}"),
        )
        .with("backend_class", class.as_str())
        .with("supported_capabilities", supported.clone()),
        Denial::Base64Off { class } => Face::new(
            StatusCode::BAD_REQUEST,
            Code::InvalidValue,
            format!("Backend {class} hands out addresses only: response_format must be \"url\""),
        )
        .with("param", "response_format"),
    }
}

fn not_ready(class: &str, error: &str, retry_after: Option<u64>) -> Face {
    let message = format!("Backend {class} is not ready to accept requests: {error}");
    Face::new(StatusCode::SERVICE_UNAVAILABLE, Code::BackendNotReady, message)
        .with("backend_class", class)
        .with("health_error", error)
        .after(retry_after.unwrap_or(30))
        .last()
}

fn backend(class: &str, fault: &BackendFault) -> Face {
    let failed =
        |status, why: String| Face::new(status, Code::BackendError, format!("Backend {class} {why}"));
    match fault {
        BackendFault::Unreachable(words) => not_ready(class, words, None),
        BackendFault::SaidNotReady { words, retry_after } => not_ready(class, words, *retry_after),
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

fn short(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests;
