//! Images through the gateway: routing, delivery, what passes and what does not.

use e2e::gateway::{Gateway, TOKEN, with_local_mlx};
use fakes::upstream::{Upstream, UpstreamReply, fake_image};
use picture::Format;
use serde_json::json;
use wire::openai::images::ImageSize;

#[tokio::test]
async fn gpu_heavy_makes_the_image_and_the_response_has_its_url() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    let answer = gateway.generate(&json!({"prompt": "a red cat", "size": "64x64", "seed": 7})).await;
    assert_eq!(answer.status, 200, "{:?}", answer.json);
    assert_eq!(answer.json["created"], 1_736_697_234);
    assert_eq!(answer.json["size"], "64x64", "the answer's other fields are kept");
    let entry = answer.json["data"][0].as_object().unwrap();
    assert_eq!(entry["seed"], 7);
    assert!(!entry.contains_key("b64_json"));
    let url = entry["url"].as_str().unwrap();
    assert!(url.starts_with("/ui/images/") && url.contains(".png"), "{url}");
    assert_eq!(gateway.image(url).await, fake_image("a red cat", 7, ImageSize::new(64, 64)));
    assert_eq!(answer.header("x-backend-used"), "gpu_heavy");
    assert_eq!(answer.header("x-router-reason"), "backend_class");
    assert_eq!(answer.header("x-model-used"), "default");
    assert!(!answer.header("x-request-id").is_empty());
}

#[tokio::test]
async fn how_each_image_was_made_is_passed_on() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    let settings = |seed: u64| json!({"model": "z-image-turbo", "steps": 9, "seed": seed, "loras": [{"name": "l", "weight": 0.5}]});
    let image = |seed: u64| {
        let bytes = fake_image("p", seed, ImageSize::new(8, 8));
        json!({"b64_json": base64_simd::STANDARD.encode_to_string(bytes), "seed": seed, "settings": settings(seed)})
    };
    let reply = json!({"created": 1, "data": [image(1), image(2)], "ignored": ["negative_prompt"], "safety_identifier": "u"});
    upstream.set_images(UpstreamReply::json(200, reply));
    for format in ["url", "b64_json"] {
        let answer = gateway.generate(&json!({"prompt": "p", "n": 2, "response_format": format})).await;
        assert_eq!(answer.status, 200, "{:?}", answer.json);
        for (entry, seed) in answer.json["data"].as_array().unwrap().iter().zip(1..) {
            assert_eq!((&entry["settings"], entry[format].is_string()), (&settings(seed), true), "{format}");
        }
        assert_eq!(
            (&answer.json["ignored"], &answer.json["safety_identifier"]),
            (&json!(["negative_prompt"]), &json!("u"))
        );
    }
}

#[tokio::test]
async fn base64_is_opt_in_and_the_image_is_stored() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    let ask = json!({"prompt": "p", "size": "32x32", "response_format": "b64_json"});
    let answer = gateway.generate(&ask).await;
    let entry = answer.json["data"][0].as_object().unwrap();
    assert!(!entry.contains_key("url"));
    let bytes = base64_simd::STANDARD.decode_to_vec(entry["b64_json"].as_str().unwrap()).unwrap();
    assert_eq!(bytes, fake_image("p", 0, ImageSize::new(32, 32)));
    let stored = gateway.stored();
    assert_eq!(stored.len(), 1);
    assert_eq!(std::fs::read(&stored[0]).unwrap(), bytes);
}

#[tokio::test]
async fn openai_model_names_default_to_base64() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    let answer = gateway.generate(&json!({"prompt": "p", "model": "gpt-image-1"})).await;
    assert!(answer.json["data"][0]["b64_json"].is_string());
    let answer =
        gateway.generate(&json!({"prompt": "p", "model": "gpt-image-1", "response_format": "url"})).await;
    assert!(answer.json["data"][0]["url"].is_string());
    drop(gateway);
    let gateway = Gateway::start(&upstream, &["--images-gpt-aliases-base64", "false"]).await;
    let answer = gateway.generate(&json!({"prompt": "p", "model": "gpt-image-1"})).await;
    assert!(answer.json["data"][0]["url"].is_string());
}

