//! Chat responses that fail. Before the head every failure is one envelope; after it, the connection is reset.

use e2e::gateway::{Gateway, TOKEN, chat_backend, gpu_heavy};
use fakes::{
    TestResponse,
    mlx::{self, FakeMlx},
    raw_http::RawClient,
    stream_client::StreamClient,
    upstream::{Upstream, UpstreamReply, sse::SseStep},
};
use serde_json::json;

use super::chat::{CHAT, EMBEDDINGS, KEY, before, bytes_of, token, until_counted};

#[tokio::test]
async fn a_backends_error_is_relayed_if_it_is_an_envelope_and_wrapped_otherwise() {
    let (mlx, heavy) = (Upstream::start().await, Upstream::start().await);
    let gateway = before(&mlx, &heavy).await;
    let html = || b"<html>Traceback: /opt/mlx.py</html>".to_vec();
    let wrapped =
        json!({"detail": {"error": {"message": "queue full", "type": "rate_limit", "code": "429"}}});
    let validation = json!({"detail": [{"loc": ["body", "messages"], "msg": "Field required"}]});
    for (reply, status, code, message) in [
        (UpstreamReply::error(404, "model_not_found", "no such"), 404, "model_not_found", "no such"),
        (UpstreamReply::json(429, wrapped), 429, "429", "queue full"),
        (
            UpstreamReply::json(422, validation),
            422,
            "backend_error",
            "Backend local_mlx answered 422: Field required",
        ),
        (
            UpstreamReply::json(400, json!({"error": "bad"})),
            400,
            "backend_error",
            "Backend local_mlx answered 400: bad",
        ),
        (UpstreamReply::Respond(500, vec![], html()), 502, "backend_error", "Backend local_mlx answered 500"),
        (UpstreamReply::Respond(503, vec![], html()), 503, "backend_error", "Backend local_mlx answered 503"),
        (
            UpstreamReply::Respond(301, vec![("location", "http://127.0.0.1:1/".into())], vec![]),
            502,
            "backend_error",
            "",
        ),
        (UpstreamReply::Respond(401, vec![], vec![]), 502, "backend_error", ""),
        (UpstreamReply::Respond(429, vec![], vec![]), 429, "backend_overloaded", ""),
    ] {
        mlx.set(CHAT, reply);
        let answer = gateway.chat(&json!({"model": "m"})).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{answer:?}");
        assert!(message.is_empty() || answer.message() == message, "{answer:?}");
        assert_eq!(answer.json["detail"], answer.json["error"]["message"]);
        assert_eq!(answer.json["error"]["route_kind"], "chat");
        assert_eq!(answer.json["error"]["backend_class"], "local_mlx");
        assert!(!answer.json.to_string().contains("Traceback"));
        let last = status >= 500 || code == "backend_error";
        assert_eq!(answer.header("x-should-retry"), if last { "false" } else { "" });
        assert_eq!(answer.header("retry-after"), if status == 429 { "5" } else { "" });
        assert_eq!((answer.header("x-backend-used"), answer.header("x-model-used")), ("local_mlx", "m"));
        assert_eq!(gateway.inflight(KEY).await, 0);
    }
}

async fn before_mlx_lm() -> (Gateway, FakeMlx, Upstream) {
    let (mlx, heavy) = (FakeMlx::start().await, Upstream::start().await);
    let yaml = gpu_heavy(&heavy) + &chat_backend("local_mlx", &mlx.url, "    health: {readiness: /health}\n");
    let gateway = Gateway::with_backends(&yaml, &[]).await;
    gateway.until_ready("local_mlx", true).await;
    (gateway, mlx, heavy)
}

#[tokio::test]
async fn what_mlx_lm_refuses_is_reported_in_its_own_text() {
    let (gateway, _mlx, _heavy) = before_mlx_lm().await;
    for (path, ask, status, text) in [
        (
            CHAT,
            json!({"model": "no/such-model", "messages": []}),
            404,
            "Cannot find an appropriate cached snapshot",
        ),
        (CHAT, json!({"model": "m"}), 400, "Request did not contain messages"),
        (EMBEDDINGS, json!({"model": "m", "input": "x"}), 404, "answered 404"),
    ] {
        let answer =
            TestResponse::read(gateway.json_request(path, ask.to_string()).send().await.unwrap()).await;
        assert_eq!((answer.status, answer.code()), (status, "backend_error"), "{answer:?}");
        assert!(answer.message().contains(text), "{answer:?}");
    }
}

