//! What becomes of a backend's failures, and of requests for nothing. Every answer is one envelope.

use e2e::gateway::Gateway;
use fakes::{
    TestResponse,
    upstream::{Upstream, UpstreamReply},
};
use reqwest::Method;
use serde_json::{Value, json};

fn assert_envelope(answer: &TestResponse) {
    let error = answer.json["error"].as_object().expect("an envelope");
    for key in ["message", "type", "param", "code"] {
        assert!(error.contains_key(key), "{key} in {answer:?}");
    }
    assert_eq!(answer.json["detail"], error["message"]);
    assert!(answer.header("content-type").starts_with("application/json"));
    assert!(!answer.header("x-request-id").is_empty());
}

#[tokio::test]
async fn a_backends_error_envelope_is_relayed_with_its_origin() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    for (status, code, after) in [
        (503, "gpu_out_of_memory", "9"),
        (504, "engine_timeout", ""),
        (404, "model_not_found", ""),
        (429, "backend_overloaded", "5"),
    ] {
        let reply = UpstreamReply::error(status, code, "the engine's message");
        upstream.next_image(if after == "9" { reply.with_header("retry-after", "9") } else { reply });
        let answer = gateway.generate(&json!({"prompt": "p"})).await;
        assert_envelope(&answer);
        assert_eq!((answer.status, answer.code(), answer.header("retry-after")), (status, code, after));
        assert_eq!(answer.message(), "the engine's message");
        assert_eq!(answer.json["error"]["backend_class"], "gpu_heavy");
        assert_eq!(answer.json["error"]["route_kind"], "images");
        assert_eq!(answer.header("x-should-retry"), if status >= 500 { "false" } else { "" });
        assert_eq!(answer.header("x-backend-used"), "gpu_heavy");
    }
    upstream.next_image(
        UpstreamReply::error(503, "engine_unavailable", "m")
            .with_header("retry-after", "300")
            .with_header("x-should-retry", "true"),
    );
    let answer = gateway.generate(&json!({"prompt": "p"})).await;
    assert_eq!((answer.header("retry-after"), answer.header("x-should-retry")), ("", "true"));
}

/// A PNG of this size over these bytes of pixels.
fn png(width: u32, height: u32, pixels: &[u8]) -> String {
    let chunk = |kind: &[u8], data: &[u8]| {
        [&u32::try_from(data.len()).unwrap().to_be_bytes()[..], kind, data, &[0; 4]].concat()
    };
    let head = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    let signature = &b"\x89PNG\r\n\x1a\n"[..];
    let png = [signature, &chunk(b"IHDR", &head), &chunk(b"IDAT", pixels), &chunk(b"IEND", b"")].concat();
    base64_simd::STANDARD.encode_to_string(png)
}

#[tokio::test]
async fn images_without_pixels_and_too_few_or_too_many_are_502_and_nothing_is_stored() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    let good = png(8, 8, b"x\x9cdeflated");
    for (count, data) in [
        (1, vec![png(0, 0, b"x\x9cdeflated")]),
        (1, vec![png(60_000, 60_000, b"x\x9cdeflated")]),
        (1, vec![png(8, 8, b"")]),
        (2, vec![good.clone()]),
        (2, vec![good.clone(), png(0, 0, b"x\x9cdeflated")]),
        (1, vec![good.clone(), good.clone()]),
        (3, vec![good.clone(), good.clone(), good.clone(), good.clone()]),
    ] {
        let data: Vec<_> = data.iter().map(|image| json!({"b64_json": image})).collect();
        upstream.next_image(UpstreamReply::json(200, json!({"created": 1, "data": data})));
        let answer = gateway.generate(&json!({"prompt": "p", "n": count})).await;
        assert_envelope(&answer);
        assert_eq!((answer.status, answer.code()), (502, "backend_error"), "{answer:?}");
    }
    gateway.until_nothing_stored().await;
    upstream.next_image(UpstreamReply::json(200, json!({"created": 1, "data": [{"b64_json": good}]})));
    assert_eq!(gateway.generate(&json!({"prompt": "p"})).await.status, 200);
}

#[tokio::test]
async fn any_other_error_becomes_an_envelope_without_its_text() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    let html = || b"<html><body>Traceback (most recent call last): /opt/engine/x.py</body></html>".to_vec();
    let too_long =
        UpstreamReply::json(500, json!({"error": {"message": "x".repeat(70_000), "type": "t", "code": "c"}}));
    for (reply, status, code) in [
        (
            UpstreamReply::Respond(500, vec![("content-type", "text/html".into())], html()),
            502,
            "backend_error",
        ),
        (UpstreamReply::Respond(503, vec![], html()), 503, "backend_error"),
        (UpstreamReply::Respond(429, vec![], vec![]), 429, "backend_overloaded"),
        (UpstreamReply::json(422, json!({"detail": "bad steps"})), 422, "backend_error"),
        (UpstreamReply::json(401, json!({"detail": "who"})), 502, "backend_error"),
        (too_long, 502, "backend_error"),
        (
            UpstreamReply::Respond(302, vec![("location", "http://127.0.0.1:1/".into())], vec![]),
            502,
            "backend_error",
        ),
        (UpstreamReply::Respond(200, vec![], html()), 502, "backend_error"),
        (UpstreamReply::json(200, json!({"data": []})), 502, "backend_error"),
        (UpstreamReply::json(200, json!({"error": {"message": "m"}})), 502, "backend_error"),
        (UpstreamReply::json(200, json!({"data": [{"b64_json": "aGVsbG8="}]})), 502, "backend_error"),
        (UpstreamReply::json(200, json!({"data": [{"b64_json": "not base64"}]})), 502, "backend_error"),
        (UpstreamReply::Break, 502, "backend_error"),
    ] {
        upstream.next_image(reply.clone());
        let answer = gateway.generate(&json!({"prompt": "p"})).await;
        assert_envelope(&answer);
        assert_eq!((answer.status, answer.code()), (status, code), "{answer:?}");
        assert!(!answer.json.to_string().contains("Traceback"), "{answer:?}");
        assert_eq!(answer.header("x-should-retry"), if status == 429 { "" } else { "false" }, "{answer:?}");
    }
    gateway.until_nothing_stored().await;
}

