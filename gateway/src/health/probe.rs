//! One probe of one backend: the liveness path, the readiness path, and, where the backend has no such path, its
//! list of models. What answers every path alike, as a router's login page does, is no backend.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{
    Client, StatusCode, Url,
    header::{CONTENT_TYPE, HeaderValue},
};
use service::{
    outbound::{BodyFault, ran_out_of_descriptors, read_limited},
    text::one_line,
};
use wire::{health::ReadyReport, openai::object::Object};

use super::state::{Answered, Evidence, ProbeFailure, Verdict};
use crate::{
    client::connect_error::{ConnectError, no_address},
    config::Backend,
};

/// Bytes of a readiness answer or a list of models.
const ANSWER_LIMIT: usize = 1 << 20;

/// Characters of a backend's own message that are passed on.
const LONGEST_MESSAGE: usize = 300;

/// For the answer of the next card; one that is ready gives it at once.
const NEXT_CARD: Duration = Duration::from_secs(1);

/// Why a backend is probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Occasion {
    /// It is time, and the backend was not ready before.
    NotReady,
    /// It is time, and it was ready.
    Ready,
    /// It was ready, and a request met something that makes one doubt it. Further requests wait for nobody, so the verdict is
    /// wanted as early as can be.
    Doubt,
}

/// Asks. Takes at most `timeout` in all. A backend that was ready and says that it is not is asked once more: behind a
/// load balancer the next card answers, and one that is ready is enough.
pub(super) async fn probe(
    client: &Client,
    backend: &Backend,
    occasion: Occasion,
    timeout: Duration,
) -> Evidence {
    match tokio::time::timeout(timeout, ask(client, backend, occasion)).await {
        Ok(Ok(answered)) => Evidence::Answered(answered),
        Ok(Err(evidence)) => evidence,
        Err(_) => Evidence::ProbeFailed(ProbeFailure::TimedOut),
    }
}

async fn ask(client: &Client, backend: &Backend, occasion: Occasion) -> Result<Answered, Evidence> {
    let (live, ready) = (liveness(client, backend), any_ready(client, backend, occasion));
    let ((alive, no_liveness), (verdict, no_readiness)) = if occasion == Occasion::Doubt {
        let ready = ready.await?;
        // One that says that it is not ready lives.
        (if ready.0.admits() { live.await? } else { (true, None) }, ready)
    } else {
        (live.await?, ready.await?)
    };
    let wrong_paths = [no_liveness, no_readiness].into_iter().flatten().collect();
    Ok(Answered { alive, verdict, wrong_paths })
}

/// What a probe learns from a path, and the path if there is no such.
type Learned<T> = Result<(T, Option<String>), Evidence>;

async fn liveness(client: &Client, backend: &Backend) -> Learned<bool> {
    if backend.liveness == backend.readiness {
        return Ok((true, None));
    }
    let answer = get(client, backend, &backend.liveness).await?;
    let missing = answer.is_no_path().then(|| backend.liveness.path().to_owned());
    Ok((missing.is_some() || answer.status.is_success(), missing))
}

async fn any_ready(client: &Client, backend: &Backend, occasion: Occasion) -> Learned<Verdict> {
    let first = readiness(client, backend).await?;
    if first.0.admits() || occasion == Occasion::NotReady {
        return Ok(first);
    }
    match tokio::time::timeout(NEXT_CARD, readiness(client, backend)).await {
        Ok(Ok(next)) if next.0.admits() => Ok(next),
        Ok(_) | Err(_) => Ok(first),
    }
}

async fn readiness(client: &Client, backend: &Backend) -> Learned<Verdict> {
    let answer = get(client, backend, &backend.readiness).await?;
    if !answer.is_no_path() {
        return Ok((judge(answer.status, answer.body(), &backend.readiness), None));
    }
    let verdict = lists_models(client, backend).await?;
    Ok((verdict, Some(backend.readiness.path().to_owned())))
}

/// What a path answered.
#[derive(Debug)]
struct Said {
    status: StatusCode,
    kind: Option<HeaderValue>,
    /// None if it is longer than anything that a probe is answered with.
    body: Option<Bytes>,
}

impl Said {
    fn body(&self) -> &[u8] {
        self.body.as_deref().unwrap_or_default()
    }

    fn is_html(&self) -> bool {
        is_html(self.kind.as_ref(), self.body())
    }

    /// Whether the backend has no such path, which says nothing of how it is. mlx_lm tells that with 404 and, to other
    /// methods, 501; LM Studio with 200 and `{"error": "Unexpected endpoint or method. …"}`; what serves a web
    /// page with 200 and that page. An error's page is another thing: it comes with the status of the error.
    fn is_no_path(&self) -> bool {
        match self.status {
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => true,
            status if !status.is_success() => false,
            _ => self.is_html() || self.body.as_deref().is_none_or(has_error),
        }
    }
}

