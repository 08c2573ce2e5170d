//! Each mistake in a graph is refused as the real server refused it.

use super::*;

static REFUSALS: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../../fixtures/comfyui/refusals.json")).unwrap()
});

/// The recorded workflow with one mistake.
fn with(change: impl FnOnce(&mut Value)) -> Value {
    let mut graph = txt2img(1);
    change(&mut graph);
    json!({ "prompt": graph })
}

fn with_input(node: &str, name: &str, value: Value) -> Value {
    with(|graph| graph[node]["inputs"][name] = value)
}

fn without(node: &str, name: &str) -> Value {
    with(|graph| drop(graph[node]["inputs"].as_object_mut().unwrap().remove(name)))
}

/// Recorded without their tracebacks.
fn without_tracebacks(mut answer: Value) -> Value {
    for node in answer["node_errors"].as_object_mut().unwrap().values_mut() {
        for error in node["errors"].as_array_mut().unwrap() {
            error["extra_info"].as_object_mut().unwrap().remove("traceback");
        }
    }
    answer
}

#[tokio::test]
async fn a_graph_is_refused_as_recorded() {
    let fake = FakeComfy::start().await;
    let cycle = json!({"class_type": "RepeatLatentBatch", "inputs": {"samples": ["3", 0], "amount": 1}});
    let load = json!({"class_type": "LoadImage", "inputs": {"image": "nope.png"}});
    let encode = json!({"class_type": "VAEEncode", "inputs": {"pixels": ["10", 0], "vae": ["4", 2]}});
    let sampler = |name, value| with_input("3", name, value);
    for (name, body) in [
        ("unknown_ckpt", with_input("4", "ckpt_name", json!("missing.safetensors"))),
        ("unknown_class_type", with(|graph| graph["3"]["class_type"] = json!("NoSuchNode"))),
        ("no_class_type", with(|graph| drop(graph["3"].as_object_mut().unwrap().remove("class_type")))),
        ("no_output_node", with(|graph| drop(graph.as_object_mut().unwrap().remove("9")))),
        ("bad_prompt_id", json!({"prompt": txt2img(1), "prompt_id": "abc"})),
        ("prompt_is_list", json!({"prompt": []})),
        ("missing_required_input", without("3", "steps")),
        ("missing_link_input", without("3", "model")),
        ("wrong_type_steps", sampler("steps", json!("abc"))),
        ("steps_zero", sampler("steps", json!(0))),
        ("steps_too_big", sampler("steps", json!(10001))),
        ("bad_sampler", sampler("sampler_name", json!("nope"))),
        ("denoise_above_1", sampler("denoise", json!(1.5))),
        ("cfg_negative", sampler("cfg", json!(-1.0))),
        ("seed_negative", sampler("seed", json!(-1))),
        ("width_15", with_input("5", "width", json!(15))),
        ("batch_size_4097", with_input("5", "batch_size", json!(4097))),
        ("link_to_missing_node", sampler("model", json!(["99", 0]))),
        ("link_wrong_slot_type", sampler("model", json!(["4", 1]))),
        ("link_slot_out_of_range", sampler("model", json!(["4", 9]))),
        ("bad_link_shape", sampler("model", json!(["4"]))),
        ("node_without_inputs_key", with(|graph| drop(graph["5"].as_object_mut().unwrap().remove("inputs")))),
        (
            "cycle",
            with(|graph| {
                graph["12"] = cycle;
                graph["3"]["inputs"]["latent_image"] = json!(["12", 0]);
            }),
        ),
        (
            "missing_image_file",
            with(|graph| {
                (graph["10"], graph["11"]) = (load, encode);
                graph["3"]["inputs"]["latent_image"] = json!(["11", 0]);
            }),
        ),
    ] {
        let answer = post(&fake, "/prompt", &body).await;
        assert_eq!(json!(answer.status), REFUSALS[name]["status"], "{name}");
        if answer.status == 400 {
            assert_eq!(without_tracebacks(answer.json), REFUSALS[name]["answer"], "{name}");
        }
    }
    assert!(fake.items().is_empty());
}

#[tokio::test]
async fn an_invalid_output_beside_a_valid_one_is_reported_and_left_out() {
    let fake = FakeComfy::start().await;
    let mut body = with_input("9", "surplus", json!("ignored"));
    body["prompt"]["other"] = json!({"class_type": "SaveImage", "inputs": {"images": ["8", 0]}});
    let answer = post(&fake, "/prompt", &body).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json["node_errors"]["other"]["errors"][0]["type"], "required_input_missing");
    assert_eq!(fake.items()[0].outputs, ["9"]);
}

#[tokio::test]
async fn what_a_version_and_its_files_have_is_the_same_everywhere() {
    let fake = FakeComfy::start().await;
    let choices = async |class: &str, input: &str| {
        get(&fake, &format!("/object_info/{class}")).await[class]["input"]["required"][input][0].clone()
    };
    assert_eq!(get(&fake, "/object_info/TextEncodeQwenImage21").await, json!({}));
    assert_eq!(get(&fake, "/object_info/UnetLoaderGGUF").await, json!({}));
    assert_eq!(ask(&fake, Method::GET, "/models/unet_gguf", None).await.status, 404);
    assert!(!choices("CLIPLoader", "type").await.as_array().unwrap().contains(&json!("flux3")));
    let names = |folder: &str| vec![format!("{folder}.safetensors")];
    fake.script(|script| {
        script.version = ComfyVersion::NEWEST;
        script.gguf_nodes = true;
        script.diffusion_models = Some(names("diffusion_models"));
        (script.text_encoders, script.vae) = (names("text_encoders"), names("vae"));
        (script.loras, script.controlnet) = (names("loras"), names("controlnet"));
        (script.unet_gguf, script.clip_gguf) = (vec!["u.gguf".to_owned()], vec!["c.gguf".to_owned()]);
        script.metadata.insert("loras.safetensors".to_owned(), json!({"ss_base_model_version": "flux1"}));
    });
    assert!(choices("CLIPLoader", "type").await.as_array().unwrap().contains(&json!("flux3")));
    assert!(get(&fake, "/object_info/ReferenceMultiLatent").await["ReferenceMultiLatent"].is_object());
    for (class, input, folder) in [
        ("UNETLoader", "unet_name", "diffusion_models"),
        ("CLIPLoader", "clip_name", "text_encoders"),
        ("LoraLoaderModelOnly", "lora_name", "loras"),
        ("ControlNetLoader", "control_net_name", "controlnet"),
        ("UnetLoaderGGUF", "unet_name", "unet_gguf"),
    ] {
        let listed = get(&fake, &format!("/models/{folder}")).await;
        assert_eq!(listed.as_array().unwrap().len(), 1);
        assert_eq!(choices(class, input).await, listed, "{class}");
        assert_eq!(get(&fake, &format!("/experiment/models/{folder}")).await[0]["name"], listed[0]);
    }
    assert_eq!(choices("CLIPLoaderGGUF", "clip_name").await, json!(["text_encoders.safetensors", "c.gguf"]));
    assert_eq!(choices("VAELoader", "vae_name").await, json!(["vae.safetensors", "pixel_space"]));
    let metadata = get(&fake, "/view_metadata/loras?filename=loras.safetensors").await;
    assert_eq!(metadata, json!({"ss_base_model_version": "flux1"}));
    fake.script(|script| script.version = ComfyVersion::V0_3_64);
    assert_eq!(get(&fake, "/object_info/Flux2Scheduler").await, json!({}));
}
