//! How an exchange with a backend fails, and what that says about the backend's health.

use axum::http::{HeaderMap, StatusCode, header};
use reqwest::Response;
use serde_json::Value;
use service::{
    framing,
    outbound::{io_kind, ran_out_of_descriptors, read_limited},
    text::one_line,
};
use wire::openai::error::Code;

use crate::{
    client::connect_error::{ConnectError, no_address},
    health::{Monitors, state::Evidence},
};

/// Bytes of an error's body.
const ERROR_LIMIT: usize = 64 << 10;
/// Clients wait at most this long; with more they hammer instead.
const LONGEST_RETRY_AFTER: u64 = 55;
/// Characters of a backend's own message that are passed on.
pub(super) const LONGEST_MESSAGE: usize = 300;

/// Why there are no pictures.
#[derive(Debug)]
pub(crate) enum BackendFault {
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
    Said(Said),
    /// It refused in the envelope, because it is not ready.
    SaidNotReady {
        /// Its words.
        words: String,
        /// Seconds.
        retry_after: Option<u64>,
    },
    /// It refused in another way.
    Status {
        /// Its status.
        status: StatusCode,
        /// Its words, where they are one plain sentence.
        words: Option<String>,
        /// Seconds.
        retry_after: Option<u64>,
    },
}

/// The answer, if one can tell where it ends.
pub(crate) fn framed(mut answer: Response) -> Result<Response, BackendFault> {
    let (version, status) = (answer.version(), answer.status());
    match framing::settle(version, status, answer.headers_mut()) {
        Ok(_) => Ok(answer),
        Err(fault) => Err(BackendFault::Unusable(format!("its answer cannot be read: {fault}"))),
    }
}

/// A backend's own envelope, kept.
#[derive(Debug)]
pub(crate) struct Said {
    /// Its status.
    pub(crate) status: StatusCode,
    /// The envelope.
    pub(crate) body: Value,
    /// Seconds, if it said so.
    pub(crate) retry_after: Option<u64>,
    /// `x-should-retry`, if it said so.
    pub(crate) should_retry: Option<bool>,
}

impl BackendFault {
    /// The fault that the client library met.
    pub(crate) fn of(error: &reqwest::Error) -> Self {
        match ConnectError::of(error) {
            Some(met) if error.is_connect() => Self::NotConnected(met),
            _ if error.is_connect() && ran_out_of_descriptors(error) => Self::NoDescriptor,
            _ if error.is_connect() => Self::Unreachable(no_address(error).unwrap_or_else(|| chain(error))),
            _ if error.is_timeout() => Self::TimedOut,
            _ => Self::Broken(chain(error)),
        }
    }

    /// Tells the backend's health what follows from it.
    pub(crate) fn report(&self, health: &Monitors, class: &str) {
        match self.evidence() {
            Some(evidence) => health.learn(class, evidence),
            None if self.is_suspicious() => health.probe_soon(class),
            None => {}
        }
    }

    /// What it proves about the backend at once.
    fn evidence(&self) -> Option<Evidence> {
        match self {
            Self::NotConnected(error) => Some((*error).into()),
            Self::SaidNotReady { .. }
            | Self::NoDescriptor
            | Self::Unreachable(_)
            | Self::TimedOut
            | Self::Broken(_)
            | Self::Unusable(_)
            | Self::Failed(_)
            | Self::Said(_)
            | Self::Status { .. } => None,
        }
    }

    /// Whether the backend should be probed now. What it says of itself to one request is not the last word: behind a load
    /// balancer the next card may be ready.
    pub(super) fn is_suspicious(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Broken(_) | Self::SaidNotReady { .. })
    }
}

/// In words without the address, which is the operator's business.
fn chain(error: &reqwest::Error) -> String {
    use std::io::ErrorKind;
    match io_kind(error) {
        Some(ErrorKind::ConnectionReset) => "connection reset".to_owned(),
        Some(ErrorKind::TimedOut) => "no connection in time".to_owned(),
        _ if error.is_connect() && error.is_timeout() => "no connection in time".to_owned(),
        _ => {
            let mut words = Vec::new();
            let mut source = std::error::Error::source(error);
            while let Some(error) = source {
                words.push(error.to_string());
                source = error.source();
            }
            words.join(": ")
        }
    }
}

/// Reads an answer that is no success.
pub(super) async fn refusal(answer: Response) -> BackendFault {
    let (status, headers) = (answer.status(), answer.headers().clone());
    let body = read_limited(answer, ERROR_LIMIT).await.unwrap_or_default();
    let body = unwrapped(serde_json::from_slice(&body).unwrap_or_default());
    let retry_after = retry_after(&headers);
    if !is_envelope(&body) || !(status.is_client_error() || status.is_server_error()) {
        return BackendFault::Status { status, words: words(&body), retry_after };
    }
    if body["error"]["code"] == Code::BackendNotReady.as_str() {
        let words = body["error"]["message"].as_str().unwrap_or_default();
        return BackendFault::SaidNotReady { words: one_line(words, LONGEST_MESSAGE), retry_after };
    }
    let should_retry = headers.get("x-should-retry").map(|value| value == "true");
    BackendFault::Said(Said { status, body, retry_after, should_retry })
}

