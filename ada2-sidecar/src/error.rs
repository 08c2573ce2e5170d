//! From a domain's failure to the answer: one table. The client gets a stable code and a sentence; causes go to the
//! log.

use std::time::Duration;

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use service::{body::BodyError, client::Doubt, guard::Refusal};
use wire::openai::{
    error::{Code, Envelope},
    fields::FieldError,
};

use crate::{
    app::NotReady, engine::EngineError, images::choice, jobs::JobError, passthrough::PassFault,
    smi::FaultyQuery,
};

/// Everything that can end a request.
#[derive(Debug)]
pub(crate) enum ApiError {
    Guard(Refusal),
    AddressNotAllowed,
    /// Nobody can tell for whom this is, and why.
    AddressDoubtful(Doubt),
    PassThrough(PassFault),
    NoToken,
    Body(BodyError),
    Field(FieldError),
    Model(choice::Refused),
    /// The failing checks in words.
    NotReady(NotReady),
    Busy {
        limit: usize,
    },
    EngineBusy {
        waiting: u64,
    },
    Engine(EngineError),
    TooSlow(Duration),
    /// Perhaps this route was meant.
    NotFound {
        near: Option<&'static str>,
    },
    NoSuchCheck {
        known: String,
    },
    NoSuchPicture,
    /// The card cannot be queried as asked.
    Query(FaultyQuery),
    /// There is no reading of the card to answer with, and why.
    NoReading(String),
    MethodNotAllowed,
    Panic,
}

/// How a failure looks from outside.
struct Face {
    status: StatusCode,
    code: Code,
    message: String,
    param: Option<String>,
    /// Seconds, 1 to 55: larger values make some clients hammer.
    retry_after: Option<u8>,
    /// Whether a repeat at once would be in vain, or would spend GPU time again.
    final_: bool,
}

impl Face {
    fn new(status: u16, code: Code, message: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(status).expect("the table has valid statuses");
        Self { status, code, message: message.into(), param: None, retry_after: None, final_: false }
    }

    fn param(mut self, param: Option<String>) -> Self {
        self.param = param;
        self
    }

    fn retry_after(mut self, seconds: u8) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    fn no_repeat(mut self) -> Self {
        self.final_ = true;
        self
    }
}

impl ApiError {
    fn face(self) -> Face {
        match self {
            Self::Guard(refusal) => guard_face(&refusal),
            Self::AddressNotAllowed => address_face(None),
            Self::AddressDoubtful(doubt) => address_face(Some(doubt)),
            Self::PassThrough(fault) => pass_face(&fault),
            Self::NoToken => Face::new(
                401,
                Code::InvalidApiKey,
                "This server wants its token: send the header Authorization: Bearer TOKEN.",
            ),
            Self::Body(error) => body_face(error),
            Self::Field(FieldError { param, message }) => {
                let code = match param.as_deref() {
                    Some("size") => Code::InvalidSize,
                    Some(_) => Code::InvalidValue,
                    None => Code::InvalidBody,
                };
                Face::new(400, code, message).param(param)
            }
            Self::Model(refused) => model_face(&refused),
            Self::NotReady(NotReady(why)) => {
                Face::new(503, Code::BackendNotReady, format!("Not ready to make pictures: {why}"))
                    .retry_after(30)
                    .no_repeat()
            }
            Self::Busy { limit } => {
                let message = format!("All {limit} slots are taken; try again in a few seconds.");
                Face::new(429, Code::BackendOverloaded, message).retry_after(5)
            }
            Self::EngineBusy { waiting } => {
                let message =
                    format!("{waiting} jobs of others wait in the engine; try again in a few seconds.");
                Face::new(429, Code::BackendOverloaded, message).retry_after(5)
            }
            Self::Engine(error) => engine_face(&error),
            Self::TooSlow(time) => {
                let message =
                    format!("The picture was not finished within {time:?}; the job has been cancelled.");
                Face::new(504, Code::EngineTimeout, message).no_repeat()
            }
            Self::NotFound { near } => {
                let hint = near.map(|near| format!(" Did you mean {near}?")).unwrap_or_default();
                Face::new(404, Code::NotFound, format!("There is nothing at this path.{hint}"))
            }
            Self::NoSuchCheck { known } => {
                Face::new(404, Code::NotFound, format!("There is no such check. Checks: {known}."))
            }
            Self::Query(fault) => query_face(&fault),
            Self::NoReading(why) => Face::new(503, Code::BackendNotReady, why).retry_after(5).no_repeat(),
            Self::NoSuchPicture => Face::new(
                404,
                Code::NotFound,
                "This picture is not here, or no longer; ask for b64_json to get it in the answer.",
            ),
            Self::MethodNotAllowed => Face::new(
                405,
                Code::MethodNotAllowed,
                "This path does not take this method; see the Allow header.",
            ),
            Self::Panic => Face::new(
                500,
                Code::Internal,
                "A fault of ours ended this request; the log has the cause under this request id.",
            )
            .no_repeat(),
        }
    }
}

fn query_face(fault: &FaultyQuery) -> Face {
    let param = match fault {
        FaultyQuery::Field(_) => "query",
        FaultyQuery::Format(_) => "format",
    };
    Face::new(400, Code::InvalidValue, fault.to_string()).param(Some(param.to_owned()))
}

