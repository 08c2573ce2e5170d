//! Where chat and embeddings go, and that there is no fallback.

use e2e::gateway::{Gateway, chat_backend, gpu_heavy};
use fakes::{
    TestResponse,
    upstream::{Upstream, UpstreamReply},
};
use serde_json::{Value, json};

use super::chat::{CHAT, EMBEDDINGS};

const ALIASES: &str = r#"{"coder": {"backend": "mlx", "model": "qwen-coder"}}"#;

/// `local_mlx`, the first in the file, `gpu_fast` with a default model, and `gpu_heavy`.
struct Three {
    mlx: Upstream,
    fast: Upstream,
    heavy: Upstream,
    gateway: Gateway,
}

fn models(ids: &[&str]) -> UpstreamReply {
    let data: Vec<_> = ids.iter().map(|id| json!({"id": id, "object": "model"})).collect();
    UpstreamReply::json(200, json!({"object": "list", "data": data}))
}

impl Three {
    async fn start(flags: &[&str]) -> Self {
        Self::start_probing("0.2", flags).await
    }

    async fn start_probing(every: &str, flags: &[&str]) -> Self {
        let (mlx, fast, heavy) = (Upstream::start().await, Upstream::start().await, Upstream::start().await);
        mlx.set("/v1/models", models(&["qwen", "both"]));
        fast.set("/v1/models", models(&["llama/8b", "both"]));
        for backend in [&mlx, &fast] {
            for path in [CHAT, EMBEDDINGS] {
                backend.set(path, UpstreamReply::json(200, json!({"ok": true})));
            }
        }
        let fast_lines = "    default_model: llama/8b\n";
        let yaml = format!(
            "{}{}legacy_mapping: {{mlx: local_mlx, ollama: gone}}\n",
            gpu_heavy(&heavy)
                .replace("backends:\n", &format!("backends:\n{}", chat_backend("local_mlx", &mlx.url, ""))),
            chat_backend("gpu_fast", &fast.url, fast_lines),
        );
        let flags =
            [&["--model-aliases-json", ALIASES, "--health-check-interval-sec", every], flags].concat();
        let gateway = Gateway::with_backends(&yaml, &flags).await;
        for class in ["local_mlx", "gpu_fast", "gpu_heavy"] {
            gateway.until_ready(class, true).await;
        }
        Self { mlx, fast, heavy, gateway }
    }

    /// Sends a request; returns the answer and the model that the backend got.
    async fn ask(&self, path: &str, backend: Option<&str>, model: &Value) -> (TestResponse, Value) {
        let body = match model {
            Value::Null => json!({"messages": []}),
            model => json!({"messages": [], "model": model}),
        };
        let mut request = self.gateway.json_request(path, body.to_string());
        if let Some(backend) = backend {
            request = request.header("x-backend", backend);
        }
        let answer = TestResponse::read(request.send().await.unwrap()).await;
        let reached = match answer.header("x-backend-used") {
            "local_mlx" => &self.mlx,
            "gpu_fast" => &self.fast,
            _ => &self.heavy,
        };
        let sent = reached
            .requests(path)
            .last()
            .map_or(Value::Null, |request| request.body.get("model").cloned().unwrap_or_default());
        (answer, sent)
    }
}

#[tokio::test]
async fn header_alias_class_listed_model_and_default_decide_in_this_order() {
    let three = Three::start(&[]).await;
    for (backend, model, class, sent, used, reason) in [
        (Some("gpu_fast"), json!("qwen"), "gpu_fast", json!("qwen"), "qwen", "header:x-backend"),
        (Some("mlx"), json!(null), "local_mlx", json!(null), "default", "header:x-backend"),
        (Some("gpu_fast"), json!(null), "gpu_fast", json!("llama/8b"), "llama/8b", "header:x-backend"),
        (None, json!("coder"), "local_mlx", json!("qwen-coder"), "qwen-coder", "alias"),
        (None, json!("gpu_fast"), "gpu_fast", json!("llama/8b"), "llama/8b", "model"),
        (None, json!("mlx"), "local_mlx", json!(null), "default", "model"),
        (None, json!("llama/8b"), "gpu_fast", json!("llama/8b"), "llama/8b", "model"),
        (None, json!("both"), "local_mlx", json!("both"), "both", "default"),
        (None, json!("gpt-4o"), "local_mlx", json!("gpt-4o"), "gpt-4o", "default"),
        (None, json!(""), "local_mlx", json!(null), "default", "default"),
    ] {
        for path in [CHAT, "/v1/completions", EMBEDDINGS] {
            if path == "/v1/completions" {
                three.mlx.set(path, UpstreamReply::json(200, json!({})));
                three.fast.set(path, UpstreamReply::json(200, json!({})));
            }
            let (answer, reached) = three.ask(path, backend, &model).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let reported =
                ["x-backend-used", "x-model-used", "x-router-reason"].map(|name| answer.header(name));
            assert_eq!(reported, [class, used, reason], "{backend:?} {model}");
            assert_eq!(reached, sent, "{backend:?} {model}");
        }
    }
}

