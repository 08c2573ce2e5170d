//! Image requests as jobs: those that outlive their client, and those that are cancelled by their id.

use std::path::PathBuf;

use e2e::gateway::{Gateway, gpu_heavy};
use fakes::{
    TestResponse,
    stream_client::StreamClient,
    upstream::{
        Upstream, UpstreamReply,
        sse::{SseStep, completed, event, partial},
    },
};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::stream::{KEY, MADE, ask, bytes_of, painted};

const ALICE: &str = "alice-0123456789abcdef";
const BOB: &str = "bob-0123456789abcdef";
const CAROL: &str = "carol-0123456789abcdef";
const ID: &str = "0123456789abcdef0123456789abcdef";
const FORM: &str = "--b\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a.png\"\r\n\r\npng\r\n\
                    --b\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\np\r\n";

/// Alice and Bob see their own, Carol sees all.
async fn start_in(dir: PathBuf, upstream: &Upstream, flags: &[&str]) -> Gateway {
    let tokens = format!("GATEWAY_BEARER_TOKENS=alice={ALICE},bob={BOB},carol={CAROL}\n");
    std::fs::write(dir.join(".env"), format!("{tokens}GATEWAY_OWNER_TOKENS=carol\n")).unwrap();
    Gateway::start_in(dir, &gpu_heavy(upstream), flags).await
}

async fn start(upstream: &Upstream, flags: &[&str]) -> Gateway {
    start_in(fakes::fresh_dir("jobs"), upstream, flags).await
}

fn post(gateway: &Gateway, token: &str, route: &str, content_type: &str, body: String) -> RequestBuilder {
    let request = gateway.anonymous(Method::POST, route).bearer_auth(token).header("x-request-id", ID);
    request.header("content-type", content_type).body(body)
}

/// A generation of Alice's.
fn generation(gateway: &Gateway, body: &Value) -> RequestBuilder {
    post(gateway, ALICE, "/v1/images/generations", "application/json", body.to_string())
}

fn finish(request: RequestBuilder) -> RequestBuilder {
    request.header("x-on-disconnect", "finish")
}

/// Sends a request and disconnects once the backend has it; returns when the gateway has noticed.
async fn leave(gateway: &Gateway, upstream: &Upstream, request: RequestBuilder) {
    let stay = async {
        let answer = request.send().await.unwrap();
        answer.bytes().await.unwrap()
    };
    tokio::select! {
        answer = stay => panic!("the backend holds it: {answer:?}"),
        () = upstream.until_held(1) => {}
    }
    fakes::eventually("the disconnect is noticed", async || {
        let scrape = gateway.anonymous(Method::GET, "/metrics").bearer_auth(ALICE).send().await.unwrap();
        scrape.text().await.unwrap().contains("status=\"499\"} 1").then_some(())
    })
    .await;
}

async fn call(gateway: &Gateway, method: Method, path: &str, token: &str) -> TestResponse {
    TestResponse::read(gateway.anonymous(method, path).bearer_auth(token).send().await.unwrap()).await
}

async fn cancel(gateway: &Gateway, token: &str, id: &str) -> TestResponse {
    call(gateway, Method::DELETE, &format!("/v1/gateway/jobs/{id}"), token).await
}

async fn slots_taken(gateway: &Gateway) -> u64 {
    let status = call(gateway, Method::GET, "/v1/gateway/status", ALICE).await;
    status.json["admission_control"][KEY]["inflight"].as_u64().unwrap()
}

async fn until_free(gateway: &Gateway) {
    fakes::eventually("a free slot", async || (slots_taken(gateway).await == 0).then_some(())).await;
}

/// How many images a token finds by the request's id.
async fn found(gateway: &Gateway, token: &str) -> usize {
    let list = call(gateway, Method::GET, &format!("/v1/gateway/images?request_id={ID}"), token).await;
    list.json["data"].as_array().unwrap().len()
}

fn held_stream(family: &str) -> UpstreamReply {
    let progress = SseStep::Send(b": progress 0.42\n\n".to_vec());
    UpstreamReply::Events(vec![progress, partial(family, 0), SseStep::Wait, completed(family, &painted())])
}

#[tokio::test]
async fn with_finish_the_image_of_a_client_that_is_gone_is_stored_and_found_by_its_token() {
    let form = "multipart/form-data; boundary=b";
    let stream_form =
        format!("{FORM}--b\r\nContent-Disposition: form-data; name=\"stream\"\r\n\r\ntrue\r\n--b--\r\n");
    let json = "application/json";
    for (route, content_type, body, reply) in [
        ("/v1/images/generations", json, json!({"prompt": "p"}).to_string(), UpstreamReply::Hold),
        ("/v1/images/generations", json, ask().to_string(), held_stream(MADE)),
        ("/v1/images/edits", form, format!("{FORM}--b--\r\n"), UpstreamReply::Hold),
        ("/v1/images/edits", form, stream_form, held_stream("image_edit")),
    ] {
        let upstream = Upstream::start().await;
        let gateway = start(&upstream, &[]).await;
        upstream.set_images(reply);
        let request =
            finish(post(&gateway, ALICE, route, content_type, body)).header("x-stainless-read-timeout", "1");
        leave(&gateway, &upstream, request).await;
        assert_eq!(slots_taken(&gateway).await, 1, "{route}: the slot is held until it is done");
        upstream.release();
        upstream.step();
        until_free(&gateway).await;
        let counts = [found(&gateway, ALICE).await, found(&gateway, BOB).await, found(&gateway, CAROL).await];
        assert_eq!(counts, [1, 0, 1], "{route}");
        let sent = &upstream.requests(route)[0];
        assert_eq!(sent.header("x-on-disconnect"), "", "the backend has a client: the gateway");
        let left: u64 = sent.header("x-request-timeout-ms").parse().unwrap();
        assert!(left > 200_000, "{left}: the client's patience is no limit of the job's");
    }
}

