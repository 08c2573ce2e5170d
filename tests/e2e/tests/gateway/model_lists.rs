//! Lists of models: which entries count, and for how long.

use std::path::PathBuf;

use e2e::gateway::{Gateway, TOKEN, chat_backend, gpu_heavy};
use fakes::{
    TestResponse,
    upstream::{Upstream, UpstreamReply, sse::SseStep},
};
use serde_json::{Value, json};

use super::chat::{CHAT, EMBEDDINGS};

fn models(ids: &[&str]) -> Value {
    let data: Vec<_> = ids.iter().map(|id| json!({"id": id, "object": "model"})).collect();
    json!({"object": "list", "data": data})
}

/// `fast`, the default, and `local_mlx`, which alone lists `qwen`; for images another.
struct Two {
    mlx: Upstream,
    _others: [Upstream; 2],
    yaml: String,
    dir: PathBuf,
}

impl Two {
    async fn start(name: &str) -> (Self, Gateway) {
        let (fast, mlx, heavy) = (Upstream::start().await, Upstream::start().await, Upstream::start().await);
        fast.set("/v1/models", UpstreamReply::json(200, models(&["llama", "both"])));
        mlx.set("/v1/models", UpstreamReply::json(200, models(&["qwen", "both"])));
        for path in [CHAT, EMBEDDINGS] {
            fast.set(path, UpstreamReply::json(200, json!({})));
            mlx.set(path, UpstreamReply::json(200, json!({})));
        }
        let speaking =
            [chat_backend("fast", &fast.url, ""), chat_backend("local_mlx", &mlx.url, "")].concat();
        let yaml = gpu_heavy(&heavy) + &speaking;
        let two = Self { mlx, _others: [fast, heavy], yaml, dir: fakes::fresh_dir(name) };
        let gateway = two.gateway().await;
        gateway.until_ready("local_mlx", true).await;
        gateway.until_ready("fast", true).await;
        (two, gateway)
    }

    async fn gateway(&self) -> Gateway {
        Gateway::start_in(self.dir.clone(), &self.yaml, &["--default-backend", "fast"]).await
    }
}

/// The status, the backend and the reason for it.
async fn ask(gateway: &Gateway, path: &str, model: &str) -> (u16, String, String) {
    let request = gateway.json_request(path, json!({"model": model, "input": "x"}).to_string());
    let answer = TestResponse::read(request.send().await.unwrap()).await;
    assert!(answer.status == 200 || answer.code() == "backend_not_ready", "{answer:?}");
    let [class, reason] = ["x-backend-used", "x-router-reason"].map(|name| answer.header(name).to_owned());
    (answer.status, class, reason)
}

fn went(status: u16, class: &str, reason: &str) -> (u16, String, String) {
    (status, class.to_owned(), reason.to_owned())
}

#[tokio::test]
async fn a_backend_that_is_down_keeps_its_models_also_over_a_restart() {
    let (two, gateway) = Two::start("keeps").await;
    assert_eq!(ask(&gateway, CHAT, "qwen").await, went(200, "local_mlx", "model"));
    two.mlx.stop().await;
    let refused = went(503, "local_mlx", "model");
    for path in [CHAT, EMBEDDINGS] {
        assert_eq!(ask(&gateway, path, "qwen").await, refused, "the first meets it");
        assert_eq!(ask(&gateway, path, "qwen").await, refused);
    }
    gateway.stop().await;
    let gateway = two.gateway().await;
    gateway.until_ready("fast", true).await;
    for path in [CHAT, EMBEDDINGS] {
        assert_eq!(ask(&gateway, path, "qwen").await, refused);
        assert_eq!(ask(&gateway, path, "both").await, went(200, "fast", "default"), "two have listed it");
        assert_eq!(ask(&gateway, path, "llama").await, went(200, "fast", "model"));
    }
    let listed = gateway.get("/v1/models").await.json["data"].to_string();
    assert!(
        listed.contains("llama") && !listed.contains("qwen"),
        "the models that can be used now: {listed}"
    );
    gateway.stop().await;
}

