//! Users' templates, from the request to what the engine gets, and what the answer reports.

use std::path::{Path, PathBuf};

use e2e::{gateway::Gateway, sidecar::Sidecar};
use fakes::{
    TestResponse,
    comfyui::FakeComfy,
    form::{KIND, file, form, text},
    invokeai::FakeInvoke,
    sse::SseReader,
};
use picture::painter::ProceduralImage;
use serde_json::{Value, json};
use wire::openai::images::ImageSize;

/// A directory with the fixtures and a configuration of these presets.
fn dir(presets: &str) -> PathBuf {
    let dir = fakes::template_dir();
    std::fs::write(dir.join("config.yaml"), format!("presets: {presets}")).unwrap();
    dir
}

async fn comfyui(dir: &Path) -> (FakeComfy, Sidecar) {
    let fake = FakeComfy::start().await;
    fake.script(|script| script.checkpoints.push("sd_xl_base_1.0.safetensors".to_owned()));
    let config = dir.join("config.yaml").display().to_string();
    let sidecar = Sidecar::comfyui(&fake.url(), &["--config", &config]).await;
    sidecar.until_ready().await;
    (fake, sidecar)
}

/// The inputs of each node in the last prompt.
fn last(fake: &FakeComfy) -> impl Fn(&str) -> Value + use<> {
    let requests = fake.requests();
    let submission =
        requests.iter().rfind(|request| request.method == "POST" && request.path == "/prompt").unwrap();
    let submission: Value = serde_json::from_slice(&submission.body).unwrap();
    move |node: &str| submission["prompt"][node]["inputs"].clone()
}

fn param(answer: &TestResponse) -> &str {
    answer.json["error"]["param"].as_str().unwrap_or_default()
}

fn made(answer: &TestResponse) -> ImageSize {
    assert_eq!(answer.status, 200, "{answer:?}");
    let bytes = base64_simd::STANDARD.decode_to_vec(answer.json["data"][0]["b64_json"].as_str().unwrap());
    let image = image::load_from_memory(&bytes.unwrap()).unwrap();
    ImageSize::new(image.width(), image.height())
}

#[tokio::test]
async fn values_that_the_request_does_not_set_stay_the_workflows() {
    let dir = dir("{turbo: {template: comfy-turbo.json}, marked: {template: comfy-bom.json}}");
    let (fake, sidecar) = comfyui(&dir).await;
    for model in ["turbo", "marked"] {
        // The engine has no such files, and refuses; what it got is what counts.
        sidecar.generate(&json!({"model": model, "prompt": "a boat"})).await;
        let inputs = last(&fake);
        let sampler = inputs("7");
        assert_eq!((&sampler["steps"], &sampler["cfg"]), (&json!(8), &json!(1.0)), "{model}");
        assert_eq!(
            (&sampler["sampler_name"], &sampler["scheduler"]),
            (&json!("res_multistep"), &json!("simple"))
        );
        assert_eq!((&inputs("6")["width"], &inputs("6")["height"]), (&json!(896), &json!(1152)));
        assert_eq!((&inputs("4")["text"], &inputs("5")["text"]), (&json!("a boat"), &json!("blurry")));
        assert_ne!(sampler["seed"], 1, "a seed is always set");
    }
    let body = json!({"model": "turbo", "prompt": "a boat", "negative_prompt": "dogs", "steps": 3, "cfg_scale": 2,
        "scheduler": "dpmpp_2m_k", "size": "128x64", "seed": 5});
    sidecar.generate(&body).await;
    let inputs = last(&fake);
    let sampler = inputs("7");
    assert_eq!((&sampler["steps"], &sampler["cfg"], &sampler["seed"]), (&json!(3), &json!(2.0), &json!(5)));
    assert_eq!((&sampler["sampler_name"], &sampler["scheduler"]), (&json!("dpmpp_2m"), &json!("karras")));
    assert_eq!((&inputs("6")["width"], &inputs("5")["text"]), (&json!(128), &json!("dogs")));
}

