//! Status and lists.

use std::time::{SystemTime, UNIX_EPOCH};

use e2e::gateway::{Gateway, gpu_heavy, with_local_mlx};
use fakes::upstream::{Upstream, UpstreamReply};
use serde_json::json;

#[tokio::test]
async fn the_status_lists_every_slot_and_every_backend() {
    let (heavy, mlx) = (Upstream::start().await, Upstream::start().await);
    let gateway = Gateway::with_backends(&with_local_mlx(&heavy, &mlx), &[]).await;
    gateway.until_ready("local_mlx", true).await;
    let status = gateway.get("/v1/gateway/status").await;
    let free = json!({"limit": 2, "available": 2, "inflight": 0});
    assert_eq!(
        status.json["admission_control"],
        json!({"gpu_heavy.images": free, "local_mlx.chat": free, "local_mlx.embeddings": free})
    );
    let heavy = &status.json["backend_health"]["gpu_heavy"];
    assert!(heavy["last_check"].as_f64().unwrap() > 1.7e9);
    assert_eq!(
        (&heavy["healthy"], &heavy["ready"], &heavy["error"], &heavy["warnings"], &heavy["gpu"]),
        (&json!(true), &json!(true), &json!(null), &json!([]), &json!(null))
    );
    let own = &status.json["gateway"];
    assert_eq!(own["images_backend"], "http_openai_images");
    assert!(own["version"].is_string() && own["uptime_seconds"].is_u64());
    assert!(own["config"]["loaded_at"].is_u64() && own["config"]["last_error"].is_null());
}

#[tokio::test]
async fn models_of_all_ready_backends_are_listed_and_owned_by_their_class() {
    let (heavy, mlx) = (Upstream::start().await, Upstream::start().await);
    mlx.set(
        "/v1/models",
        UpstreamReply::json(200, json!({"object": "list", "data": [{"id": "qwen", "object": "model"}]})),
    );
    let gateway = Gateway::with_backends(&with_local_mlx(&heavy, &mlx), &[]).await;
    gateway.until_ready("local_mlx", true).await;
    let list = gateway.get("/v1/models").await;
    assert_eq!(list.json["object"], "list");
    let mut models: Vec<_> = list.json["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| (model["id"].as_str().unwrap(), model["owned_by"].as_str().unwrap()))
        .collect();
    models.sort_unstable();
    assert_eq!(models, [("qwen", "local_mlx"), ("sd-xl-base-1.0", "gpu_heavy")]);
    let one = gateway.get("/v1/models/qwen").await;
    assert_eq!(
        (one.status, &one.json["id"], &one.json["owned_by"]),
        (200, &json!("qwen"), &json!("local_mlx"))
    );
    for (name, id) in
        [("SD-XL-Base-1.0", "sd-xl-base-1.0"), ("dall-e-3", "dall-e-3"), ("gpt-image-1", "gpt-image-1")]
    {
        let one = gateway.get(&format!("/v1/models/{name}")).await;
        assert_eq!(
            (one.status, &one.json["id"], &one.json["owned_by"]),
            (200, &json!(id), &json!("gpu_heavy"))
        );
    }
    let none = gateway.get("/v1/models/some/other").await;
    assert_eq!((none.status, none.code()), (404, "model_not_found"));
    assert_eq!(none.json["error"]["param"], "model");
}

#[tokio::test]
async fn a_store_near_its_limit_is_a_warning_with_its_figures() {
    let upstream = Upstream::start().await;
    let dir = fakes::fresh_dir("near-its-limit");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    std::fs::create_dir(dir.join("pictures")).unwrap();
    // So young that it is not deleted yet.
    std::fs::write(dir.join(format!("pictures/{now}_0123456789abcdef.png")), "0123456789").unwrap();
    let bound = ["--ui-image-store-max-bytes", "10"];
    let gateway = Gateway::start_in(dir, &gpu_heavy(&upstream), &bound).await;
    let store = async || gateway.get("/v1/gateway/status").await.json;
    let warning = fakes::eventually("the limit is reported", async || {
        let warnings = store().await["gateway"]["warnings"].to_string();
        warnings.contains("the image store uses").then_some(warnings)
    })
    .await;
    assert!(
        warning.contains("UI_IMAGE_STORE_MAX_BYTES") && warning.contains("the oldest images are deleted"),
        "{warning}"
    );
}
