//! One probe of one backend: the liveness path, the readiness path and, if the backend has no such path, its model list. A server
//! that answers every path alike, such as a router's login page, is not a backend.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{
    Client, StatusCode, Url,
    header::{CONTENT_TYPE, HeaderValue},
};
use service::{
    outbound::{ReadBodyError, is_out_of_descriptors, read_limited},
    text::one_line,
};
use wire::{health::ReadyReport, openai::object::JsonObject};

use super::state::{Evidence, ProbeFailure, ProbeReport, Readiness};
use crate::{
    client::connect_error::{ConnectError, dns_error},
    config::Backend,
};

const MAX_RESPONSE_BYTES: usize = 1 << 20;
const MAX_MESSAGE_CHARS: usize = 300;

/// A second probe may reach another card; one that is ready responds at once.
const RECHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a backend is probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProbeReason {
    /// The interval is over, and the backend was not ready.
    NotReady,
    /// The interval is over, and the backend was ready.
    Ready,
    /// The backend was ready, and a request has failed. Until the probe ends, further requests are sent, so it should end
    /// early.
    Suspected,
}

/// Takes at most `timeout` in total. A backend that was ready and reports that it is not is probed once more: behind a load
/// balancer another card may respond, and one that is ready is enough.
pub(super) async fn probe(
    client: &Client,
    backend: &Backend,
    reason: ProbeReason,
    timeout: Duration,
) -> Evidence {
    match tokio::time::timeout(timeout, check_paths(client, backend, reason)).await {
        Ok(Ok(report)) => Evidence::Answered(report),
        Ok(Err(evidence)) => evidence,
        Err(_) => Evidence::ProbeFailed(ProbeFailure::TimedOut),
    }
}

async fn check_paths(
    client: &Client,
    backend: &Backend,
    reason: ProbeReason,
) -> Result<ProbeReport, Evidence> {
    let (live, ready) = (liveness(client, backend), check_readiness_twice(client, backend, reason));
    let ((alive, missing_liveness), (readiness, missing_readiness)) = if reason == ProbeReason::Suspected {
        let ready = ready.await?;
        // A backend that reports that it is not ready is alive.
        (if ready.0.is_ready() { live.await? } else { (true, None) }, ready)
    } else {
        (live.await?, ready.await?)
    };
    let missing_paths = [missing_liveness, missing_readiness].into_iter().flatten().collect();
    Ok(ProbeReport { alive, readiness, missing_paths })
}

/// What a path says; and the path itself if the backend does not have it.
type PathCheck<T> = Result<(T, Option<String>), Evidence>;

async fn liveness(client: &Client, backend: &Backend) -> PathCheck<bool> {
    if backend.liveness == backend.readiness {
        return Ok((true, None));
    }
    let response = get(client, backend, &backend.liveness).await?;
    let missing = response.is_missing_path().then(|| backend.liveness.path().to_owned());
    Ok((missing.is_some() || response.status.is_success(), missing))
}

async fn check_readiness_twice(
    client: &Client,
    backend: &Backend,
    reason: ProbeReason,
) -> PathCheck<Readiness> {
    let first = readiness(client, backend).await?;
    if first.0.is_ready() || reason == ProbeReason::NotReady {
        return Ok(first);
    }
    match tokio::time::timeout(RECHECK_TIMEOUT, readiness(client, backend)).await {
        Ok(Ok(next)) if next.0.is_ready() => Ok(next),
        Ok(_) | Err(_) => Ok(first),
    }
}

async fn readiness(client: &Client, backend: &Backend) -> PathCheck<Readiness> {
    let response = get(client, backend, &backend.readiness).await?;
    if !response.is_missing_path() {
        return Ok((read_readiness(response.status, response.body(), &backend.readiness), None));
    }
    let verdict = check_models(client, backend).await?;
    Ok((verdict, Some(backend.readiness.path().to_owned())))
}

#[derive(Debug)]
struct ProbeResponse {
    status: StatusCode,
    content_type: Option<HeaderValue>,
    /// `None` if it is too long for a probe's response.
    body: Option<Bytes>,
}

impl ProbeResponse {
    fn body(&self) -> &[u8] {
        self.body.as_deref().unwrap_or_default()
    }

    fn is_html(&self) -> bool {
        is_html(self.content_type.as_ref(), self.body())
    }

    /// Whether the backend does not have this path, which says nothing about its health. mlx_lm answers 404 and, to other
    /// methods, 501; LM Studio 200 with `{"error": "Unexpected endpoint or method. …"}`; a web server 200 with its page. An
    /// error page comes with the status of the error.
    fn is_missing_path(&self) -> bool {
        match self.status {
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => true,
            status if !status.is_success() => false,
            _ => self.is_html() || self.body.as_deref().is_none_or(has_error),
        }
    }
}

