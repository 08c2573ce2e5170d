//! Chat and embeddings: what is relayed, and how.

use e2e::gateway::{Gateway, TOKEN, chat_backend, gpu_heavy, with_local_mlx};
use fakes::{
    mlx::{self, FakeMlx},
    stream_client::StreamClient,
    upstream::{Upstream, UpstreamReply, sse::SseStep},
};
use serde_json::json;

pub(super) const CHAT: &str = "/v1/chat/completions";
pub(super) const EMBEDDINGS: &str = "/v1/embeddings";
pub(super) const KEY: &str = "local_mlx.chat";

/// A gateway before `local_mlx`, which has two chat slots, and `gpu_heavy`.
pub(super) async fn before(mlx: &Upstream, heavy: &Upstream) -> Gateway {
    let gateway = Gateway::with_backends(&with_local_mlx(heavy, mlx), &[]).await;
    gateway.until_ready("local_mlx", true).await;
    gateway
}

pub(super) fn token(content: &str) -> SseStep {
    let choices = json!([{"index": 0, "delta": {"content": content}}]);
    SseStep::Send(
        format!("data: {}\n\n", json!({"object": "chat.completion.chunk", "choices": choices})).into_bytes(),
    )
}

pub(super) fn bytes_of(acts: &[SseStep]) -> Vec<u8> {
    let sent = acts.iter().map(|act| match act {
        SseStep::Send(bytes) => bytes.clone(),
        SseStep::Wait | SseStep::Break => Vec::new(),
    });
    sent.collect::<Vec<_>>().concat()
}

pub(super) async fn until_counted(gateway: &Gateway, status: u16) {
    let line =
        format!("gateway_requests_total{{backend=\"local_mlx\",route=\"{CHAT}\",status=\"{status}\"}} 1");
    fakes::eventually(&line, async || gateway.metrics().await.contains(&line).then_some(())).await;
}

#[tokio::test]
async fn a_conversation_passes_byte_for_byte_both_ways() {
    let (mlx, heavy) = (Upstream::start().await, Upstream::start().await);
    let gateway = before(&mlx, &heavy).await;
    let reply = b"{ \"id\":\"c\",\"choices\":[ ],\"usage\":{\"total_tokens\":1.50} }\n".to_vec();
    let headers = [
        ("content-type", "application/json; charset=utf-8"),
        ("content-length", &reply.len().to_string()),
        ("openai-processing-ms", "7"),
        ("server", "uvicorn"),
        ("set-cookie", "a=b"),
        ("access-control-allow-origin", "*"),
        ("x-backend-used", "somebody else"),
    ];
    let headers = headers.map(|(name, value)| (name, value.to_owned())).to_vec();
    mlx.set(CHAT, UpstreamReply::Respond(200, headers, reply.clone()));
    let body = "{\"b\" : 1e0,\r\n \"model\":\"qw\\u0065n\", \"a\":[\"\\u00e9\", \"é\"], \"x\":1, \"x\":2 } ";
    let request = gateway
        .json_request(&format!("{CHAT}?api-version=1"), body)
        .header("accept", "application/json")
        .header("cookie", "a=b")
        .header("openai-organization", "o")
        .header("x-request-id", "mine-1");
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    for (name, value) in [
        ("content-type", "application/json; charset=utf-8"),
        ("openai-processing-ms", "7"),
        ("x-backend-used", "local_mlx"),
        ("x-model-used", "qwen"),
        ("x-router-reason", "default"),
        ("x-request-id", "mine-1"),
    ] {
        assert_eq!(answer.headers()[name], value, "{name}");
    }
    assert_eq!(answer.headers()["content-length"], reply.len().to_string());
    for name in ["server", "set-cookie", "access-control-allow-origin", "x-accel-buffering"] {
        assert!(!answer.headers().contains_key(name), "{name}");
    }
    assert_eq!(answer.bytes().await.unwrap(), reply);
    let request = &mlx.requests(CHAT)[0];
    assert_eq!(request.bytes, body, "no byte is another one");
    for (name, value) in [
        ("content-type", "application/json"),
        ("content-length", &body.len().to_string()),
        ("accept", "application/json"),
        ("accept-encoding", "identity"),
        ("x-request-id", "mine-1"),
        ("transfer-encoding", ""),
        ("cookie", ""),
        ("openai-organization", ""),
        ("authorization", ""),
        ("x-forwarded-for", ""),
    ] {
        assert_eq!(request.header(name), value, "{name}");
    }
    assert!(heavy.requests(CHAT).is_empty());
    until_counted(&gateway, 200).await;
    gateway.until_inflight(KEY, 0).await;
}

