//! One probe of one backend: the liveness path, the readiness path, and, where the backend has no such path, its
//! list of models.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{Client, StatusCode, Url};
use shared::{
    health::ReadyReport,
    openai::object::Object,
    service::outbound::{BodyFault, ran_out_of_descriptors, read_limited},
};

use super::state::{Answered, Evidence, ProbeFailure, Verdict};
use crate::{
    backend::{
        cut,
        obstacle::{Obstacle, no_address},
    },
    config::Backend,
};

/// Bytes of a readiness answer or a list of models.
const ANSWER_LIMIT: usize = 1 << 20;

/// Asks. Takes at most `timeout` in all.
pub(super) async fn probe(client: &Client, backend: &Backend, timeout: Duration) -> Evidence {
    match tokio::time::timeout(timeout, ask(client, backend)).await {
        Ok(Ok(answered)) => Evidence::Answered(answered),
        Ok(Err(evidence)) => evidence,
        Err(_) => Evidence::ProbeFailed(ProbeFailure::TimedOut),
    }
}

async fn ask(client: &Client, backend: &Backend) -> Result<Answered, Evidence> {
    let mut wrong_paths = Vec::new();
    let mut alive = true;
    if backend.liveness != backend.readiness {
        let (status, body) = get(client, backend, &backend.liveness).await?;
        if is_no_path(status, &body) {
            wrong_paths.push(backend.liveness.path().to_owned());
        } else {
            alive = status.is_success();
        }
    }
    let (status, body) = get(client, backend, &backend.readiness).await?;
    let verdict = if is_no_path(status, &body) {
        wrong_paths.push(backend.readiness.path().to_owned());
        lists_models(client, backend).await?
    } else {
        judge(status, &body, &backend.readiness)
    };
    Ok(Answered { alive, verdict, wrong_paths })
}

/// Whether the backend has no such path, which says nothing of how it is. LM Studio tells that with 200 and
/// `{"error": "Unexpected endpoint or method. …"}`.
fn is_no_path(status: StatusCode, body: &[u8]) -> bool {
    let error = || Object::read(body, &["error"]).is_ok_and(|said| said.get("error").is_some());
    status == StatusCode::NOT_FOUND || status.is_success() && error()
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
    if words.is_empty() { words } else { format!(": {}", cut(&words)) }
}

/// mlx_lm answers an empty body where it has no cache of models.
async fn lists_models(client: &Client, backend: &Backend) -> Result<Verdict, Evidence> {
    let url = backend.api("models");
    let (status, body) = get(client, backend, &url).await?;
    let list = |body: &[u8]| {
        Object::read(body, &["object"]).is_ok_and(|said| said.text("object").as_deref() == Some("list"))
    };
    if status == StatusCode::OK && (body.trim_ascii().is_empty() || list(&body)) {
        return Ok(Verdict::Ready);
    }
    Ok(Verdict::NotReady(format!(
        "it has no {}, and {} answered {} without a list of models",
        backend.readiness.path(),
        url.path(),
        status.as_u16()
    )))
}

async fn get(client: &Client, backend: &Backend, url: &Url) -> Result<(StatusCode, Bytes), Evidence> {
    let request = backend.authorized(client.get(url.clone()));
    let answer = request.send().await.map_err(|error| failure(&error))?;
    let status = answer.status();
    match read_limited(answer, ANSWER_LIMIT).await {
        Ok(body) => Ok((status, body)),
        // One that is too long is no report.
        Err(BodyFault::TooLong) => Ok((status, Bytes::new())),
        Err(BodyFault::Broken(error)) => Err(failure(&error)),
    }
}

fn failure(error: &reqwest::Error) -> Evidence {
    if let Some(obstacle) = Obstacle::of(error) {
        return obstacle.evidence();
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
    use shared::service::outbound::{Connections, builder};

    use super::*;
    use crate::{backend::obstacle::tests::client_that_meets, config::backends::tests::backend};

    #[test]
    fn a_path_that_is_not_there_is_told_from_a_backend_that_is_not_well() {
        let ok = StatusCode::OK;
        for (status, body, missing) in [
            (StatusCode::NOT_FOUND, "Not Found", true),
            (StatusCode::NOT_FOUND, "{\"detail\":\"Not Found\"}", true),
            (ok, "{\"error\":\"Unexpected endpoint or method. (GET /healthz)\"}", true),
            (ok, "{\"status\": \"ok\"}", false),
            (ok, "{\"status\":\"ok\",\"error\":null}", false),
            (ok, "", false),
            (StatusCode::SERVICE_UNAVAILABLE, "{\"error\":\"loading\"}", false),
            (StatusCode::UNAUTHORIZED, "", false),
        ] {
            assert_eq!(is_no_path(status, body.as_bytes()), missing, "{status} {body}");
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
        let evidence = probe(&client, &backend, Duration::from_secs(15)).await;
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
        let evidence = probe(&client, &backend, Duration::from_secs(15)).await;
        let Evidence::NoRoute(words) = &evidence else { panic!("{evidence:?}") };
        assert!(words.contains("Local Network Privacy"), "{words}");
    }
}
