//! What `POST /prompt` refuses, answer by answer.

use super::{recorded::shape, *};

/// The recorded workflow with the one mistake that the name tells. None for those that are no workflow.
fn mistaken(name: &str) -> Option<Value> {
    let mut graph = txt2img(11);
    let mut set = |node: &str, input: &str, value: Value| graph[node]["inputs"][input] = value;
    match name {
        "unknown_ckpt" => set("4", "ckpt_name", json!("missing.safetensors")),
        "wrong_type_steps" => set("3", "steps", json!("abc")),
        "steps_zero" => set("3", "steps", json!(0)),
        "steps_too_big" => set("3", "steps", json!(10_001)),
        "bad_sampler" => set("3", "sampler_name", json!("nope")),
        "denoise_above_1" => set("3", "denoise", json!(1.5)),
        "cfg_negative" => set("3", "cfg", json!(-1.0)),
        "seed_negative" => set("3", "seed", json!(-1)),
        "seed_too_big" => set("3", "seed", json!(18_446_744_073_709_551_616.0)),
        "width_too_big" => set("5", "width", json!(16_385)),
        "width_15" => set("5", "width", json!(15)),
        "batch_size_4097" => set("5", "batch_size", json!(4097)),
        "link_to_missing_node" => set("3", "model", json!(["99", 0])),
        "link_wrong_slot_type" => set("3", "model", json!(["4", 1])),
        "link_slot_out_of_range" => set("3", "model", json!(["4", 9])),
        "bad_link_shape" => set("3", "model", json!(["4"])),
        "unknown_class_type" => graph["3"]["class_type"] = json!("NoSuchNode"),
        "missing_required_input" => drop(graph["3"]["inputs"].as_object_mut()?.remove("steps")),
        "missing_link_input" => drop(graph["3"]["inputs"].as_object_mut()?.remove("model")),
        "no_class_type" => drop(graph["3"].as_object_mut()?.remove("class_type")),
        "node_without_inputs_key" => drop(graph["5"].as_object_mut()?.remove("inputs")),
        "no_output_node" => drop(graph.as_object_mut()?.remove("9")),
        "missing_image_file" | "image_path_traversal" => {
            let file = if name == "missing_image_file" { "nope.png" } else { "../../etc/passwd" };
            graph = serde_json::from_str(include_str!("../../../../fixtures/comfyui/img2img.json")).unwrap();
            graph["10"]["inputs"]["image"] = json!(file);
        }
        "cycle" => {
            graph["12"] =
                json!({"class_type": "RepeatLatentBatch", "inputs": {"samples": ["3", 0], "amount": 1}});
            graph["3"]["inputs"]["latent_image"] = json!(["12", 0]);
        }
        _ => return None,
    }
    Some(graph)
}

/// The whole body.
fn body(name: &str) -> String {
    let whole = |extra: Value| {
        let mut body = json!({"prompt": txt2img(11)});
        body.as_object_mut().unwrap().extend(extra.as_object().cloned().unwrap());
        body.to_string()
    };
    match name {
        "no_prompt_key" | "origin_same" | "origin_mismatch" | "sec_fetch_cross_site" => "{}".to_owned(),
        "empty_prompt" => json!({"prompt": {}}).to_string(),
        "invalid_json" => "{not json".to_owned(),
        "empty_body" => String::new(),
        "prompt_is_list" => json!({"prompt": []}).to_string(),
        "prompt_is_string" => json!({"prompt": "hi"}).to_string(),
        "body_is_list" => "[1]".to_owned(),
        "bad_prompt_id" => whole(json!({"prompt_id": "abc"})),
        "uppercase_prompt_id" => whole(json!({"prompt_id": "8A78AD0B-6603-483F-83FB-0D1E5425AC53"})),
        "number_not_numeric" => whole(json!({"number": "x"})),
        _ => json!({"prompt": mistaken(name).expect(name)}).to_string(),
    }
}

#[tokio::test]
async fn every_recorded_mistake_is_refused_in_the_recorded_words() {
    let recorded: Value =
        serde_json::from_str(include_str!("../../../../fixtures/comfyui/refusals.json")).unwrap();
    let fake = FakeComfy::start().await;
    for (name, recorded) in recorded.as_object().unwrap() {
        let mut request = http().post(format!("{}/prompt", fake.url())).body(body(name));
        match name.as_str() {
            "origin_mismatch" => request = request.header("origin", "http://evil.example"),
            "origin_same" => request = request.header("origin", fake.url()),
            "sec_fetch_cross_site" => request = request.header("sec-fetch-site", "cross-site"),
            _ => {}
        }
        let answer = request.send().await.unwrap();
        assert_eq!(json!(answer.status().as_u16()), recorded["status"], "{name}");
        let text = answer.text().await.unwrap();
        let told = serde_json::from_str(&text).unwrap_or_else(|_| json!(text));
        assert_eq!(shape(&told), shape(&recorded["answer"]), "{name}");
    }
    assert!(fake.items().is_empty());
}

#[tokio::test]
async fn numbers_in_other_clothes_are_coerced() {
    let fake = FakeComfy::start().await;
    let mut graph = txt2img(1);
    graph["3"]["inputs"]["seed"] = json!(5.0);
    graph["3"]["inputs"]["steps"] = json!("1");
    graph["5"]["inputs"]["width"] = json!(70);
    enqueue(&fake, &graph).await;
    fake.until_idle().await;
    let item = &fake.items()[0];
    assert_eq!((item.int("seed"), item.int("steps"), item.int("width")), (5, 1, 70));
    let seed = item.node("KSampler").unwrap()["seed"].clone();
    assert_eq!(seed, json!(5));
}

#[tokio::test]
async fn the_largest_seed_is_exact_and_a_refused_prompt_uses_up_a_number() {
    let fake = FakeComfy::start().await;
    post(&fake, "/prompt", &json!({})).await;
    enqueue(&fake, &txt2img(u64::MAX)).await;
    fake.until_idle().await;
    assert_eq!(fake.items()[0].int("seed"), u64::MAX);
    assert_eq!(fake.items()[0].number.as_i64(), Some(1));
}