/// FastAPI's servers put what they raise, an envelope too, under `detail`.
fn unwrapped(mut body: Value) -> Value {
    if is_envelope(&body["detail"]) { body["detail"].take() } else { body }
}

fn retry_after(headers: &HeaderMap) -> Option<u64> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    (1..=LONGEST_RETRY_AFTER).contains(&seconds).then_some(seconds)
}

/// `{"error": {"message": "…", "type": "…", …}}`.
fn is_envelope(body: &Value) -> bool {
    let error = &body["error"];
    error["message"].is_string()
        && error["type"].is_string()
        && (error["code"].is_string() || error["code"].is_null())
}

/// The sentence in `{"error": "…"}`, `{"detail": "…"}` or `{"detail": [{"msg": "…"}]}`, as other servers write it.
fn words(body: &Value) -> Option<String> {
    let places = [&body["error"], &body["detail"], &body["error"]["message"], &body["detail"][0]["msg"]];
    let text = places.into_iter().find_map(Value::as_str)?;
    Some(one_line(text, LONGEST_MESSAGE)).filter(|text| !text.is_empty() && !text.contains('<'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::connect_error::tests::{client_that_fails, client_that_meets};
    use serde_json::json;
    use service::outbound::{Connections, builder};

    #[tokio::test]
    async fn no_way_to_the_backend_is_evidence_at_once_and_in_the_words_of_a_probe() {
        let client = client_that_meets(std::io::ErrorKind::HostUnreachable);
        let fault = BackendFault::of(&client.get("http://ada2.local/").send().await.unwrap_err());
        assert!(matches!(fault, BackendFault::NotConnected(ConnectError::NoLocalRoute)), "{fault:?}");
        let Some(Evidence::NoRoute(message)) = fault.evidence() else { panic!("{fault:?}") };
        assert_eq!(message, ConnectError::NoLocalRoute.to_string());
    }

    #[test]
    fn a_backends_own_not_ready_asks_for_a_probe_and_decides_nothing() {
        let said = BackendFault::SaidNotReady { words: "paused".into(), retry_after: None };
        assert!(said.evidence().is_none() && said.is_suspicious());
    }

    #[tokio::test]
    async fn a_name_without_address_is_named_and_a_missing_descriptor_is_not_the_backends_fault() {
        let client = builder(Connections::Fresh).build().unwrap();
        let fault = BackendFault::of(&client.get("http://ada2.invalid:7860/").send().await.unwrap_err());
        let BackendFault::Unreachable(words) = &fault else { panic!("{fault:?}") };
        assert!(words.starts_with("the host name \"ada2.invalid\" cannot be resolved"), "{words}");
        assert!(fault.is_suspicious());
        // EMFILE.
        let client = client_that_fails(|| std::io::Error::from_raw_os_error(24));
        let fault = BackendFault::of(&client.get("http://ada2.local/").send().await.unwrap_err());
        assert!(matches!(fault, BackendFault::NoDescriptor), "{fault:?}");
        assert!(fault.evidence().is_none() && !fault.is_suspicious());
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
            words(&json!({"detail": "Model\u{1b}[31m not loaded"})).as_deref(),
            Some("Model[31m not loaded")
        );
        assert_eq!(words(&json!({"error": "x".repeat(999)})).map(|words| words.len()), Some(300));
        for other in [json!({"detail": [1]}), json!({"detail": "<html>"}), json!(null), json!({"error": ""})]
        {
            assert_eq!(words(&other), None, "{other}");
        }
    }

    #[test]
    fn fastapis_ways_of_telling_are_read() {
        let envelope = json!({"error": {"message": "queue full", "type": "rate_limit_error", "code": "429"}});
        assert_eq!(unwrapped(json!({ "detail": envelope })), envelope);
        for other in [json!({"detail": "no"}), json!({"detail": {"error": "no"}}), envelope, json!(null)] {
            assert_eq!(unwrapped(other.clone()), other);
        }
        let validation = json!({"detail": [{"loc": ["body"], "msg": "Field required", "type": "missing"}]});
        assert_eq!(words(&validation).as_deref(), Some("Field required"));
    }

    #[test]
    fn a_wait_that_makes_clients_hammer_is_dropped() {
        let after =
            |text: &str| retry_after(&HeaderMap::from_iter([(header::RETRY_AFTER, text.parse().unwrap())]));
        assert_eq!([after("5"), after("55")], [Some(5), Some(55)]);
        assert_eq!([after("0"), after("56"), after("Fri, 01 Jan 2027 00:00:00 GMT")], [None, None, None]);
    }
}