#[tokio::test]
async fn a_backend_gets_its_own_token_and_never_a_clients() {
    let (mlx, heavy) = (Upstream::start().await, Upstream::start().await);
    // The gateway's token stands in for the backend's: both come from the same env file.
    let own = chat_backend("local_mlx", &mlx.url, "    auth: {bearer_env: GATEWAY_BEARER_TOKEN}\n");
    let gateway = Gateway::with_backends(&(gpu_heavy(&heavy) + &own), &["--gateway-auth", "off"]).await;
    gateway.until_ready("local_mlx", true).await;
    mlx.set(CHAT, UpstreamReply::json(200, json!({})));
    let request =
        fakes::http().post(format!("{}{CHAT}", gateway.url)).bearer_auth("the-callers-own").body("{}");
    assert_eq!(request.send().await.unwrap().status(), 200);
    for path in [CHAT, "/readyz", "/v1/models"] {
        assert_eq!(mlx.requests(path)[0].header("authorization"), format!("Bearer {TOKEN}"), "{path}");
    }
}

#[tokio::test]
async fn a_stream_is_relayed_token_by_token_and_holds_its_slot_to_the_end() {
    let (mlx, heavy) = (Upstream::start().await, Upstream::start().await);
    let gateway = before(&mlx, &heavy).await;
    let keepalive = || SseStep::Send(b": keepalive 19/20\n\n".to_vec());
    let script = [
        keepalive(),
        SseStep::Wait,
        token("one"),
        SseStep::Wait,
        token("two"),
        SseStep::Send(b"data: [DONE]\n\n".to_vec()),
    ];
    mlx.set(CHAT, UpstreamReply::Events(script.to_vec()));
    let ask = json!({"stream": true, "stream_options": {"include_usage": true}, "messages": []});
    let mut client = StreamClient::start(gateway.json_request(CHAT, ask.to_string())).await;
    for (name, value) in [
        ("content-type", "text/event-stream; charset=utf-8"),
        ("cache-control", "no-cache"),
        ("x-accel-buffering", "no"),
        ("x-backend-used", "local_mlx"),
        ("x-model-used", "default"),
        ("x-router-reason", "default"),
    ] {
        assert_eq!(client.header(name), value, "{name}");
    }
    client.until(&bytes_of(&script[..1])).await;
    mlx.step();
    client.until(&bytes_of(&script[..3])).await;
    assert_eq!(gateway.inflight(KEY).await, 1, "the slot is held while it streams");
    assert!(
        !gateway.metrics().await.contains(&format!("route=\"{CHAT}\",status")),
        "it is counted at its end"
    );
    mlx.step();
    assert!(client.end().await);
    assert_eq!(client.received, bytes_of(&script));
    until_counted(&gateway, 200).await;
    gateway.until_inflight(KEY, 0).await;
}

