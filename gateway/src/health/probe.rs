//! One probe of one backend: the liveness path, the readiness path, and, where the backend has no such path, its
//! list of models.

use std::time::Duration;

use reqwest::{Client, Response, StatusCode, Url};
use serde_json::Value;
use shared::{health::ReadyReport, service::outbound::read_limited};

use super::state::{Answered, Evidence, ProbeFailure, Verdict};
use crate::{backend::obstacle::Obstacle, config::Backend};

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
        let status = get(client, backend, &backend.liveness).await?.status();
        if status == StatusCode::NOT_FOUND {
            wrong_paths.push(backend.liveness.path().to_owned());
        } else {
            alive = status.is_success();
        }
    }
    let answer = get(client, backend, &backend.readiness).await?;
    let status = answer.status();
    let verdict = if status == StatusCode::NOT_FOUND {
        wrong_paths.push(backend.readiness.path().to_owned());
        lists_models(client, backend).await?
    } else {
        judge(status, &body(answer).await?, &backend.readiness)
    };
    Ok(Answered { alive, verdict, wrong_paths })
}

/// A report says everything; without one the status alone does.
fn judge(status: StatusCode, body: &[u8], path: &Url) -> Verdict {
    match serde_json::from_slice::<ReadyReport>(body) {
        Ok(report) if status.is_success() || !report.admits() => Verdict::Report(Box::new(report)),
        _ if status.is_success() => Verdict::Ready,
        _ => Verdict::NotReady(format!("{} answered {}", path.path(), status.as_u16())),
    }
}

/// mlx_lm answers an empty body where it has no cache of models.
async fn lists_models(client: &Client, backend: &Backend) -> Result<Verdict, Evidence> {
    let url = backend.api("models");
    let answer = get(client, backend, &url).await?;
    let status = answer.status();
    let body = body(answer).await?;
    let list = |body: &[u8]| {
        serde_json::from_slice::<Value>(body).is_ok_and(|value| value.get("object") == Some(&"list".into()))
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

async fn get(client: &Client, backend: &Backend, url: &Url) -> Result<Response, Evidence> {
    backend.authorized(client.get(url.clone())).send().await.map_err(|error| failure(&error))
}

async fn body(answer: Response) -> Result<bytes::Bytes, Evidence> {
    // One that is too long is no report.
    match read_limited(answer, ANSWER_LIMIT).await {
        Ok(body) => Ok(body),
        Err(shared::service::outbound::BodyFault::TooLong) => Ok(bytes::Bytes::new()),
        Err(shared::service::outbound::BodyFault::Broken(error)) => Err(failure(&error)),
    }
}

fn failure(error: &reqwest::Error) -> Evidence {
    match Obstacle::of(error) {
        Some(obstacle) => obstacle.evidence(),
        None if error.is_timeout() => Evidence::ProbeFailed(ProbeFailure::TimedOut),
        None => Evidence::ProbeFailed(ProbeFailure::Broken),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{backend::obstacle::tests::client_that_meets, config::backends::tests::backend};

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