#[tokio::test]
async fn what_a_model_is_and_can_do_is_listed_also_over_a_restart() {
    let upstream = Upstream::start().await;
    let details = json!({"default": true, "family": "z-image", "variant": "turbo", "capabilities": {"tasks": ["generate"], "max_images": 0}});
    let mut entry = json!({"id": "z-image-turbo", "object": "model", "created": 0, "owned_by": "comfyui", "root": "/models"});
    entry.as_object_mut().unwrap().extend(details.as_object().unwrap().clone());
    upstream.set("/v1/models", UpstreamReply::json(200, json!({"object": "list", "data": [entry]})));
    let mut expected = details;
    expected.as_object_mut().unwrap().extend(
        json!({"id": "z-image-turbo", "object": "model", "created": 0, "owned_by": "gpu_heavy"})
            .as_object()
            .unwrap()
            .clone(),
    );
    let (dir, yaml) = (fakes::fresh_dir("details"), gpu_heavy(&upstream));
    let gateway = Gateway::start_in(dir.clone(), &yaml, &[]).await;
    gateway.until_ready("gpu_heavy", true).await;
    assert_eq!(gateway.get("/v1/models").await.json["data"], json!([expected]));
    assert_eq!(gateway.get("/v1/models/z-image-turbo").await.json, expected);
    let unknown = gateway.get("/v1/models/gone").await;
    assert_eq!((unknown.status, unknown.code()), (404, "model_not_found"));
    gateway.stop().await;
    // After the restart the backend has no list, so the cached one stays.
    upstream.set("/v1/models", UpstreamReply::Respond(404, vec![], vec![]));
    let gateway = Gateway::start_in(dir, &yaml, &[]).await;
    gateway.until_ready("gpu_heavy", true).await;
    assert_eq!(gateway.get("/v1/models/z-image-turbo").await.json, expected);
    gateway.stop().await;
}

#[tokio::test]
async fn a_damaged_list_or_one_of_another_address_is_discarded() {
    let (two, gateway) = Two::start("forgets").await;
    two.mlx.stop().await;
    gateway.stop().await;
    let file = two.dir.join("models.json");
    let original = std::fs::read(&file).unwrap();
    std::fs::write(&file, &original[..original.len() / 2]).unwrap();
    let gateway = two.gateway().await;
    assert_eq!(ask(&gateway, CHAT, "qwen").await, went(200, "fast", "default"));
    gateway.stop().await;
    std::fs::write(&file, &original).unwrap();
    let gateway = two.gateway().await;
    assert_eq!(ask(&gateway, CHAT, "qwen").await, went(503, "local_mlx", "model"));
    let moved = two.yaml.replace(&two.mlx.url, "http://127.0.0.1:9");
    gateway.set_backends(&moved);
    assert_eq!(gateway.reload(TOKEN).await["last_error"], Value::Null);
    assert_eq!(ask(&gateway, CHAT, "qwen").await, went(200, "fast", "default"));
    gateway.stop().await;
}

#[tokio::test]
async fn the_usable_entries_of_a_list_count_and_the_others_are_a_warning() {
    let upstream = Upstream::start().await;
    let list = json!({"object": "list", "data": [
        {"id": "good", "object": "model", "created": 1, "owned_by": "x"},
        {"id": "odd", "object": "model", "created": null, "owned_by": null},
        {"name": "no id"}, 7, {"id": ["x"]},
    ]});
    upstream.set("/v1/models", UpstreamReply::json(200, list));
    let gateway = Gateway::start(&upstream, &["--health-check-interval-sec", "0.2"]).await;
    let backend = gateway.until_ready("gpu_heavy", true).await;
    let warning = "model list: 3 of 5 entries ignored; the first is entry 3: it has no `id`";
    assert_eq!(backend["warnings"], json!([warning]));
    let entry = |id: &str, created: u64| json!({"id": id, "object": "model", "created": created, "owned_by": "gpu_heavy"});
    let listed = || async { gateway.get("/v1/models").await.json["data"].clone() };
    assert_eq!(listed().await, json!([entry("good", 1), entry("odd", 0)]));
    // An unreadable list leaves the previous one, with a warning; a backend without a list is fine.
    for (reply, text) in [
        (
            UpstreamReply::json(200, json!({"data": 7})),
            "model list: /v1/models returned JSON without a list `data`",
        ),
        (UpstreamReply::Respond(500, vec![], vec![]), "model list: /v1/models returned 500"),
        (
            UpstreamReply::Respond(200, vec![], b"<html>hello</html>".to_vec()),
            "model list: /v1/models returned a web page",
        ),
        (
            UpstreamReply::Respond(200, vec![], vec![b' '; (8 << 20) + 1]),
            "model list: /v1/models returned more than 8 MiB",
        ),
        (UpstreamReply::Respond(404, vec![], vec![]), ""),
    ] {
        upstream.set("/v1/models", reply);
        fakes::eventually(text, async || {
            let warnings = gateway.backend("gpu_heavy").await["warnings"].clone();
            let reported = warnings
                .as_array()?
                .iter()
                .any(|reported| reported.as_str().is_some_and(|reported| reported.starts_with(text)));
            (reported || text.is_empty() && warnings == json!([])).then_some(())
        })
        .await;
        assert_eq!(listed().await, json!([entry("good", 1), entry("odd", 0)]), "{text}");
    }
    upstream.set("/v1/models", UpstreamReply::json(200, json!({"object": "list", "data": null})));
    fakes::eventually("an empty list", async || (listed().await == json!([])).then_some(())).await;
}

