//! The one table from failures to answers. No other file chooses a status, except for `/readyz`.

mod faces;
mod in_stream;

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::Value;
use service::{body::BodyError, client::Doubt, guard::Refusal};
use wire::openai::error::{Code, Envelope};

use crate::{
    admission::Busy, backend::BackendFault, health::NotReady, policy::catalog::Denial,
    request::demand::Malformed, store::StoreFault,
};

/// Every way in which a request fails.
#[derive(Debug)]
pub(crate) enum ApiError {
    /// `Host` or `Origin` is not ours.
    Guard(Refusal),
    /// The caller's address is not on the list.
    AddressNotAllowed,
    /// Nobody can tell whose request this is, and why.
    AddressDoubtful(Doubt),
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
    /// The store would not take the pictures; no backend was asked.
    StoreNotReady(StoreFault),
    /// The pictures could not be kept.
    Store(StoreFault),
    /// No backend that is up lists a model of this name.
    UnknownModel(String),
    /// No such picture.
    NotFound,
    /// No such path; perhaps this route was meant.
    UnknownPath(Option<&'static str>),
    /// The path exists, the method does not.
    WrongMethod,
    /// A fault of ours.
    Internal,
}

/// Why, for the log; in the answer's extensions.
#[derive(Debug, Clone)]
pub(crate) struct Cause(pub(crate) String);

/// The gateway itself refused, before any backend was asked; in the answer's extensions, for the metrics.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rejected(pub(crate) Code);

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

    /// The code, if it is one of ours and not a backend's own.
    fn code(&self) -> Option<Code> {
        Code::ALL.iter().copied().find(|code| self.body["error"]["code"] == code.as_str())
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
            Self::Guard(refusal) => faces::guard(refusal),
            Self::AddressNotAllowed => {
                Face::new(StatusCode::FORBIDDEN, Code::IpNotAllowed, "Your address is not allowed here")
            }
            Self::AddressDoubtful(doubt) => {
                Face::new(StatusCode::FORBIDDEN, Code::IpNotAllowed, doubt.explain("TRUST_PROXY_CIDRS"))
            }
            Self::Unauthenticated => Face::new(
                StatusCode::UNAUTHORIZED,
                Code::InvalidApiKey,
                "A valid token is needed: send `Authorization: Bearer …`",
            ),
            Self::Body(fault) => faces::body(*fault),
            Self::Malformed(Malformed::Field(error)) => {
                let code = if error.param.is_some() { Code::InvalidValue } else { Code::InvalidBody };
                let envelope = Envelope::new(code, &error.message).param(error.param.as_deref());
                Face::of(StatusCode::BAD_REQUEST, envelope)
            }
            Self::Malformed(Malformed::Size(message)) => Face::of(
                StatusCode::BAD_REQUEST,
                Envelope::new(Code::InvalidSize, message).param(Some("size")),
            ),
            Self::Denied(denial) => faces::denied(denial),
            Self::NotReady(NotReady { class, error }) => faces::not_ready(class, error, None),
            Self::Busy(busy) => faces::busy(busy),
            Self::Backend(class, fault) => faces::backend(class, fault),
            Self::StoreNotReady(fault) | Self::Store(fault) => faces::store(fault),
            Self::UnknownModel(id) => Face::of(
                StatusCode::NOT_FOUND,
                Envelope::new(
                    Code::ModelNotFound,
                    format!(
                        "No backend that is up now has a model {:?}; GET /v1/models lists those there are",
                        faces::short(id)
                    ),
                )
                .param(Some("model")),
            ),
            Self::NotFound => {
                Face::new(StatusCode::NOT_FOUND, Code::NotFound, "There is nothing at this path")
            }
            Self::UnknownPath(near) => {
                let hint = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
                Face::new(
                    StatusCode::NOT_FOUND,
                    Code::NotFound,
                    format!("There is nothing at this path{hint}"),
                )
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

    /// The face, naming what the request was and which backend it was for; and the cause, for the log.
    fn face_for(&self, route_kind: Option<&str>, class: Option<&str>) -> (Face, Cause) {
        let mut face = self.face();
        let cause = self.cause(face.body["error"]["message"].as_str().unwrap_or_default());
        for (name, value) in [("route_kind", route_kind), ("backend_class", class)] {
            if let (Some(value), true) = (value, face.body["error"][name].is_null()) {
                face = face.with(name, value);
            }
        }
        (face, Cause(cause))
    }

    /// The answer.
    pub(crate) fn answer(&self, route_kind: Option<&str>, class: Option<&str>) -> Response {
        let (face, cause) = self.face_for(route_kind, class);
        let rejected = self.is_rejection().then(|| face.code()).flatten();
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
        response.extensions_mut().insert(cause);
        if let Some(code) = rejected {
            response.extensions_mut().insert(Rejected(code));
        }
        response
    }

    /// The status that would have told it, and why, for the log: of a failure after the head was sent.
    pub(crate) fn told(&self) -> (u16, Cause) {
        let (face, cause) = self.face_for(None, None);
        (face.status.as_u16(), cause)
    }

    /// Whether the gateway itself refused. Otherwise the backend was asked, or we failed.
    const fn is_rejection(&self) -> bool {
        match self {
            Self::Guard(_)
            | Self::AddressNotAllowed
            | Self::AddressDoubtful(_)
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
            | Self::WrongMethod => true,
            Self::Backend(..) | Self::Store(_) | Self::Internal => false,
        }
    }

    /// What the log says: the caller's message, and what is not for the caller.
    fn cause(&self, message: &str) -> String {
        match self {
            Self::Backend(_, BackendFault::Broken(words)) => format!("{message}: {words}"),
            Self::StoreNotReady(fault) | Self::Store(fault) => fault.to_string(),
            _ => message.to_owned(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.answer(None, None)
    }
}

#[cfg(test)]
mod tests;