#[tokio::test]
async fn a_truncated_stream_resets_the_clients_connection() {
    let (mlx, heavy) = (Upstream::start().await, Upstream::start().await);
    let gateway = before(&mlx, &heavy).await;
    let probes = mlx.requests("/readyz").len();
    mlx.set(CHAT, UpstreamReply::Events(vec![token("one"), SseStep::Wait, SseStep::Break]));
    let mut client = StreamClient::start(gateway.json_request(CHAT, r#"{"stream":true}"#)).await;
    client.until(&bytes_of(&[token("one")])).await;
    mlx.step();
    assert!(!client.end().await, "no clean end");
    assert_eq!(client.received, bytes_of(&[token("one")]), "and nothing of ours in it");
    gateway.until_inflight(KEY, 0).await;
    until_counted(&gateway, 502).await;
    fakes::eventually("a further probe", async || (mlx.requests("/readyz").len() > probes).then_some(()))
        .await;
}

/// A head whose body ends with its connection.
fn unframed(head: &str) -> Vec<u8> {
    format!("HTTP/1.{head}\r\n\r\n").into_bytes()
}

#[tokio::test]
async fn a_backend_that_is_killed_in_a_stream_without_framing_does_not_look_finished() {
    let (gateway, mlx, _heavy) = before_mlx_lm().await;
    let recorded = mlx::body(mlx::CHAT_STREAM);
    let text = str::from_utf8(recorded).unwrap();
    let finish = text.find("\"finish_reason\": \"length\"").unwrap();
    let before_finish = text[..finish].rfind("\n\n").unwrap() + 2;
    let old = unframed("0 200 OK\r\nContent-Type: text/event-stream");
    let new = unframed("1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nConnection: close");
    let json = unframed("0 200 OK\r\nContent-Type: application/json");
    let zipped = unframed("0 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip");
    for (head, body, is_complete) in [
        (&old, recorded, true),
        (&new, recorded, true),
        (&old, &recorded[..recorded.len() - 14], true), // with finish_reason, without [DONE]
        (&old, &recorded[..before_finish], false),
        (&new, &recorded[..before_finish], false),
        (&old, &recorded[..before_finish + 100], false), // in the middle of an event
        (&old, b"", false),
        (&old, b"data: {\"error\":{\"message\":\"no memory\"}}\n\n", true),
        (&json, b"{\"choices\":[]}\n", true),
        (&json, b"{\"choices\":[{\"message\":{\"content\":\"On", false),
        (&zipped, b"\x1f\x8b", true), // what is compressed is not looked into
    ] {
        mlx.set(&[head, body].concat());
        for path in [CHAT, "/v1/completions"] {
            let mut client =
                StreamClient::start(gateway.json_request(path, r#"{"stream":true,"messages":[]}"#)).await;
            let text = String::from_utf8_lossy(&[head, body].concat()).into_owned();
            assert_eq!(client.end().await, is_complete, "{path}: {text}");
            assert_eq!(client.received, body, "it passes as it came: {text}");
        }
    }
    gateway.until_inflight(KEY, 0).await;
    let broken = format!("gateway_requests_total{{backend=\"local_mlx\",route=\"{CHAT}\",status=\"502\"}} 5");
    fakes::eventually(&broken, async || gateway.metrics().await.contains(&broken).then_some(())).await;
}

/// Without chunks, only the way in which the connection ends distinguishes them.
#[tokio::test]
async fn a_client_of_http_1_0_sees_that_an_answer_was_cut_off() {
    let (gateway, mlx, _heavy) = before_mlx_lm().await;
    let recorded = mlx::body(mlx::CHAT_STREAM);
    let events = unframed("0 200 OK\r\nContent-Type: text/event-stream");
    let json = unframed("0 200 OK\r\nContent-Type: application/json");
    for (head, body, is_complete) in [
        (&events, recorded, true),
        (&events, &recorded[..recorded.len() / 2], false),
        (&json, b"{\"choices\":[]}", true),
        (&json, b"{\"choices\":[{\"message\":{\"content\":\"On", false),
    ] {
        mlx.set(&[head, body].concat());
        let mut wire = RawClient::to(&gateway.url).await;
        let ask = "{\"stream\":true,\"messages\":[]}";
        let head = format!(
            "POST {CHAT} HTTP/1.0\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json"
        );
        wire.send(format!("{head}\r\nContent-Length: {}\r\n\r\n{ask}", ask.len())).await;
        let (answer, end) = wire.rest_and_end().await;
        assert_eq!(end.is_ok(), is_complete, "{end:?}: {answer}");
        assert!(!is_complete || answer.as_bytes().ends_with(body), "{answer}");
    }
}

#[tokio::test]
async fn a_response_shorter_than_announced_fails_at_the_client() {
    let (gateway, _mlx, _heavy) = before_mlx_lm().await;
    let ask = json!({"model": mlx::CUT_SHORT, "messages": []});
    let mut client = StreamClient::start(gateway.json_request(CHAT, ask.to_string())).await;
    assert_eq!(client.header("content-length"), mlx::body(mlx::CHAT).len().to_string());
    assert!(!client.end().await);
    gateway.until_inflight(KEY, 0).await;
    until_counted(&gateway, 502).await;
}

#[tokio::test]
async fn a_stopped_backend_is_503_at_once_and_no_other_backend_is_tried() {
    let (mlx, heavy) = (Upstream::start().await, Upstream::start().await);
    let gateway = before(&mlx, &heavy).await;
    mlx.stop().await;
    for _ in 0..2 {
        let answer = gateway.chat(&json!({"model": "m"})).await;
        assert_eq!((answer.status, answer.code()), (503, "backend_not_ready"));
        assert_eq!((answer.header("retry-after"), answer.header("x-should-retry")), ("30", "false"));
        assert!(answer.message().contains("connection refused"), "{}", answer.message());
    }
    assert_eq!(gateway.backend("local_mlx").await["healthy"], false);
    assert!(heavy.requests(CHAT).is_empty());
}

#[tokio::test]
async fn of_several_errors_the_first_check_answers() {
    let (mlx, heavy) = (Upstream::start().await, Upstream::start().await);
    let flags = ["--max-request-bytes", "200", "--health-check-interval-sec", "0.2"];
    let yaml = e2e::gateway::with_local_mlx(&heavy, &mlx);
    let gateway = Gateway::with_backends(&yaml, &flags).await;
    gateway.until_ready("local_mlx", true).await;
    mlx.set("/readyz", UpstreamReply::Respond(503, vec![], b"{\"status\":\"unhealthy\"}".to_vec()));
    let backend = gateway.until_ready("local_mlx", false).await;
    assert_eq!(backend["error"], "/readyz returned 503: unhealthy");
    let long = format!(r#"{{"model":7,"a":"{}"}}"#, "x".repeat(200));
    for (backend, body, status, code, param) in [
        ("nobody", long.as_str(), 413, "request_too_large", json!(null)),
        ("nobody", "not json", 400, "invalid_body", json!(null)),
        ("nobody", "[]", 400, "invalid_body", json!(null)),
        ("nobody", r#"{"model":7}"#, 400, "invalid_value", json!("model")),
        ("nobody", r#"{"model":"a","model":"a"}"#, 400, "invalid_value", json!("model")),
        ("nobody", "{}", 400, "backend_not_found", json!(null)),
        ("gpu_heavy", "{}", 400, "capability_not_supported", json!(null)),
        ("local_mlx", "{}", 503, "backend_not_ready", json!(null)),
    ] {
        let request = gateway.json_request(CHAT, body.to_owned()).header("x-backend", backend);
        let answer = TestResponse::read(request.send().await.unwrap()).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{answer:?}");
        assert_eq!(
            (&answer.json["error"]["param"], &answer.json["error"]["route_kind"]),
            (&param, &json!("chat"))
        );
    }
    let anonymous = gateway.anonymous(reqwest::Method::POST, CHAT).body(long).send().await.unwrap();
    assert_eq!(anonymous.status(), 401, "before the body is looked at");
    let encoded = gateway.json_request(CHAT, "{}").header("content-encoding", "gzip").send().await.unwrap();
    assert_eq!(encoded.status(), 415);
    assert!(mlx.requests(CHAT).is_empty() && heavy.requests(CHAT).is_empty());
}

#[tokio::test]
async fn a_web_page_with_status_200_is_502_and_browser_headers_are_removed() {
    let (mlx, heavy) = (Upstream::start().await, Upstream::start().await);
    let gateway = before(&mlx, &heavy).await;
    for kind in ["text/html; charset=utf-8", "application/xhtml+xml", "image/svg+xml"] {
        let page = b"<html><script>alert(1)</script></html>".to_vec();
        mlx.set(CHAT, UpstreamReply::Respond(200, vec![("content-type", kind.into())], page));
        let answer = gateway.chat(&json!({"model": "m"})).await;
        assert_eq!((answer.status, answer.code()), (502, "backend_error"), "{kind}");
        assert!(!answer.json.to_string().contains("script"), "{answer:?}");
        assert_eq!(answer.header("x-should-retry"), "false");
        assert_eq!(gateway.inflight(KEY).await, 0);
    }
    let acting = [
        ("refresh", "0;url=https://evil.example/"),
        ("clear-site-data", "\"*\""),
        ("service-worker-allowed", "/"),
        ("set-cookie", "a=b"),
        ("link", "</x>; rel=preload"),
        ("report-to", "{}"),
        ("x-accel-redirect", "/etc/passwd"),
    ];
    let reply =
        acting.iter().fold(UpstreamReply::json(200, json!({"choices": []})), |reply, (name, value)| {
            reply.with_header(name, value)
        });
    mlx.set(
        CHAT,
        reply.with_header("openai-version", "2020-10-01").with_header("x-ratelimit-remaining-tokens", "7"),
    );
    let answer = gateway.chat(&json!({"model": "m"})).await;
    assert_eq!(answer.status, 200);
    for (name, _) in acting {
        assert!(!answer.headers.contains_key(name), "{name}");
    }
    for (name, value) in [
        ("openai-version", "2020-10-01"),
        ("x-ratelimit-remaining-tokens", "7"),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "sandbox; default-src 'none'"),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
}
