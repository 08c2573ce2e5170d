//! How an exchange with a backend fails, and what that says about the backend's health.

use axum::http::{HeaderMap, StatusCode, header};
use reqwest::Response;
use serde_json::Value;
use service::{
    framing,
    outbound::{io_error_kind, is_out_of_descriptors, read_limited},
    text::one_line,
};
use wire::openai::error::ErrorCode;

use crate::{
    client::connect_error::{ConnectError, dns_error},
    health::{Monitors, state::Evidence},
};

/// Bytes of an error's body.
const MAX_ERROR_BYTES: usize = 64 << 10;
/// Clients wait at most this long; with more they hammer instead.
const MAX_RETRY_AFTER: u64 = 55;
/// Characters of a backend's own message that are passed on.
pub(super) const MAX_MESSAGE_CHARS: usize = 300;

/// Why there are no pictures.
#[derive(Debug)]
pub(crate) enum BackendError {
    /// No connection came about, for certain; nothing was sent.
    NotConnected(ConnectError),
    /// No connection came about for another reason; nothing was sent.
    Unreachable(String),
    /// The gateway itself had no file descriptor left for a connection; nothing was sent.
    NoDescriptor,
    /// Not in time.
    TimedOut,
    /// The connection broke off.
    Broken(String),
    /// It answered 2xx with what cannot be used.
    Unusable(String),
    /// An error event of its own, in these words.
    Failed(String),
    /// It refused in the envelope that we speak.
    Upstream(UpstreamError),
    /// It refused in the envelope, because it is not ready.
    UpstreamNotReady {
        /// Its words.
        message: String,
        /// Seconds.
        retry_after: Option<u64>,
    },
    /// It refused in another way.
    Status {
        /// Its status.
        status: StatusCode,
        /// Its words, where they are one plain sentence.
        message: Option<String>,
        /// Seconds.
        retry_after: Option<u64>,
    },
}

/// The answer, if one can tell where it ends.
pub(crate) fn check_framing(mut answer: Response) -> Result<Response, BackendError> {
    let (version, status) = (answer.version(), answer.status());
    match framing::normalize(version, status, answer.headers_mut()) {
        Ok(_) => Ok(answer),
        Err(fault) => Err(BackendError::Unusable(format!("its answer cannot be read: {fault}"))),
    }
}

/// A backend's own envelope, kept.
#[derive(Debug)]
pub(crate) struct UpstreamError {
    /// Its status.
    pub(crate) status: StatusCode,
    /// The envelope.
    pub(crate) body: Value,
    /// Seconds, if it said so.
    pub(crate) retry_after: Option<u64>,
    /// `x-should-retry`, if it said so.
    pub(crate) should_retry: Option<bool>,
}

impl BackendError {
    /// The fault that the client library met.
    pub(crate) fn from_reqwest(error: &reqwest::Error) -> Self {
        match ConnectError::from_reqwest(error) {
            Some(connect_error) if error.is_connect() => Self::NotConnected(connect_error),
            _ if error.is_connect() && is_out_of_descriptors(error) => Self::NoDescriptor,
            _ if error.is_connect() => {
                Self::Unreachable(dns_error(error).unwrap_or_else(|| source_chain(error)))
            }
            _ if error.is_timeout() => Self::TimedOut,
            _ => Self::Broken(source_chain(error)),
        }
    }

    /// Tells the backend's health what follows from it.
    pub(crate) fn report_failure(&self, health: &Monitors, class: &str) {
        match self.evidence() {
            Some(evidence) => health.report_evidence(class, evidence),
            None if self.needs_probe() => health.probe_soon(class),
            None => {}
        }
    }

    /// What it proves about the backend at once.
    fn evidence(&self) -> Option<Evidence> {
        match self {
            Self::NotConnected(error) => Some((*error).into()),
            Self::UpstreamNotReady { .. }
            | Self::NoDescriptor
            | Self::Unreachable(_)
            | Self::TimedOut
            | Self::Broken(_)
            | Self::Unusable(_)
            | Self::Failed(_)
            | Self::Upstream(_)
            | Self::Status { .. } => None,
        }
    }

    /// Whether the backend should be probed now. What it says of itself to one request is not the last word: behind a load
    /// balancer the next card may be ready.
    pub(super) fn needs_probe(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Broken(_) | Self::UpstreamNotReady { .. })
    }
}

/// In words without the address, which is the operator's business.
fn source_chain(error: &reqwest::Error) -> String {
    use std::io::ErrorKind;
    match io_error_kind(error) {
        Some(ErrorKind::ConnectionReset) => "connection reset".to_owned(),
        Some(ErrorKind::TimedOut) => "no connection in time".to_owned(),
        _ if error.is_connect() && error.is_timeout() => "no connection in time".to_owned(),
        _ => {
            let mut causes = Vec::new();
            let mut source = std::error::Error::source(error);
            while let Some(error) = source {
                causes.push(error.to_string());
                source = error.source();
            }
            causes.join(": ")
        }
    }
}

/// Reads an answer that is no success.
pub(super) async fn read_error_response(answer: Response) -> BackendError {
    let (status, headers) = (answer.status(), answer.headers().clone());
    let body = read_limited(answer, MAX_ERROR_BYTES).await.unwrap_or_default();
    let body = unwrap_detail(serde_json::from_slice(&body).unwrap_or_default());
    let retry_after = retry_after(&headers);
    if !is_envelope(&body) || !(status.is_client_error() || status.is_server_error()) {
        return BackendError::Status { status, message: error_message(&body), retry_after };
    }
    if body["error"]["code"] == ErrorCode::BackendNotReady.as_str() {
        let words = body["error"]["message"].as_str().unwrap_or_default();
        return BackendError::UpstreamNotReady { message: one_line(words, MAX_MESSAGE_CHARS), retry_after };
    }
    let should_retry = headers.get("x-should-retry").map(|value| value == "true");
    BackendError::Upstream(UpstreamError { status, body, retry_after, should_retry })
}

