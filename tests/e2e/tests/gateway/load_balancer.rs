//! Several cards behind one address.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{Router, body::to_bytes, extract::Request, response::IntoResponse};
use e2e::gateway::Gateway;
use fakes::upstream::{Upstream, UpstreamReply};
use reqwest::StatusCode;
use serde_json::json;
use service::{
    lifecycle::Lifecycle,
    serve::{HttpServer, accept},
};

/// A load balancer that hands request after request to one card after the other, and does not check their health.
struct Balancer {
    url: String,
    turn: Arc<AtomicUsize>,
    lifecycle: Lifecycle,
}

impl Balancer {
    async fn before(cards: &[&Upstream]) -> Self {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", socket.local_addr().unwrap());
        let cards: Arc<[String]> = cards.iter().map(|card| card.url.clone()).collect();
        let turn = Arc::new(AtomicUsize::new(0));
        let turns = turn.clone();
        let router = Router::new().fallback(move |request: Request| {
            let card = cards[turns.fetch_add(1, Ordering::Relaxed) % cards.len()].clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = to_bytes(body, 1 << 20).await.unwrap_or_default();
                let forwarded = fakes::http().request(parts.method, format!("{card}{}", parts.uri));
                let kind = parts.headers.get("content-type").cloned();
                let forwarded = kind
                    .into_iter()
                    .fold(forwarded, |forwarded, kind| forwarded.header("content-type", kind));
                match forwarded.body(body).send().await {
                    Ok(answer) => (answer.status(), answer.bytes().await.unwrap_or_default()).into_response(),
                    Err(_) => StatusCode::BAD_GATEWAY.into_response(),
                }
            }
        });
        let lifecycle = Lifecycle::new();
        lifecycle.spawn_worker("accept", accept(socket, HttpServer::plain(router), lifecycle.clone()));
        Self { url, turn, lifecycle }
    }

    /// The next request is this card's.
    fn turn_to(&self, card: usize) {
        self.turn.store(card, Ordering::Relaxed);
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.lifecycle.begin_drain();
        self.lifecycle.aborting().cancel();
    }
}

async fn probes(gateway: &Gateway) -> u64 {
    let line = "gateway_probes_total{backend=\"gpu_heavy\",result=\"answered\"} ";
    let metrics = gateway.metrics().await;
    metrics.lines().find_map(|counted| counted.strip_prefix(line)?.parse().ok()).unwrap_or_default()
}

/// A gateway in front of two cards, of which the second is not ready from now on.
async fn with_one_card_not_ready(flags: &[&str]) -> (Upstream, Upstream, Balancer, Gateway) {
    let (good, bad) = (Upstream::start().await, Upstream::start().await);
    let balancer = Balancer::before(&[&good, &bad]).await;
    let yaml = format!(
        "backends:\n  gpu_heavy:\n    base_url: {}\n    supported_capabilities: [images]\n    \
         concurrency_limits: {{images: 2}}\n",
        balancer.url
    );
    let gateway = Gateway::with_backends(&yaml, flags).await;
    gateway.until_ready("gpu_heavy", true).await;
    let report = json!({"status": "not_ready", "since": 1, "sampled_at": 1.5,
        "checks": [{"name": "engine_queue", "status": "fail", "message": "paused"}],
        "engine": {"kind": "invokeai", "queue_depth": 0, "models": 1}});
    bad.set("/readyz", UpstreamReply::json(503, report));
    bad.set_images(UpstreamReply::error(503, "backend_not_ready", "engine_queue: paused"));
    (good, bad, balancer, gateway)
}

#[tokio::test]
async fn one_card_that_is_not_ready_does_not_keep_requests_from_the_other() {
    let (good, bad, balancer, gateway) = with_one_card_not_ready(&[]).await;
    for nth in 1..=6 {
        balancer.turn_to(0);
        assert_eq!(gateway.generate(&json!({"prompt": "p"})).await.status, 200);
        let before = probes(&gateway).await;
        balancer.turn_to(1);
        let refused = gateway.generate(&json!({"prompt": "p"})).await;
        assert_eq!((refused.status, refused.code()), (503, "backend_not_ready"));
        // A probe is sent at once; the next regular one would come in 30 s.
        fakes::eventually("a probe", async || (probes(&gateway).await > before).then_some(())).await;
        assert_eq!(gateway.backend("gpu_heavy").await["ready"], true);
        assert_eq!((good.images().len(), bad.images().len()), (nth, nth), "each refusal is the card's own");
    }
    // Once no card is ready, the class is not.
    good.set("/readyz", UpstreamReply::Respond(503, vec![], vec![]));
    balancer.turn_to(1);
    assert_eq!(gateway.generate(&json!({"prompt": "p"})).await.status, 503);
    gateway.until_ready("gpu_heavy", false).await;
}

#[tokio::test]
async fn a_probe_answered_by_a_card_that_is_not_ready_is_retried() {
    let (_good, bad, _balancer, gateway) =
        with_one_card_not_ready(&["--health-check-interval-sec", "0.05"]).await;
    fakes::eventually("probes of both", async || {
        assert_eq!(gateway.backend("gpu_heavy").await["ready"], true);
        (bad.requests("/readyz").len() >= 10).then_some(())
    })
    .await;
}
