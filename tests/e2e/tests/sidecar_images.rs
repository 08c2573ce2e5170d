//! Pictures through the sidecar from a fake InvokeAI.

use e2e::sidecar::Sidecar;
use fakes::{
    TestResponse,
    invokeai::{FakeInvoke, InvokeFailure, InvokeImageBytes, ItemStatus, QueueItem},
};
use picture::Format;
use serde_json::{Value, json};

async fn both() -> (FakeInvoke, Sidecar) {
    let fake = FakeInvoke::start().await;
    let sidecar = Sidecar::invokeai(&fake.url(), &[]).await;
    sidecar.until_ready().await;
    (fake, sidecar)
}

fn pictures(answer: &TestResponse) -> Vec<(u64, Vec<u8>)> {
    let picture = |object: &Value| {
        let bytes = base64_simd::STANDARD.decode_to_vec(object["b64_json"].as_str().unwrap()).unwrap();
        assert_eq!(Format::detect(&bytes), Ok(Format::Png));
        (object["seed"].as_u64().unwrap(), bytes)
    };
    answer.json["data"].as_array().unwrap().iter().map(picture).collect()
}

fn over(item: &QueueItem) -> bool {
    !matches!(item.status, ItemStatus::Pending | ItemStatus::InProgress)
}

fn enqueued(fake: &FakeInvoke) -> Vec<Value> {
    let seen = fake.requests();
    let batches = seen.iter().filter(|seen| seen.path.ends_with("/enqueue_batch"));
    batches.map(|seen| serde_json::from_slice(&seen.body).unwrap()).collect()
}

#[tokio::test]
async fn a_batch_has_counting_seeds_and_the_same_seed_gives_the_same_picture() {
    let (_fake, sidecar) = both().await;
    let request = json!({"model": "sd-v1-5", "prompt": "a red cat", "size": "128x64", "n": 3, "seed": 41});
    let first = sidecar.generate(&request).await;
    assert_eq!(first.status, 200, "{first:?}");
    assert_eq!(first.json["size"], "128x64");
    assert_eq!(first.json["output_format"], "png");
    let first = pictures(&first);
    assert_eq!(first.iter().map(|(seed, _)| *seed).collect::<Vec<_>>(), [41, 42, 43]);
    assert!(first[0].1 != first[1].1 && first[1].1 != first[2].1);
    assert_eq!(pictures(&sidecar.generate(&request).await), first);
}

#[tokio::test]
async fn everything_asked_for_reaches_the_graph_and_nothing_else_does() {
    let (fake, sidecar) = both().await;
    let prompt = "a \"cat\"\n{}]";
    let answer = sidecar
        .generate(&json!({"model": "sd-xl-base-1.0", "prompt": prompt, "negative_prompt": "dogs", "size": "256x128",
            "seed": 7, "steps": 11, "cfg_scale": 3.5, "scheduler": "dpmpp_2m", "user": "u", "extra": {"nodes": {}}}))
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let batch = &enqueued(&fake)[0]["batch"];
    let nodes = &batch["graph"]["nodes"];
    assert_eq!((&nodes["pos"]["prompt"], &nodes["pos"]["style"]), (&json!(prompt), &json!(prompt)));
    assert_eq!(nodes["neg"]["prompt"], "dogs");
    assert_eq!((&nodes["noise"]["width"], &nodes["pos"]["target_height"]), (&json!(256), &json!(128)));
    assert_eq!(
        (&nodes["denoise"]["steps"], &nodes["denoise"]["scheduler"]),
        (&json!(11), &json!("dpmpp_2m"))
    );
    assert_eq!(nodes["denoise"]["cfg_scale"], 3.5);
    assert_eq!(batch["data"], json!([[{"node_path": "noise", "field_name": "seed", "items": [7]}]]));
    assert!(batch["destination"].as_str().unwrap().starts_with("ada2-sidecar-"));
    assert_eq!(nodes.as_object().unwrap().len(), 6);
}

