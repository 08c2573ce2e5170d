//! Streams that fail: before they begin, in the middle, and after the last event.

use e2e::gateway::Gateway;
use fakes::{
    stream_client::StreamClient,
    upstream::{
        Upstream, UpstreamReply,
        sse::{SseStep, completed, error, event, partial},
    },
};
use serde_json::json;

use super::stream::{KEY, MADE, ask, bytes_of, painted, until_counted};

#[tokio::test]
async fn a_failure_before_the_first_event_is_an_error_response() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    let html = UpstreamReply::Respond(200, vec![("content-type", "text/html".into())], b"<html>".to_vec());
    for (reply, status, code) in [
        (UpstreamReply::error(429, "backend_overloaded", "full"), 429, "backend_overloaded"),
        (UpstreamReply::error(404, "model_not_found", "no such model"), 404, "model_not_found"),
        (UpstreamReply::Images, 502, "backend_error"),
        (html, 502, "backend_error"),
        (UpstreamReply::error(503, "backend_not_ready", "paused"), 503, "backend_not_ready"),
    ] {
        upstream.next_image(reply);
        let answer = gateway.generate(&ask()).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{answer:?}");
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(gateway.inflight(KEY).await, 0);
    }
    let answer = gateway.generate(&json!({"prompt": "p", "stream": true, "n": 2})).await;
    assert_eq!((answer.status, &answer.json["error"]["param"]), (400, &json!("n")));
}

#[tokio::test]
async fn a_backend_without_base64_has_no_streams() {
    let upstream = Upstream::start().await;
    let yaml = e2e::gateway::gpu_heavy(&upstream) + "    payload_policy: {images_allow_base64: false}\n";
    let gateway = Gateway::with_backends(&yaml, &[]).await;
    let answer = gateway.generate(&ask()).await;
    assert_eq!((answer.status, &answer.json["error"]["param"]), (400, &json!("stream")));
}

#[tokio::test]
async fn a_backends_error_event_is_relayed_unchanged() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    let failed = error("gpu_out_of_memory", "the card's memory did not suffice");
    upstream.set_images(UpstreamReply::Events(vec![partial(MADE, 0), failed.clone()]));
    let mut client = StreamClient::start(gateway.image_request(&ask())).await;
    assert!(client.end().await);
    assert_eq!(client.received, [bytes_of(&partial(MADE, 0)), bytes_of(&failed)].concat());
    gateway.until_inflight(KEY, 0).await;
    until_counted(&gateway, 502).await;
}

#[tokio::test]
async fn a_completed_event_with_a_truncated_image_becomes_an_error_event() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    let complete = painted();
    let name = "image_generation.completed";
    for act in [
        completed(MADE, &complete[..complete.len() - 20]),
        completed(MADE, b"<html>"),
        event(name, &json!({"type": name})),
        event(name, &json!([])),
        SseStep::Send(format!("event: {name}\ndata: no json\n\n").into_bytes()),
    ] {
        upstream.next_image(UpstreamReply::Events(vec![partial(MADE, 0), act.clone(), SseStep::Wait]));
        let mut client = StreamClient::start(gateway.image_request(&ask())).await;
        assert!(client.end().await, "the stream ends without waiting for the backend");
        let (event, data) = client.last_event();
        assert_eq!((event.as_str(), &data["type"]), ("error", &json!("error")), "{act:?}");
        assert_eq!(data["error"]["code"], "backend_error", "{act:?}");
        for key in ["message", "type", "param", "code"] {
            assert!(data["error"].as_object().unwrap().contains_key(key), "{key}");
        }
        gateway.until_inflight(KEY, 0).await;
    }
    upstream.until_disconnected(5).await;
    gateway.until_nothing_stored().await;
}

#[tokio::test]
async fn a_stream_without_a_completed_event_is_reset_for_the_client() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    let unfinished = SseStep::Send(bytes_of(&completed(MADE, &painted()))[..200].to_vec());
    let preview = bytes_of(&partial(MADE, 0));
    for (script, received) in [
        (vec![SseStep::Break], &[][..]),
        (vec![], &[]),
        (vec![partial(MADE, 0), SseStep::Break], &preview),
        (vec![partial(MADE, 0)], &preview),
        (vec![partial(MADE, 0), unfinished.clone(), SseStep::Break], &preview),
        (vec![partial(MADE, 0), unfinished], &preview),
    ] {
        upstream.next_image(UpstreamReply::Events(script.clone()));
        let mut client = StreamClient::start(gateway.image_request(&ask())).await;
        assert!(!client.end().await, "{script:?}");
        assert_eq!(client.received, received, "{script:?}");
        gateway.until_inflight(KEY, 0).await;
    }
    let metrics = gateway.metrics().await;
    let line = r#"gateway_requests_total{backend="gpu_heavy",route="/v1/images/generations",status="502"} 6"#;
    assert!(metrics.contains(line), "{metrics}");
}

#[tokio::test]
async fn what_a_backend_does_after_the_image_changes_nothing() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    for after in [SseStep::Break, SseStep::Wait] {
        upstream.next_image(UpstreamReply::Events(vec![completed(MADE, &painted()), after.clone()]));
        let mut client = StreamClient::start(gateway.image_request(&ask())).await;
        assert!(client.end().await, "{after:?}");
        assert_eq!(client.last_event().0, "image_generation.completed");
        gateway.until_inflight(KEY, 0).await;
    }
}

#[tokio::test]
async fn a_silent_backend_is_an_error_event_and_its_connection_is_closed() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &["--images-http-timeout-sec", "1"]).await;
    upstream.set_images(UpstreamReply::Events(vec![partial(MADE, 0), SseStep::Wait]));
    let mut client = StreamClient::start(gateway.image_request(&ask())).await;
    assert!(client.end().await);
    let (event, data) = client.last_event();
    assert_eq!((event.as_str(), &data["error"]["code"]), ("error", &json!("backend_timeout")));
    upstream.until_disconnected(1).await;
    gateway.until_inflight(KEY, 0).await;
    until_counted(&gateway, 504).await;
}

#[tokio::test]
async fn a_missing_store_is_reported_before_the_backend_gets_a_request() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    std::fs::remove_dir_all(&gateway.store).unwrap();
    for request in [ask(), json!({"prompt": "p"})] {
        let answer = gateway.generate(&request).await;
        assert_eq!((answer.status, answer.code()), (500, "internal_error"), "{answer:?}");
        assert!(!answer.json.to_string().contains(&*gateway.store.display().to_string()));
    }
    assert!(upstream.images().is_empty(), "no GPU time was spent");
    assert_eq!(gateway.inflight(KEY).await, 0);
}

#[tokio::test]
async fn an_image_that_cannot_be_stored_is_an_error_event() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    let first = SseStep::Send(b": ping\n\n".to_vec());
    upstream.set_images(UpstreamReply::Events(vec![first, SseStep::Wait, completed(MADE, &painted())]));
    let mut client = StreamClient::start(gateway.image_request(&ask())).await;
    client.until(b": ping\n\n").await;
    std::fs::remove_dir_all(&gateway.store).unwrap();
    upstream.step();
    assert!(client.end().await);
    let (event, data) = client.last_event();
    assert_eq!((event.as_str(), &data["error"]["code"]), ("error", &json!("internal_error")));
    assert!(!data.to_string().contains(&*gateway.store.display().to_string()));
    until_counted(&gateway, 500).await;
}
