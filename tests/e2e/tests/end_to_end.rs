//! Requests through both services, over real sockets, down to a fake InvokeAI.

use e2e::{gateway::Gateway, sidecar::Sidecar};
use fakes::{
    TestResponse,
    engine::FakeEngine,
    invokeai::{FakeInvoke, InvokeState, ItemStatus, QueueItem},
    upstream::Upstream,
};
use picture::Format;
use serde_json::{Value, json};

struct Path {
    engine: FakeInvoke,
    sidecar: Sidecar,
    /// Chat and embeddings; must never see an image request.
    mlx: Upstream,
    gateway: Gateway,
}

async fn path() -> Path {
    let (engine, mlx) = (FakeInvoke::start().await, Upstream::start().await);
    let sidecar = Sidecar::invokeai(&engine.url(), &[]).await;
    sidecar.until_ready().await;
    let backends = format!(
        "backends:\n  local_mlx:\n    base_url: {}/v1\n    supported_capabilities: [chat, embeddings]\n  gpu_heavy:\n    \
         base_url: {}\n    supported_capabilities: [images]\n    concurrency_limits: {{images: 2}}\n",
        mlx.url, sidecar.url
    );
    let gateway = Gateway::with_backends(&backends, &[]).await;
    gateway.until_ready("gpu_heavy", true).await;
    Path { engine, sidecar, mlx, gateway }
}

fn image() -> Value {
    json!({"model": "sd-xl-base-1.0", "prompt": "test", "size": "128x128"})
}

fn running(items: &[QueueItem]) -> usize {
    items.iter().filter(|item| item.status == ItemStatus::InProgress).count()
}

