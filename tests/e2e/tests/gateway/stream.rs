//! Events as they happen.

use e2e::gateway::{Gateway, TOKEN};
use fakes::{
    TestResponse,
    stream_client::StreamClient,
    upstream::{
        Upstream, UpstreamReply, fake_image,
        sse::{SseStep, completed, partial},
    },
};
use picture::Format;
use serde_json::{Value, json};
use service::outbound::{ConnectionPolicy, client_builder};
use wire::openai::images::ImageSize;

pub(super) const KEY: &str = "gpu_heavy.images";
pub(super) const MADE: &str = "image_generation";

pub(super) fn ask() -> Value {
    json!({"prompt": "p", "stream": true, "partial_images": 1})
}

pub(super) fn painted() -> Vec<u8> {
    fake_image("p", 7, ImageSize::new(32, 32))
}

pub(super) fn bytes_of(act: &SseStep) -> Vec<u8> {
    match act {
        SseStep::Send(bytes) => bytes.clone(),
        SseStep::Wait | SseStep::Break => Vec::new(),
    }
}

/// An event with what the sidecar adds to it.
fn with_settings(event: &SseStep) -> SseStep {
    let text = String::from_utf8(bytes_of(event)).unwrap();
    let extended =
        text.replacen("data: {", "data: {\"settings\":{\"steps\":9},\"ignored\":[\"strength\"],", 1);
    SseStep::Send(extended.into_bytes())
}

pub(super) async fn until_counted(gateway: &Gateway, status: u16) {
    let line = format!(
        "gateway_requests_total{{backend=\"gpu_heavy\",route=\"/v1/images/generations\",status=\"{status}\"}} 1"
    );
    fakes::eventually(&line, async || gateway.metrics().await.contains(&line).then_some(())).await;
}

#[tokio::test]
async fn events_are_relayed_one_by_one_and_the_last_gains_its_url() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    let (first, second) = (partial(MADE, 0), partial(MADE, 1));
    let ping = || SseStep::Send(b": progress 0.42\n\n".to_vec());
    let odd = SseStep::Send(b"event:own\r\nid: 7\r\ndata: {\"b\":1,  \"a\":2}\r\n: inside\r\n\r\n".to_vec());
    let script = [
        ping(),
        SseStep::Wait,
        first.clone(),
        SseStep::Wait,
        second.clone(),
        odd.clone(),
        SseStep::Wait,
        with_settings(&completed(MADE, &painted())),
    ];
    upstream.set_images(UpstreamReply::Events(script.to_vec()));
    let mut client =
        StreamClient::start(gateway.image_request(&ask()).header("x-stainless-read-timeout", "60")).await;
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-cache"),
        ("x-accel-buffering", "no"),
        ("x-backend-used", "gpu_heavy"),
        ("x-model-used", "default"),
        ("x-router-reason", "backend_class"),
    ] {
        assert_eq!(client.header(name), value, "{name}");
    }
    assert!(!client.header("x-request-id").is_empty());
    let mut expected = b": progress 0.42\n\n".to_vec();
    client.until(&expected).await;
    upstream.step();
    expected.extend(bytes_of(&first));
    client.until(&expected).await;
    assert_eq!(gateway.inflight(KEY).await, 1, "the slot is held while it streams");
    upstream.step();
    expected.extend([bytes_of(&second), bytes_of(&odd)].concat());
    client.until(&expected).await;
    assert!(gateway.stored().is_empty(), "no image yet");
    let reported = gateway.metrics().await.contains("route=\"/v1/images/generations\",status");
    assert!(!reported, "its line is written and counted at its end");
    upstream.step();
    assert!(client.end().await);
    let (name, data) = client.last_event();
    assert_eq!(
        (name.as_str(), &data["type"]),
        ("image_generation.completed", &json!("image_generation.completed"))
    );
    assert_eq!((&data["seed"], &data["created_at"]), (&json!(7), &json!(1_736_697_234)));
    assert_eq!((&data["settings"], &data["ignored"]), (&json!({"steps": 9}), &json!(["strength"])));
    let inline = base64_simd::STANDARD.decode_to_vec(data["b64_json"].as_str().unwrap()).unwrap();
    assert_eq!(inline, painted());
    assert_eq!(gateway.image(data["url"].as_str().unwrap()).await, inline);
    gateway.until_inflight(KEY, 0).await;
    until_counted(&gateway, 200).await;
    let request = &upstream.images()[0];
    assert_eq!((&request.body["stream"], request.header("accept")), (&json!(true), "text/event-stream"));
    let left: u64 = request.header("x-request-timeout-ms").parse().unwrap();
    assert!(left > 200_000, "{left}: the client's 60 s are for each event, not for the stream");
}