fn has_error(body: &[u8]) -> bool {
    JsonObject::parse(body, &["error"]).is_ok_and(|object| object.get("error").is_some())
}

/// Whether a response is a web page. The content type alone does not show it: some health paths send a plain `OK` as
/// `text/html`, their framework's default.
pub(super) fn is_html(content_type: Option<&HeaderValue>, body: &[u8]) -> bool {
    const PREFIXES: [&str; 8] =
        ["<!doctype", "<html", "<head", "<body", "<title", "<meta", "<!--", "<script"];
    let body = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body).trim_ascii_start();
    let starts_with_ignore_case = |bytes: &[u8], prefix: &str| {
        bytes.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix.as_bytes()))
    };
    let is_typed =
        || content_type.is_some_and(|value| starts_with_ignore_case(value.as_bytes(), "text/html"));
    PREFIXES.into_iter().any(|prefix| starts_with_ignore_case(body, prefix))
        || body.starts_with(b"<") && is_typed()
}

/// By the report if there is one, else by the status.
fn read_readiness(status: StatusCode, body: &[u8], path: &Url) -> Readiness {
    match serde_json::from_slice::<ReadyReport>(body) {
        Ok(report) if status.is_success() || !report.admits() => Readiness::Report(Box::new(report)),
        _ if status.is_success() => Readiness::Ready,
        _ => {
            Readiness::NotReady(format!("{} returned {}{}", path.path(), status.as_u16(), error_detail(body)))
        }
    }
}

/// The reason in an error response, as MLX servers give it: `{"status": "unhealthy", "model_status": "no_models"}`.
fn error_detail(body: &[u8]) -> String {
    let names = ["status", "model_status", "detail", "error"];
    let body = JsonObject::parse(body, &names).ok();
    let messages = names.into_iter().filter_map(|name| body.as_ref()?.text(name));
    let message = messages.collect::<Vec<_>>().join(", ");
    if message.is_empty() { message } else { format!(": {}", one_line(&message, MAX_MESSAGE_CHARS)) }
}

/// mlx_lm sends an empty body if it has no model cache.
async fn check_models(client: &Client, backend: &Backend) -> Result<Readiness, Evidence> {
    let url = backend.api_url("models");
    let response = get(client, backend, &url).await?;
    if response.status == StatusCode::OK && response.body.as_deref().is_some_and(is_list) {
        return Ok(Readiness::Ready);
    }
    let path = backend.readiness.path();
    Ok(Readiness::NotReady(if response.status.is_success() && response.is_html() {
        format!(
            "{path} and {} return a web page (HTML{}): another program, or a proxy's login page, answers at this base_url; \
             check host, port and path",
            url.path(),
            title(response.body())
        )
    } else {
        format!(
            "{path} does not exist, and {} returned {} without a model list",
            url.path(),
            response.status.as_u16()
        )
    }))
}

fn is_list(body: &[u8]) -> bool {
    let object = || JsonObject::parse(body, &["object"]).ok()?.text("object");
    body.trim_ascii().is_empty() || object().as_deref() == Some("list")
}

/// A page's title often names the program.
fn title(page: &[u8]) -> String {
    let page = String::from_utf8_lossy(page);
    let title = page.split_once("<title>").and_then(|(_, rest)| rest.split('<').next());
    let title =
        title.map(|title| one_line(title.trim(), MAX_MESSAGE_CHARS)).filter(|title| !title.is_empty());
    title.map_or_else(String::new, |title| format!(", titled {title:?}"))
}

async fn get(client: &Client, backend: &Backend, url: &Url) -> Result<ProbeResponse, Evidence> {
    let request = backend.authorized(client.get(url.clone()));
    let response = request.send().await.map_err(|error| evidence_of(&error))?;
    let (status, content_type) = (response.status(), response.headers().get(CONTENT_TYPE).cloned());
    match read_limited(response, MAX_RESPONSE_BYTES).await {
        Ok(body) => Ok(ProbeResponse { status, content_type, body: Some(body) }),
        Err(ReadBodyError::TooLarge) => Ok(ProbeResponse { status, content_type, body: None }),
        Err(ReadBodyError::Transport(error)) => Err(evidence_of(&error)),
    }
}

fn evidence_of(error: &reqwest::Error) -> Evidence {
    if let Some(error) = ConnectError::from_reqwest(error) {
        return error.into();
    }
    Evidence::ProbeFailed(if let Some(message) = dns_error(error) {
        ProbeFailure::Unresolved(message)
    } else if is_out_of_descriptors(error) {
        ProbeFailure::NoDescriptor
    } else if error.is_timeout() {
        ProbeFailure::TimedOut
    } else {
        ProbeFailure::Broken
    })
}

#[cfg(test)]
mod tests {
    use service::outbound::{ConnectionPolicy, client_builder};