#[tokio::test]
async fn a_list_may_take_as_long_as_a_probe() {
    let upstream = Upstream::start().await;
    let late = |list: Value| {
        UpstreamReply::Events(vec![SseStep::Wait, SseStep::Send(list.to_string().into_bytes())])
    };
    upstream.set("/v1/models", late(models(&["late"])));
    // The start does not wait for it; what it takes is more than two seconds.
    let gateway = Gateway::start(&upstream, &["--health-check-interval-sec", "0.2"]).await;
    let backend = gateway.backend("gpu_heavy").await;
    assert_eq!((&backend["ready"], &backend["last_check"]), (&json!(false), &Value::Null));
    upstream.step();
    assert_eq!(gateway.until_ready("gpu_heavy", true).await["warnings"], json!([]));
    assert_eq!(gateway.get("/v1/models/late").await.status, 200);
    // Probes go on while a list is awaited.
    upstream.set("/v1/models", UpstreamReply::Events(vec![SseStep::Wait, SseStep::Wait]));
    let lists = upstream.requests("/v1/models").len();
    fakes::eventually("a list was requested", async || {
        (upstream.requests("/v1/models").len() > lists).then_some(())
    })
    .await;
    upstream.set("/readyz", UpstreamReply::Respond(503, vec![], vec![]));
    gateway.until_ready("gpu_heavy", false).await;
}

#[tokio::test]
async fn a_list_that_never_arrives_is_a_warning_and_blocks_no_request() {
    let upstream = Upstream::start().await;
    upstream.set("/v1/models", UpstreamReply::Hold);
    let gateway = Gateway::start(&upstream, &["--health-check-timeout-sec", "0.3"]).await;
    let backend = gateway.until_ready("gpu_heavy", true).await;
    let warning = "model list: no response within 0.3 s; the previous list stays in use";
    assert_eq!(backend["warnings"], json!([warning]));
    assert_eq!(gateway.generate(&json!({"prompt": "p"})).await.status, 200);
}

#[tokio::test]
async fn a_backend_that_answers_everything_with_a_web_page_is_not_ready() {
    let upstream = Upstream::start().await;
    let page = || {
        let kind = vec![("content-type", "text/html; charset=utf-8".to_owned())];
        UpstreamReply::Respond(200, kind, b"<!DOCTYPE html><html><title>FRITZ!Box</title></html>".to_vec())
    };
    for path in ["/healthz", "/readyz", "/v1/models"] {
        upstream.set(path, page());
    }
    let yaml = gpu_heavy(&upstream);
    let gateway = Gateway::with_backends(&yaml, &[]).await;
    let backend = fakes::eventually("a probe", async || {
        Some(gateway.backend("gpu_heavy").await).filter(|backend| !backend["last_check"].is_null())
    })
    .await;
    assert_eq!((&backend["healthy"], &backend["ready"]), (&json!(true), &json!(false)));
    assert_eq!(
        backend["error"],
        "/readyz and /v1/models return a web page (HTML, titled \"FRITZ!Box\"): another program, or a proxy's login page, \
         answers at this base_url; check host, port and path"
    );
    let warnings = backend["warnings"].to_string();
    assert!(
        ["/healthz", "/readyz"].iter().all(|path| warnings.contains(&format!("has no {path};"))),
        "{warnings}"
    );
    assert_eq!(gateway.generate(&json!({"prompt": "p"})).await.status, 503);
    assert!(upstream.images().is_empty());
    // A server of models that has a page of its own for everything else.
    upstream.set("/v1/models", UpstreamReply::json(200, models(&["sd-xl"])));
    gateway.until_ready("gpu_heavy", true).await;
}