#[tokio::test]
async fn a_truncated_image_is_neither_stored_nor_sent() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    let complete = fakes::upstream::fake_image("p", 0, wire::openai::images::ImageSize::new(32, 32));
    let truncated = base64_simd::STANDARD.encode_to_string(&complete[..complete.len() - 20]);
    let complete = base64_simd::STANDARD.encode_to_string(&complete);
    upstream.next_image(UpstreamReply::json(
        200,
        json!({"data": [{"b64_json": complete}, {"b64_json": truncated}]}),
    ));
    let answer = gateway.generate(&json!({"prompt": "p", "n": 2})).await;
    assert_eq!((answer.status, answer.code()), (502, "backend_error"));
    assert!(answer.message().contains("damaged or cut off"), "{}", answer.message());
    gateway.until_nothing_stored().await; // all images or none
}

#[tokio::test]
async fn image_urls_are_fetched_only_from_the_backend_itself() {
    let (upstream, elsewhere) = (Upstream::start().await, Upstream::start().await);
    let gateway = Gateway::start(&upstream, &[]).await;
    let complete = fakes::upstream::fake_image("p", 0, wire::openai::images::ImageSize::new(32, 32));
    upstream.set("/outputs/1.png", UpstreamReply::Respond(200, vec![], complete.clone()));
    upstream.set(
        "/outputs/2.png",
        UpstreamReply::Respond(302, vec![("location", format!("{}/x", elsewhere.url))], vec![]),
    );
    let data = base64_simd::STANDARD.encode_to_string(&complete);
    for (url, status) in [
        ("/outputs/1.png".to_owned(), 200),
        (format!("{}/outputs/1.png", upstream.url), 200),
        (format!("data:image/png;base64,{data}"), 200),
        ("/outputs/2.png".to_owned(), 502),
        ("/outputs/none.png".to_owned(), 502),
        (format!("{}/x", elsewhere.url), 502),
        ("file:///etc/passwd".to_owned(), 502),
    ] {
        upstream.next_image(UpstreamReply::json(200, json!({"data": [{ "url": url }]})));
        let answer = gateway.generate(&json!({"prompt": "p"})).await;
        assert_eq!(answer.status, status, "{url} {answer:?}");
    }
    assert!(elsewhere.requests("/x").is_empty());
}

#[tokio::test]
async fn a_backend_timeout_is_504_and_closes_the_connection() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &["--images-http-timeout-sec", "1"]).await;
    upstream.set_images(UpstreamReply::Hold);
    let answer = gateway.generate(&json!({"prompt": "p"})).await;
    assert_envelope(&answer);
    assert_eq!((answer.status, answer.code()), (504, "backend_timeout"));
    assert_eq!(answer.header("x-should-retry"), "false");
    upstream.until_disconnected(1).await;
    assert_eq!(upstream.images().len(), 1);
}

#[tokio::test]
async fn unknown_paths_and_wrong_methods_are_envelopes_too() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    for path in ["/", "/v1", "/v1/nothing", "/ui/", "/v1/images/generations/x", "/metrics/"] {
        let answer = gateway.get(path).await;
        assert_envelope(&answer);
        assert_eq!((answer.status, answer.code()), (404, "not_found"), "{path}");
    }
    for (method, path, allow) in [
        (Method::GET, "/v1/images/generations", "POST"),
        (Method::POST, "/v1/models", "GET,HEAD"),
        (Method::DELETE, "/healthz", "GET,HEAD"),
    ] {
        let answer = TestResponse::read(gateway.request(method, path).send().await.unwrap()).await;
        assert_envelope(&answer);
        assert_eq!((answer.status, answer.code()), (405, "method_not_allowed"), "{path}");
        assert_eq!(answer.header("allow"), allow);
    }
}

#[tokio::test]
async fn a_name_collision_in_the_store_is_an_error_and_overwrites_nothing() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    let ask = json!({"prompt": "p", "size": "8x8"});
    let url = gateway.generate(&ask).await.json["data"][0]["url"].as_str().unwrap().to_owned();
    let (unix, rest) = url.strip_prefix("/ui/images/").unwrap().split_once('_').unwrap();
    let unix: u64 = unix.parse().unwrap();
    // The same bytes get a name of the next seconds: all of them are taken.
    for second in unix + 1..unix + 60 {
        std::fs::write(gateway.store.join(format!("{second}_{rest}")), b"other").unwrap();
    }
    let refused = async || Some(gateway.generate(&ask).await).filter(|answer| answer.status != 200);
    let answer = fakes::eventually("the next second", refused).await;
    assert_envelope(&answer);
    assert_eq!((answer.status, answer.code()), (500, "internal_error"));
    assert_eq!(answer.header("x-should-retry"), "false");
    assert_eq!(std::fs::read(gateway.store.join(format!("{}_{rest}", unix + 1))).unwrap(), b"other");
    assert!(!answer.json.to_string().contains(&*gateway.store.display().to_string()));
    assert_ne!(answer.json["error"]["message"], Value::Null);
}
