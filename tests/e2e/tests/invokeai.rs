//! What only an InvokeAI has: its graphs and models, batches and a bounded queue, and events of items that are not ours.

use e2e::sidecar::Sidecar;
use fakes::{
    TestResponse,
    engine::{JobState, RequestKind},
    invokeai::{FakeInvoke, ItemStatus, QueueItem},
};
use serde_json::{Value, json};

use crate::engine_behaviour::{disconnect_when, ours_is, request};

async fn start() -> (FakeInvoke, Sidecar) {
    let engine = FakeInvoke::start().await;
    let sidecar = Sidecar::invokeai(&engine.url(), &[]).await;
    sidecar.until_ready().await;
    engine.until_followed(1).await;
    (engine, sidecar)
}

fn is_over(item: &QueueItem) -> bool {
    !matches!(item.status, ItemStatus::Pending | ItemStatus::InProgress)
}

fn batches(engine: &FakeInvoke) -> Vec<Value> {
    let submissions = engine.requests_of(RequestKind::Submit);
    submissions.iter().map(|request| serde_json::from_slice(&request.body).unwrap()).collect()
}

#[tokio::test]
async fn every_field_of_the_request_reaches_the_graph_and_nothing_else_does() {
    let (engine, sidecar) = start().await;
    let prompt = "a \"cat\"\n{}]";
    let answer = sidecar
        .generate(&json!({"model": "sd-xl-base-1.0", "prompt": prompt, "negative_prompt": "dogs", "size": "256x128",
            "seed": 7, "steps": 11, "cfg_scale": 3.5, "scheduler": "dpmpp_2m", "user": "u", "extra": {"nodes": {}}}))
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let batch = &batches(&engine)[0]["batch"];
    let nodes = &batch["graph"]["nodes"];
    assert_eq!((&nodes["pos"]["prompt"], &nodes["pos"]["style"]), (&json!(prompt), &json!(prompt)));
    assert_eq!(nodes["neg"]["prompt"], "dogs");
    assert_eq!((&nodes["noise"]["width"], &nodes["pos"]["target_height"]), (&json!(256), &json!(128)));
    assert_eq!(
        (&nodes["denoise"]["steps"], &nodes["denoise"]["scheduler"]),
        (&json!(11), &json!("dpmpp_2m"))
    );
    assert_eq!(nodes["denoise"]["cfg_scale"], 3.5);
    let seed = |node: &str| json!({"node_path": node, "field_name": "seed", "items": [7]});
    assert_eq!(batch["data"], json!([[seed("noise"), seed("meta")]]));
    let meta = &nodes["meta"];
    assert_eq!((&meta["positive_prompt"], &meta["negative_prompt"]), (&json!(prompt), &json!("dogs")));
    assert_eq!(
        (&meta["width"], &meta["scheduler"]),
        (&json!(256), &json!("dpmpp_2m")),
        "the gallery recalls it"
    );
    assert!(batch["destination"].as_str().unwrap().starts_with("ada2-sidecar-"));
    assert_eq!(nodes.as_object().unwrap().len(), 7);
}

#[tokio::test]
async fn models_are_found_by_key_name_and_alias_and_an_unknown_one_is_refused_with_the_list() {
    let (engine, sidecar) = start().await;
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
    let before = batches(&engine).len();
    let keys: Vec<_> = batches(&engine)
        .iter()
        .map(|batch| batch["batch"]["graph"]["nodes"]["loader"]["model"]["key"].clone())
        .collect();
    let by_key = sidecar.generate(&json!({"model": keys[2], "prompt": "a", "size": "64x64"})).await;
    assert_eq!(by_key.status, 200);
    assert_ne!(keys[1], keys[2], "SD 1.5 and SDXL are different models");
    let unknown = sidecar.generate(&json!({"model": "flux-dev", "prompt": "a"})).await;
    assert_eq!((unknown.status, unknown.code()), (404, "model_not_found"));
    assert!(unknown.message().contains(ids[0].as_str().unwrap()), "{}", unknown.message());
    assert_eq!(batches(&engine).len(), before + 1, "the engine never heard of it");
}