/// FastAPI's servers put what they raise, an envelope too, under `detail`.
fn unwrap_detail(mut body: Value) -> Value {
    if is_envelope(&body["detail"]) { body["detail"].take() } else { body }
}

fn retry_after(headers: &HeaderMap) -> Option<u64> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    (1..=MAX_RETRY_AFTER).contains(&seconds).then_some(seconds)
}

/// `{"error": {"message": "…", "type": "…", …}}`.
fn is_envelope(body: &Value) -> bool {
    let error = &body["error"];
    error["message"].is_string()
        && error["type"].is_string()
        && (error["code"].is_string() || error["code"].is_null())
}

/// The sentence in `{"error": "…"}`, `{"detail": "…"}` or `{"detail": [{"msg": "…"}]}`, as other servers write it.
fn error_message(body: &Value) -> Option<String> {
    let places = [&body["error"], &body["detail"], &body["error"]["message"], &body["detail"][0]["msg"]];
    let text = places.into_iter().find_map(Value::as_str)?;
    Some(one_line(text, MAX_MESSAGE_CHARS)).filter(|text| !text.is_empty() && !text.contains('<'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::connect_error::tests::{client_failing_with, client_that_fails};
    use serde_json::json;
    use service::outbound::{ConnectionPolicy, client_builder};

    #[tokio::test]
    async fn no_way_to_the_backend_is_evidence_at_once_and_in_the_words_of_a_probe() {
        let client = client_failing_with(std::io::ErrorKind::HostUnreachable);
        let fault = BackendError::from_reqwest(&client.get("http://ada2.local/").send().await.unwrap_err());
        assert!(matches!(fault, BackendError::NotConnected(ConnectError::NoLocalRoute)), "{fault:?}");
        let Some(Evidence::NoRoute(message)) = fault.evidence() else { panic!("{fault:?}") };
        assert_eq!(message, ConnectError::NoLocalRoute.to_string());
    }

    #[test]
    fn a_backends_own_not_ready_asks_for_a_probe_and_decides_nothing() {
        let said = BackendError::UpstreamNotReady { message: "paused".into(), retry_after: None };
        assert!(said.evidence().is_none() && said.needs_probe());
    }

    #[tokio::test]
    async fn a_name_without_address_is_named_and_a_missing_descriptor_is_not_the_backends_fault() {
        let client = client_builder(ConnectionPolicy::PerRequest).build().unwrap();
        let fault =
            BackendError::from_reqwest(&client.get("http://ada2.invalid:7860/").send().await.unwrap_err());
        let BackendError::Unreachable(words) = &fault else { panic!("{fault:?}") };
        assert!(words.starts_with("the host name \"ada2.invalid\" cannot be resolved"), "{words}");
        assert!(fault.needs_probe());
        // EMFILE.
        let client = client_that_fails(|| std::io::Error::from_raw_os_error(24));
        let fault = BackendError::from_reqwest(&client.get("http://ada2.local/").send().await.unwrap_err());
        assert!(matches!(fault, BackendError::NoDescriptor), "{fault:?}");
        assert!(fault.evidence().is_none() && !fault.needs_probe());
    }

    #[test]
    fn only_a_whole_envelope_is_one() {
        assert!(is_envelope(&json!({"error": {"message": "m", "type": "t", "param": null, "code": "c"}})));
        for other in [
            json!({"error": "text"}),
            json!({"detail": "text"}),
            json!({"error": {"message": "m"}}),
            json!(1),
        ] {
            assert!(!is_envelope(&other), "{other}");
        }
    }

    #[test]
    fn foreign_words_are_one_plain_sentence_or_none() {
        assert_eq!(
            error_message(&json!({"detail": "Model\u{1b}[31m not loaded"})).as_deref(),
            Some("Model[31m not loaded")
        );
        assert_eq!(error_message(&json!({"error": "x".repeat(999)})).map(|words| words.len()), Some(300));
        for other in [json!({"detail": [1]}), json!({"detail": "<html>"}), json!(null), json!({"error": ""})]
        {
            assert_eq!(error_message(&other), None, "{other}");
        }
    }

    #[test]
    fn fastapis_ways_of_telling_are_read() {
        let envelope = json!({"error": {"message": "queue full", "type": "rate_limit_error", "code": "429"}});
        assert_eq!(unwrap_detail(json!({ "detail": envelope })), envelope);
        for other in [json!({"detail": "no"}), json!({"detail": {"error": "no"}}), envelope, json!(null)] {
            assert_eq!(unwrap_detail(other.clone()), other);
        }
        let validation = json!({"detail": [{"loc": ["body"], "msg": "Field required", "type": "missing"}]});
        assert_eq!(error_message(&validation).as_deref(), Some("Field required"));
    }

    #[test]
    fn a_wait_that_makes_clients_hammer_is_dropped() {
        let after =
            |text: &str| retry_after(&HeaderMap::from_iter([(header::RETRY_AFTER, text.parse().unwrap())]));
        assert_eq!([after("5"), after("55")], [Some(5), Some(55)]);
        assert_eq!([after("0"), after("56"), after("Fri, 01 Jan 2027 00:00:00 GMT")], [None, None, None]);
    }
}
