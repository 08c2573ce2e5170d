//! Places: the limit, and how each is freed.

use e2e::gateway::Gateway;
use fakes::upstream::{Upstream, UpstreamReply};
use serde_json::json;

const KEY: &str = "gpu_heavy.images";

/// Two held requests take both slots.
async fn full(upstream: &Upstream, gateway: &Gateway) -> Vec<tokio::task::JoinHandle<u16>> {
    upstream.set_images(UpstreamReply::Hold);
    let requests: Vec<_> = (0..2).map(|_| gateway.image_request(&json!({"prompt": "p"})).send()).collect();
    let send = |request: _| async move { Result::expect(request_status(request).await, "an answer") };
    #[expect(clippy::disallowed_methods, reason = "two clients at once")]
    let clients = requests.into_iter().map(|request| tokio::spawn(send(request))).collect();
    upstream.until_held(2).await;
    clients
}

async fn request_status(
    request: impl Future<Output = Result<reqwest::Response, reqwest::Error>>,
) -> Result<u16, reqwest::Error> {
    request.await.map(|answer| answer.status().as_u16())
}

#[tokio::test]
async fn a_third_concurrent_request_is_429_with_retry_after_5() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    let clients = full(&upstream, &gateway).await;
    assert_eq!(gateway.inflight(KEY).await, 2);
    let answer = gateway.generate(&json!({"prompt": "p"})).await;
    assert_eq!((answer.status, answer.code()), (429, "backend_overloaded"));
    assert_eq!(answer.message(), "Backend gpu_heavy is at capacity for images requests");
    assert_eq!(answer.header("retry-after"), "5");
    assert_eq!(answer.json["error"]["backend_class"], "gpu_heavy");
    assert_eq!(answer.json["error"]["type"], "rate_limit_error");
    assert_eq!(answer.header("x-backend-used"), "gpu_heavy");
    upstream.release();
    for client in clients {
        assert_eq!(client.await.unwrap(), 200);
    }
    gateway.until_inflight(KEY, 0).await;
    assert_eq!(upstream.images().len(), 2, "the third never arrived");
}

#[tokio::test]
async fn a_client_disconnect_closes_the_backends_connection_and_frees_the_slot() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    let clients = full(&upstream, &gateway).await;
    clients[0].abort();
    upstream.until_disconnected(1).await;
    gateway.until_inflight(KEY, 1).await;
    clients[1].abort();
    upstream.until_disconnected(2).await;
    gateway.until_inflight(KEY, 0).await;
}

#[tokio::test]
async fn every_failure_frees_its_slot() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &["--images-http-timeout-sec", "1"]).await;
    for reply in [
        UpstreamReply::error(500, "engine_error", "no"),
        UpstreamReply::Respond(200, vec![], b"<html>".to_vec()),
        UpstreamReply::Break,
        UpstreamReply::Hold,
    ] {
        upstream.next_image(reply);
        assert!(gateway.generate(&json!({"prompt": "p"})).await.status >= 500);
        assert_eq!(gateway.inflight(KEY).await, 0);
    }
    assert_eq!(gateway.generate(&json!({"prompt": "p"})).await.status, 200);
}

#[tokio::test]
async fn the_mock_counts_under_the_same_limit() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &["--images-backend", "mock"]).await;
    let status = gateway.get("/v1/gateway/status").await;
    assert_eq!(status.json["admission_control"][KEY], json!({"limit": 2, "available": 2, "inflight": 0}));
    let many: Vec<_> =
        (0..8).map(|_| gateway.image_request(&json!({"prompt": "p", "n": 4})).send()).collect();
    let statuses: Vec<_> = futures_util::future::join_all(many)
        .await
        .into_iter()
        .map(|answer| answer.unwrap().status())
        .collect();
    assert!(statuses.iter().any(|status| *status == 200) && statuses.iter().any(|status| *status == 429));
    assert!(upstream.images().is_empty());
}

#[tokio::test]
async fn a_drain_lets_running_requests_finish() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    let clients = full(&upstream, &gateway).await;
    gateway.lifecycle.begin_drain();
    upstream.release();
    for client in clients {
        assert_eq!(client.await.unwrap(), 200);
    }
    gateway.stop().await;
}