#[tokio::test]
async fn the_default_backend_is_the_settings() {
    let three = Three::start(&["--default-backend", "gpu_fast"]).await;
    let (answer, _) = three.ask(CHAT, None, &json!("gpt-4o")).await;
    assert_eq!((answer.header("x-backend-used"), answer.header("x-router-reason")), ("gpu_fast", "default"));
}

#[tokio::test]
async fn unroutable_requests_are_refused_and_reach_no_backend() {
    let three = Three::start(&[]).await;
    three.heavy.set("/v1/models", models(&["sd-xl"]));
    fakes::eventually("the new list", async || {
        (three.gateway.get("/v1/models/sd-xl").await.status == 200).then_some(())
    })
    .await;
    for (backend, model, code, message) in [
        (Some("nobody"), json!(null), "backend_not_found", "There is no backend \"nobody\""),
        (Some("ollama"), json!("qwen"), "backend_not_found", "There is no backend \"ollama\""),
        (None, json!("ollama"), "backend_not_found", "There is no backend \"ollama\""),
        (
            Some("gpu_heavy"),
            json!("qwen"),
            "capability_not_supported",
            "Backend gpu_heavy does not support chat",
        ),
        (None, json!("gpu_heavy"), "capability_not_supported", "Backend gpu_heavy does not support chat"),
        (None, json!("sd-xl"), "capability_not_supported", "Backend gpu_heavy does not support chat"),
    ] {
        let (answer, _) = three.ask(CHAT, backend, &model).await;
        assert_eq!((answer.status, answer.code()), (400, code), "{answer:?}");
        assert!(answer.message().starts_with(message), "{answer:?}");
        if code == "capability_not_supported" {
            assert_eq!(answer.json["error"]["supported_capabilities"], json!(["images"]));
            assert_eq!(answer.json["error"]["backend_class"], "gpu_heavy");
        }
    }
    for backend in [&three.mlx, &three.fast, &three.heavy] {
        assert!(backend.requests(CHAT).is_empty());
    }
    let request = three.gateway.image_request(&json!({"prompt": "p"})).header("x-backend", "gpu_fast");
    let refused = TestResponse::read(request.send().await.unwrap()).await;
    assert_eq!((refused.status, refused.message()), (400, "Backend gpu_fast does not support images"));
}

#[tokio::test]
async fn a_chosen_backend_that_is_down_or_full_is_not_replaced() {
    let three = Three::start(&[]).await;
    three.mlx.set(CHAT, UpstreamReply::Hold);
    let ask = json!({"model": "qwen"});
    let held = three.gateway.chat(&ask);
    let full = async {
        three.mlx.until_held(1).await;
        let answers =
            [three.ask(CHAT, None, &json!("qwen")).await.0, three.ask(CHAT, None, &json!("gpt-4o")).await.0];
        three.mlx.release();
        answers
    };
    let (held, full) = tokio::join!(held, full);
    assert_eq!(held.status, 200);
    for answer in full {
        assert_eq!((answer.status, answer.code()), (429, "backend_overloaded"));
        assert_eq!(answer.message(), "Backend local_mlx is at capacity for chat requests");
        assert_eq!(answer.header("retry-after"), "5");
    }
    three.mlx.stop().await;
    // By alias, by default, and by the list from when it was up.
    for (model, reason) in [("coder", "alias"), ("gpt-4o", "default"), ("qwen", "model")] {
        let (answer, _) = three.ask(CHAT, None, &json!(model)).await;
        assert_eq!((answer.status, answer.header("x-backend-used")), (503, "local_mlx"), "{model}");
        assert_eq!(answer.header("x-router-reason"), reason, "{model}");
    }
    assert!(three.fast.requests(CHAT).is_empty());
}

