//! Models of ComfyUI: classified by metadata, name or declaration.

use e2e::sidecar::Sidecar;
use fakes::comfyui::FakeComfy;
use serde_json::{Value, json};

use super::{ask, get, listed, refused, write_config};

fn loaded(fake: &FakeComfy) -> Vec<String> {
    let requests = fake.requests();
    let prompts = requests.iter().filter(|request| request.method == "POST" && request.path == "/prompt");
    let name = |prompt: Value| prompt["prompt"]["model"]["inputs"]["ckpt_name"].as_str().unwrap().to_owned();
    prompts.map(|request| name(serde_json::from_slice(&request.body).unwrap())).collect()
}

async fn with(files: &[&str], metadata: &[(&str, Value)], flags: &[&str]) -> (FakeComfy, Sidecar) {
    let fake = FakeComfy::start().await;
    fake.script(|script| {
        script.checkpoints = files.iter().map(|file| (*file).to_owned()).collect();
        script.metadata =
            metadata.iter().map(|(file, metadata_of)| ((*file).to_owned(), metadata_of.clone())).collect();
    });
    let sidecar = Sidecar::comfyui(&fake.url(), flags).await;
    (fake, sidecar)
}

#[tokio::test]
async fn a_broken_node_pack_costs_only_its_own_nodes() {
    let fake = FakeComfy::start().await;
    fake.script(|script| {
        script.checkpoints.clear();
        script.diffusion_models = Some(vec!["z_image_turbo_bf16.safetensors".into()]);
        script.text_encoders = vec!["qwen_3_4b.safetensors".into()];
        script.vae = vec!["ae.safetensors".into()];
        script.broken_classes = vec!["UnetLoaderGGUF".into()];
    });
    let sidecar = Sidecar::comfyui(&fake.url(), &[]).await;
    sidecar.until_ready().await;
    assert!(listed(&sidecar).await.contains(&"z-image-turbo".to_owned()));
    assert!(fake.requests().iter().any(|request| request.path == "/object_info/UnetLoaderGGUF"));
}

#[tokio::test]
async fn a_file_without_an_image_model_is_never_used_as_one() {
    let files = [
        "chroma-hd.safetensors",
        "ltx-2.3.safetensors",
        "dreamshaper_8.safetensors",
        "sd_xl_base_1.0.safetensors",
    ];
    let (fake, sidecar) = with(&files, &[], &[]).await;
    sidecar.until_ready().await;
    assert_eq!(listed(&sidecar).await, ["sd_xl_base_1.0", "sd-xl-base-1.0"]);
    for name in [None, Some("gpt-image-1"), Some("sd-xl-base-1.0")] {
        assert_eq!(ask(&sidecar, name).await.status, 200, "{name:?}");
    }
    assert_eq!(loaded(&fake), ["sd_xl_base_1.0.safetensors"; 3]);
    let served =
        "exists, but its kind (Chroma) has no built-in graph: it needs a graph of its own, named by a preset";
    refused(&sidecar, "chroma-hd", 400, "invalid_value", served).await;
    refused(&sidecar, "Chroma-HD.safetensors", 400, "invalid_value", "Chroma").await;
    refused(&sidecar, "ltx-2.3", 400, "invalid_value", "(LTX Video)").await;
    let declare = "declare it in the sidecar's configuration (models: {\"dreamshaper_8\": {base: sd-1}}";
    refused(&sidecar, "dreamshaper_8", 400, "invalid_value", declare).await;
    refused(
        &sidecar,
        "sd-v1-5",
        404,
        "model_not_found",
        "stands for the engine's SD 1.5 text-to-image model",
    )
    .await;
    refused(&sidecar, "gone", 404, "model_not_found", "Available: sd_xl_base_1.0, sd-xl-base-1.0.").await;
    assert_eq!(loaded(&fake).len(), 3, "the engine never heard of any of them");
}