fn address_face(doubt: Option<Doubt>) -> Face {
    let not_allowed = || "Your address may not use the engine here; --allow-from says who may.".to_owned();
    let message = doubt.map_or_else(not_allowed, |doubt| doubt.explain("--trusted-proxies"));
    Face::new(403, Code::IpNotAllowed, message)
}

/// What is not there is 404; what is there and cannot be used as asked is the request's fault.
fn model_face(refused: &choice::Refused) -> Face {
    let (status, code) =
        if refused.is_missing() { (404, Code::ModelNotFound) } else { (400, Code::InvalidValue) };
    Face::new(status, code, refused.to_string()).param(Some("model".to_owned()))
}

fn guard_face(refusal: &Refusal) -> Face {
    match refusal {
        Refusal::BadHost => Face::new(
            400,
            Code::HostNotAllowed,
            "The request needs exactly one Host header that names this server.",
        ),
        Refusal::ForeignHost(host) => Face::new(
            421,
            Code::HostNotAllowed,
            format!(
                "This server does not answer to the name {host:?}; if it is ours, add it to allowed_hosts (--allowed-hosts)."
            ),
        ),
        Refusal::ForeignOrigin(origin) => Face::new(
            403,
            Code::CrossOrigin,
            format!(
                "A page from {origin:?} may not use this server; if it is yours, add it to allowed_origins (--allowed-origins)."
            ),
        ),
    }
}

fn body_face(error: BodyError) -> Face {
    match error {
        BodyError::Encoded => Face::new(415, Code::EncodedBody, "Send the body without Content-Encoding."),
        BodyError::TooLarge(limit) => Face::new(
            413,
            Code::RequestTooLarge,
            format!("The body has more than {limit} bytes (--max-request-bytes)."),
        ),
        BodyError::Busy => Face::new(
            429,
            Code::BackendOverloaded,
            "Too many large requests at once; try again in a few seconds.",
        )
        .retry_after(5),
        BodyError::CallerBusy => Face::new(
            429,
            Code::BackendOverloaded,
            "Your other requests hold half of what is taken of bodies at once; send fewer at a time.",
        )
        .retry_after(5),
        BodyError::TooSlow => {
            Face::new(408, Code::RequestTimeout, "The body was not whole within 5 minutes.").no_repeat()
        }
        BodyError::Stalled => Face::new(408, Code::RequestTimeout, "The body stopped arriving.").no_repeat(),
        BodyError::Broken => Face::new(400, Code::InvalidBody, "The body could not be read to its end."),
    }
}

fn pass_face(fault: &PassFault) -> Face {
    let (status, code) = match fault {
        PassFault::Down(_) => (503, Code::EngineUnavailable),
        PassFault::Broken(_) => (502, Code::EngineUnavailable),
        PassFault::Unasked | PassFault::Framing(_) => (502, Code::EngineError),
        PassFault::TooSlow => (504, Code::EngineTimeout),
        PassFault::TooLarge(_) => (413, Code::RequestTooLarge),
        PassFault::Stalled => (408, Code::RequestTimeout),
        PassFault::BrokenOff => (400, Code::InvalidBody),
    };
    let face = Face::new(status, code, fault.to_string()).no_repeat();
    if status == 503 { face.retry_after(5) } else { face }
}

fn engine_face(error: &EngineError) -> Face {
    // The words may be a sentence of the engine's.
    let words = error.to_string();
    let said = |what: &str| format!("{what}: {}.", words.trim_end_matches('.'));
    match error {
        EngineError::Refused(_)
        | EngineError::NoAnswer(_)
        | EngineError::Unresolved(_)
        | EngineError::LoginRequired(_)
        | EngineError::Strange(_) => {
            Face::new(503, Code::EngineUnavailable, said("The engine is not available"))
                .retry_after(30)
                .no_repeat()
        }
        EngineError::Failed(_) | EngineError::Interrupted(_) => {
            Face::new(502, Code::EngineError, said("The engine could not make the picture")).no_repeat()
        }
        EngineError::OutOfMemory(_) => {
            let what = "The GPU's memory did not suffice, and the engine has been asked to free its caches; try a smaller size";
            Face::new(503, Code::GpuOutOfMemory, said(what)).retry_after(10).no_repeat()
        }
        EngineError::QueueFull => {
            Face::new(429, Code::BackendOverloaded, said("Try again in a few seconds")).retry_after(5)
        }
        EngineError::Cancelled => Face::new(503, Code::EngineUnavailable, said("The service is stopping"))
            .retry_after(30)
            .no_repeat(),
    }
}

impl ApiError {
    /// What the client is told, where no status can be sent any more.
    pub(crate) fn envelope(self) -> Envelope {
        let Face { code, message, param, .. } = self.face();
        Envelope::new(code, message).param(param.as_deref())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let ambiguous = matches!(self, Self::Guard(Refusal::BadHost));
        let Face { status, code, message, param, retry_after, final_ } = self.face();
        let envelope = Envelope::new(code, message).param(param.as_deref());
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

from!(Refusal => Guard, BodyError => Body, FieldError => Field, choice::Refused => Model, NotReady => NotReady, EngineError => Engine, FaultyQuery => Query);

#[cfg(test)]
mod tests;
