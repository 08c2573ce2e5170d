//! Streams, formats, presets and templates of the sidecar.

use std::time::Duration;

use e2e::sidecar::Sidecar;
use fakes::{
    TestResponse,
    invokeai::{FakeInvoke, InvokeFailure, ItemStatus},
    sse::SseReader,
};
use picture::Format;
use serde_json::{Value, json};

async fn stream(sidecar: &Sidecar, more: Value) -> SseReader {
    let mut request = json!({"prompt": "a", "size": "64x64", "stream": true});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let answer = fakes::http().post(format!("{}/v1/images/generations", sidecar.url));
    let answer = answer.header("content-type", "application/json").body(request.to_string());
    SseReader::new(answer.send().await.unwrap())
}

fn picture(event: &Value) -> Format {
    let bytes = base64_simd::STANDARD.decode_to_vec(event["b64_json"].as_str().unwrap()).unwrap();
    Format::detect(&bytes).unwrap()
}

#[tokio::test]
async fn previews_come_as_the_engine_makes_them_and_then_the_picture() {
    let fake = FakeInvoke::start().await;
    fake.script(|script| script.item = Duration::from_millis(200));
    for sidecar in [Sidecar::builtin(&[]).await, Sidecar::invokeai(&fake.url(), &[]).await] {
        sidecar.until_ready().await;
        let events = stream(&sidecar, json!({"steps": 8, "partial_images": 2, "seed": 7})).await.rest().await;
        let types: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
        let partial = "image_generation.partial_image";
        assert_eq!(types, [partial, partial, "image_generation.completed"]);
        for (nth, event) in events[..2].iter().enumerate() {
            assert_eq!(event["partial_image_index"], nth);
            picture(event);
        }
        let last = &events[2];
        assert_eq!(
            (picture(last), &last["seed"], &last["usage"]["total_tokens"]),
            (Format::Png, &json!(7), &json!(0))
        );
        for event in &events {
            assert!(event["created_at"].is_u64());
            assert_eq!(
                (&event["size"], &event["quality"], &event["background"]),
                (&json!("64x64"), &json!("medium"), &json!("opaque"))
            );
        }
    }
}

#[tokio::test]
async fn a_stream_without_partials_has_one_event_in_the_format_asked_for() {
    let sidecar = Sidecar::builtin(&[]).await;
    sidecar.until_ready().await;
    let events = stream(&sidecar, json!({"steps": 2, "output_format": "webp"})).await.rest().await;
    assert_eq!(
        (events.len(), picture(&events[0]), &events[0]["output_format"]),
        (1, Format::Webp, &json!("webp"))
    );
}

#[tokio::test]
async fn an_engine_that_fails_in_mid_stream_is_an_event_that_sdks_raise() {
    let fake = FakeInvoke::start().await;
    fake.script(|script| script.fail = Some(InvokeFailure::new("RuntimeError", "the model is broken")));
    let sidecar = Sidecar::invokeai(&fake.url(), &[]).await;
    sidecar.until_ready().await;
    let events = stream(&sidecar, json!({"steps": 4})).await.rest().await;
    let error = &events[0]["error"];
    assert_eq!(
        (events.len(), &events[0]["type"], &error["code"]),
        (1, &json!("error"), &json!("engine_error"))
    );
    assert!(error["message"].as_str().unwrap().contains("the model is broken"), "{error}");
    assert!(error["type"].is_string() && error.as_object().unwrap().contains_key("param"));
}

#[tokio::test]
async fn a_stream_that_takes_too_long_ends_with_the_error_and_the_job_with_it() {
    let fake = FakeInvoke::start().await;
    fake.script(|script| script.hold = true);
    let sidecar = Sidecar::invokeai(&fake.url(), &["--request-timeout", "1s"]).await;
    sidecar.until_ready().await;
    let events = stream(&sidecar, json!({"steps": 4})).await.rest().await;
    assert_eq!(events[0]["error"]["code"], "engine_timeout");
    fake.until(|items| items[0].status == ItemStatus::Canceled).await;
    sidecar.until_inflight(0).await;
}

#[tokio::test]
async fn a_caller_who_leaves_the_stream_takes_his_job_along() {
    let fake = FakeInvoke::start().await;
    fake.script(|script| script.hold = true);
    let sidecar = Sidecar::invokeai(&fake.url(), &[]).await;
    sidecar.until_ready().await;
    let stranger = fake.foreign_job();
    let events = stream(&sidecar, json!({"steps": 4, "partial_images": 3})).await;
    fake.until(|items| items.len() == 2).await;
    drop(events);
    fake.until(|items| items[1].status == ItemStatus::Canceled).await;
    sidecar.until_inflight(0).await;
    assert_ne!(fake.items().iter().find(|item| item.id == stranger).unwrap().status, ItemStatus::Canceled);
}

#[tokio::test]
async fn what_is_wrong_before_the_stream_begins_is_a_status() {
    let sidecar = Sidecar::builtin(&[]).await;
    sidecar.until_ready().await;
    for (more, status) in
        [(json!({"n": 2}), 400), (json!({"model": "gone"}), 404), (json!({"partial_images": 4}), 400)]
    {
        let mut request = json!({"prompt": "a", "stream": true});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(sidecar.generate(&request).await.status, status, "{more}");
    }
}

