//! Probes, and what requests find out.

use e2e::gateway::{Gateway, gpu_heavy, with_local_mlx};
use fakes::upstream::{Upstream, UpstreamReply};
use serde_json::json;

fn report(status: &str, checks: &serde_json::Value) -> serde_json::Value {
    json!({"status": status, "checks": checks, "since": 1, "sampled_at": 1.5,
        "gpu": {"index": 0, "name": "NVIDIA RTX 6000 Ada Generation", "uuid": "GPU-1", "memory.total": 46068,
            "memory.reserved": 0, "memory.used": 1, "memory.free": 46067, "temperature.gpu": 54},
        "engine": {"kind": "invokeai", "queue_depth": 0, "models": 1}})
}

#[tokio::test]
async fn a_backend_that_is_not_ready_is_503_with_its_own_message_and_gets_no_request() {
    let upstream = Upstream::start().await;
    let failing = json!([
        {"name": "vram_headroom", "status": "fail", "message": "2 GiB free: stop pid 7"},
        {"name": "thermal", "status": "warn", "message": "85 C"},
    ]);
    upstream.set("/readyz", UpstreamReply::json(503, report("not_ready", &failing)));
    let gateway = Gateway::start(&upstream, &[]).await;
    let answer = gateway.generate(&json!({"prompt": "p"})).await;
    assert_eq!((answer.status, answer.code()), (503, "backend_not_ready"));
    assert_eq!(
        answer.message(),
        "Backend gpu_heavy is not ready to accept requests: vram_headroom: 2 GiB free: stop pid 7"
    );
    assert_eq!(answer.json["error"]["health_error"], "vram_headroom: 2 GiB free: stop pid 7");
    assert_eq!((answer.header("retry-after"), answer.header("x-should-retry")), ("30", "false"));
    assert_eq!(answer.header("x-backend-used"), "gpu_heavy");
    assert!(upstream.images().is_empty());
    let backend = gateway.backend("gpu_heavy").await;
    assert_eq!((&backend["healthy"], &backend["ready"]), (&json!(true), &json!(false)));
    assert_eq!(backend["error"], "vram_headroom: 2 GiB free: stop pid 7");
    assert_eq!(backend["warnings"], json!(["thermal: 85 C"]));
    assert_eq!(backend["gpu"]["temperature.gpu"], 54);
    upstream.set("/readyz", UpstreamReply::json(200, report("ready", &json!([]))));
    gateway.until_ready("gpu_heavy", true).await;
    assert_eq!(gateway.generate(&json!({"prompt": "p"})).await.status, 200);
}

#[tokio::test]
async fn a_degraded_backend_is_used_and_its_warnings_are_reported() {
    let upstream = Upstream::start().await;
    let checks = json!([{"name": "thermal", "status": "warn", "message": "85 C"}]);
    upstream.set("/readyz", UpstreamReply::json(200, report("degraded", &checks)));
    let gateway = Gateway::start(&upstream, &[]).await;
    assert_eq!(gateway.generate(&json!({"prompt": "p"})).await.status, 200);
    assert_eq!(gateway.backend("gpu_heavy").await["warnings"], json!(["thermal: 85 C"]));
}

#[tokio::test]
async fn nothing_is_admitted_before_the_first_probe_is_answered() {
    let upstream = Upstream::start().await;
    upstream.set("/readyz", UpstreamReply::Hold);
    let gateway = Gateway::start(&upstream, &[]).await;
    let answer = gateway.generate(&json!({"prompt": "p"})).await;
    assert_eq!((answer.status, answer.code()), (503, "backend_not_ready"));
    assert!(upstream.images().is_empty());
    upstream.release();
    gateway.until_ready("gpu_heavy", true).await;
}

#[tokio::test]
async fn a_refused_connection_marks_the_backend_not_ready_and_no_other_is_tried() {
    let (heavy, mlx) = (Upstream::start().await, Upstream::start().await);
    let gateway = Gateway::with_backends(&with_local_mlx(&heavy, &mlx), &[]).await;
    assert_eq!(gateway.generate(&json!({"prompt": "p"})).await.status, 200);
    heavy.stop().await;
    let answer = gateway.generate(&json!({"prompt": "p"})).await;
    assert_eq!((answer.status, answer.code()), (503, "backend_not_ready"));
    assert!(answer.message().ends_with(": connection refused"), "{}", answer.message());
    let backend = gateway.backend("gpu_heavy").await;
    assert_eq!(
        (&backend["healthy"], &backend["ready"]),
        (&json!(false), &json!(false)),
        "the next probe is 30 s away"
    );
    assert_eq!(gateway.generate(&json!({"prompt": "p"})).await.status, 503);
    assert!(mlx.images().is_empty());
}