#[tokio::test]
async fn a_full_queue_is_429_and_accepted_items_are_cancelled() {
    let (engine, sidecar) = start().await;
    engine.script(|script| {
        script.hold = true;
        script.max_queue = 2;
    });
    let foreign = engine.foreign_job();
    engine
        .until(|items| items.iter().any(|item| item.id == foreign && item.status == ItemStatus::InProgress))
        .await;
    let answer = sidecar.generate(&json!({"prompt": "a", "size": "64x64", "n": 4})).await;
    assert_eq!((answer.status, answer.code()), (429, "backend_overloaded"));
    assert_eq!(answer.header("retry-after"), "5");
    let items = engine.items();
    assert!(items.iter().filter(|item| item.id != foreign).all(is_over), "{items:?}");
    assert!(
        items.iter().any(|item| item.id == foreign && item.status == ItemStatus::InProgress),
        "the other's job goes on"
    );
}

fn event(name: &str, data: &Value) -> String {
    format!("42[\"{name}\",{data}]")
}

#[tokio::test]
async fn items_that_were_not_submitted_finish_no_job_even_in_its_own_batch() {
    let (engine, sidecar) = start().await;
    let request = json!({"prompt": "a", "size": "64x64", "n": 2, "seed": 7});
    assert_eq!(sidecar.generate(&json!({"prompt": "b", "size": "64x64"})).await.status, 200);
    let foreign_image = engine.gallery().remove(0);
    engine.script(|script| script.hold = true);
    let false_events = async {
        engine.until(|items| items.len() == 3 && items[1].status == ItemStatus::InProgress).await;
        let batch = engine.items().remove(1).batch_id;
        for item in [99, 100] {
            let (about, image) =
                (json!({"item_id": item, "batch_id": batch}), json!({"image_name": foreign_image}));
            let with = |more: Value| {
                let mut all = about.clone();
                all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
                all
            };
            let made = json!({"invocation_source_id": "l2i", "result": {"image": image}});
            engine.broadcast_raw(&event("invocation_progress", &with(json!({"percentage": 1.0}))));
            engine.broadcast_raw(&event("invocation_complete", &with(made)));
            engine.broadcast_raw(&event("queue_item_status_changed", &with(json!({"status": "completed"}))));
            engine.broadcast_raw(&event("queue_item_status_changed", &with(json!({"status": "failed"}))));
            engine.broadcast_raw(&event("queue_item_status_changed", &with(json!({"status": "canceled"}))));
        }
        engine.broadcast_raw(&event("queue_items_canceled", &json!({"canceled_item_ids": [99, 100]})));
        engine.script(|script| script.hold = false);
    };
    let (answer, ()) = tokio::join!(sidecar.generate(&request), false_events);
    assert_eq!(answer.status, 200, "{answer:?}");
    let seeds: Vec<_> = answer.json["data"].as_array().unwrap().iter().map(|image| &image["seed"]).collect();
    assert_eq!(seeds, [&json!(7), &json!(8)], "those that were submitted, and all of them");
}

#[tokio::test]
async fn a_submission_answered_with_other_items_is_502_and_cancelled() {
    // Too many, one twice: noticed at once. Others in place of ours: noticed when they are looked for.
    for reported in [vec![3, 2, 1], vec![1, 1], vec![100, 99]] {
        let (engine, sidecar) = start().await;
        engine.script(|script| {
            script.hold = true;
            script.reported_items = Some(reported.clone());
        });
        let answer = sidecar.generate(&json!({"prompt": "a", "size": "64x64", "n": 2})).await;
        assert_eq!(
            (answer.status, answer.header("x-should-retry")),
            (502, "false"),
            "{reported:?}: {answer:?}"
        );
        engine.until(|items| items.iter().all(is_over)).await;
        assert_eq!(engine.cancels().len(), 1, "{reported:?}");
        sidecar.until_inflight(0).await;
    }
}

#[tokio::test]
async fn a_running_job_is_cancelled_by_one_request() {
    let (engine, sidecar) = start().await;
    engine.script(|script| script.hold = true);
    disconnect_when(&engine, &sidecar, &request(), ours_is(JobState::Running)).await;
    engine.until_idle().await;
    sidecar.until_inflight(0).await;
    assert_eq!(engine.cancels().len(), 1, "{:?}", engine.cancels());
}