#[tokio::test]
async fn a_preset_may_name_a_diffusion_model_that_no_built_in_graph_serves() {
    let dir = dir("{split: {model: sdxl_turbo_unet, template: split.json}}");
    std::fs::copy(dir.join("comfy-turbo.json"), dir.join("split.json")).unwrap();
    let bindings = std::fs::read_to_string(dir.join("comfy-turbo.yaml")).unwrap();
    std::fs::write(dir.join("split.yaml"), format!("{bindings}  model: [\"1.unet_name\"]\n")).unwrap();
    let fake = FakeComfy::start().await;
    fake.script(|script| {
        script.checkpoints.clear();
        script.diffusion_models = Some(vec!["sdxl_turbo_unet.safetensors".to_owned()]);
    });
    let config = dir.join("config.yaml").display().to_string();
    let sidecar = Sidecar::comfyui(&fake.url(), &["--config", &config]).await;
    sidecar.until_ready().await;
    for model in [json!("split"), json!(null)] {
        sidecar.generate(&json!({"model": model, "prompt": "a boat"})).await;
        assert_eq!(last(&fake)("1")["unet_name"], "sdxl_turbo_unet.safetensors");
        sidecar.until_inflight(0).await;
    }
    let refused = sidecar.generate(&json!({"model": "sdxl_turbo_unet", "prompt": "a boat"})).await;
    assert_eq!((refused.status, param(&refused)), (400, "model"));
    assert!(refused.message().contains("its kind (SDXL, a diffusion model without"), "{}", refused.message());
    let list = fakes::http().get(format!("{}/v1/models", sidecar.url)).send().await.unwrap();
    let list = TestResponse::read(list).await.json["data"].clone();
    assert_eq!((list.as_array().unwrap().len(), &list[0]["id"]), (1, &json!("split")));
}

#[tokio::test]
async fn a_bound_model_that_no_preset_names_stays_the_workflows() {
    let (fake, sidecar) = comfyui(&dir(
        "{own: {template: comfy-null-model.json}, named: {model: tiny-sd15, template: comfy-null-model.json}}",
    ))
    .await;
    for (preset, file) in [("own", "sd_xl_base_1.0.safetensors"), ("named", "tiny-sd15.safetensors")] {
        assert_eq!(sidecar.generate(&json!({"model": preset, "prompt": "a"})).await.status, 200);
        assert_eq!(last(&fake)("1")["ckpt_name"], file);
    }
}

#[tokio::test]
async fn a_size_that_the_template_cannot_make_is_refused_and_the_response_has_the_actual_one() {
    let dir = dir("{fixed: {template: comfy-fixed-size.json}, lenient: {template: lenient.json}}");
    std::fs::copy(dir.join("comfy-fixed-size.json"), dir.join("lenient.json")).unwrap();
    let bindings = std::fs::read_to_string(dir.join("comfy-fixed-size.yaml")).unwrap();
    std::fs::write(dir.join("lenient.yaml"), format!("size: ignore\n{bindings}")).unwrap();
    let (fake, sidecar) = comfyui(&dir).await;
    let body = |model: &str| json!({"model": model, "prompt": "a", "size": "768x512", "steps": 30});
    let refused = sidecar.generate(&body("fixed")).await;
    assert_eq!((refused.status, param(&refused)), (400, "size"));
    assert!(refused.message().contains("takes no size"), "{}", refused.message());
    assert!(fake.items().is_empty(), "the engine never heard of it");
    sidecar.until_inflight(0).await;

    let answer = sidecar.generate(&json!({"model": "fixed", "prompt": "a", "num_inference_steps": 30})).await;
    assert_eq!((made(&answer), &answer.json["size"]), (ImageSize::new(64, 64), &json!("64x64")));
    assert_eq!(answer.json["ignored"], json!(["num_inference_steps"]));
    assert_eq!(last(&fake)("7")["steps"], 8);
    let answer = sidecar.generate(&body("lenient")).await;
    assert_eq!((made(&answer), &answer.json["size"]), (ImageSize::new(64, 64), &json!("64x64")));
    assert_eq!(answer.json["ignored"], json!(["size", "steps"]));
    let plain = sidecar.generate(&json!({"model": "fixed", "prompt": "a", "size": "auto"})).await;
    assert_eq!((plain.status, plain.json.get("ignored")), (200, None), "nothing was left out");

    let mut streamed = body("lenient");
    streamed["stream"] = json!(true);
    let submission = fakes::http().post(format!("{}/v1/images/generations", sidecar.url));
    let submission = submission.header("content-type", "application/json").body(streamed.to_string());
    let event = SseReader::new(submission.send().await.unwrap()).rest().await.pop().unwrap();
    assert_eq!((&event["size"], &event["ignored"]), (&json!("64x64"), &json!(["size", "steps"])));
}