fn url(answer: &TestResponse) -> &str {
    answer.json["data"][0]["url"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn gpu_heavy_makes_the_images_and_the_response_has_their_urls() {
    let path = path().await;
    let answer = path.gateway.generate(&image()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(
        (answer.header("x-backend-used"), answer.header("x-router-reason")),
        ("gpu_heavy", "backend_class")
    );
    assert_eq!(answer.header("x-model-used"), "sd-xl-base-1.0");
    assert!(answer.json["data"][0].get("b64_json").is_none());
    let bytes = path.gateway.image(url(&answer)).await;
    assert_eq!(Format::detect(&bytes), Ok(Format::Png));
    let (_, hash) = url(&answer).rsplit_once('_').unwrap();
    assert_eq!(hash.len(), 16 + ".png".len());
}

#[tokio::test]
async fn local_mlx_is_never_used_for_images() {
    let path = path().await;
    let request = path.gateway.image_request(&image()).header("x-backend", "local_mlx");
    let answer = TestResponse::read(request.send().await.unwrap()).await;
    assert_eq!((answer.status, answer.code()), (400, "capability_not_supported"));
    assert_eq!(answer.message(), "Backend local_mlx does not support images");
    path.engine.pause(true);
    path.sidecar.until_fails("engine_queue").await;
    assert_eq!(path.gateway.generate(&image()).await.status, 503);
    assert!(path.mlx.images().is_empty(), "nothing but probes");
}

#[tokio::test]
async fn requested_base64_is_returned_and_the_image_is_stored() {
    let path = path().await;
    let mut request = image();
    request["response_format"] = json!("b64_json");
    request["seed"] = json!(5);
    let answer = path.gateway.generate(&request).await;
    let encoded = answer.json["data"][0]["b64_json"].as_str().unwrap();
    let bytes = base64_simd::STANDARD.decode_to_vec(encoded).unwrap();
    request["response_format"] = json!("url");
    let stored = path.gateway.generate(&request).await;
    assert_eq!(path.gateway.image(url(&stored)).await, bytes);
    let images = path.gateway.stored().len();
    // One if both answers fell into the same second: the name is time and hash.
    assert!((1..=2).contains(&images), "{images}");
}

#[tokio::test]
async fn the_third_concurrent_request_is_429_with_retry_after_5() {
    let path = path().await;
    path.engine.script(|script| script.hold = true);
    let request = image();
    let (first, second, third) =
        tokio::join!(path.gateway.generate(&request), path.gateway.generate(&request), async {
            path.gateway.until_inflight("gpu_heavy.images", 2).await;
            let third = path.gateway.generate(&request).await;
            path.engine.script(|script| script.hold = false);
            third
        });
    assert_eq!((first.status, second.status), (200, 200));
    assert_eq!((third.status, third.code(), third.header("retry-after")), (429, "backend_overloaded", "5"));
    assert_eq!(third.message(), "Backend gpu_heavy is at capacity for images requests");
    assert_eq!(path.engine.items().len(), 2, "the third never reached the engine");
}

#[tokio::test]
async fn not_ready_is_503_with_the_sidecars_message_and_no_fallback() {
    let path = path().await;
    path.engine.pause(true);
    path.sidecar.until_fails("engine_queue").await;
    // The first refusal is the sidecar's, the second the gateway's, which remembers the first.
    assert_eq!(path.gateway.generate(&image()).await.status, 503);
    let backend = path.gateway.until_ready("gpu_heavy", false).await;
    let answer = path.gateway.generate(&image()).await;
    assert_eq!((answer.status, answer.code()), (503, "backend_not_ready"));
    assert_eq!((answer.header("retry-after"), answer.header("x-should-retry")), ("30", "false"));
    let text = "Backend gpu_heavy is not ready to accept requests: ";
    assert!(
        answer.message().starts_with(text) && answer.message().contains("queue is paused"),
        "{}",
        answer.message()
    );
    assert!(backend["error"].as_str().unwrap().contains("queue is paused"), "{backend}");
    assert!(path.engine.items().is_empty());
    path.engine.pause(false);
    path.gateway.until_ready("gpu_heavy", true).await;
    assert_eq!(path.gateway.generate(&image()).await.status, 200, "ready again by itself");
}

#[tokio::test]
async fn a_refused_request_marks_the_backend_not_ready_at_once() {
    let path = path().await;
    path.engine.pause(true);
    path.sidecar.until_fails("engine_queue").await;
    // The gateway's next regular probe is 30 s away: only the request itself can reveal it.
    let answer = path.gateway.generate(&image()).await;
    assert_eq!((answer.status, answer.code()), (503, "backend_not_ready"));
    assert_eq!(path.gateway.backend("gpu_heavy").await["ready"], false);
}

#[tokio::test]
async fn equal_images_have_equal_names_but_for_the_time() {
    let path = path().await;
    let mut request = image();
    request["seed"] = json!(3);
    let (first, second) = (path.gateway.generate(&request).await, path.gateway.generate(&request).await);
    let hash = |answer: &TestResponse| url(answer).rsplit_once('_').unwrap().1.to_owned();
    assert_eq!(hash(&first), hash(&second));
}

#[tokio::test]
async fn a_batch_is_one_job_with_counting_seeds() {
    let path = path().await;
    let mut request = image();
    request["n"] = json!(3);
    request["seed"] = json!(10);
    let answer = path.gateway.generate(&request).await;
    let data = answer.json["data"].as_array().unwrap();
    let seeds: Vec<_> = data.iter().map(|object| object["seed"].as_u64().unwrap()).collect();
    assert_eq!(seeds, [10, 11, 12]);
    for object in data {
        path.gateway.image(object["url"].as_str().unwrap()).await;
    }
    assert_eq!(
        path.engine.requests().iter().filter(|request| request.path.ends_with("enqueue_batch")).count(),
        1
    );
}

#[tokio::test]
async fn large_images_are_accepted_and_too_large_ones_refused() {
    let path = path().await;
    let large = path.gateway.generate(&json!({"prompt": "a", "size": "1920x1080", "model": "sd-v1-5"})).await;
    assert_eq!(large.status, 200, "{large:?}");
    assert!(path.gateway.image(url(&large)).await.len() > 500_000);
    for size in ["2048x2056", "0x0", "big", "512"] {
        let answer = path.gateway.generate(&json!({"prompt": "a", "size": size})).await;
        assert_eq!((answer.status, answer.code()), (400, "invalid_size"), "{size}: {answer:?}");
        assert_eq!(answer.json["error"]["param"], "size");
    }
    assert_eq!(path.engine.items().len(), 1);
}

#[tokio::test]
async fn a_backends_error_keeps_its_code_and_gains_its_class() {
    let path = path().await;
    path.engine.script(|script| script.fail = Some(InvokeState::out_of_memory()));
    let answer = path.gateway.generate(&image()).await;
    assert_eq!((answer.status, answer.code()), (503, "gpu_out_of_memory"));
    assert_eq!(answer.json["error"]["backend_class"], "gpu_heavy");
    assert_eq!(answer.json["error"]["route_kind"], "images");
    assert_eq!((answer.header("x-backend-used"), answer.header("x-should-retry")), ("gpu_heavy", "false"));
    let unknown = path.gateway.generate(&json!({"prompt": "a", "model": "flux"})).await;
    assert_eq!((unknown.status, unknown.code()), (404, "model_not_found"));
}

#[tokio::test]
async fn the_status_reports_limits_and_health() {
    let path = path().await;
    let status = path.gateway.get("/v1/gateway/status").await;
    let images = &status.json["admission_control"]["gpu_heavy.images"];
    assert_eq!(
        (&images["limit"], &images["available"], &images["inflight"]),
        (&json!(2), &json!(2), &json!(0))
    );
    let health = &status.json["backend_health"]["gpu_heavy"];
    assert_eq!(
        (&health["healthy"], &health["ready"], &health["error"]),
        (&json!(true), &json!(true), &Value::Null)
    );
    assert_eq!(status.json["gateway"]["images_backend"], "http_openai_images");
}

#[tokio::test]
async fn a_client_that_disconnects_from_the_gateway_cancels_its_job_on_the_gpu() {
    let path = path().await;
    path.engine.script(|script| script.hold = true);
    let request = image();
    {
        let waiting = path.gateway.generate(&request);
        tokio::select! {
            answer = waiting => panic!("held jobs do not end: {answer:?}"),
            () = path.engine.until(|items| running(items) == 1) => {}
        }
    }
    path.engine.until(|items| items[0].status == ItemStatus::Canceled).await;
    path.gateway.until_inflight("gpu_heavy.images", 0).await;
    path.sidecar.until_inflight(0).await;
}

#[tokio::test]
async fn the_request_id_is_the_same_everywhere() {
    let path = path().await;
    let answer = TestResponse::read(
        path.gateway.image_request(&image()).header("x-request-id", "one-id-7").send().await.unwrap(),
    )
    .await;
    assert_eq!(answer.header("x-request-id"), "one-id-7");
}

#[tokio::test]
async fn the_mock_works_without_a_gpu() {
    let mlx = Upstream::start().await;
    let backends = format!(
        "backends:\n  gpu_heavy:\n    base_url: {}\n    supported_capabilities: [images]\n    concurrency_limits: {{images: 2}}\n",
        mlx.url
    );
    let gateway = Gateway::with_backends(&backends, &["--images-backend", "mock"]).await;
    let answer = gateway.generate(&image()).await;
    assert_eq!((answer.status, answer.header("x-backend-used")), (200, "mock"));
    assert_eq!(Format::detect(&gateway.image(url(&answer)).await), Ok(Format::Png));
}

#[tokio::test]
async fn an_edit_with_a_mask_works_end_to_end() {
    use fakes::form::{KIND, file, form, text};
    let path = path().await;
    let encoded = |image: image::DynamicImage| {
        let mut bytes = Vec::new();
        image.write_to(&mut std::io::Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
        bytes
    };
    let source = image::RgbImage::from_pixel(64, 64, image::Rgb([1, 2, 3]));
    let half = |x: u32, _| image::Rgba([0, 0, 0, if x < 32 { 0 } else { 255 }]);
    let mask = encoded(image::RgbaImage::from_fn(64, 64, half).into());
    let (image, heads) = (encoded(source.clone().into()), [file("image", "a.png"), file("mask", "m.png")]);
    let body = form(&[
        (&heads[0], &image),
        (&heads[1], &mask),
        (&text("prompt"), b"a cat"),
        (&text("model"), b"sd-v1-5"),
        (&text("steps"), b"2"),
    ]);
    let request = path
        .gateway
        .request(reqwest::Method::POST, "/v1/images/edits")
        .header("content-type", KIND)
        .body(body);
    let answer = TestResponse::read(request.send().await.unwrap()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let made = image::load_from_memory(&path.gateway.image(url(&answer)).await).unwrap().into_rgb8();
    assert!((32..64).all(|x| made.get_pixel(x, 9) == source.get_pixel(x, 9)));
    assert!((0..32).any(|x| made.get_pixel(x, 9) != source.get_pixel(x, 9)));
}

#[tokio::test]
async fn a_stream_works_end_to_end_and_its_image_is_stored() {
    let path = path().await;
    path.engine.script(|script| script.item = std::time::Duration::from_millis(200));
    let mut request = image();
    request["stream"] = json!(true);
    request["partial_images"] = json!(2);
    let events =
        fakes::sse::SseReader::new(path.gateway.image_request(&request).send().await.unwrap()).rest().await;
    let types: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    let partial = "image_generation.partial_image";
    assert_eq!(types, [partial, partial, "image_generation.completed"]);
    let stored = path.gateway.image(events[2]["url"].as_str().unwrap()).await;
    let sent = base64_simd::STANDARD.decode_to_vec(events[2]["b64_json"].as_str().unwrap()).unwrap();
    assert_eq!(stored, sent);
}

#[tokio::test]
async fn disconnecting_from_a_stream_frees_the_engine() {
    let path = path().await;
    path.engine.script(|script| script.hold = true);
    let mut request = image();
    request["stream"] = json!(true);
    let events = fakes::sse::SseReader::new(path.gateway.image_request(&request).send().await.unwrap());
    path.engine.until(|items| running(items) == 1).await;
    drop(events);
    path.engine.until(|items| items[0].status == ItemStatus::Canceled).await;
    path.sidecar.until_inflight(0).await;
    path.gateway.until_inflight("gpu_heavy.images", 0).await;
}

#[tokio::test]
async fn a_gateway_limit_above_the_sidecars_is_a_warning() {
    let engine = FakeInvoke::start().await;
    let sidecar = Sidecar::invokeai(&engine.url(), &["--max-inflight", "1"]).await;
    sidecar.until_ready().await;
    let backends = format!(
        "backends:\n  gpu_heavy:\n    base_url: {}\n    supported_capabilities: [images]\n    \
         concurrency_limits: {{images: 2}}\n",
        sidecar.url
    );
    let gateway = Gateway::with_backends(&backends, &[]).await;
    let backend = gateway.until_ready("gpu_heavy", true).await;
    assert!(
        backend["warnings"].to_string().contains("images is 2, but the sidecar accepts only 1 at once"),
        "{backend}"
    );
}