#[tokio::test]
async fn a_public_base_makes_addresses_absolute() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &["--public-base-url", "https://ai2.local:8800/"]).await;
    let answer = gateway.generate(&json!({"prompt": "p"})).await;
    let url = answer.json["data"][0]["url"].as_str().unwrap();
    assert!(url.starts_with("https://ai2.local:8800/ui/images/"), "{url}");
}

#[tokio::test]
async fn local_mlx_never_gets_image_requests() {
    let (heavy, mlx) = (Upstream::start().await, Upstream::start().await);
    let gateway = Gateway::with_backends(&with_local_mlx(&heavy, &mlx), &[]).await;
    for name in ["local_mlx", "mlx"] {
        let request = gateway.image_request(&json!({"prompt": "p"})).header("x-backend", name);
        let answer = fakes::TestResponse::read(request.send().await.unwrap()).await;
        assert_eq!((answer.status, answer.code()), (400, "capability_not_supported"));
        assert_eq!(answer.message(), "Backend local_mlx does not support images");
        assert_eq!(answer.json["error"]["supported_capabilities"], json!(["chat", "embeddings"]));
        assert_eq!(answer.json["error"]["route_kind"], "images");
        assert_eq!(answer.header("x-backend-used"), "", "none was chosen");
    }
    let answer = gateway.generate(&json!({"prompt": "p", "model": "local_mlx"})).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-backend-used"), "gpu_heavy");
    assert_eq!((heavy.images().len(), mlx.images().len()), (1, 0));
    assert!(heavy.images()[0].body.get("model").is_none(), "a class name counts as no model");
}

#[tokio::test]
async fn there_is_no_fallback_when_the_one_backend_fails() {
    let (heavy, mlx) = (Upstream::start().await, Upstream::start().await);
    let gateway = Gateway::with_backends(&with_local_mlx(&heavy, &mlx), &[]).await;
    heavy.set_images(UpstreamReply::error(502, "engine_error", "the job failed"));
    let answer = gateway.generate(&json!({"prompt": "p"})).await;
    assert_eq!((answer.status, answer.code()), (502, "engine_error"));
    assert_eq!((heavy.images().len(), mlx.images().len()), (1, 0), "one request, one try");
}

#[tokio::test]
async fn an_unknown_backend_is_an_error_that_lists_the_configured_ones() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    let request = gateway.image_request(&json!({"prompt": "p"})).header("x-backend", "nobody");
    let answer = fakes::TestResponse::read(request.send().await.unwrap()).await;
    assert_eq!((answer.status, answer.code()), (400, "backend_not_found"));
    assert_eq!(answer.message(), "There is no backend \"nobody\"; there are: gpu_heavy");
    assert!(upstream.images().is_empty());
}

#[tokio::test]
async fn the_body_is_relayed_unchanged_but_for_model_and_response_format() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &["--images-openai-model", "sd-xl-base-1.0"]).await;
    let ask = json!({"prompt": "p", "steps": 9, "cfg_scale": 7.5, "negative_prompt": "x", "odd": {"a": [1, null]},
        "quality": null, "response_format": "url"});
    gateway.generate(&ask).await;
    let mut expected = ask;
    expected["response_format"] = json!("b64_json");
    expected["model"] = json!("sd-xl-base-1.0");
    assert_eq!(upstream.images()[0].body, expected);
    let answer = gateway.generate(&json!({"prompt": "p", "model": "sd-v1-5"})).await;
    assert_eq!(upstream.images()[1].body["model"], "sd-v1-5");
    assert_eq!(answer.header("x-model-used"), "sd-v1-5");
}