#[tokio::test]
async fn without_finish_a_client_that_is_gone_gets_nothing_stored() {
    for value in [None, Some("cancel")] {
        let upstream = Upstream::start().await;
        let gateway = start(&upstream, &[]).await;
        upstream.set_images(UpstreamReply::Hold);
        let request = generation(&gateway, &json!({"prompt": "p"}));
        let request =
            value.into_iter().fold(request, |request, value| request.header("x-on-disconnect", value));
        leave(&gateway, &upstream, request).await;
        upstream.until_disconnected(1).await;
        until_free(&gateway).await;
        assert_eq!(found(&gateway, CAROL).await, 0);
    }
}

#[tokio::test]
async fn with_finish_a_client_that_stays_gets_its_response() {
    let upstream = Upstream::start().await;
    let gateway = start(&upstream, &[]).await;
    let request = finish(generation(&gateway, &json!({"prompt": "p", "response_format": "b64_json"})));
    let answer = TestResponse::read(request.send().await.unwrap()).await;
    assert_eq!((answer.status, answer.images().len(), answer.header("x-request-id")), (200, 1, ID));
    upstream.set_images(UpstreamReply::Events(vec![partial(MADE, 0), completed(MADE, &painted())]));
    let mut client = StreamClient::start(finish(generation(&gateway, &ask()))).await;
    assert_eq!(
        (client.header("content-type"), client.header("x-backend-used")),
        ("text/event-stream", "gpu_heavy")
    );
    assert!(client.end().await);
    assert!(client.received.starts_with(&bytes_of(&partial(MADE, 0))));
    assert!(client.last_event().1["url"].is_string());
    upstream.set_images(UpstreamReply::Events(vec![partial(MADE, 0), SseStep::Break]));
    let mut client = StreamClient::start(finish(generation(&gateway, &ask()))).await;
    assert!(!client.end().await, "a stream that breaks off is no complete one");
    assert_eq!(client.received, bytes_of(&partial(MADE, 0)));
}

#[tokio::test]
async fn with_finish_a_client_that_stops_reading_loses_its_stream_and_not_its_image() {
    let upstream = Upstream::start().await;
    let gateway = start(&upstream, &[]).await;
    let large = event("image_generation.partial_image", &json!({"b64_json": "A".repeat(512 << 10)}));
    let mut script = vec![large; 64];
    script.push(completed(MADE, &painted()));
    upstream.set_images(UpstreamReply::Events(script));
    let mut client = StreamClient::start(finish(generation(&gateway, &ask()))).await;
    fakes::eventually("the image", async || (found(&gateway, ALICE).await == 1).then_some(())).await;
    until_free(&gateway).await;
    assert!(!client.end().await, "it is told that it missed something");
}

#[tokio::test]
async fn with_finish_a_drain_waits_for_the_image_within_the_grace_period() {
    let (dir, upstream) = (fakes::fresh_dir("jobs-drain"), Upstream::start().await);
    let gateway = start_in(dir.clone(), &upstream, &[]).await;
    upstream.set_images(UpstreamReply::Hold);
    leave(&gateway, &upstream, finish(generation(&gateway, &json!({"prompt": "p"})))).await;
    tokio::join!(gateway.stop(), async { upstream.release() });
    let gateway = start_in(dir.clone(), &upstream, &[]).await;
    assert_eq!(found(&gateway, ALICE).await, 1);
    gateway.stop().await;

    let upstream = Upstream::start().await;
    let gateway = start_in(dir, &upstream, &["--gateway-shutdown-grace", "200ms"]).await;
    upstream.set_images(UpstreamReply::Hold);
    leave(&gateway, &upstream, finish(generation(&gateway, &json!({"prompt": "q"})))).await;
    gateway.stop().await;
    upstream.until_disconnected(1).await;
}

#[tokio::test]
async fn with_finish_the_time_limit_still_ends_the_request() {
    for (reply, body) in [(UpstreamReply::Hold, json!({"prompt": "p"})), (held_stream(MADE), ask())] {
        let upstream = Upstream::start().await;
        let gateway = start(&upstream, &["--images-http-timeout-sec", "3"]).await;
        upstream.set_images(reply);
        leave(&gateway, &upstream, finish(generation(&gateway, &body))).await;
        upstream.until_disconnected(1).await;
        until_free(&gateway).await;
        assert_eq!(found(&gateway, CAROL).await, 0);
    }
}