fn bytes(answer: &TestResponse) -> Vec<u8> {
    assert_eq!(answer.status, 200, "{answer:?}");
    base64_simd::STANDARD.decode_to_vec(answer.json["data"][0]["b64_json"].as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn every_format_can_be_had_and_says_what_it_is() {
    let sidecar = Sidecar::builtin(&[]).await;
    sidecar.until_ready().await;
    for (name, format) in [("png", Format::Png), ("jpeg", Format::Jpeg), ("webp", Format::Webp)] {
        let mut request =
            json!({"prompt": "a", "size": "64x64", "steps": 1, "output_format": name, "seed": 1});
        let answer = sidecar.generate(&request).await;
        assert_eq!(
            (Format::detect(&bytes(&answer)), &answer.json["output_format"]),
            (Ok(format), &json!(name))
        );
        request["response_format"] = json!("url");
        let answer = sidecar.generate(&request).await;
        let url = answer.json["data"][0]["url"].as_str().unwrap();
        assert!(url.ends_with(format.extension()), "{url}");
        let fetched = fakes::http().get(url).send().await.unwrap();
        assert_eq!(fetched.headers()["content-type"], format.mime());
        assert_eq!(Format::detect(&fetched.bytes().await.unwrap()), Ok(format));
    }
}

#[tokio::test]
async fn a_preset_is_a_model_with_settings_and_may_bring_its_own_graph() {
    let fake = FakeInvoke::start().await;
    let folder = fakes::fresh_folder("presets");
    let graph = json!({"id": "graph", "nodes": {
        "say": {"id": "say", "type": "compel", "prompt": ""},
        "dice": {"id": "dice", "type": "noise", "seed": 0, "width": 64, "height": 64},
        "work": {"id": "work", "type": "denoise_latents", "steps": 3},
        "l2i": {"id": "l2i", "type": "l2i", "use_cache": false}}, "edges": [
        {"source": {"node_id": "say", "field": "conditioning"}, "destination": {"node_id": "work", "field": "positive_conditioning"}},
        {"source": {"node_id": "dice", "field": "noise"}, "destination": {"node_id": "work", "field": "noise"}},
        {"source": {"node_id": "work", "field": "latents"}, "destination": {"node_id": "l2i", "field": "latents"}}]});
    std::fs::write(folder.join("mine.json"), graph.to_string()).unwrap();
    let yaml = "output: l2i\nbindings: {prompt: [say.prompt], seed: [dice.seed], width: [dice.width], height: [dice.height]}";
    std::fs::write(folder.join("mine.yaml"), yaml).unwrap();
    let config = folder.join("config.yaml");
    let text = "presets:\n  quick: {model: tiny-sd1, steps: 2, cfg_scale: 1.5, scheduler: lcm, size: 128x64}\n  mine: {size: 64x128, template: mine.json}\n";
    std::fs::write(&config, text).unwrap();
    let sidecar = Sidecar::invokeai(
        &fake.url(),
        &["--config", &config.display().to_string(), "--engine-outputs", "discard"],
    )
    .await;
    sidecar.until_ready().await;
    let answer = sidecar.generate(&json!({"prompt": "a", "model": "QUICK", "seed": 1})).await;
    assert_eq!((answer.status, &answer.json["size"]), (200, &json!("128x64")));
    let nodes = fake.items()[0].graph["nodes"].clone();
    assert_eq!((&nodes["denoise"]["steps"], &nodes["denoise"]["scheduler"]), (&json!(2), &json!("lcm")));
    assert_eq!(nodes["l2i"]["is_intermediate"], true, "engine_outputs: discard");
    let answer = sidecar.generate(&json!({"prompt": "a \"cat\"", "model": "mine", "seed": 5})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let nodes = fake.items()[1].graph["nodes"].clone();
    assert_eq!(
        (&nodes["say"]["prompt"], &nodes["dice"]["seed"], &nodes["dice"]["height"]),
        (&json!("a \"cat\""), &json!(5), &json!(128))
    );
    let models =
        fakes::http().get(format!("{}/v1/models", sidecar.url)).send().await.unwrap().text().await.unwrap();
    assert!(models.contains("\"quick\"") && models.contains("\"mine\""), "{models}");
}

#[tokio::test]
async fn what_the_engine_writes_into_a_png_is_taken_out_if_so_configured() {
    let fake = FakeInvoke::start().await;
    for (word, tells) in [("keep", true), ("strip", false)] {
        let sidecar = Sidecar::invokeai(&fake.url(), &["--png-metadata", word]).await;
        sidecar.until_ready().await;
        fake.script(|script| script.image_bytes = fakes::invokeai::InvokeImageBytes::WithGraph);
        let answer = sidecar.generate(&json!({"prompt": "a secret", "size": "64x64", "steps": 1})).await;
        let told = bytes(&answer).windows(14).any(|window| window == b"invokeai_graph");
        assert_eq!(told, tells, "{word}");
    }
}