#[tokio::test]
async fn the_backend_gets_its_own_token_an_id_and_a_deadline_and_nothing_of_the_client() {
    let upstream = Upstream::start().await;
    let yaml = e2e::gateway::gpu_heavy(&upstream) + "    auth: {bearer_env: GATEWAY_TEST_ADA2}\n";
    let dir = fakes::fresh_dir("bearer");
    let refused = Gateway::try_start_in(dir, &yaml, &[]).await.unwrap_err();
    assert!(refused[0].contains("GATEWAY_TEST_ADA2 is not set"), "{refused:?}");
    // The gateway's token stands in for the backend's: both come from the same env file.
    let yaml = yaml.replace("GATEWAY_TEST_ADA2", "GATEWAY_BEARER_TOKEN");
    let flags = ["--gateway-auth", "off", "--images-http-timeout-sec", "100"];
    let gateway = Gateway::with_backends(&yaml, &flags).await;
    let request = fakes::http()
        .post(format!("{}/v1/images/generations", gateway.url))
        .header("authorization", "Bearer the-callers-own")
        .header("cookie", "a=b")
        .header("x-request-id", "abc-1")
        .header("x-stainless-read-timeout", "60.0")
        .body(r#"{"prompt":"p"}"#);
    let answer = fakes::TestResponse::read(request.send().await.unwrap()).await;
    assert_eq!((answer.status, answer.header("x-request-id")), (200, "abc-1"));
    let request = &upstream.images()[0];
    assert_eq!(request.header("authorization"), format!("Bearer {TOKEN}"));
    assert_eq!(request.header("x-request-id"), "abc-1");
    assert_eq!(request.header("cookie"), "");
    let left: u64 = request.header("x-request-timeout-ms").parse().unwrap();
    assert!((40_000..=58_000).contains(&left), "{left}: the client's 60 s less 2 s, less the time passed");
    let mut names: Vec<_> = request.headers.keys().map(|name| name.as_str().to_owned()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "accept",
            "authorization",
            "content-length",
            "content-type",
            "host",
            "user-agent",
            "x-request-id",
            "x-request-timeout-ms",
        ]
    );
}

#[tokio::test]
async fn the_clients_token_stays_at_the_gateway() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    assert_eq!(gateway.generate(&json!({"prompt": "p"})).await.status, 200);
    let request = &upstream.images()[0];
    assert_eq!(request.header("authorization"), "", "the backend has no token of its own");
    assert!(!format!("{request:?}").contains(TOKEN));
}

#[tokio::test]
async fn a_batch_and_a_large_image_arrive_complete() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    let answer = gateway.generate(&json!({"prompt": "p", "n": 4, "size": "32x32", "seed": 10})).await;
    let data = answer.json["data"].as_array().unwrap();
    let seeds: Vec<_> = data.iter().map(|entry| entry["seed"].as_u64().unwrap()).collect();
    assert_eq!(seeds, [10, 11, 12, 13]);
    for (entry, seed) in data.iter().zip(10..) {
        let bytes = gateway.image(entry["url"].as_str().unwrap()).await;
        assert_eq!(bytes, fake_image("p", seed, ImageSize::new(32, 32)));
    }
    let answer = gateway.generate(&json!({"prompt": "p", "size": "1600x1200"})).await;
    let bytes = gateway.image(answer.json["data"][0]["url"].as_str().unwrap()).await;
    assert_eq!(bytes, fake_image("p", 0, ImageSize::new(1600, 1200)));
}