#[tokio::test]
async fn ignored_parameters_are_reported_through_the_gateway() {
    let (_fake, sidecar) = comfyui(&dir("{fixed: {template: comfy-fixed-size.json}}")).await;
    let backends = format!(
        "backends:\n  gpu_heavy:\n    base_url: {}\n    supported_capabilities: [images]\n    concurrency_limits: {{images: 2}}\n",
        sidecar.url
    );
    let gateway = Gateway::with_backends(&backends, &[]).await;
    gateway.until_ready("gpu_heavy", true).await;
    for format in ["url", "b64_json"] {
        let body = json!({"model": "fixed", "prompt": "a", "guidance_scale": 3, "response_format": format});
        let answer = gateway.generate(&body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.json["data"][0][format].is_string(), "{answer:?}");
        assert_eq!(
            (&answer.json["ignored"], &answer.json["size"]),
            (&json!(["guidance_scale"]), &json!("64x64"))
        );
    }
}

/// Width and height of the image that was put into the engine last.
fn uploaded(fake: &FakeComfy) -> (u32, u32) {
    let requests = fake.requests();
    let body = &requests.iter().rfind(|request| request.path == "/upload/image").unwrap().body;
    let start = body.windows(4).position(|four| four == b"\x89PNG").unwrap();
    let side = |at: usize| u32::from_be_bytes(body[start + at..start + at + 4].try_into().unwrap());
    (side(16), side(20))
}

async fn edit(sidecar: &Sidecar, files: &[(&str, &[u8])], texts: &[(&str, &str)]) -> TestResponse {
    let texts = texts.iter().map(|(name, value)| (text(name), value.as_bytes()));
    let files = files.iter().map(|(name, content)| (file(name, "in.png"), *content));
    let parts: Vec<_> = texts.chain(files).collect();
    let parts: Vec<_> = parts.iter().map(|(head, content)| (head.as_str(), *content)).collect();
    let request = fakes::http().post(format!("{}/v1/images/edits", sidecar.url));
    TestResponse::read(request.header("content-type", KIND).body(form(&parts)).send().await.unwrap()).await
}

#[tokio::test]
async fn an_edit_template_without_a_size_gets_the_image_unscaled() {
    let (fake, sidecar) = comfyui(&dir("{edit: {template: {edit: comfy-edit.json}}}")).await;
    let size = ImageSize::new(104, 77);
    let image = ProceduralImage { label: "test", prompt: "a", seed: 1, size }.to_png();
    let edit = async |texts: &[(&str, &str)]| edit(&sidecar, &[("image", &image)], texts).await;
    let answer = edit(&[("model", "edit"), ("prompt", "a cat"), ("strength", "0.9")]).await;
    assert_eq!(
        (made(&answer), &answer.json["size"]),
        (ImageSize::new(104, 72), &json!("104x72")),
        "as the engine's VAE cuts it"
    );
    assert_eq!(uploaded(&fake), (104, 77));
    assert_eq!((&last(&fake)("7")["denoise"], &answer.json["ignored"]), (&json!(0.5), &json!(["strength"])));
    let refused = edit(&[("model", "edit"), ("prompt", "a cat"), ("size", "64x64")]).await;
    assert_eq!((refused.status, param(&refused)), (400, "size"));
    let refused = sidecar.generate(&json!({"model": "edit", "prompt": "a"})).await;
    assert_eq!((refused.status, param(&refused)), (400, "model"), "never the built-in graph without a model");
    sidecar.until_inflight(0).await;
}

#[tokio::test]
async fn a_workflow_that_only_processes_the_image_serves_edits() {
    let dir = dir("{larger: {template: {edit: larger.json}}}");
    let graph = json!({
        "1": {"class_type": "LoadImage", "inputs": {"image": "example.png"}},
        "2": {"class_type": "ImageScale", "inputs": {"image": ["1", 0], "upscale_method": "lanczos", "width": 128, "height": 96,
            "crop": "disabled"}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "t"}}});
    std::fs::write(dir.join("larger.json"), graph.to_string()).unwrap();
    std::fs::write(
        dir.join("larger.yaml"),
        "output: '3'\nwithout: [prompt, seed]\nbindings: {image: [1.image]}",
    )
    .unwrap();
    let (_fake, sidecar) = comfyui(&dir).await;
    let image =
        ProceduralImage { label: "test", prompt: "a", seed: 1, size: ImageSize::new(64, 48) }.to_png();
    let texts = [("model", "larger"), ("prompt", "twice as large"), ("seed", "5"), ("n", "2")];
    let answer = edit(&sidecar, &[("image", &image)], &texts).await;
    assert_eq!(
        (made(&answer), &answer.json["ignored"]),
        (ImageSize::new(128, 96), &json!(["prompt", "seed"]))
    );
    assert_eq!(answer.json["data"].as_array().unwrap().len(), 2);
    let settings = &answer.json["data"][0]["settings"];
    assert_eq!((&settings["task"], settings.get("seed")), (&json!("edit"), None));
}