#[tokio::test]
async fn a_request_is_cancelled_by_its_id_and_its_client_told() {
    let upstream = Upstream::start().await;
    let gateway = start(&upstream, &[]).await;
    upstream.set_images(UpstreamReply::Hold);
    for (nth, (header, token)) in
        [("cancel", ALICE), ("finish", ALICE), ("cancel", CAROL)].into_iter().enumerate()
    {
        let request = generation(&gateway, &json!({"prompt": "p"})).header("x-on-disconnect", header);
        let (answer, ()) =
            tokio::join!(async { TestResponse::read(request.send().await.unwrap()).await }, async {
                upstream.until_held(1).await;
                let other = cancel(&gateway, BOB, ID).await;
                assert_eq!((other.status, other.code()), (404, "not_found"), "another token's");
                assert_eq!(cancel(&gateway, token, "unknown").await.status, 404);
                assert_eq!(cancel(&gateway, token, ID).await.status, 204);
            });
        assert_eq!((answer.status, answer.code()), (409, "cancelled"), "{header}");
        assert_eq!(answer.header("x-should-retry"), "false");
        assert!(answer.message().contains("DELETE /v1/gateway/jobs/"), "{}", answer.message());
        upstream.until_disconnected(nth + 1).await;
        until_free(&gateway).await;
        assert_eq!(cancel(&gateway, ALICE, ID).await.status, 404, "it has ended");
    }
}

#[tokio::test]
async fn a_cancelled_stream_ends_with_an_error_event() {
    for header in ["cancel", "finish"] {
        let upstream = Upstream::start().await;
        let gateway = start(&upstream, &[]).await;
        upstream.set_images(held_stream(MADE));
        let mut client =
            StreamClient::start(generation(&gateway, &ask()).header("x-on-disconnect", header)).await;
        client.until(&[b": progress 0.42\n\n".to_vec(), bytes_of(&partial(MADE, 0))].concat()).await;
        assert_eq!(cancel(&gateway, ALICE, ID).await.status, 204);
        assert!(client.end().await);
        let (name, data) = client.last_event();
        assert_eq!((name.as_str(), &data["error"]["code"]), ("error", &json!("cancelled")), "{data}");
        upstream.until_disconnected(1).await;
        until_free(&gateway).await;
    }
}

#[tokio::test]
async fn cancelling_reaches_a_request_whose_client_is_gone_or_does_not_read() {
    let upstream = Upstream::start().await;
    let gateway = start(&upstream, &[]).await;
    upstream.set_images(UpstreamReply::Hold);
    leave(&gateway, &upstream, finish(generation(&gateway, &json!({"prompt": "p"})))).await;
    assert_eq!(cancel(&gateway, ALICE, ID).await.status, 204);
    upstream.until_disconnected(1).await;
    until_free(&gateway).await;
    let large = event("image_generation.partial_image", &json!({"b64_json": "A".repeat(16 << 20)}));
    upstream.set_images(UpstreamReply::Events(vec![large, SseStep::Wait]));
    let _stalled = StreamClient::start(generation(&gateway, &ask())).await;
    assert_eq!(cancel(&gateway, ALICE, ID).await.status, 204);
    upstream.until_disconnected(2).await;
    until_free(&gateway).await;
}

#[tokio::test]
async fn requests_of_one_id_are_cancelled_together_and_another_tokens_goes_on() {
    let upstream = Upstream::start().await;
    let yaml = gpu_heavy(&upstream).replace("images: 2", "images: 3");
    let gateway = start(&upstream, &[]).await;
    gateway.set_backends(&yaml);
    gateway.reload(ALICE).await;
    upstream.set_images(UpstreamReply::Hold);
    let body = json!({"prompt": "p"});
    let of = |token| {
        let request = post(&gateway, token, "/v1/images/generations", "application/json", body.to_string());
        async { TestResponse::read(request.send().await.unwrap()).await }
    };
    let (first, second, other, ()) = tokio::join!(of(ALICE), of(ALICE), of(BOB), async {
        upstream.until_held(3).await;
        assert_eq!(cancel(&gateway, ALICE, ID).await.status, 204);
        upstream.until_disconnected(2).await;
        upstream.release();
    });
    assert_eq!([first.status, second.status, other.status], [409, 409, 200]);
}

#[tokio::test]
async fn any_other_value_of_the_header_is_refused() {
    let upstream = Upstream::start().await;
    let gateway = start(&upstream, &[]).await;
    for value in ["", "Finish", "finish,cancel", "keep"] {
        let request = generation(&gateway, &json!({"prompt": "p"})).header("x-on-disconnect", value);
        let answer = TestResponse::read(request.send().await.unwrap()).await;
        assert_eq!((answer.status, answer.code()), (400, "invalid_value"), "{value}");
        assert_eq!(answer.json["error"]["param"], "X-On-Disconnect");
    }
    assert!(upstream.images().is_empty());
}