#[tokio::test]
async fn a_request_that_cannot_be_made_is_refused_before_the_backend_gets_it() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    for (ask, code, param) in [
        (json!({"prompt": "p", "size": "4096x4096"}), "invalid_size", json!("size")),
        (json!({"prompt": "p", "size": "huge"}), "invalid_size", json!("size")),
        (json!({"prompt": "p", "n": 11}), "invalid_value", json!("n")),
        (json!({"n": 1}), "invalid_value", json!("prompt")),
        (json!({"prompt": "p", "response_format": "gif"}), "invalid_value", json!("response_format")),
        (json!([]), "invalid_body", json!(null)),
    ] {
        let answer = gateway.generate(&ask).await;
        assert_eq!((answer.status, answer.code()), (400, code), "{ask}");
        assert_eq!(answer.json["error"]["param"], param, "{ask}");
        assert_eq!(answer.json["detail"], answer.json["error"]["message"]);
    }
    let twice =
        gateway.image_request(&json!(null)).body(r#"{"prompt":"a","prompt":"b"}"#).send().await.unwrap();
    assert_eq!(twice.status().as_u16(), 400);
    assert!(upstream.images().is_empty());
}

#[tokio::test]
async fn base64_can_be_forbidden_for_a_backend() {
    let upstream = Upstream::start().await;
    let yaml = e2e::gateway::gpu_heavy(&upstream) + "    payload_policy: {images_allow_base64: false}\n";
    let gateway = Gateway::with_backends(&yaml, &[]).await;
    let answer = gateway.generate(&json!({"prompt": "p", "response_format": "b64_json"})).await;
    assert_eq!((answer.status, answer.code()), (400, "invalid_value"));
    assert_eq!(answer.json["error"]["param"], "response_format");
    assert!(gateway.generate(&json!({"prompt": "p"})).await.json["data"][0]["url"].is_string());
}

#[tokio::test]
async fn the_mock_needs_no_backend_and_says_what_it_is() {
    let upstream = Upstream::start().await;
    upstream.stop().await;
    let gateway = Gateway::start(&upstream, &["--images-backend", "mock"]).await;
    let ask = json!({"prompt": "p", "n": 2, "size": "64x48", "seed": 3});
    let answer = gateway.generate(&ask).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-backend-used"), "mock");
    let data = answer.json["data"].as_array().unwrap().clone();
    let first = gateway.image(data[0]["url"].as_str().unwrap()).await;
    assert_eq!(Format::detect(&first), Ok(Format::Png));
    assert_eq!((data.len(), &data[1]["seed"]), (2, &json!(4)));
    let again = gateway.generate(&ask).await;
    assert_eq!(gateway.image(again.json["data"][0]["url"].as_str().unwrap()).await, first, "deterministic");
    assert_eq!(gateway.get("/v1/gateway/status").await.json["gateway"]["images_backend"], "mock");
}

#[tokio::test]
async fn without_a_backend_for_images_the_gateway_serves_chat_and_refuses_images_by_name() {
    let mlx = Upstream::start().await;
    let yaml = format!(
        "backends:\n  local_mlx: {{base_url: {}, supported_capabilities: [chat]}}\n  \
         gpu_heavy: {{base_url: '${{NO_GPU_HERE}}', supported_capabilities: [images], concurrency_limits: {{images: 1}}}}\n",
        mlx.url
    );
    let gateway = Gateway::with_backends(&yaml, &[]).await;
    let answer = gateway.generate(&json!({"prompt": "p"})).await;
    assert_eq!((answer.status, answer.code()), (400, "backend_not_found"), "{answer:?}");
    let message = answer.json["error"]["message"].as_str().unwrap();
    assert!(message.starts_with("Backend gpu_heavy is not configured: "), "{message}");
    let warned = async || {
        let status = gateway.get("/v1/gateway/status").await;
        status.json["gateway"]["warnings"].to_string().contains("no image backend: ").then_some(())
    };
    fakes::eventually("the warning", warned).await;
    assert!(mlx.images().is_empty());

    let gateway = Gateway::with_backends(&yaml, &["--images-backend", "mock"]).await;
    let answer = gateway.generate(&json!({"prompt": "p", "size": "64x64"})).await;
    assert_eq!((answer.status, answer.header("x-backend-used")), (200, "mock"));
    let status = gateway.get("/v1/gateway/status").await;
    assert_eq!(status.json["admission_control"]["gpu_heavy.images"]["limit"], 1);
    assert!(status.json["backend_health"]["gpu_heavy"].is_null());
}
