//! Models: which are ready, listed and the default, and how a request that names another kind is refused.

mod comfyui;
mod invokeai;

use std::path::PathBuf;

use e2e::sidecar::Sidecar;
use fakes::TestResponse;
use serde_json::json;

async fn get(sidecar: &Sidecar, path: &str) -> TestResponse {
    TestResponse::read(fakes::http().get(format!("{}{path}", sidecar.url)).send().await.unwrap()).await
}

async fn listed(sidecar: &Sidecar) -> Vec<String> {
    let list = get(sidecar, "/v1/models").await;
    assert_eq!(list.status, 200, "{list:?}");
    list.json["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| model["id"].as_str().unwrap().to_owned())
        .collect()
}

async fn ask(sidecar: &Sidecar, model: Option<&str>) -> TestResponse {
    let mut request = json!({"prompt": "a", "size": "64x64", "steps": 1});
    if let Some(model) = model {
        request["model"] = json!(model);
    }
    sidecar.generate(&request).await
}

/// The request is refused alike by the images' route and the list's.
async fn refused(sidecar: &Sidecar, model: &str, status: u16, code: &str, text: &str) {
    let answers = [ask(sidecar, Some(model)).await, get(sidecar, &format!("/v1/models/{model}")).await];
    for answer in answers {
        assert_eq!((answer.status, answer.code()), (status, code), "{model}: {answer:?}");
        assert!(answer.message().contains(text), "{model}: {}", answer.message());
        assert_eq!(answer.json["error"]["param"], "model");
    }
}

fn write_config(name: &str, text: &str) -> (PathBuf, String) {
    let dir = fakes::fresh_dir(name);
    let config = dir.join("config.yaml");
    std::fs::write(&config, text).unwrap();
    (dir, config.display().to_string())
}