#[tokio::test]
async fn the_mask_may_be_sent_as_the_transparency_of_the_image() {
    let dir = dir("{own: {template: {inpaint: own.json}}}");
    let graph = std::fs::read_to_string(dir.join("comfy-edit.json")).unwrap();
    let mut graph: Value = serde_json::from_str(&graph).unwrap();
    graph["3"] = json!({"class_type": "VAEEncodeForInpaint", "inputs": {"pixels": ["2", 0], "vae": ["1", 2], "mask": ["2", 1],
        "grow_mask_by": 6}});
    std::fs::write(dir.join("own.json"), graph.to_string()).unwrap();
    let bindings = std::fs::read_to_string(dir.join("comfy-edit.yaml")).unwrap();
    std::fs::write(dir.join("own.yaml"), format!("{bindings}  mask: [\"2.image\"]\n")).unwrap();
    let (fake, sidecar) = comfyui(&dir).await;
    let size = ImageSize::new(64, 48);
    let image = ProceduralImage { label: "test", prompt: "a", seed: 1, size }.to_png();
    let left = |x: u32| x < 24;
    let mask =
        image::RgbaImage::from_fn(64, 48, |x, _| image::Rgba([0, 0, 0, if left(x) { 0 } else { 255 }]));
    let mut png = std::io::Cursor::new(Vec::new());
    mask.write_to(&mut png, image::ImageFormat::Png).unwrap();
    let files: [(&str, &[u8]); 2] = [("image", &image), ("mask", png.get_ref())];
    let answer = edit(&sidecar, &files, &[("model", "own"), ("prompt", "a cat")]).await;
    assert_eq!(made(&answer), size);
    let bytes = base64_simd::STANDARD.decode_to_vec(answer.json["data"][0]["b64_json"].as_str().unwrap());
    let result = image::load_from_memory(&bytes.unwrap()).unwrap().into_rgb8();
    let source = image::load_from_memory(&image).unwrap().into_rgb8();
    // The VAE alone changes each value by one.
    let is_new = |(one, other): (&u8, u8)| one.abs_diff(other) > 1;
    let changed =
        |x: u32| (0..48).any(|y| result.get_pixel(x, y).0.iter().zip(source.get_pixel(x, y).0).any(is_new));
    for x in 0..64 {
        assert_eq!(changed(x), left(x), "column {x}");
    }
    let uploads = fake.requests().iter().filter(|request| request.path == "/upload/image").count();
    assert_eq!(uploads, 2, "the image, and the image with the mask: nothing takes the mask alone");
}

#[tokio::test]
async fn an_exported_workflow_runs_with_the_requests_seed() {
    let dir = dir("{plain: {template: invoke-plain.json}, edge: {template: invoke-seed-from-edge.json}}");
    let fake = FakeInvoke::start().await;
    let model = json!({"key": "k1", "hash": "h", "name": "k1", "base": "sd-1", "type": "main"});
    fake.script(|script| script.models.push(model.clone()));
    let config = dir.join("config.yaml").display().to_string();
    let sidecar = Sidecar::invokeai(&fake.url(), &["--config", &config]).await;
    sidecar.until_ready().await;
    for (nth, model) in ["plain", "edge"].into_iter().enumerate() {
        let answer = sidecar.generate(&json!({"model": model, "prompt": "a boat", "seed": 4242})).await;
        assert_eq!((answer.status, &answer.json["data"][0]["seed"]), (200, &json!(4242)), "{answer:?}");
        assert_eq!(answer.json["size"], "64x64");
        let graph = fake.items()[nth].graph.clone();
        let node = |id: &str| graph["nodes"][id].clone();
        assert_eq!(
            node("noise"),
            json!({"id": "noise", "type": "noise", "is_intermediate": true, "use_cache": true, "seed": 4242, "width": 64,
                "height": 64, "use_cpu": true})
        );
        let expected = json!({"id": "dn", "type": "denoise_latents", "is_intermediate": true, "use_cache": true, "steps": 2,
            "cfg_scale": 7.5, "denoising_start": 0, "denoising_end": 1, "scheduler": "euler"});
        assert_eq!(node("dn"), expected, "what edges feed has no value, not null");
        assert_eq!((&node("pos")["prompt"], &node("load")["model"]["key"]), (&json!("a boat"), &json!("k1")));
        let edges = graph["edges"].as_array().unwrap();
        assert_eq!(edges.len(), 8);
        assert!(edges.iter().all(|edge| edge["destination"]["field"] != "seed"), "{edges:?}");
    }
}
