//! One probe of one backend: the liveness path, the readiness path, and, where the backend has no such path, its
//! list of models. What answers every path alike, as a router's login page does, is no backend.

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

/// Bytes of a readiness answer or a list of models.
const MAX_RESPONSE_BYTES: usize = 1 << 20;

/// Characters of a backend's own message that are passed on.
const MAX_MESSAGE_CHARS: usize = 300;

/// For the answer of the next card; one that is ready gives it at once.
const RECHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a backend is probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProbeReason {
    /// It is time, and the backend was not ready before.
    NotReady,
    /// It is time, and it was ready.
    Ready,
    /// It was ready, and a request met something that makes one doubt it. Further requests wait for nobody, so the verdict is
    /// wanted as early as can be.
    Suspected,
}

/// Asks. Takes at most `timeout` in all. A backend that was ready and says that it is not is asked once more: behind a
/// load balancer the next card answers, and one that is ready is enough.
pub(super) async fn probe(
    client: &Client,
    backend: &Backend,
    occasion: ProbeReason,
    timeout: Duration,
) -> Evidence {
    match tokio::time::timeout(timeout, check_paths(client, backend, occasion)).await {
        Ok(Ok(answered)) => Evidence::Answered(answered),
        Ok(Err(evidence)) => evidence,
        Err(_) => Evidence::ProbeFailed(ProbeFailure::TimedOut),
    }
}

async fn check_paths(
    client: &Client,
    backend: &Backend,
    occasion: ProbeReason,
) -> Result<ProbeReport, Evidence> {
    let (live, ready) = (liveness(client, backend), check_readiness_twice(client, backend, occasion));
    let ((alive, no_liveness), (verdict, no_readiness)) = if occasion == ProbeReason::Suspected {
        let ready = ready.await?;
        // One that says that it is not ready lives.
        (if ready.0.is_ready() { live.await? } else { (true, None) }, ready)
    } else {
        (live.await?, ready.await?)
    };
    let wrong_paths = [no_liveness, no_readiness].into_iter().flatten().collect();
    Ok(ProbeReport { alive, readiness: verdict, missing_paths: wrong_paths })
}

/// What a probe learns from a path, and the path if there is no such.
type PathCheck<T> = Result<(T, Option<String>), Evidence>;

async fn liveness(client: &Client, backend: &Backend) -> PathCheck<bool> {
    if backend.liveness == backend.readiness {
        return Ok((true, None));
    }
    let answer = get(client, backend, &backend.liveness).await?;
    let missing = answer.is_missing_path().then(|| backend.liveness.path().to_owned());
    Ok((missing.is_some() || answer.status.is_success(), missing))
}

async fn check_readiness_twice(
    client: &Client,
    backend: &Backend,
    occasion: ProbeReason,
) -> PathCheck<Readiness> {
    let first = readiness(client, backend).await?;
    if first.0.is_ready() || occasion == ProbeReason::NotReady {
        return Ok(first);
    }
    match tokio::time::timeout(RECHECK_TIMEOUT, readiness(client, backend)).await {
        Ok(Ok(next)) if next.0.is_ready() => Ok(next),
        Ok(_) | Err(_) => Ok(first),
    }
}

async fn readiness(client: &Client, backend: &Backend) -> PathCheck<Readiness> {
    let answer = get(client, backend, &backend.readiness).await?;
    if !answer.is_missing_path() {
        return Ok((read_readiness(answer.status, answer.body(), &backend.readiness), None));
    }
    let verdict = check_models(client, backend).await?;
    Ok((verdict, Some(backend.readiness.path().to_owned())))
}

/// What a path answered.
#[derive(Debug)]
struct ProbeResponse {
    status: StatusCode,
    content_type: Option<HeaderValue>,
    /// None if it is longer than anything that a probe is answered with.
    body: Option<Bytes>,
}

impl ProbeResponse {
    fn body(&self) -> &[u8] {
        self.body.as_deref().unwrap_or_default()
    }

    fn is_html(&self) -> bool {
        is_html(self.content_type.as_ref(), self.body())
    }