#[tokio::test]
async fn models_go_by_key_name_and_alias_and_an_unknown_one_is_refused_with_what_exists() {
    let (fake, sidecar) = both().await;
    let list =
        TestResponse::read(fakes::http().get(format!("{}/v1/models", sidecar.url)).send().await.unwrap())
            .await;
    let ids: Vec<_> = list.json["data"].as_array().unwrap().iter().map(|model| model["id"].clone()).collect();
    assert_eq!(ids.len(), 4, "two models and two aliases: {ids:?}");
    let named = ids[0].as_str().unwrap().to_uppercase();
    for model in [named.as_str(), "sd-v1-5", "sd-xl-base-1.0", "gpt-image-1", "dall-e-3"] {
        let answer = sidecar.generate(&json!({"model": model, "prompt": "a", "size": "64x64"})).await;
        assert_eq!(answer.status, 200, "{model}: {answer:?}");
    }
    let before = enqueued(&fake).len();
    let keys: Vec<_> = enqueued(&fake)
        .iter()
        .map(|batch| batch["batch"]["graph"]["nodes"]["loader"]["model"]["key"].clone())
        .collect();
    let by_key = sidecar.generate(&json!({"model": keys[2], "prompt": "a", "size": "64x64"})).await;
    assert_eq!(by_key.status, 200);
    assert_ne!(keys[1], keys[2], "SD 1.5 and SDXL are different models");
    let unknown = sidecar.generate(&json!({"model": "flux-dev", "prompt": "a"})).await;
    assert_eq!((unknown.status, unknown.code()), (404, "model_not_found"));
    assert!(unknown.message().contains(ids[0].as_str().unwrap()), "{}", unknown.message());
    assert_eq!(enqueued(&fake).len(), before + 1, "the engine never heard of it");
}

#[tokio::test]
async fn a_picture_by_address_can_be_fetched_there() {
    let (_fake, sidecar) = both().await;
    let request = json!({"prompt": "a", "size": "64x64", "response_format": "url", "seed": 1});
    let answer = sidecar.generate(&request).await;
    let url = answer.json["data"][0]["url"].as_str().unwrap();
    assert!(url.starts_with(&sidecar.url) && url.contains(".png"), "{url}");
    assert!(answer.json["data"][0].get("b64_json").is_none());
    let file = fakes::http().get(url).send().await.unwrap();
    assert_eq!(file.headers()["content-type"], "image/png");
    assert_eq!(file.headers()["x-content-type-options"], "nosniff");
    assert_eq!(Format::detect(&file.bytes().await.unwrap()), Ok(Format::Png));
    let gone = TestResponse::read(fakes::http().get(format!("{url}x")).send().await.unwrap()).await;
    assert_eq!((gone.status, gone.code()), (404, "not_found"));
}

#[tokio::test]
async fn a_request_that_spends_gpu_time_never_uses_a_connection_twice() {
    let (fake, sidecar) = both().await;
    for _ in 0..3 {
        assert_eq!(sidecar.generate(&json!({"prompt": "a", "size": "64x64"})).await.status, 200);
    }
    let seen = fake.requests();
    for (at, enqueue) in seen.iter().enumerate().filter(|(_, seen)| seen.path.ends_with("/enqueue_batch")) {
        let others = seen
            .iter()
            .enumerate()
            .filter(|(other, seen)| *other != at && seen.connection == enqueue.connection);
        assert_eq!(others.count(), 0, "an enqueue shared its connection");
    }
}