#[tokio::test]
async fn a_not_ready_response_triggers_an_immediate_probe() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    gateway.until_ready("gpu_heavy", true).await;
    let not_ready = || {
        UpstreamReply::error(503, "backend_not_ready", "engine_queue: paused").with_header("retry-after", "9")
    };
    let probes = || upstream.requests("/readyz").len();
    let before = probes();
    upstream.next_image(not_ready());
    let answer = gateway.generate(&json!({"prompt": "p"})).await;
    assert_eq!((answer.status, answer.code()), (503, "backend_not_ready"));
    assert_eq!((answer.header("retry-after"), answer.header("x-should-retry")), ("9", "false"));
    assert_eq!(answer.json["error"]["health_error"], "engine_queue: paused");
    // Behind a load balancer the next card may be ready: until the next probe, requests continue.
    assert_eq!(gateway.generate(&json!({"prompt": "p"})).await.status, 200);
    assert_eq!(upstream.images().len(), 2);
    // The interval is 30 s: a probe within the test's timeout was requested.
    fakes::eventually("a probe", async || (probes() > before).then_some(())).await;
    assert_eq!(gateway.backend("gpu_heavy").await["ready"], true);
    let failing = json!([{"name": "engine_queue", "status": "fail", "message": "paused: resume it"}]);
    upstream.set("/readyz", UpstreamReply::json(503, report("not_ready", &failing)));
    upstream.next_image(not_ready());
    assert_eq!(gateway.generate(&json!({"prompt": "p"})).await.status, 503);
    let backend = gateway.until_ready("gpu_heavy", false).await;
    assert_eq!(backend["error"], "engine_queue: paused: resume it");
}

#[tokio::test]
async fn an_unresolvable_host_name_is_named() {
    let yaml = "backends:\n  gpu_heavy:\n    base_url: http://ada2.invalid:7860\n    supported_capabilities: [images]\n";
    let gateway = Gateway::with_backends(yaml, &[]).await;
    let named = |text: &str| text.contains("\"ada2.invalid\" cannot be resolved") && !text.contains("lost");
    let backend = fakes::eventually("the name in the status", async || {
        let backend = gateway.backend("gpu_heavy").await;
        backend["error"].as_str().is_some_and(named).then_some(backend)
    })
    .await;
    assert_eq!((&backend["healthy"], &backend["ready"]), (&json!(false), &json!(false)));
    let answer = gateway.generate(&json!({"prompt": "p"})).await;
    assert_eq!((answer.status, answer.code()), (503, "backend_not_ready"));
    assert!(named(answer.message()), "{}", answer.message());
}

#[tokio::test]
async fn a_limit_above_the_sidecars_is_a_warning_that_follows_both() {
    let upstream = Upstream::start().await;
    let slots = |limit: u32| {
        let check = json!([{"name": "slots", "status": "pass", "observed": format!("0 of {limit} taken")}]);
        UpstreamReply::json(200, report("ready", &check))
    };
    upstream.set("/readyz", slots(1));
    let gateway = Gateway::start(&upstream, &["--health-check-interval-sec", "0.2"]).await;
    let warnings = async |expected: bool| {
        fakes::eventually("the warning", async || {
            let backend = gateway.backend("gpu_heavy").await["warnings"].to_string();
            (backend.contains("images is 2, but the sidecar accepts only 1 at once") == expected)
                .then_some(())
        })
        .await;
    };
    warnings(true).await;
    assert_eq!(gateway.generate(&json!({"prompt": "p"})).await.status, 200, "it gates nothing");
    upstream.set("/readyz", slots(2));
    warnings(false).await;
}

