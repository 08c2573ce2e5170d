//! The metrics, and who may read them.

use e2e::gateway::{Gateway, with_local_mlx};
use fakes::{
    TestResponse, http,
    promtool::lint,
    upstream::{Upstream, UpstreamReply},
};
use serde_json::json;

fn has(metrics: &str, line: &str) -> bool {
    metrics.lines().any(|other| other == line)
}

#[tokio::test]
async fn requests_are_counted_and_promtool_accepts_the_page() {
    let (heavy, mlx) = (Upstream::start().await, Upstream::start().await);
    let gateway = Gateway::with_backends(&with_local_mlx(&heavy, &mlx), &[]).await;
    gateway.until_ready("gpu_heavy", true).await;
    gateway.until_ready("local_mlx", true).await;
    assert_eq!(gateway.generate(&json!({"prompt": "p", "n": 2})).await.status, 200);
    heavy.next_image(UpstreamReply::error(500, "engine_error", "no"));
    assert_eq!(gateway.generate(&json!({"prompt": "p"})).await.status, 500);
    assert_eq!(gateway.generate(&json!({"prompt": "p", "size": "9"})).await.status, 400);
    assert_eq!(gateway.get("/ui/images/1_0123456789abcdef.png").await.status, 404);
    let metrics = gateway.metrics().await;
    for line in [
        r#"gateway_requests_total{backend="gpu_heavy",route="/v1/images/generations",status="200"} 1"#,
        r#"gateway_requests_total{backend="gpu_heavy",route="/v1/images/generations",status="500"} 1"#,
        r#"gateway_requests_total{backend="none",route="/v1/images/generations",status="400"} 1"#,
        r#"gateway_requests_total{backend="none",route="/ui/images/{name}",status="404"} 1"#,
        r#"gateway_request_duration_seconds_count{route="/v1/images/generations"} 3"#,
        r#"gateway_rejected_total{reason="invalid_size"} 1"#,
        r#"gateway_slots_limit{backend="gpu_heavy",capability="images"} 2"#,
        r#"gateway_slots_inflight{backend="local_mlx",capability="chat"} 0"#,
        r#"gateway_backend_ready{backend="gpu_heavy"} 1"#,
        r#"gateway_backend_healthy{backend="local_mlx"} 1"#,
        r#"gateway_probes_total{backend="gpu_heavy",result="answered"} 1"#,
        "gateway_pictures_stored_total 2",
        "gateway_log_lines_dropped_total 0",
        &format!("gateway_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")),
    ] {
        assert!(has(&metrics, line), "{line} in\n{metrics}");
    }
    assert!(!metrics.contains("engine_error"), "a backend's failure is no rejection");
    match lint(&metrics) {
        Some(complaints) => assert_eq!(complaints, "", "{metrics}"),
        None => println!("skipped: promtool is not on PATH"),
    }
}

#[tokio::test]
async fn a_stopped_backend_is_reported() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    gateway.until_ready("gpu_heavy", true).await;
    upstream.stop().await;
    assert_eq!(gateway.generate(&json!({"prompt": "p"})).await.status, 503);
    assert_eq!(gateway.generate(&json!({"prompt": "p"})).await.status, 503);
    let metrics = gateway.metrics().await;
    for line in [
        r#"gateway_backend_ready{backend="gpu_heavy"} 0"#,
        r#"gateway_backend_healthy{backend="gpu_heavy"} 0"#,
        // The first request saw the refusal itself.
        r#"gateway_rejected_total{reason="backend_not_ready"} 1"#,
        r#"gateway_requests_total{backend="gpu_heavy",route="/v1/images/generations",status="503"} 2"#,
    ] {
        assert!(has(&metrics, line), "{line} in\n{metrics}");
    }
}

#[tokio::test]
async fn clients_cannot_create_label_values() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    for path in ["/mine", "/mine/2", "/v1/mine", "/ui/images/mine.png", "/metrics/mine", "/V1/models"] {
        assert_eq!(gateway.get(path).await.status, 404, "{path}");
    }
    assert_eq!(gateway.request("MINE".parse().unwrap(), "/v1/models").send().await.unwrap().status(), 405);
    let body = json!({"prompt": "p", "model": "mine"});
    assert_eq!(gateway.image_request(&body).header("x-backend", "mine").send().await.unwrap().status(), 400);
    upstream.next_image(UpstreamReply::error(599, "mine", "no"));
    assert_eq!(gateway.generate(&body).await.status, 599);
    let metrics = gateway.metrics().await;
    assert!(!metrics.to_lowercase().contains("mine"), "{metrics}");
    assert!(
        has(&metrics, r#"gateway_requests_total{backend="none",route="other",status="404"} 5"#),
        "{metrics}"
    );
    assert!(metrics.contains(r#"route="/v1/images/generations",status="other"} 1"#), "{metrics}");
}

#[tokio::test]
async fn on_the_main_port_metrics_need_the_token() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    assert_eq!(gateway.metrics_url, None);
    let answer = gateway.anonymous(reqwest::Method::GET, "/metrics").send().await.unwrap();
    let answer = TestResponse::read(answer).await;
    assert_eq!((answer.status, answer.code()), (401, "invalid_api_key"));
    let scrape = gateway.get("/metrics").await;
    assert_eq!(scrape.header("content-type"), "text/plain; version=0.0.4");
}

#[tokio::test]
async fn a_separate_listener_serves_only_metrics_and_needs_no_token() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &["--gateway-metrics-listen", "127.0.0.1:0"]).await;
    let url = gateway.metrics_url.clone().unwrap();
    let get = |path: &str| http().get(format!("{url}{path}"));
    let scrape = get("/metrics").send().await.unwrap();
    assert_eq!(scrape.status(), 200);
    assert!(scrape.text().await.unwrap().contains("gateway_backend_ready{backend=\"gpu_heavy\"}"));
    for path in ["/", "/healthz", "/readyz", "/v1/models", "/v1/gateway/status", "/ui", "/metrics/"] {
        let answer =
            TestResponse::read(get(path).bearer_auth(e2e::gateway::TOKEN).send().await.unwrap()).await;
        assert_eq!((answer.status, answer.code()), (404, "not_found"), "{path}");
    }
    let wrong = TestResponse::read(http().post(format!("{url}/metrics")).send().await.unwrap()).await;
    assert_eq!((wrong.status, wrong.code()), (405, "method_not_allowed"));
    let foreign =
        TestResponse::read(get("/metrics").header("host", "evil.example").send().await.unwrap()).await;
    assert_eq!((foreign.status, foreign.code()), (421, "host_not_allowed"));
    let page = get("/metrics").header("origin", "https://evil.example").send().await.unwrap();
    assert_eq!(TestResponse::read(page).await.code(), "cross_origin");
    gateway.stop().await;
}
