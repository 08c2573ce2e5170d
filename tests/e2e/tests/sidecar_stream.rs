//! Streams, formats, presets and templates of the sidecar.

use e2e::sidecar::Sidecar;
use fakes::{
    TestResponse,
    invokeai::{FakeInvoke, InvokeImageBytes},
};
use picture::Format;
use serde_json::json;

use crate::engine_behaviour::{assert_two_previews_and_the_image, format_of, stream};

#[tokio::test]
async fn the_builtin_engine_streams_previews_and_then_the_image() {
    let sidecar = Sidecar::builtin(&[]).await;
    sidecar.until_ready().await;
    let events = stream(&sidecar, json!({"steps": 8, "partial_images": 2, "seed": 7})).await.rest().await;
    assert_two_previews_and_the_image(&events, Format::Png);
}

#[tokio::test]
async fn a_stream_without_partials_has_one_event_in_the_requested_format() {
    let sidecar = Sidecar::builtin(&[]).await;
    sidecar.until_ready().await;
    let events = stream(&sidecar, json!({"steps": 2, "output_format": "webp"})).await.rest().await;
    assert_eq!(
        (events.len(), format_of(&events[0]), &events[0]["output_format"]),
        (1, Format::Webp, &json!("webp"))
    );
}

#[tokio::test]
async fn an_error_before_the_stream_begins_is_a_status() {
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

#[tokio::test]
async fn every_output_format_has_its_content_type() {
    let sidecar = Sidecar::builtin(&[]).await;
    sidecar.until_ready().await;
    for (name, format) in [("png", Format::Png), ("jpeg", Format::Jpeg), ("webp", Format::Webp)] {
        let mut request =
            json!({"prompt": "a", "size": "64x64", "steps": 1, "output_format": name, "seed": 1});
        let answer = sidecar.generate(&request).await;
        assert_eq!(
            (Format::detect(&answer.images()[0]), &answer.json["output_format"]),
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
async fn a_preset_is_a_model_with_settings_and_may_have_its_own_graph() {
    let fake = FakeInvoke::start().await;
    let dir = fakes::fresh_dir("presets");
    let edge = |from: &str, out: &str, to: &str, input: &str| json!({"source": {"node_id": from, "field": out}, "destination": {"node_id": to, "field": input}});
    let key = "51987e31-6617-4902-bbc0-87aa1a2422d0";
    let model = json!({"key": key, "hash": "", "name": "tiny-sd1", "base": "sd-1", "type": "main"});
    let graph = json!({"id": "graph", "nodes": {
        "loader": {"id": "loader", "type": "main_model_loader", "model": model},
        "say": {"id": "say", "type": "compel", "prompt": ""},
        "avoid": {"id": "avoid", "type": "compel", "prompt": ""},
        "dice": {"id": "dice", "type": "noise", "seed": 0, "width": 64, "height": 64},
        "work": {"id": "work", "type": "denoise_latents", "steps": 3},
        "l2i": {"id": "l2i", "type": "l2i", "use_cache": false}}, "edges": [
        edge("loader", "clip", "say", "clip"), edge("loader", "clip", "avoid", "clip"),
        edge("loader", "unet", "work", "unet"), edge("loader", "vae", "l2i", "vae"),
        edge("say", "conditioning", "work", "positive_conditioning"),
        edge("avoid", "conditioning", "work", "negative_conditioning"),
        edge("dice", "noise", "work", "noise"), edge("work", "latents", "l2i", "latents")]});
    std::fs::write(dir.join("mine.json"), graph.to_string()).unwrap();
    let yaml = "output: l2i\nbindings: {prompt: [say.prompt], seed: [dice.seed], width: [dice.width], height: [dice.height]}";
    std::fs::write(dir.join("mine.yaml"), yaml).unwrap();
    let config = dir.join("config.yaml");
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
async fn png_metadata_of_the_engine_is_stripped_if_configured() {
    let fake = FakeInvoke::start().await;
    for (flag, has_metadata) in [("keep", true), ("strip", false)] {
        let sidecar = Sidecar::invokeai(&fake.url(), &["--png-metadata", flag]).await;
        sidecar.until_ready().await;
        fake.script(|script| script.image_bytes = InvokeImageBytes::WithGraph);
        let answer = sidecar.generate(&json!({"prompt": "a secret", "size": "64x64", "steps": 1})).await;
        let has_graph = answer.images()[0].windows(14).any(|window| window == b"invokeai_graph");
        assert_eq!(has_graph, has_metadata, "{flag}");
    }
}

#[tokio::test]
async fn an_image_can_be_fetched_from_its_url() {
    let engine = FakeInvoke::start().await;
    let sidecar = Sidecar::of(&engine, &[]).await;
    sidecar.until_ready().await;
    let request = json!({"prompt": "a", "size": "64x64", "response_format": "url", "seed": 1});
    let answer = sidecar.generate(&request).await;
    let url = answer.json["data"][0]["url"].as_str().unwrap();
    assert!(url.starts_with(&sidecar.url) && url.contains(".png"), "{url}");
    assert!(answer.json["data"][0].get("b64_json").is_none());
    let file = fakes::http().get(url).send().await.unwrap();
    assert_eq!(file.headers()["content-type"], "image/png");
    assert_eq!(file.headers()["x-content-type-options"], "nosniff");
    assert_eq!(Format::detect(&file.bytes().await.unwrap()), Ok(Format::Png));
    let missing = TestResponse::read(fakes::http().get(format!("{url}x")).send().await.unwrap()).await;
    assert_eq!((missing.status, missing.code()), (404, "not_found"));
}
