//! Images while they arrive: written piece by piece, and deleted again if they are incomplete.

use std::path::Path;

use e2e::gateway::Gateway;
use fakes::{
    TestResponse,
    upstream::{Upstream, UpstreamReply, fake_image, sse::SseStep},
};
use serde_json::json;
use wire::openai::images::ImageSize;

const SIZE: ImageSize = ImageSize::new(1200, 1000);

fn painted(seed: u64) -> Vec<u8> {
    fake_image("arriving", seed, SIZE)
}

fn base64(bytes: &[u8]) -> String {
    base64_simd::STANDARD.encode_to_string(bytes)
}

/// A chunked response, with a wait in the middle of its second image.
fn in_pieces(rest: &str) -> Vec<SseStep> {
    let (first, second) = (base64(&painted(1)), base64(&painted(2)));
    let (begin, end) = second.split_at(second.len() / 2);
    vec![
        SseStep::Send(format!("{{\"data\":[{{\"b64_json\":\"{first}\",\"seed\":1}},").into_bytes()),
        SseStep::Send(format!("{{\"b64_json\":\"{begin}").into_bytes()),
        SseStep::Wait,
        SseStep::Send(format!("{end}\"}}],{rest}").into_bytes()),
    ]
}

fn unfinished(store: &Path) -> usize {
    let names = std::fs::read_dir(store).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_str().unwrap().starts_with(".incoming-")).count()
}

async fn until_unfinished(gateway: &Gateway, count: usize) {
    fakes::eventually("unfinished files", async || (unfinished(&gateway.store) == count).then_some(())).await;
}

#[tokio::test]
async fn a_chunked_response_is_read_in_every_response_format() {
    for format in ["url", "b64_json"] {
        let upstream = Upstream::start().await;
        let gateway = Gateway::start(&upstream, &[]).await;
        upstream.next_image(UpstreamReply::Events(in_pieces("\"created\":7,\"odd\":\"\\\"b64_json\\\"\"}")));
        let request =
            gateway.image_request(&json!({"prompt": "p", "n": 2, "response_format": format})).send();
        let waiting = async {
            until_unfinished(&gateway, 2).await;
            assert_eq!(gateway.inflight("gpu_heavy.images").await, 1, "the slot is held");
            upstream.step();
        };
        let (answer, ()) = tokio::join!(request, waiting);
        let answer = TestResponse::read(answer.unwrap()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!((&answer.json["created"], &answer.json["odd"]), (&json!(7), &json!("\"b64_json\"")));
        for (nth, seed) in [(0, 1), (1, 2)] {
            let entry = &answer.json["data"][nth];
            let bytes = match format {
                "url" => gateway.image(entry["url"].as_str().unwrap()).await,
                _ => base64_simd::STANDARD.decode_to_vec(entry["b64_json"].as_str().unwrap()).unwrap(),
            };
            assert!(bytes == painted(seed), "{format} {nth}");
        }
        assert_eq!(answer.json["data"][0]["seed"], 1);
        assert_eq!(answer.json["data"][1].as_object().unwrap().len(), 1, "nothing is made up");
        assert_eq!(unfinished(&gateway.store), 0);
    }
}

#[tokio::test]
async fn a_client_that_disconnects_in_mid_image_leaves_nothing_behind() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    upstream.next_image(UpstreamReply::Events(in_pieces("\"created\":7}")));
    tokio::select! {
        answer = gateway.image_request(&json!({"prompt": "p", "n": 2})).send() => panic!("{answer:?}"),
        () = until_unfinished(&gateway, 2) => {}
    }
    until_unfinished(&gateway, 0).await;
    gateway.until_inflight("gpu_heavy.images", 0).await;
    upstream.until_disconnected(1).await;
    let list = gateway.get("/v1/gateway/images").await;
    assert_eq!(list.json["total"]["pictures"], 0, "not the first one either: it was all or nothing");
}

#[tokio::test]
async fn a_truncated_or_malformed_response_leaves_nothing_behind() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    let encoded = base64(&painted(1));
    let cut = base64(&painted(1)[..5000]);
    for (acts, status) in [
        (
            vec![SseStep::Send(format!("{{\"data\":[{{\"b64_json\":\"{cut}").into_bytes()), SseStep::Break],
            502,
        ),
        (vec![SseStep::Send(format!("{{\"data\":[{{\"b64_json\":\"{cut}").into_bytes())], 502),
        (vec![SseStep::Send(format!("{{\"data\":[{{\"b64_json\":\"{cut}\"}}]}}").into_bytes())], 502),
        (vec![SseStep::Send(format!("{{\"data\":[{{\"b64_json\":\"{encoded}\"}}]").into_bytes())], 502),
        (vec![SseStep::Send(format!("{{\"data\":[{{\"b64_json\":\"{encoded}%\"}}]}}").into_bytes())], 502),
        (vec![SseStep::Send(format!("{{\"data\":[{{\"b64_json\":\"{encoded}\"}}]}}").into_bytes())], 200),
    ] {
        upstream.next_image(UpstreamReply::Events(acts));
        let answer = gateway.generate(&json!({"prompt": "p"})).await;
        assert_eq!(answer.status, status, "{answer:?}");
        until_unfinished(&gateway, 0).await;
        assert_eq!(gateway.inflight("gpu_heavy.images").await, 0);
    }
    assert_eq!(gateway.get("/v1/gateway/images").await.json["total"]["pictures"], 1);
}
