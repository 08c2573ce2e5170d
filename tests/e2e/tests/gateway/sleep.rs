//! After a sleep, health from before it no longer counts.

use std::time::Duration;

use e2e::gateway::{Gateway, with_local_mlx};
use fakes::{
    TestResponse, eventually,
    upstream::{Upstream, UpstreamReply},
};
use serde_json::{Value, json};

const NIGHT: Duration = Duration::from_hours(8);

async fn until_probed(upstream: &Upstream, times: usize) {
    eventually("probes", async || (upstream.requests("/readyz").len() >= times).then_some(())).await;
}

fn assert_asleep(answer: &TestResponse) {
    assert_eq!((answer.status, answer.code()), (503, "backend_not_ready"), "{}", answer.message());
    assert!(answer.message().contains("asleep"), "{}", answer.message());
    assert_eq!(answer.header("x-should-retry"), "false");
}

#[tokio::test]
async fn after_a_sleep_nothing_is_admitted_until_the_backend_was_probed_again() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    assert_eq!(gateway.generate(&json!({"prompt": "p"})).await.status, 200);
    upstream.set("/readyz", UpstreamReply::Hold);
    gateway.sleep(NIGHT);
    assert_asleep(&gateway.generate(&json!({"prompt": "p"})).await);
    until_probed(&upstream, 2).await;
    assert_asleep(&gateway.generate(&json!({"prompt": "p"})).await);
    let backend = gateway.backend("gpu_heavy").await;
    assert_eq!(
        (&backend["healthy"], &backend["ready"], &backend["last_check"]),
        (&json!(false), &json!(false), &Value::Null)
    );
    assert!(backend["error"].as_str().unwrap().contains("being probed again"), "{backend}");
    upstream.release();
    gateway.until_ready("gpu_heavy", true).await;
    assert_eq!(gateway.generate(&json!({"prompt": "p"})).await.status, 200);
    assert_eq!(upstream.images().len(), 2);
}

#[tokio::test]
async fn every_backend_is_probed_at_once_and_no_idle_connection_is_used_again() {
    let (heavy, mlx) = (Upstream::start().await, Upstream::start().await);
    let gateway = Gateway::with_backends(&with_local_mlx(&heavy, &mlx), &[]).await;
    gateway.until_ready("gpu_heavy", true).await;
    gateway.until_ready("local_mlx", true).await;
    let used = |nth: usize| -> Vec<_> {
        let probe = |upstream: &Upstream, path: &str| upstream.requests(path)[nth].connection;
        [&heavy, &mlx].map(|one| [probe(one, "/healthz"), probe(one, "/readyz")]).concat()
    };
    let before = used(0);
    assert_eq!(before[0], before[1], "a connection is reused between probes");
    // There are no requests: the worker notices, although the next probes are 30 s away.
    gateway.sleep(NIGHT);
    until_probed(&heavy, 2).await;
    until_probed(&mlx, 2).await;
    gateway.until_ready("gpu_heavy", true).await;
    for connection in used(1) {
        assert!(!before.contains(&connection), "{connection} is from before");
    }
}

#[tokio::test]
async fn a_probe_in_flight_when_the_machine_fell_asleep_is_abandoned() {
    let upstream = Upstream::start().await;
    upstream.set("/readyz", UpstreamReply::Hold);
    let gateway = Gateway::start(&upstream, &[]).await;
    until_probed(&upstream, 1).await;
    gateway.sleep(NIGHT);
    // The first is held and has 15 s left.
    until_probed(&upstream, 2).await;
    assert_eq!(gateway.backend("gpu_heavy").await["ready"], false);
    upstream.release();
    gateway.until_ready("gpu_heavy", true).await;
}

#[tokio::test]
async fn a_small_clock_correction_is_no_sleep() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    gateway.until_ready("gpu_heavy", true).await;
    gateway.sleep(Duration::from_secs(4));
    assert_eq!(gateway.generate(&json!({"prompt": "p"})).await.status, 200);
    assert_eq!(upstream.requests("/readyz").len(), 1);
}
