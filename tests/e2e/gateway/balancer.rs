//! Several cards behind one address.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{Router, body::to_bytes, extract::Request, response::IntoResponse};
use e2e::{
    gateway::Gateway,
    upstream::{Reply, Upstream},
};
use reqwest::StatusCode;
use serde_json::json;
use shared::service::{
    lifecycle::Lifecycle,
    serve::{Listener, accept},
};

/// A load balancer that hands request after request to one card after the other, and does not look how they are.
struct Balancer {
    url: String,
    lifecycle: Lifecycle,
}

impl Balancer {
    async fn before(cards: &[&Upstream]) -> Self {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", socket.local_addr().unwrap());
        let cards: Arc<[String]> = cards.iter().map(|card| card.url.clone()).collect();
        let turn = Arc::new(AtomicUsize::new(0));
        let router = Router::new().fallback(move |request: Request| {
            let card = cards[turn.fetch_add(1, Ordering::Relaxed) % cards.len()].clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = to_bytes(body, 1 << 20).await.unwrap_or_default();
                let asked = e2e::http().request(parts.method, format!("{card}{}", parts.uri));
                let kind = parts.headers.get("content-type").cloned();
                let asked = kind.into_iter().fold(asked, |asked, kind| asked.header("content-type", kind));
                match asked.body(body).send().await {
                    Ok(answer) => (answer.status(), answer.bytes().await.unwrap_or_default()).into_response(),
                    Err(_) => StatusCode::BAD_GATEWAY.into_response(),
                }
            }
        });
        let lifecycle = Lifecycle::new();
        lifecycle.worker("accept", accept(socket, Listener::plain(router), lifecycle.clone()));
        Self { url, lifecycle }
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.lifecycle.stop();
        self.lifecycle.aborting().cancel();
    }
}

async fn probes(gateway: &Gateway) -> u64 {
    let line = "gateway_probes_total{backend=\"gpu_heavy\",result=\"answered\"} ";
    let metrics = gateway.metrics().await;
    metrics.lines().find_map(|counted| counted.strip_prefix(line)?.parse().ok()).unwrap_or_default()
}

#[tokio::test]
async fn one_card_that_is_not_ready_does_not_keep_requests_from_the_other() {
    let (good, bad) = (Upstream::start().await, Upstream::start().await);
    let balancer = Balancer::before(&[&good, &bad]).await;
    let yaml = format!(
        "backends:\n  gpu_heavy:\n    base_url: {}\n    supported_capabilities: [images]\n    \
         concurrency_limits: {{images: 2}}\n",
        balancer.url
    );
    let gateway = Gateway::with_backends(&yaml, &[]).await;
    gateway.until_ready("gpu_heavy", true).await;
    let report = json!({"status": "not_ready", "since": 1, "sampled_at": 1.5,
        "checks": [{"name": "engine_queue", "status": "fail", "message": "paused"}],
        "engine": {"kind": "invokeai", "queue_depth": 0, "models": 1}});
    bad.set("/readyz", Reply::json(503, report));
    bad.set_images(Reply::error(503, "backend_not_ready", "engine_queue: paused"));
    let (mut made, mut refused) = (0, 0);
    while made < 6 || refused < 6 {
        let before = probes(&gateway).await;
        let answer = gateway.generate(&json!({"prompt": "p"})).await;
        match answer.status {
            200 => made += 1,
            503 => {
                refused += 1;
                // A probe is asked for at once; the next of its own would come in 30 s.
                e2e::eventually("a probe", async || (probes(&gateway).await > before).then_some(())).await;
            }
            _ => panic!("{answer:?}"),
        }
        assert_eq!(gateway.backend("gpu_heavy").await["ready"], true, "after {made} and {refused}");
    }
    assert_eq!((good.images().len(), bad.images().len()), (made, refused), "each refusal is the card's own");
    // Once no card is ready, the class is not.
    good.set("/readyz", Reply::Say(503, vec![], vec![]));
    while gateway.generate(&json!({"prompt": "p"})).await.status == 200 {}
    gateway.until_ready("gpu_heavy", false).await;
}