#[tokio::test]
async fn a_files_metadata_takes_precedence_over_its_name() {
    let metadata_of = |architecture: &str| json!({"modelspec.architecture": architecture, "format": "pt"});
    let thumbnail = format!("data:image/jpeg;base64,{}", "A".repeat(300_000));
    let files = [
        "sd15-lookalike.safetensors",
        "mine.safetensors",
        "other.safetensors",
        "sdxl-lora.safetensors",
        "plain-sd15.safetensors",
    ];
    let metadata = [
        (files[0], metadata_of("chroma")),
        (
            files[1],
            json!({"modelspec.architecture": "stable-diffusion-xl-v1-base", "modelspec.thumbnail": thumbnail}),
        ),
        (files[2], json!({"ss_base_model_version": "sd_v1"})),
        (files[3], metadata_of("stable-diffusion-xl-v1-base/lora")),
        (files[4], Value::Null),
    ];
    let (fake, sidecar) = with(&files, &metadata, &[]).await;
    sidecar.until_ready().await;
    assert_eq!(listed(&sidecar).await, ["mine", "other", "plain-sd15", "sd-xl-base-1.0", "sd-v1-5"]);
    for (name, file) in [(None, files[1]), (Some("sd-v1-5"), files[2]), (Some("sd-xl-base-1.0"), files[1])] {
        assert_eq!(ask(&sidecar, name).await.status, 200, "{name:?}");
        assert_eq!(loaded(&fake).last().map(String::as_str), Some(file), "{name:?}");
    }
    refused(&sidecar, "sd15-lookalike", 400, "invalid_value", "(Chroma)").await;
    refused(&sidecar, "sdxl-lora", 400, "invalid_value", "stable-diffusion-xl-v1-base/lora").await;
}