#[tokio::test]
async fn a_failed_job_is_told_in_the_engines_words_without_paths_or_tracebacks() {
    let (fake, sidecar) = both().await;
    let failure = InvokeFailure::new(
        "FileNotFoundError",
        "No such file: /srv/invokeai/models/x.safetensors\nTraceback (most)",
    );
    fake.script(|script| script.fail = Some(failure));
    let answer = sidecar.generate(&json!({"prompt": "a secret prompt", "size": "64x64", "n": 2})).await;
    assert_eq!((answer.status, answer.code()), (502, "engine_error"));
    assert_eq!(answer.header("x-should-retry"), "false");
    assert_eq!(answer.message(), "The engine could not make the picture: No such file: [path].");
    assert_eq!(answer.json["detail"], answer.json["error"]["message"]);
    fake.until_idle().await;
    assert!(fake.items().iter().all(over), "the second picture was cancelled");
}

#[tokio::test]
async fn running_out_of_memory_frees_the_engines_caches() {
    let (fake, sidecar) = both().await;
    fake.script(|script| script.fail = Some(InvokeFailure::out_of_memory()));
    let answer = sidecar.generate(&json!({"prompt": "a", "size": "64x64"})).await;
    assert_eq!((answer.status, answer.code()), (503, "gpu_out_of_memory"));
    assert_eq!((answer.header("retry-after"), answer.header("x-should-retry")), ("10", "false"));
    assert!(answer.message().contains("CUDA out of memory"), "{}", answer.message());
    assert!(fake.requests().iter().any(|seen| seen.path == "/api/v2/models/empty_model_cache"));
}

#[tokio::test]
async fn half_a_picture_or_a_web_page_is_no_picture() {
    let (fake, sidecar) = both().await;
    for bytes in [InvokeImageBytes::CutOff, InvokeImageBytes::Hollow, InvokeImageBytes::Html] {
        fake.script(|script| script.image_bytes = bytes);
        let answer = sidecar.generate(&json!({"prompt": "a", "size": "64x64"})).await;
        assert_eq!((answer.status, answer.code()), (502, "engine_error"), "{bytes:?}");
        assert!(answer.message().contains("picture cannot be used"), "{}", answer.message());
    }
}

#[tokio::test]
async fn a_full_queue_is_429_and_what_it_took_is_taken_back() {
    let (fake, sidecar) = both().await;
    fake.script(|script| {
        script.hold = true;
        script.max_queue = 2;
    });
    let stranger = fake.foreign_job();
    fake.until(|items| items.iter().any(|item| item.id == stranger && item.status == ItemStatus::InProgress))
        .await;
    let answer = sidecar.generate(&json!({"prompt": "a", "size": "64x64", "n": 4})).await;
    assert_eq!((answer.status, answer.code()), (429, "backend_overloaded"));
    assert_eq!(answer.header("retry-after"), "5");
    let items = fake.items();
    assert!(items.iter().filter(|item| item.id != stranger).all(over), "{items:?}");
    assert!(
        items.iter().any(|item| item.id == stranger && item.status == ItemStatus::InProgress),
        "the stranger's job goes on"
    );
}

#[tokio::test]
async fn an_event_that_never_comes_is_made_up_for() {
    let (fake, sidecar) = both().await;
    fake.until_followed(1).await;
    fake.script(|script| script.swallow = vec!["\"status\":\"completed\"".to_owned()]);
    let request = json!({"prompt": "a", "size": "64x64"});
    let (answer, ()) = tokio::join!(sidecar.generate(&request), async {
        fake.until(|items| items.iter().any(over)).await;
        fake.drop_sockets();
    });
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn two_jobs_at_once_get_each_its_own_pictures() {
    let (_fake, sidecar) = both().await;
    let ask = |seed: u64| {
        let request = json!({"prompt": "a", "size": "64x64", "n": 2, "seed": seed});
        let sidecar = &sidecar;
        async move { pictures(&sidecar.generate(&request).await) }
    };
    let (first, second, third) = tokio::join!(ask(1), ask(100), ask(1));
    assert_eq!((first[0].0, first[1].0, second[0].0, second[1].0), (1, 2, 100, 101));
    assert_eq!(first, third);
    assert_ne!(first[0].1, second[0].1);
}