#[tokio::test]
async fn edits_stream_the_same_way() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &["--public-base-url", "https://ai2.local:8800"]).await;
    upstream.set_images(UpstreamReply::Events(vec![
        partial("image_edit", 0),
        completed("image_edit", &painted()),
    ]));
    let form = "--b\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a.png\"\r\n\r\npng\r\n\
                --b\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\np\r\n\
                --b\r\nContent-Disposition: form-data; name=\"stream\"\r\n\r\ntrue\r\n--b--\r\n";
    let mut client = StreamClient::start(gateway.edit("multipart/form-data; boundary=b", form)).await;
    assert!(client.end().await);
    assert!(client.received.starts_with(&bytes_of(&partial("image_edit", 0))));
    let (name, data) = client.last_event();
    assert_eq!(name, "image_edit.completed");
    assert!(data["url"].as_str().unwrap().starts_with("https://ai2.local:8800/ui/images/"), "{data}");
}

#[tokio::test]
async fn disconnecting_from_a_silent_stream_closes_the_backends_and_frees_the_slot() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    upstream.set_images(UpstreamReply::Events(vec![partial(MADE, 0), SseStep::Wait]));
    let mut client = StreamClient::start(gateway.image_request(&ask())).await;
    client.until(&bytes_of(&partial(MADE, 0))).await;
    upstream.until_held(1).await;
    drop(client);
    upstream.until_disconnected(1).await;
    gateway.until_inflight(KEY, 0).await;
    until_counted(&gateway, 499).await;
}

#[tokio::test]
async fn a_disconnect_is_noticed_through_tls() {
    let upstream = Upstream::start().await;
    let dir = fakes::fresh_dir("stream-tls");
    let yaml = e2e::gateway::gpu_heavy(&upstream);
    let gateway = Gateway::start_in(dir.clone(), &yaml, &["--gateway-tls", "on"]).await;
    let pem =
        fakes::eventually("the certificate", async || std::fs::read(dir.join("gateway-ca.pem")).ok()).await;
    let pinned = [reqwest::Certificate::from_pem(&pem).unwrap()];
    let client = client_builder(ConnectionPolicy::PerRequest).tls_certs_only(pinned).build().unwrap();
    upstream.set_images(UpstreamReply::Events(vec![partial(MADE, 0), SseStep::Wait]));
    let request = client.post(format!("{}/v1/images/generations", gateway.url)).bearer_auth(TOKEN);
    let mut stream = StreamClient::start(request.body(ask().to_string())).await;
    stream.until(&bytes_of(&partial(MADE, 0))).await;
    drop((stream, client));
    upstream.until_disconnected(1).await;
}

#[tokio::test]
async fn streams_hold_their_slots_and_one_more_is_429() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    upstream.set_images(UpstreamReply::Events(vec![
        partial(MADE, 0),
        SseStep::Wait,
        completed(MADE, &painted()),
    ]));
    let mut clients = [
        StreamClient::start(gateway.image_request(&ask())).await,
        StreamClient::start(gateway.image_request(&ask())).await,
    ];
    assert_eq!(gateway.inflight(KEY).await, 2);
    for ask in [ask(), json!({"prompt": "p"})] {
        let answer = gateway.generate(&ask).await;
        assert_eq!((answer.status, answer.code()), (429, "backend_overloaded"));
    }
    upstream.step();
    for client in &mut clients {
        assert!(client.end().await);
        assert_eq!(client.last_event().0, "image_generation.completed");
    }
    gateway.until_inflight(KEY, 0).await;
    assert_eq!(upstream.images().len(), 2);
}

#[tokio::test]
async fn a_drain_lets_a_stream_finish() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    upstream.set_images(UpstreamReply::Events(vec![
        partial(MADE, 0),
        SseStep::Wait,
        completed(MADE, &painted()),
    ]));
    let mut client = StreamClient::start(gateway.image_request(&ask())).await;
    client.until(&bytes_of(&partial(MADE, 0))).await;
    gateway.lifecycle.begin_drain();
    upstream.step();
    assert!(client.end().await);
    assert_eq!(client.last_event().0, "image_generation.completed");
    gateway.stop().await;
}

#[tokio::test]
async fn the_mock_has_one_finished_event() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &["--images-backend", "mock"]).await;
    let mut client = StreamClient::start(
        gateway.image_request(&json!({"prompt": "p", "stream": true, "size": "64x48", "seed": 3})),
    )
    .await;
    assert_eq!(client.header("x-backend-used"), "mock");
    assert!(client.end().await);
    assert_eq!(client.received.windows(2).filter(|bytes| bytes == b"\n\n").count(), 1, "one event");
    let (name, data) = client.last_event();
    assert_eq!(
        (name.as_str(), &data["type"]),
        ("image_generation.completed", &json!("image_generation.completed"))
    );
    assert_eq!((&data["size"], &data["seed"]), (&json!("64x48"), &json!(3)));
    for key in ["created_at", "quality", "background", "output_format", "usage"] {
        assert!(!data[key].is_null(), "{key}");
    }
    let bytes = gateway.image(data["url"].as_str().unwrap()).await;
    assert_eq!(Format::detect(&bytes), Ok(Format::Png));
    assert_eq!(base64_simd::STANDARD.encode_to_string(&bytes), data["b64_json"].as_str().unwrap());
    assert!(upstream.images().is_empty());
}

#[tokio::test]
async fn the_body_decides_on_streaming_not_the_accept_header() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    let request = gateway.image_request(&json!({"prompt": "p"})).header("accept", "text/event-stream");
    let answer = TestResponse::read(request.send().await.unwrap()).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
}