/// A safetensors file without tensors: their names and shapes in its header are all that is read.
fn safetensors(prefix: &str, tensors: &[(&str, &[u64])]) -> Vec<u8> {
    let tensor = |(name, shape): &(&str, &[u64])| {
        (format!("{prefix}{name}"), json!({"dtype": "F16", "shape": shape, "data_offsets": [0, 0]}))
    };
    let header: serde_json::Map<_, _> = tensors.iter().map(tensor).collect();
    let mut header = Value::from(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    [&(header.len() as u64).to_le_bytes()[..], &header].concat()
}

fn unet(inputs: u64, text: u64) -> Vec<u8> {
    let tensors: [(&str, &[u64]); 3] = [
        ("input_blocks.0.0.weight", &[320, inputs, 3, 3]),
        ("input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight", &[640, text]),
        ("label_emb.0.0.weight", &[1280, 2816]),
    ];
    safetensors("model.diffusion_model.", &tensors)
}

#[tokio::test]
async fn a_files_tensors_say_what_its_name_does_not() {
    let dir = fakes::new_temp_dir();
    let flux: [(&str, &[u64]); 2] =
        [("double_blocks.0.img_attn.norm.key_norm.scale", &[128]), ("img_in.weight", &[3072, 64])];
    let krea: [(&str, &[u64]); 1] = [("txtfusion.projector.weight", &[1, 12])];
    let damaged = [&(1_u64 << 60).to_le_bytes()[..], b"{\"a\": 1}"].concat();
    let files = [
        ("checkpoints/cut.safetensors", unet(4, 768)[..100].to_vec()),
        ("checkpoints/damaged.safetensors", damaged),
        ("checkpoints/dreamshaper_8.safetensors", unet(4, 768)),
        ("checkpoints/epic.safetensors", unet(4, 2048)),
        ("checkpoints/garbage.safetensors", b"<!DOCTYPE html>".repeat(100)),
        ("checkpoints/mine.safetensors", safetensors("model.diffusion_model.", &flux)),
        ("checkpoints/patch.safetensors", unet(9, 2048)),
        ("checkpoints/sd15-by-metadata.safetensors", safetensors("", &flux)),
        ("checkpoints/sdxl_wrong.safetensors", safetensors("model.diffusion_model.", &flux)),
        ("diffusion_models/mine_too.safetensors", safetensors("", &krea)),
    ];
    for (path, bytes) in &files {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let fifo = dir.path().join("checkpoints/fifo.safetensors");
    assert!(std::process::Command::new("mkfifo").arg(fifo).status().unwrap().success());
    let names = files.iter().filter_map(|(path, _)| path.strip_prefix("checkpoints/"));
    let fake = FakeComfy::start().await;
    fake.script(|script| {
        script.checkpoints =
            names.chain(["fifo.safetensors", "../secret.safetensors"]).map(str::to_owned).collect();
        script.diffusion_models = Some(vec!["mine_too.safetensors".to_owned()]);
        let metadata = json!({"modelspec.architecture": "stable-diffusion-v1"});
        script.metadata.insert("sd15-by-metadata.safetensors".to_owned(), metadata);
    });
    let path = dir.path().display().to_string();
    let sidecar = Sidecar::comfyui(&fake.url(), &["--engine-model-dir", &path]).await;
    sidecar.until_ready().await;
    let expected = [
        "dreamshaper_8",
        "epic",
        "mine",
        "patch",
        "sd15-by-metadata",
        "sdxl_wrong",
        "sd-xl-base-1.0",
        "sd-v1-5",
    ];
    assert_eq!(listed(&sidecar).await, expected);
    for (name, file) in [(None, "dreamshaper_8"), (Some("sd-xl-base-1.0"), "epic"), (Some("patch"), "patch")]
    {
        assert_eq!(ask(&sidecar, name).await.status, 200, "{name:?}");
        assert_eq!(loaded(&fake).last(), Some(&format!("{file}.safetensors")), "{name:?}");
    }
    refused(&sidecar, "mine_too", 400, "invalid_value", "(Krea 2, a diffusion model").await;
    for name in ["cut", "damaged", "garbage", "fifo"] {
        refused(&sidecar, name, 400, "invalid_value", "declare it").await;
    }
    std::fs::write(dir.path().join("checkpoints/garbage.safetensors"), unet(4, 2048)).unwrap();
    fakes::eventually("the changed file is read again", async || {
        listed(&sidecar).await.contains(&"garbage".to_owned()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_models_directory_that_cannot_be_read_changes_nothing() {
    let fake = FakeComfy::start().await;
    fake.script(|script| {
        script.checkpoints = vec!["other.safetensors".to_owned(), "sd15.safetensors".to_owned()];
    });
    let sidecar = Sidecar::comfyui(&fake.url(), &["--engine-model-dir", "/nonexistent/models"]).await;
    sidecar.until_ready().await;
    assert_eq!(listed(&sidecar).await, ["sd15", "sd-v1-5"]);
}

#[tokio::test]
async fn metadata_is_read_once_for_each_file_and_change_of_it() {
    let files = ["a.safetensors", "b.ckpt", "sd15.safetensors"];
    let (fake, sidecar) = with(&files, &[], &[]).await;
    sidecar.until_ready().await;
    let reads =
        || fake.requests().iter().filter(|request| request.path.starts_with("/view_metadata/")).count();
    let lists = || fake.requests().iter().filter(|request| request.path.starts_with("/experiment/")).count();
    assert_eq!(reads(), 2, "only safetensors have any");
    let before = lists();
    fakes::eventually("the list is read again", async || (lists() > before).then_some(())).await;
    assert_eq!(reads(), 2, "and nothing else");
    fake.script(|script| {
        script.touched += 1.0;
        script
            .metadata
            .insert("a.safetensors".into(), json!({"modelspec.architecture": "stable-diffusion-xl-v1-base"}));
    });
    fakes::eventually("the other file is seen", async || {
        listed(&sidecar).await.contains(&"a".to_owned()).then_some(())
    })
    .await;
    assert_eq!(reads(), 4);
}

#[tokio::test]
async fn there_is_no_default_model_before_all_are_read() {
    let fake = FakeComfy::start().await;
    fake.script(|script| {
        script.checkpoints = ["sd15-lookalike.safetensors", "sd15.safetensors"].map(str::to_owned).to_vec();
        let metadata_of = json!({"modelspec.architecture": "flux-1-dev"});
        script.metadata.insert("sd15-lookalike.safetensors".to_owned(), metadata_of);
        script.hold_metadata = true;
    });
    let sidecar = Sidecar::comfyui(&fake.url(), &[]).await;
    let check = sidecar.until_fails("engine_model").await;
    assert!(check.message.contains("still being read"), "{}", check.message);
    assert_eq!(ask(&sidecar, None).await.status, 503);
    fake.script(|script| script.hold_metadata = false);
    sidecar.until_ready().await;
    assert_eq!(ask(&sidecar, None).await.status, 200);
    assert_eq!(loaded(&fake), ["sd15.safetensors"]);
}

#[tokio::test]
async fn without_metadata_models_are_classified_by_name() {
    let fake = FakeComfy::start().await;
    fake.script(|script| {
        script.serves_metadata = false;
        script.checkpoints = ["flux1-dev.safetensors", "sd15.safetensors"].map(str::to_owned).to_vec();
    });
    let sidecar = Sidecar::comfyui(&fake.url(), &[]).await;
    sidecar.until_ready().await;
    assert_eq!(listed(&sidecar).await, ["flux1-dev", "sd15", "sd-v1-5"]);
}

#[tokio::test]
async fn an_unidentified_model_can_be_declared() {
    let (_folder, config) =
        write_config("declared", "models: {dreamshaper_8: {base: sd-1}, gone: {base: sdxl}}");
    let files = ["dreamshaper_8.safetensors", "deliberate_v2.safetensors"];
    let (fake, sidecar) = with(&files, &[], &["--config", &config]).await;
    sidecar.until_ready().await;
    assert_eq!(listed(&sidecar).await, ["dreamshaper_8", "sd-v1-5"]);
    for name in [None, Some("sd-v1-5"), Some("DreamShaper_8")] {
        assert_eq!(ask(&sidecar, name).await.status, 200, "{name:?}");
    }
    assert_eq!(loaded(&fake), [files[0]; 3]);
    refused(&sidecar, "deliberate_v2", 400, "invalid_value", "declare it").await;
}

#[tokio::test]
async fn without_a_usable_model_readiness_lists_the_models_and_the_fix() {
    let files = ["chroma-hd.safetensors", "dreamshaper_8.safetensors"];
    let (_fake, sidecar) = with(&files, &[], &[]).await;
    let check = sidecar.until_fails("engine_model").await;
    for text in [
        "only \"chroma-hd\" (Chroma), \"dreamshaper_8\" (of unknown kind)",
        "install one",
        "name presets",
        "declare what is of unknown kind (models: {\"dreamshaper_8\": {base: sd-1}})",
    ] {
        assert!(check.message.contains(text), "{}", check.message);
    }
}

#[tokio::test]
async fn an_engine_without_checkpoints_is_ready_with_a_preset_that_has_its_own_graph() {
    let (dir, config) = write_config("turbo", "presets:\n  turbo: {template: comfy-turbo.json}\n");
    let graph = include_str!("../../../fixtures/comfyui/presets/comfy-turbo.json");
    std::fs::write(dir.join("comfy-turbo.json"), graph).unwrap();
    let bindings = include_str!("../../../fixtures/comfyui/presets/comfy-turbo.yaml");
    std::fs::write(dir.join("comfy-turbo.yaml"), bindings).unwrap();
    let (fake, sidecar) = with(&[], &[], &["--config", &config, "--warm-up", "off"]).await;
    sidecar.until_ready().await;
    assert_eq!(listed(&sidecar).await, ["turbo"]);
    assert_eq!(get(&sidecar, "/v1/models/turbo").await.json["id"], "turbo");
    // The fake has no such files; what counts is which graph it got.
    for name in [Some("turbo"), None, Some("gpt-image-1")] {
        ask(&sidecar, name).await;
        let requests = fake.requests();
        let prompt =
            requests.iter().rfind(|request| request.method == "POST" && request.path == "/prompt").unwrap();
        let prompt: Value = serde_json::from_slice(&prompt.body).unwrap();
        assert_eq!(prompt["prompt"]["1"]["inputs"]["unet_name"], "my_turbo.safetensors", "{name:?}");
    }
    refused(&sidecar, "sd-v1-5", 404, "model_not_found", "Available: turbo.").await;
}
