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

const MAX_ERROR_BYTES: usize = 64 << 10;
/// Clients ignore longer waits, and then retry at once.
const MAX_RETRY_AFTER: u64 = 55;
pub(super) const MAX_MESSAGE_CHARS: usize = 300;

/// Why an exchange failed.
#[derive(Debug)]
pub(crate) enum BackendError {
    /// Connection refused, or no route to the host; nothing was sent.
    NotConnected(ConnectError),
    /// The connection failed for another reason; nothing was sent.
    Unreachable(String),
    /// The gateway has no file descriptor left; nothing was sent.
    NoDescriptor,
    TimedOut,
    /// The connection broke.
    Broken(String),
    /// A 2xx response that cannot be used.
    Unusable(String),
    /// An error event, with the backend's message.
    Failed(String),
    /// An error in OpenAI's envelope.
    Upstream(UpstreamError),
    /// The same, because the backend is not ready.
    UpstreamNotReady {
        message: String,
        /// In seconds.
        retry_after: Option<u64>,
    },
    /// Any other error response.
    Status {
        status: StatusCode,
        /// If it is one plain sentence.
        message: Option<String>,
        /// In seconds.
        retry_after: Option<u64>,
    },
}

/// Rejects a response whose end cannot be detected.
pub(crate) fn check_framing(mut response: Response) -> Result<Response, BackendError> {
    let (version, status) = (response.version(), response.status());
    match framing::normalize(version, status, response.headers_mut()) {
        Ok(_) => Ok(response),
        Err(error) => Err(BackendError::Unusable(format!("its response cannot be read: {error}"))),
    }
}

/// A backend's own error envelope, to be passed on.
#[derive(Debug)]
pub(crate) struct UpstreamError {
    pub(crate) status: StatusCode,
    pub(crate) body: Value,
    /// In seconds.
    pub(crate) retry_after: Option<u64>,
    /// `x-should-retry`.
    pub(crate) should_retry: Option<bool>,
}

impl BackendError {
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

    /// Reports the failure to the backend's health monitor.
    pub(crate) fn report_failure(&self, health: &Monitors, class: &str) {
        match self.evidence() {
            Some(evidence) => health.report_evidence(class, evidence),
            None if self.needs_probe() => health.probe_soon(class),
            None => {}
        }
    }

    /// What the failure proves about the backend without a probe.
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

    /// Whether to probe the backend now. Its own "not ready" is no proof: behind a load balancer the next card may be ready.
    pub(super) fn needs_probe(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Broken(_) | Self::UpstreamNotReady { .. })
    }
}