    /// Whether the backend has no such path, which says nothing of how it is. mlx_lm tells that with 404 and, to other
    /// methods, 501; LM Studio with 200 and `{"error": "Unexpected endpoint or method. …"}`; what serves a web
    /// page with 200 and that page. An error's page is another thing: it comes with the status of the error.
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

/// Whether an answer of this type is a web page. Its type alone would not do: some health paths answer a plain `OK` as
/// `text/html`, which is their framework's default.
pub(super) fn is_html(kind: Option<&HeaderValue>, body: &[u8]) -> bool {
    const BEGINNINGS: [&str; 8] =
        ["<!doctype", "<html", "<head", "<body", "<title", "<meta", "<!--", "<script"];
    let body = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body).trim_ascii_start();
    let begins = |bytes: &[u8], with: &str| {
        bytes.get(..with.len()).is_some_and(|head| head.eq_ignore_ascii_case(with.as_bytes()))
    };
    let is_typed = || kind.is_some_and(|kind| begins(kind.as_bytes(), "text/html"));
    BEGINNINGS.into_iter().any(|with| begins(body, with)) || body.starts_with(b"<") && is_typed()
}

/// A report says everything; without one the status alone does.
fn read_readiness(status: StatusCode, body: &[u8], path: &Url) -> Readiness {
    match serde_json::from_slice::<ReadyReport>(body) {
        Ok(report) if status.is_success() || !report.admits() => Readiness::Report(Box::new(report)),
        _ if status.is_success() => Readiness::Ready,
        _ => {
            Readiness::NotReady(format!("{} answered {}{}", path.path(), status.as_u16(), error_detail(body)))
        }
    }
}

/// The words of a refusal, as MLX servers write them: `{"status": "unhealthy", "model_status": "no_models"}`.
fn error_detail(body: &[u8]) -> String {
    let names = ["status", "model_status", "detail", "error"];
    let body = JsonObject::parse(body, &names).ok();
    let messages = names.into_iter().filter_map(|name| body.as_ref()?.text(name));
    let message = messages.collect::<Vec<_>>().join(", ");
    if message.is_empty() { message } else { format!(": {}", one_line(&message, MAX_MESSAGE_CHARS)) }
}

/// mlx_lm answers an empty body where it has no cache of models.
async fn check_models(client: &Client, backend: &Backend) -> Result<Readiness, Evidence> {
    let url = backend.api_url("models");
    let answer = get(client, backend, &url).await?;
    if answer.status == StatusCode::OK && answer.body.as_deref().is_some_and(is_list) {
        return Ok(Readiness::Ready);
    }
    let path = backend.readiness.path();
    Ok(Readiness::NotReady(if answer.status.is_success() && answer.is_html() {
        format!(
            "it answers {path} and {} with a web page (HTML{}), so another program answers at its base_url, or a proxy's \
             login page: check host, port and path",
            url.path(),
            title(answer.body())
        )
    } else {
        format!(
            "it has no {path}, and {} answered {} without a list of models",
            url.path(),
            answer.status.as_u16()
        )
    }))
}

fn is_list(body: &[u8]) -> bool {
    let object = || JsonObject::parse(body, &["object"]).ok()?.text("object");
    body.trim_ascii().is_empty() || object().as_deref() == Some("list")
}

/// A page's title, which often names the program.
fn title(page: &[u8]) -> String {
    let page = String::from_utf8_lossy(page);
    let title = page.split_once("<title>").and_then(|(_, behind)| behind.split('<').next());
    let title =
        title.map(|title| one_line(title.trim(), MAX_MESSAGE_CHARS)).filter(|title| !title.is_empty());
    title.map_or_else(String::new, |title| format!(", titled {title:?}"))
}

