//! Models of InvokeAI: which of its kinds are served.

use e2e::sidecar::Sidecar;
use fakes::invokeai::FakeInvoke;
use serde_json::{Value, json};

use super::{ask, listed, refused, write_config};

/// Of the recorded SD 1.5 model, under this name, base and variant.
fn model(name: &str, base: &str, variant: &Value) -> Value {
    let recorded: Value =
        serde_json::from_str(include_str!("../../../fixtures/invokeai/models.json")).unwrap();
    let mut model = recorded[0].clone();
    for (key, value) in [("key", json!(format!("key-{name}"))), ("name", json!(name)), ("base", json!(base))]
    {
        model[key] = value;
    }
    model["variant"] = variant.clone();
    model["format"] = json!("checkpoint");
    model
}

async fn with(models: Vec<Value>, flags: &[&str]) -> (FakeInvoke, Sidecar) {
    let fake = FakeInvoke::start().await;
    fake.script(|script| script.models = models);
    let sidecar = Sidecar::invokeai(&fake.url(), flags).await;
    (fake, sidecar)
}

fn loaded(fake: &FakeInvoke) -> Vec<String> {
    let name = |graph: &Value| graph["nodes"]["loader"]["model"]["name"].as_str().unwrap().to_owned();
    fake.items().iter().map(|item| name(&item.graph)).collect()
}

fn flux() -> Vec<Value> {
    vec![model("FLUX Dev", "flux", &json!("dev")), model("FLUX Fill", "flux", &json!("dev_fill"))]
}

#[tokio::test]
async fn an_inpainting_variant_is_not_the_default_and_not_an_alias() {
    let models = vec![
        model("base inpainting", "sd-1", &json!("inpaint")),
        model("sdxl refiner base", "sdxl-refiner", &Value::Null),
        model("old base", "sd-2", &json!("normal")),
        model("Dreamshaper", "sd-1", &json!("normal")),
    ];
    let (fake, sidecar) = with(models.clone(), &[]).await;
    sidecar.until_ready().await;
    assert_eq!(listed(&sidecar).await, ["base inpainting", "Dreamshaper", "sd-v1-5"]);
    for name in [None, Some("sd-v1-5"), Some("dall-e-3"), Some("base inpainting")] {
        assert_eq!(ask(&sidecar, name).await.status, 200, "{name:?}");
    }
    assert_eq!(loaded(&fake), ["Dreamshaper", "Dreamshaper", "Dreamshaper", "base inpainting"]);
    refused(&sidecar, "old base", 400, "invalid_value", "its kind (SD 2) has no built-in graph").await;
    refused(&sidecar, "sdxl refiner base", 400, "invalid_value", "(SDXL refiner)").await;
    refused(&sidecar, "sd-xl-base-1.0", 404, "model_not_found", "SDXL text-to-image model, and it has none")
        .await;
    let (_fake, sidecar) = with(models[..1].to_vec(), &[]).await;
    assert!(sidecar.until_fails("engine_model").await.message.contains("(SD 1.5 inpainting)"));
}

#[tokio::test]
async fn an_engine_with_very_many_loras_is_ready() {
    let lora = |nth: usize| {
        json!({"key": format!("k{nth}"), "hash": "h", "name": format!("l{nth}"), "base": "sd-1", "type": "lora",
            "description": "x".repeat(1024)})
    };
    let models = std::iter::once(model("Dreamshaper", "sd-1", &json!("normal"))).chain((0..20_000).map(lora));
    let (_fake, sidecar) = with(models.collect(), &[]).await;
    sidecar.until_ready().await;
    assert_eq!(listed(&sidecar).await, ["Dreamshaper", "sd-v1-5"]);
}

#[tokio::test]
async fn an_engine_with_only_flux_is_reported() {
    let (_fake, sidecar) = with(flux(), &[]).await;
    let check = sidecar.until_fails("engine_model").await;
    for text in [
        "no model that the built-in graphs can run, only \"FLUX Dev\" (FLUX.1, beside which a model of type clip_embed",
        "\"FLUX Fill\" (FLUX.1 inpainting, beside which",
        "install one in its model manager",
    ] {
        assert!(check.message.contains(text), "{}", check.message);
    }
    assert!(
        check.message.contains("or name presets") && !check.message.contains("declare"),
        "{}",
        check.message
    );
}

#[tokio::test]
async fn an_engine_with_only_flux_is_ready_with_a_preset() {
    let (dir, config) =
        write_config("flux", "presets: {flux: {model: FLUX Dev, template: flux.json}}\nwarm_up: 'on'\n");
    let edge = |from: &str, out: &str, to: &str, input: &str| json!({"source": {"node_id": from, "field": out}, "destination": {"node_id": to, "field": input}});
    let part = |kind: &str, base: &str| json!({"key": format!("key-{kind}"), "hash": "", "name": kind, "base": base, "type": kind});
    let parts = [part("t5_encoder", "any"), part("clip_embed", "any"), part("vae", "flux")];
    let graph = json!({"id": "graph", "nodes": {
        "loader": {"id": "loader", "type": "flux_model_loader", "model": null, "t5_encoder_model": parts[0],
            "clip_embed_model": parts[1], "vae_model": parts[2]},
        "say": {"id": "say", "type": "flux_text_encoder", "prompt": ""},
        "work": {"id": "work", "type": "flux_denoise", "seed": 0, "width": 64, "height": 64, "num_steps": 3},
        "decode": {"id": "decode", "type": "flux_vae_decode", "use_cache": false}},
        "edges": [edge("loader", "clip", "say", "clip"), edge("loader", "t5_encoder", "say", "t5_encoder"),
            edge("loader", "max_seq_len", "say", "t5_max_seq_len"), edge("loader", "transformer", "work", "transformer"),
            edge("say", "conditioning", "work", "positive_text_conditioning"),
            edge("loader", "vae", "decode", "vae"), edge("work", "latents", "decode", "latents")]});
    std::fs::write(dir.join("flux.json"), graph.to_string()).unwrap();
    let yaml = "output: decode\nbindings: {model: [loader.model], prompt: [say.prompt], seed: [work.seed], \
                width: [work.width], height: [work.height], steps: [work.num_steps]}";
    std::fs::write(dir.join("flux.yaml"), yaml).unwrap();
    let models = flux().into_iter().chain(parts).collect();
    let (fake, sidecar) = with(models, &["--config", &config]).await;
    let report = sidecar.until_ready().await;
    assert!(report.checks.iter().any(|check| check.name == "engine_model"));
    assert_eq!(loaded(&fake), ["FLUX Dev"], "it is loaded in advance");
    assert_eq!(listed(&sidecar).await, ["flux"]);
    for name in [Some("flux"), None, Some("gpt-image-1")] {
        let answer = ask(&sidecar, name).await;
        assert_eq!(answer.status, 200, "{name:?}: {answer:?}");
    }
    assert_eq!(loaded(&fake), ["FLUX Dev"; 4]);
    let text =
        "exists, but the engine lacks what it needs beside it: a model of type clip_embed, variant large";
    refused(&sidecar, "FLUX Dev", 400, "invalid_value", text).await;
    refused(&sidecar, "key-FLUX Fill", 400, "invalid_value", "variant large").await;
}