#[tokio::test]
async fn a_connection_reset_triggers_a_probe() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    gateway.until_ready("gpu_heavy", true).await;
    let probes = upstream.requests("/readyz").len();
    upstream.next_image(UpstreamReply::Break);
    let answer = gateway.generate(&json!({"prompt": "p"})).await;
    assert_eq!((answer.status, answer.code()), (502, "backend_error"));
    assert_eq!(answer.header("x-should-retry"), "false");
    // The interval is 30 s: a probe within the test's timeout was requested.
    fakes::eventually("a further probe", async || {
        (upstream.requests("/readyz").len() > probes).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_probe_that_gets_404_is_misconfigured_and_the_model_list_decides() {
    let upstream = Upstream::start().await;
    for path in ["/healthz", "/readyz"] {
        upstream.set(path, UpstreamReply::Respond(404, vec![], b"Not Found".to_vec()));
    }
    let gateway = Gateway::start(&upstream, &[]).await;
    let backend = gateway.until_ready("gpu_heavy", true).await;
    assert_eq!(backend["healthy"], true);
    let warnings = backend["warnings"].to_string();
    assert!(warnings.contains("wrong probe") && warnings.contains("/readyz"), "{warnings}");
    for (models, ready) in [
        (UpstreamReply::Respond(200, vec![], vec![]), true),
        (UpstreamReply::json(200, json!({"error": "Unexpected endpoint"})), false),
        (UpstreamReply::json(500, json!({"object": "list", "data": []})), false),
    ] {
        let upstream = Upstream::start().await;
        upstream.set("/readyz", UpstreamReply::Respond(404, vec![], vec![]));
        upstream.set("/v1/models", models);
        let gateway = Gateway::start(&upstream, &[]).await;
        assert_eq!(gateway.until_ready("gpu_heavy", ready).await["healthy"], true);
    }
}

#[tokio::test]
async fn probes_go_to_the_origin_of_the_base_address() {
    let upstream = Upstream::start().await;
    let yaml = gpu_heavy(&upstream).replace(&upstream.url, &format!("{}/v1", upstream.url))
        + "    health: {liveness: /healthz, readiness: '/readyz?deep=1'}\n";
    upstream.set("/readyz?deep=1", UpstreamReply::Respond(200, vec![], vec![]));
    let gateway = Gateway::with_backends(&yaml, &[]).await;
    gateway.until_ready("gpu_heavy", true).await;
    assert_eq!(gateway.generate(&json!({"prompt": "p"})).await.status, 200);
    assert!(!upstream.requests("/healthz").is_empty() && !upstream.requests("/readyz?deep=1").is_empty());
}

#[tokio::test]
async fn an_mlx_server_with_the_default_paths_is_ready_and_its_probes_are_reported() {
    let (mlx, heavy) = (fakes::mlx::FakeMlx::start().await, Upstream::start().await);
    let yaml = gpu_heavy(&heavy) + &e2e::gateway::chat_backend("local_mlx", &mlx.url, "");
    let gateway = Gateway::with_backends(&yaml, &[]).await;
    let backend = gateway.until_ready("local_mlx", true).await;
    assert_eq!(backend["healthy"], true);
    for path in ["/healthz", "/readyz"] {
        let warning = format!("wrong probe: the backend has no {path}; set its own path under `health`");
        assert!(backend["warnings"].as_array().unwrap().contains(&json!(warning)), "{backend}");
    }
    let models = gateway.get("/v1/models").await.json["data"].to_string();
    assert!(!models.contains("local_mlx"), "an empty body is an empty list: {models}");
}

#[tokio::test]
async fn a_server_that_answers_every_path_with_200_is_recognized() {
    let studio = Upstream::start().await;
    for path in ["/healthz", "/readyz"] {
        let error = format!("Unexpected endpoint or method. (GET {path})");
        studio.set(path, UpstreamReply::json(200, json!({ "error": error })));
    }
    let gateway = Gateway::start(&studio, &["--health-check-interval-sec", "0.2"]).await;
    let backend = gateway.until_ready("gpu_heavy", true).await;
    assert!(backend["warnings"].to_string().contains("wrong probe: the backend has no /readyz"), "{backend}");
    studio.set("/v1/models", UpstreamReply::json(200, json!({"error": "Unexpected endpoint or method."})));
    let backend = gateway.until_ready("gpu_heavy", false).await;
    assert_eq!((&backend["healthy"], backend["warnings"].as_array().unwrap().len()), (&json!(true), 2));
}

#[tokio::test]
async fn a_misconfigured_probe_is_distinguished_from_a_backend_that_is_down() {
    let upstream = Upstream::start().await;
    upstream.set("/readyz", UpstreamReply::Respond(404, vec![], vec![]));
    let gateway = Gateway::start(&upstream, &["--health-check-interval-sec", "0.2"]).await;
    gateway.until_ready("gpu_heavy", true).await;
    upstream.stop().await;
    let backend = gateway.until_ready("gpu_heavy", false).await;
    assert_eq!(
        (&backend["healthy"], &backend["error"]),
        (&json!(false), &json!("connection refused: nothing listens there"))
    );
}