#[tokio::test]
async fn every_class_and_kind_has_its_own_slots() {
    let three = Three::start(&[]).await;
    three.mlx.set(CHAT, UpstreamReply::Hold);
    three.mlx.set(EMBEDDINGS, UpstreamReply::Hold);
    let ask = json!({"model": "mlx", "input": "x"});
    let (chat, numbers, ()) = tokio::join!(
        three.gateway.chat(&ask),
        three.gateway.json_request(EMBEDDINGS, ask.to_string()).send(),
        async {
            three.mlx.until_held(2).await; // one of each: neither takes the other's slot
            assert_eq!(three.ask(CHAT, Some("mlx"), &json!(null)).await.0.status, 429);
            assert_eq!(
                three.ask("/v1/completions", Some("mlx"), &json!(null)).await.0.status,
                429,
                "it counts as chat"
            );
            let full = three.ask(EMBEDDINGS, Some("mlx"), &json!(null)).await.0;
            assert_eq!(full.message(), "Backend local_mlx is at capacity for embeddings requests");
            assert_eq!(three.ask(CHAT, Some("gpu_fast"), &json!(null)).await.0.status, 200);
            assert_eq!(three.gateway.generate(&json!({"prompt": "p"})).await.status, 200);
            three.mlx.release();
        }
    );
    assert_eq!((chat.status, numbers.unwrap().status().as_u16()), (200, 200));
    assert_eq!(
        three.mlx.requests(CHAT).len() + three.mlx.requests(EMBEDDINGS).len(),
        2,
        "who was refused never arrived"
    );
}

#[tokio::test]
async fn the_model_list_is_the_one_that_routing_uses_with_the_aliases() {
    let three = Three::start(&[]).await;
    let listed = async || {
        let list = three.gateway.get("/v1/models").await.json;
        let entry = |model: &Value| {
            format!("{} {}", model["id"].as_str().unwrap(), model["owned_by"].as_str().unwrap())
        };
        list["data"].as_array().unwrap().iter().map(entry).collect::<Vec<_>>()
    };
    let all = [
        "qwen local_mlx",
        "both local_mlx",
        "llama/8b gpu_fast",
        "both gpu_fast",
        "sd-xl-base-1.0 gpu_heavy",
        "coder local_mlx",
    ];
    let mut sorted = listed().await;
    sorted.sort_by_key(|entry| all.iter().position(|other| other == entry));
    assert_eq!(sorted, all);
    let one = three.gateway.get("/v1/models/llama/8b").await;
    assert_eq!((one.status, &one.json["owned_by"]), (200, &json!("gpu_fast")));
    // A backend that gives no list keeps the one it had; one that is down has none, and its aliases neither.
    three.fast.set("/v1/models", UpstreamReply::Respond(500, vec![], vec![]));
    three.mlx.set("/readyz", UpstreamReply::Respond(503, vec![], vec![]));
    three.gateway.until_ready("local_mlx", false).await;
    assert_eq!(
        listed().await,
        ["sd-xl-base-1.0 gpu_heavy", "llama/8b gpu_fast", "both gpu_fast"],
        "in the file's order"
    );
    // Two have listed it: which one gets it must not depend on which is up.
    let (answer, _) = three.ask(CHAT, None, &json!("both")).await;
    assert_eq!((answer.header("x-backend-used"), answer.header("x-router-reason")), ("local_mlx", "default"));
}

#[tokio::test]
async fn no_list_is_fetched_while_a_request_waits() {
    let three = Three::start_probing("3600", &[]).await;
    let reached =
        || [&three.mlx, &three.fast, &three.heavy].map(|backend| backend.requests("/v1/models").len());
    let before = reached();
    for _ in 0..3 {
        assert_eq!(three.ask(CHAT, None, &json!("llama/8b")).await.0.header("x-backend-used"), "gpu_fast");
        three.gateway.get("/v1/models").await;
    }
    assert_eq!(reached(), before);
}