fn has_error(body: &[u8]) -> bool {
    Object::read(body, &["error"]).is_ok_and(|said| said.get("error").is_some())
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
fn judge(status: StatusCode, body: &[u8], path: &Url) -> Verdict {
    match serde_json::from_slice::<ReadyReport>(body) {
        Ok(report) if status.is_success() || !report.admits() => Verdict::Report(Box::new(report)),
        _ if status.is_success() => Verdict::Ready,
        _ => Verdict::NotReady(format!("{} answered {}{}", path.path(), status.as_u16(), said(body))),
    }
}

/// The words of a refusal, as MLX servers write them: `{"status": "unhealthy", "model_status": "no_models"}`.
fn said(body: &[u8]) -> String {
    let names = ["status", "model_status", "detail", "error"];
    let body = Object::read(body, &names).ok();
    let words = names.into_iter().filter_map(|name| body.as_ref()?.text(name));
    let words = words.collect::<Vec<_>>().join(", ");
    if words.is_empty() { words } else { format!(": {}", one_line(&words, LONGEST_MESSAGE)) }
}

/// mlx_lm answers an empty body where it has no cache of models.
async fn lists_models(client: &Client, backend: &Backend) -> Result<Verdict, Evidence> {
    let url = backend.api("models");
    let answer = get(client, backend, &url).await?;
    if answer.status == StatusCode::OK && answer.body.as_deref().is_some_and(is_list) {
        return Ok(Verdict::Ready);
    }
    let path = backend.readiness.path();
    Ok(Verdict::NotReady(if answer.status.is_success() && answer.is_html() {
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
    let object = || Object::read(body, &["object"]).ok()?.text("object");
    body.trim_ascii().is_empty() || object().as_deref() == Some("list")
}

/// A page's title, which often names the program.
fn title(page: &[u8]) -> String {
    let page = String::from_utf8_lossy(page);
    let title = page.split_once("<title>").and_then(|(_, behind)| behind.split('<').next());
    let title = title.map(|title| one_line(title.trim(), LONGEST_MESSAGE)).filter(|title| !title.is_empty());
    title.map_or_else(String::new, |title| format!(", titled {title:?}"))
}

async fn get(client: &Client, backend: &Backend, url: &Url) -> Result<Said, Evidence> {
    let request = backend.authorized(client.get(url.clone()));
    let answer = request.send().await.map_err(|error| failure(&error))?;
    let (status, kind) = (answer.status(), answer.headers().get(CONTENT_TYPE).cloned());
    match read_limited(answer, ANSWER_LIMIT).await {
        Ok(body) => Ok(Said { status, kind, body: Some(body) }),
        Err(BodyFault::TooLong) => Ok(Said { status, kind, body: None }),
        Err(BodyFault::Broken(error)) => Err(failure(&error)),
    }
}

fn failure(error: &reqwest::Error) -> Evidence {
    if let Some(error) = ConnectError::of(error) {
        return error.into();
    }
    Evidence::ProbeFailed(if let Some(words) = no_address(error) {
        ProbeFailure::Unresolved(words)
    } else if ran_out_of_descriptors(error) {
        ProbeFailure::NoDescriptor
    } else if error.is_timeout() {
        ProbeFailure::TimedOut
    } else {
        ProbeFailure::Broken
    })
}

#[cfg(test)]
mod tests {
    use service::outbound::{Connections, builder};

    use super::*;
    use crate::{client::connect_error::tests::client_that_meets, config::backends::tests::backend};

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
            let said = |body| Said { status: StatusCode::from_u16(status).unwrap(), kind: None, body };
            assert_eq!(said(Some(body.into())).is_no_path(), missing, "{status} {body}");
            let endless = matches!(status, 200 | 404 | 405 | 501);
            assert_eq!(said(None).is_no_path(), endless, "nobody answers a probe with a megabyte");
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
            match judge(StatusCode::SERVICE_UNAVAILABLE, body.as_bytes(), &path) {
                Verdict::NotReady(told) => assert_eq!(told, words),
                other => panic!("{body}: {other:?}"),
            }
        }
        assert!(matches!(judge(StatusCode::OK, b"{\"status\": \"ok\"}", &path), Verdict::Ready));
    }

    #[tokio::test]
    async fn a_probe_of_a_name_that_nobody_knows_names_it() {
        let mut backend = (*backend("gpu_heavy", &[])).clone();
        for url in [&mut backend.liveness, &mut backend.readiness] {
            url.set_host(Some("ada2.invalid")).unwrap();
        }
        let client = builder(Connections::Pooled).build().unwrap();
        let evidence = probe(&client, &backend, Occasion::NotReady, Duration::from_secs(15)).await;
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
        let client = client_that_meets(std::io::ErrorKind::HostUnreachable);
        let evidence = probe(&client, &backend, Occasion::NotReady, Duration::from_secs(15)).await;
        let Evidence::NoRoute(words) = &evidence else { panic!("{evidence:?}") };
        assert!(words.contains("Local Network Privacy"), "{words}");
    }
}