#[tokio::test]
async fn a_client_disconnect_closes_the_backends_connection_and_frees_the_slot() {
    let (mlx, heavy) = (Upstream::start().await, Upstream::start().await);
    let gateway = before(&mlx, &heavy).await;
    mlx.set(CHAT, UpstreamReply::Events(vec![token("one"), SseStep::Wait, token("two")]));
    let mut client = StreamClient::start(gateway.json_request(CHAT, r#"{"stream":true}"#)).await;
    client.until(&bytes_of(&[token("one")])).await;
    drop(client);
    mlx.until_disconnected(1).await;
    gateway.until_inflight(KEY, 0).await;
    until_counted(&gateway, 499).await;
    // Before the head, too.
    mlx.set(CHAT, UpstreamReply::Hold);
    let disconnected = gateway.json_request(CHAT, "{}").send();
    tokio::select! {
        _ = disconnected => unreachable!("it is held"),
        () = mlx.until_held(1) => {}
    }
    mlx.until_disconnected(2).await;
    gateway.until_inflight(KEY, 0).await;
}

#[tokio::test]
async fn embeddings_keep_the_requested_encoding_format() {
    let (mlx, heavy) = (Upstream::start().await, Upstream::start().await);
    let gateway = before(&mlx, &heavy).await;
    let list = |embedding: serde_json::Value| {
        let data = json!([{"object": "embedding", "index": 0, "embedding": embedding}]);
        json!({"object": "list", "data": data, "model": "m", "usage": {"prompt_tokens": 1, "total_tokens": 1}})
    };
    for (format, embedding) in [("base64", json!("AACAPwAAAEA=")), ("float", json!([1.0, 2.0]))] {
        mlx.set(EMBEDDINGS, UpstreamReply::json(200, list(embedding.clone())));
        // As OpenAI's Python library sends it.
        let body = format!(r#"{{"input":["a","b"],"model":"m","encoding_format":"{format}"}}"#);
        let answer = gateway.json_request(EMBEDDINGS, body.clone()).send().await.unwrap();
        assert_eq!(answer.headers()["x-router-reason"], "default");
        let received: serde_json::Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        assert_eq!(received, list(embedding));
        assert_eq!(mlx.requests(EMBEDDINGS).last().unwrap().bytes, body);
    }
    assert_eq!(gateway.inflight("local_mlx.embeddings").await, 0);
}

#[tokio::test]
async fn an_http_1_0_backend_gets_no_chunked_body() {
    let (mlx, heavy) = (FakeMlx::start().await, Upstream::start().await);
    let health = "    health: {liveness: /health, readiness: /health}\n";
    let yaml = gpu_heavy(&heavy) + &chat_backend("local_mlx", &mlx.url, health);
    let gateway = Gateway::with_backends(&yaml, &[]).await;
    let backend = gateway.until_ready("local_mlx", true).await;
    assert_eq!(backend["warnings"], json!([]), "its own probe path is right");
    for (path, body, recorded) in [
        (CHAT, r#"{"model":"m","messages":[],"stream":true}"#, mlx::CHAT_STREAM),
        (CHAT, r#"{"model":"m","messages":[]}"#, mlx::CHAT),
        ("/v1/completions", r#"{"model":"m","prompt":"hi"}"#, mlx::COMPLETION),
    ] {
        let answer = gateway.json_request(path, body).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        assert_eq!(answer.version(), reqwest::Version::HTTP_11);
        let streamed = recorded == mlx::CHAT_STREAM;
        let kind = if streamed { "text/event-stream" } else { "application/json" };
        assert_eq!(answer.headers()["content-type"], kind);
        assert_eq!(answer.bytes().await.unwrap(), mlx::body(recorded), "{path}");
        // A body that its sender's leaving ends is over only then.
        gateway.until_inflight(KEY, 0).await;
    }
    // Chunks of unknown length from the client go on with a length.
    let chunks =
        futures_util::stream::iter([r#"{"model":null,"#, r#""messages":[]}"#].map(Ok::<_, std::io::Error>));
    let answer = gateway.json_request(CHAT, reqwest::Body::wrap_stream(chunks)).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let posted = mlx.posted();
    assert_eq!(posted.last().unwrap().bytes, r#"{"messages":[]}"#, "mlx_lm takes no null for a model");
    assert!(posted.iter().all(|request| request.line.ends_with(" HTTP/1.1") && !request.line.contains('?')));
}