/// Without the backend's address, which clients must not see.
fn source_chain(error: &reqwest::Error) -> String {
    use std::io::ErrorKind;
    match io_error_kind(error) {
        Some(ErrorKind::ConnectionReset) => "connection reset".to_owned(),
        Some(ErrorKind::TimedOut) => "the connection timed out".to_owned(),
        _ if error.is_connect() && error.is_timeout() => "the connection timed out".to_owned(),
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

/// Reads a response that is not a success.
pub(super) async fn read_error_response(response: Response) -> BackendError {
    let (status, headers) = (response.status(), response.headers().clone());
    let body = read_limited(response, MAX_ERROR_BYTES).await.unwrap_or_default();
    let body = unwrap_detail(serde_json::from_slice(&body).unwrap_or_default());
    let retry_after = retry_after(&headers);
    if !is_envelope(&body) || !(status.is_client_error() || status.is_server_error()) {
        return BackendError::Status { status, message: error_message(&body), retry_after };
    }
    if body["error"]["code"] == ErrorCode::BackendNotReady.as_str() {
        let message = body["error"]["message"].as_str().unwrap_or_default();
        return BackendError::UpstreamNotReady { message: one_line(message, MAX_MESSAGE_CHARS), retry_after };
    }
    let should_retry = headers.get("x-should-retry").map(|value| value == "true");
    BackendError::Upstream(UpstreamError { status, body, retry_after, should_retry })
}

/// FastAPI's servers put what they raise, envelopes included, under `detail`.
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
    let candidates = [&body["error"], &body["detail"], &body["error"]["message"], &body["detail"][0]["msg"]];
    let text = candidates.into_iter().find_map(Value::as_str)?;
    Some(one_line(text, MAX_MESSAGE_CHARS)).filter(|text| !text.is_empty() && !text.contains('<'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::connect_error::tests::{client_failing_with, client_that_fails};
    use serde_json::json;
    use service::outbound::{ConnectionPolicy, client_builder};

    #[tokio::test]
    async fn no_route_to_the_backend_is_evidence_with_the_same_message_as_a_probes() {
        let client = client_failing_with(std::io::ErrorKind::HostUnreachable);
        let error = BackendError::from_reqwest(&client.get("http://ada2.local/").send().await.unwrap_err());
        assert!(matches!(error, BackendError::NotConnected(ConnectError::NoLocalRoute)), "{error:?}");
        let Some(Evidence::NoRoute(message)) = error.evidence() else { panic!("{error:?}") };
        assert_eq!(message, ConnectError::NoLocalRoute.to_string());
    }

    #[test]
    fn a_backends_own_not_ready_asks_for_a_probe_and_decides_nothing() {
        let error = BackendError::UpstreamNotReady { message: "paused".into(), retry_after: None };
        assert!(error.evidence().is_none() && error.needs_probe());
    }

    #[tokio::test]
    async fn an_unresolved_name_is_named_and_a_missing_descriptor_is_not_the_backends_error() {
        let client = client_builder(ConnectionPolicy::PerRequest).build().unwrap();
        let error =
            BackendError::from_reqwest(&client.get("http://ada2.invalid:7860/").send().await.unwrap_err());
        let BackendError::Unreachable(message) = &error else { panic!("{error:?}") };
        assert!(message.starts_with("the host name \"ada2.invalid\" cannot be resolved"), "{message}");
        assert!(error.needs_probe());
        // EMFILE.
        let client = client_that_fails(|| std::io::Error::from_raw_os_error(24));
        let error = BackendError::from_reqwest(&client.get("http://ada2.local/").send().await.unwrap_err());
        assert!(matches!(error, BackendError::NoDescriptor), "{error:?}");
        assert!(error.evidence().is_none() && !error.needs_probe());
    }

    #[test]
    fn only_a_complete_envelope_counts() {
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
    fn a_foreign_message_is_one_plain_sentence_or_none() {
        assert_eq!(
            error_message(&json!({"detail": "Model\u{1b}[31m not loaded"})).as_deref(),
            Some("Model[31m not loaded")
        );
        assert_eq!(error_message(&json!({"error": "x".repeat(999)})).map(|message| message.len()), Some(300));
        for other in [json!({"detail": [1]}), json!({"detail": "<html>"}), json!(null), json!({"error": ""})]
        {
            assert_eq!(error_message(&other), None, "{other}");
        }
    }

    #[test]
    fn fastapis_error_formats_are_read() {
        let envelope = json!({"error": {"message": "queue full", "type": "rate_limit_error", "code": "429"}});
        assert_eq!(unwrap_detail(json!({ "detail": envelope })), envelope);
        for other in [json!({"detail": "no"}), json!({"detail": {"error": "no"}}), envelope, json!(null)] {
            assert_eq!(unwrap_detail(other.clone()), other);
        }
        let validation = json!({"detail": [{"loc": ["body"], "msg": "Field required", "type": "missing"}]});
        assert_eq!(error_message(&validation).as_deref(), Some("Field required"));
    }

    #[test]
    fn a_wait_that_clients_would_ignore_is_dropped() {
        let after =
            |text: &str| retry_after(&HeaderMap::from_iter([(header::RETRY_AFTER, text.parse().unwrap())]));
        assert_eq!([after("5"), after("55")], [Some(5), Some(55)]);
        assert_eq!([after("0"), after("56"), after("Fri, 01 Jan 2027 00:00:00 GMT")], [None, None, None]);
    }
}
