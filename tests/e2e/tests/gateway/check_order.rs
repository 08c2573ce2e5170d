//! The order of checks: the first that fails answers, and nothing after it runs.

use e2e::gateway::{Gateway, TOKEN, with_local_mlx};
use fakes::{
    TestResponse,
    upstream::{Upstream, UpstreamReply},
};
use reqwest::Method;
use serde_json::json;

#[tokio::test]
async fn of_several_errors_the_first_check_answers() {
    let (heavy, mlx) = (Upstream::start().await, Upstream::start().await);
    let flags = [
        "--ip-allowlist",
        "10.0.0.0/8",
        "--trust-proxy-cidrs",
        "127.0.0.1",
        "--max-request-bytes",
        "500",
        "--health-check-interval-sec",
        "0.2",
    ];
    let gateway = Gateway::with_backends(&with_local_mlx(&heavy, &mlx), &flags).await;
    // All slots are taken, then the backend is no longer ready.
    heavy.set_images(UpstreamReply::Hold);
    let ask = async |from: &str, token: &str, backend: &str, body: &str| {
        let request = gateway
            .anonymous(Method::POST, "/v1/images/generations")
            .header("x-forwarded-for", from)
            .bearer_auth(token)
            .header("x-backend", backend)
            .body(body.to_owned());
        let answer = TestResponse::read(request.send().await.unwrap()).await;
        (answer.status, answer.code().to_owned())
    };
    let good = r#"{"prompt":"p"}"#;
    let long = format!("not json {}", "x".repeat(500));
    let free = async || {
        tokio::join!(ask("10.1.1.1", TOKEN, "", good), ask("10.1.1.1", TOKEN, "", good), async {
            heavy.until_held(2).await;
            let full = ask("10.1.1.1", TOKEN, "", good).await;
            assert_eq!(full, (429, "backend_overloaded".to_owned()), "admission, when all before it passes");
            heavy.set("/readyz", UpstreamReply::json(503, json!({"status": "paused"})));
            mark_not_ready(&gateway).await;
            for (from, token, backend, body, status, code) in [
                ("8.8.8.8", "wrong", "local_mlx", long.as_str(), 403, "ip_not_allowed"),
                ("10.1.1.1", "wrong", "local_mlx", &long, 401, "invalid_api_key"),
                ("10.1.1.1", TOKEN, "local_mlx", &long, 413, "request_too_large"),
                ("10.1.1.1", TOKEN, "local_mlx", "not json", 400, "invalid_body"),
                ("10.1.1.1", TOKEN, "local_mlx", good, 400, "capability_not_supported"),
                ("10.1.1.1", TOKEN, "", good, 503, "backend_not_ready"),
            ] {
                assert_eq!(ask(from, token, backend, body).await, (status, code.to_owned()), "{code}");
            }
            heavy.release();
        })
    };
    let (first, second, ()) = free().await;
    assert_eq!((first.0, second.0), (200, 200));
    assert_eq!(heavy.images().len(), 2, "nothing that was refused arrived");
    assert!(mlx.images().is_empty());
}

/// Waits until the next probe has found the backend not ready.
async fn mark_not_ready(gateway: &Gateway) {
    let not_ready = async || {
        let status = gateway
            .request(Method::GET, "/v1/gateway/status")
            .header("x-forwarded-for", "10.1.1.1")
            .send()
            .await
            .unwrap();
        let status = TestResponse::read(status).await;
        (status.json["backend_health"]["gpu_heavy"]["ready"] == false).then_some(())
    };
    fakes::eventually("the backend is not ready", not_ready).await;
}