    use super::*;
    use crate::{client::connect_error::tests::client_failing_with, config::backends::tests::backend};

    #[test]
    fn a_missing_path_is_not_taken_for_an_unhealthy_backend() {
        for (status, body, missing) in [
            (404, "Not Found", true),
            (404, "{\"detail\":\"Not Found\"}", true),
            (405, "{\"detail\":\"Method Not Allowed\"}", true),
            (501, "<html>Unsupported method</html>", true),
            (200, "{\"error\":\"Unexpected endpoint or method. (GET /healthz)\"}", true),
            (200, "<!DOCTYPE html><html><title>FRITZ!Box</title></html>", true),
            (200, "\u{feff}\r\n <HTML lang=de>", true),
            (200, "<!-- built --><div id=root></div>", true),
            (200, "{\"status\": \"ok\"}", false),
            (200, "{\"status\":\"ok\",\"error\":null}", false),
            (200, "OK", false),
            (200, "<OK>", false),
            (200, "", false),
            (503, "{\"error\":\"loading\"}", false),
            (502, "<html><title>502 Bad Gateway</title></html>", false),
            (401, "", false),
        ] {
            let response = |body| ProbeResponse {
                status: StatusCode::from_u16(status).unwrap(),
                content_type: None,
                body,
            };
            assert_eq!(response(Some(body.into())).is_missing_path(), missing, "{status} {body}");
            let endless = matches!(status, 200 | 404 | 405 | 501);
            assert_eq!(
                response(None).is_missing_path(),
                endless,
                "no backend answers a probe with a megabyte"
            );
        }
    }

    #[test]
    fn a_web_page_is_recognized_by_type_and_content() {
        for (content_type, body, page) in [
            ("text/html", "<h1>Login</h1>", true),
            ("Text/HTML; charset=utf-8", "\n<p>", true),
            ("text/html", "OK", false),
            ("text/html", "", false),
            ("application/json", "<h1>", false),
            ("application/json", "<html>", true),
        ] {
            let content_type = HeaderValue::from_static(content_type);
            assert_eq!(is_html(Some(&content_type), body.as_bytes()), page, "{content_type:?} {body}");
        }
    }

    #[test]
    fn a_web_page_is_named_by_its_title() {
        for (page, expected) in [
            ("<html><title> FRITZ!Box\n</title>", ", titled \"FRITZ!Box\""),
            ("<html><title></title>", ""),
            ("<html>", ""),
        ] {
            assert_eq!(title(page.as_bytes()), expected);
        }
    }

    #[test]
    fn an_error_response_is_quoted() {
        let path = "http://mlx/health".parse().unwrap();
        for (body, expected) in [
            ("", "/health returned 503"),
            ("<html>", "/health returned 503"),
            (
                "{\"status\":\"unhealthy\",\"model_status\":\"no_models\"}",
                "/health returned 503: unhealthy, no_models",
            ),
            ("{\"detail\":\"Model not\\nloaded\"}", "/health returned 503: Model notloaded"),
        ] {
            match read_readiness(StatusCode::SERVICE_UNAVAILABLE, body.as_bytes(), &path) {
                Readiness::NotReady(message) => assert_eq!(message, expected),
                other => panic!("{body}: {other:?}"),
            }
        }
        assert!(matches!(read_readiness(StatusCode::OK, b"{\"status\": \"ok\"}", &path), Readiness::Ready));
    }

    #[tokio::test]
    async fn an_unresolved_host_is_named() {
        let mut backend = (*backend("gpu_heavy", &[])).clone();
        for url in [&mut backend.liveness, &mut backend.readiness] {
            url.set_host(Some("ada2.invalid")).unwrap();
        }
        let client = client_builder(ConnectionPolicy::Pooled).build().unwrap();
        let evidence = probe(&client, &backend, ProbeReason::NotReady, Duration::from_secs(15)).await;
        let Evidence::ProbeFailed(ProbeFailure::Unresolved(message)) = &evidence else {
            panic!("{evidence:?}")
        };
        assert!(message.contains("\"ada2.invalid\" cannot be resolved"), "{message}");
    }

    #[tokio::test]
    async fn a_probe_blocked_from_the_local_network_says_so() {
        let mut backend = (*backend("gpu_heavy", &[])).clone();
        for url in [&mut backend.liveness, &mut backend.readiness] {
            url.set_host(Some("ada2.local")).unwrap();
        }
        let client = client_failing_with(std::io::ErrorKind::HostUnreachable);
        let evidence = probe(&client, &backend, ProbeReason::NotReady, Duration::from_secs(15)).await;
        let Evidence::NoRoute(message) = &evidence else { panic!("{evidence:?}") };
        assert!(message.contains("Local Network Privacy"), "{message}");
    }
}