async fn get(client: &Client, backend: &Backend, url: &Url) -> Result<ProbeResponse, Evidence> {
    let request = backend.authorized(client.get(url.clone()));
    let answer = request.send().await.map_err(|error| evidence_of(&error))?;
    let (status, kind) = (answer.status(), answer.headers().get(CONTENT_TYPE).cloned());
    match read_limited(answer, MAX_RESPONSE_BYTES).await {
        Ok(body) => Ok(ProbeResponse { status, content_type: kind, body: Some(body) }),
        Err(ReadBodyError::TooLarge) => Ok(ProbeResponse { status, content_type: kind, body: None }),
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
    fn a_path_that_is_not_there_is_told_from_a_backend_that_is_not_well() {
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
            let said = |body| ProbeResponse {
                status: StatusCode::from_u16(status).unwrap(),
                content_type: None,
                body,
            };
            assert_eq!(said(Some(body.into())).is_missing_path(), missing, "{status} {body}");
            let endless = matches!(status, 200 | 404 | 405 | 501);
            assert_eq!(said(None).is_missing_path(), endless, "nobody answers a probe with a megabyte");
        }
    }

    #[test]
    fn a_page_is_told_by_its_type_and_how_it_begins() {
        for (kind, body, page) in [
            ("text/html", "<h1>Login</h1>", true),
            ("Text/HTML; charset=utf-8", "\n<p>", true),
            ("text/html", "OK", false),
            ("text/html", "", false),
            ("application/json", "<h1>", false),
            ("application/json", "<html>", true),
        ] {
            let kind = HeaderValue::from_static(kind);
            assert_eq!(is_html(Some(&kind), body.as_bytes()), page, "{kind:?} {body}");
        }
    }

    #[test]
    fn a_page_is_named_by_its_title() {
        for (page, named) in [
            ("<html><title> FRITZ!Box\n</title>", ", titled \"FRITZ!Box\""),
            ("<html><title></title>", ""),
            ("<html>", ""),
        ] {
            assert_eq!(title(page.as_bytes()), named);
        }
    }

    #[test]
    fn a_refusal_is_told_in_the_backends_own_words() {
        let path = "http://mlx/health".parse().unwrap();
        for (body, words) in [
            ("", "/health answered 503"),
            ("<html>", "/health answered 503"),
            (
                "{\"status\":\"unhealthy\",\"model_status\":\"no_models\"}",
                "/health answered 503: unhealthy, no_models",
            ),
            ("{\"detail\":\"Model not\\nloaded\"}", "/health answered 503: Model notloaded"),
        ] {
            match read_readiness(StatusCode::SERVICE_UNAVAILABLE, body.as_bytes(), &path) {
                Readiness::NotReady(told) => assert_eq!(told, words),
                other => panic!("{body}: {other:?}"),
            }
        }
        assert!(matches!(read_readiness(StatusCode::OK, b"{\"status\": \"ok\"}", &path), Readiness::Ready));
    }

    #[tokio::test]
    async fn a_probe_of_a_name_that_nobody_knows_names_it() {
        let mut backend = (*backend("gpu_heavy", &[])).clone();
        for url in [&mut backend.liveness, &mut backend.readiness] {
            url.set_host(Some("ada2.invalid")).unwrap();
        }
        let client = client_builder(ConnectionPolicy::Pooled).build().unwrap();
        let evidence = probe(&client, &backend, ProbeReason::NotReady, Duration::from_secs(15)).await;
        let Evidence::ProbeFailed(ProbeFailure::Unresolved(words)) = &evidence else {
            panic!("{evidence:?}")
        };
        assert!(words.contains("\"ada2.invalid\" cannot be resolved"), "{words}");
    }

    #[tokio::test]
    async fn a_probe_kept_from_the_local_network_says_so() {
        let mut backend = (*backend("gpu_heavy", &[])).clone();
        for url in [&mut backend.liveness, &mut backend.readiness] {
            url.set_host(Some("ada2.local")).unwrap();
        }
        let client = client_failing_with(std::io::ErrorKind::HostUnreachable);
        let evidence = probe(&client, &backend, ProbeReason::NotReady, Duration::from_secs(15)).await;
        let Evidence::NoRoute(words) = &evidence else { panic!("{evidence:?}") };
        assert!(words.contains("Local Network Privacy"), "{words}");
    }
}
