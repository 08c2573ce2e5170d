//! Families by other names: presets, files, GGUF files.

use e2e::sidecar::Sidecar;
use fakes::{
    comfyui::{ComfyScript, ComfyState, FakeComfy},
    engine::Fake,
    invokeai::InvokeState,
};
use serde_json::{Value, json};

use super::installation::{FamilyEngine, LORAS, empty_comfyui};

fn config(text: &str) -> String {
    let file = fakes::fresh_dir("families").join("config.yaml");
    std::fs::write(&file, text).unwrap();
    file.display().to_string()
}

async fn settings(sidecar: &Sidecar, more: Value) -> Value {
    let mut request = json!({"prompt": "a red cat", "size": "128x96", "seed": 3});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let answer = sidecar.generate(&request).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json["data"][0]["settings"].clone()
}

#[tokio::test]
async fn a_preset_builds_on_a_family_of_either_engine() {
    a_preset_builds_on_a_family::<ComfyState>().await;
    a_preset_builds_on_a_family::<InvokeState>().await;
}

async fn a_preset_builds_on_a_family<E: FamilyEngine>() {
    let installation = E::installation("z-image-turbo");
    let fake = Fake::<E>::start().await;
    fake.script(|script| *script = installation.script.clone());
    let presets = "presets: {mine: {family: z-image-turbo, loras: [{name: pencil, weight: 0.5}], steps: 6}}";
    let sidecar = Sidecar::of(&fake, &["--config", &config(presets)]).await;
    sidecar.until_ready().await;
    let told = settings(&sidecar, json!({"model": "mine"})).await;
    let pencil = json!([{"name": "pencil", "weight": 0.5}]);
    assert_eq!((&told["preset"], &told["model"]), (&json!("mine"), &json!(installation.model)));
    assert_eq!((&told["steps"], &told["loras"], &told["cfg_scale"]), (&json!(6), &pencil, &json!(1.0)));
    let seen = E::last(&fake);
    assert_eq!((seen.steps, seen.loras), (6, vec![("pencil".to_owned(), 0.5)]));
    let neon = json!([{"name": LORAS[1].0, "weight": 2.0}]);
    let told = settings(&sidecar, json!({"model": "mine", "steps": 2, "loras": neon})).await;
    assert_eq!((&told["steps"], &told["loras"]), (&json!(2), &neon), "the request's own come first");
    assert_eq!(E::last(&fake).loras, [("neon".to_owned(), 2.0)]);
    let told = settings(&sidecar, json!({"model": "mine", "loras": []})).await;
    assert_eq!((&told["loras"], E::last(&fake).loras.len()), (&Value::Null, 0), "an empty list is none");
    let unknown =
        sidecar.generate(&json!({"model": "mine", "prompt": "a", "loras": [{"name": "gone"}]})).await;
    assert_eq!((unknown.status, &unknown.json["error"]["param"]), (400, &json!("loras")));
    assert!(unknown.message().contains("Available: pencil, neon."), "{}", unknown.message());
    for (entry, wrong) in [
        (json!({"name": "pencil", "weight": 4.5}), "weights from -4 to 4"),
        (json!({"weight": 1}), "objects {\"name\""),
    ] {
        let answer = sidecar.generate(&json!({"model": "mine", "prompt": "a", "loras": [entry]})).await;
        assert_eq!((answer.status, &answer.json["error"]["param"]), (400, &json!("loras")));
        assert!(answer.message().contains(wrong), "{}", answer.message());
    }
}

async fn comfyui(change: impl FnOnce(&mut ComfyScript)) -> (FakeComfy, Sidecar) {
    let fake = FakeComfy::start().await;
    fake.script(|script| {
        *script = empty_comfyui();
        script.text_encoders = vec!["qwen_3_4b.safetensors".to_owned()];
        script.vae = vec!["ae.safetensors".to_owned()];
        change(script);
    });
    let sidecar = Sidecar::comfyui(&fake.url(), &[]).await;
    (fake, sidecar)
}

#[tokio::test]
async fn a_gguf_file_needs_the_node_pack_that_reads_it() {
    let gguf = |script: &mut ComfyScript| script.unet_gguf = vec!["z-image-turbo-Q8_0.gguf".to_owned()];
    let (_fake, sidecar) = comfyui(gguf).await;
    sidecar.until_fails("engine_model").await;
    let answer = fakes::http().get(format!("{}/v1/models/z-image-turbo", sidecar.url)).send().await.unwrap();
    let answer = fakes::TestResponse::read(answer).await;
    assert_eq!((answer.status, answer.code()), (404, "model_not_found"));
    assert!(answer.message().contains("in models/diffusion_models"), "{}", answer.message());

    let with_pack = |script: &mut ComfyScript| {
        gguf(script);
        script.gguf_nodes = true;
    };
    let (fake, sidecar) = comfyui(with_pack).await;
    sidecar.until_ready().await;
    assert_eq!(settings(&sidecar, json!({})).await["model"], "z-image-turbo");
    let model = &fake.last_graph()["model"];
    assert_eq!(model["class_type"], "UnetLoaderGGUF");
    assert_eq!(model["inputs"], json!({"unet_name": "z-image-turbo-Q8_0.gguf"}));
    // Where both are there, the whole precision is used.
    let both = |script: &mut ComfyScript| {
        with_pack(script);
        script.diffusion_models = Some(vec!["z_image_turbo_bf16.safetensors".to_owned()]);
    };
    let (fake, sidecar) = comfyui(both).await;
    sidecar.until_ready().await;
    settings(&sidecar, json!({})).await;
    assert_eq!(fake.last_graph()["model"]["class_type"], "UNETLoader");
}

#[tokio::test]
async fn a_file_can_be_named_as_the_model() {
    let files = ["z_image_turbo_fp8_e4m3fn.safetensors", "z_image_turbo_bf16.safetensors"];
    let (fake, sidecar) =
        comfyui(|script| script.diffusion_models = Some(files.map(str::to_owned).to_vec())).await;
    sidecar.until_ready().await;
    for (name, file) in [
        ("z-image-turbo", files[1]),
        ("z_image_turbo_fp8_e4m3fn", files[0]),
        ("Z_Image_Turbo_fp8_e4m3fn.safetensors", files[0]),
        (files[1], files[1]),
    ] {
        settings(&sidecar, json!({"model": name})).await;
        assert_eq!(fake.last_graph()["model"]["inputs"]["unet_name"], file, "{name}");
    }
}

#[tokio::test]
async fn a_family_that_only_edits_can_be_the_default_and_nothing_is_loaded_in_advance() {
    let installation = ComfyState::installation("qwen-image-edit-2509");
    let fake = FakeComfy::start().await;
    fake.script(|script| *script = installation.script.clone());
    let flags = ["--default-model", "qwen-image-edit-2509", "--warm-up", "on"];
    let sidecar = Sidecar::comfyui(&fake.url(), &flags).await;
    sidecar.until_ready().await;
    assert!(fake.items().is_empty());
    let answer = sidecar.generate(&json!({"prompt": "a"})).await;
    assert_eq!((answer.status, &answer.json["error"]["param"]), (400, &json!("model")), "{answer:?}");
    assert!(answer.message().contains("only edits images"), "{}", answer.message());
}
