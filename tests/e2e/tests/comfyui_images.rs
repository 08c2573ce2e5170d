//! Pictures through the sidecar from a fake ComfyUI.

use std::{collections::BTreeSet, time::Duration};

use e2e::sidecar::Sidecar;
use fakes::{
    TestResponse,
    comfyui::{ComfyFailure, ComfyImageBytes, ComfyPrompt, FakeComfy, PromptStatus},
    sse::SseReader,
};
use picture::Format;
use serde_json::{Value, json};

/// The engine writes the graph into its files, and with it a name that is new each time.
const COMPARABLE: [&str; 2] = ["--png-metadata", "strip"];

async fn both(flags: &[&str]) -> (FakeComfy, Sidecar) {
    let fake = FakeComfy::start().await;
    let sidecar = Sidecar::comfyui(&fake.url(), flags).await;
    sidecar.until_ready().await;
    fake.until_followed(1).await;
    (fake, sidecar)
}

fn request() -> Value {
    json!({"prompt": "a", "size": "64x64", "steps": 2})
}

fn pictures(answer: &TestResponse) -> Vec<(u64, Vec<u8>)> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let picture = |object: &Value| {
        let bytes = base64_simd::STANDARD.decode_to_vec(object["b64_json"].as_str().unwrap()).unwrap();
        assert_eq!(Format::detect(&bytes), Ok(Format::Png));
        (object["seed"].as_u64().unwrap(), bytes)
    };
    answer.json["data"].as_array().unwrap().iter().map(picture).collect()
}

fn orders(fake: &FakeComfy) -> Vec<Value> {
    let seen = fake.requests();
    let orders = seen.iter().filter(|seen| seen.method == "POST" && seen.path == "/prompt");
    orders.map(|seen| serde_json::from_slice(&seen.body).unwrap()).collect()
}

fn ended(items: &[ComfyPrompt]) -> bool {
    items.iter().any(|item| item.status == PromptStatus::Completed)
}

#[tokio::test]
async fn several_pictures_have_counting_seeds_and_the_same_seed_gives_the_same_picture() {
    let (fake, sidecar) = both(&COMPARABLE).await;
    let request =
        json!({"model": "sd-v1-5", "prompt": "a red cat", "size": "128x64", "n": 3, "seed": 41, "steps": 2});
    let first = sidecar.generate(&request).await;
    assert_eq!((&first.json["size"], &first.json["output_format"]), (&json!("128x64"), &json!("png")));
    let first = pictures(&first);
    assert_eq!(first.iter().map(|(seed, _)| *seed).collect::<Vec<_>>(), [41, 42, 43]);
    assert!(first[0].1 != first[1].1 && first[1].1 != first[2].1);
    fake.delete_images();
    assert_eq!(pictures(&sidecar.generate(&request).await), first, "and never an old file from the cache");
    assert_eq!(orders(&fake).len(), 6, "a prompt each");
}

#[tokio::test]
async fn everything_asked_for_reaches_the_graph_and_nothing_else_does() {
    let (fake, sidecar) = both(&[]).await;
    let prompt = "a \"cat\"\n{}]";
    let answer = sidecar
        .generate(
            &json!({"prompt": prompt, "negative_prompt": "dogs", "size": "256x128", "seed": 7, "steps": 3,
            "cfg_scale": 3.5, "scheduler": "dpmpp_2m_k", "user": "u", "extra": {"nodes": {}}}),
        )
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let order = &orders(&fake)[0];
    let inputs = |node: &str| order["prompt"][node]["inputs"].clone();
    assert_eq!((&inputs("positive")["text"], &inputs("negative")["text"]), (&json!(prompt), &json!("dogs")));
    assert_eq!((&inputs("latent")["width"], &inputs("latent")["height"]), (&json!(256), &json!(128)));
    let sampler = inputs("sampler");
    assert_eq!((&sampler["sampler_name"], &sampler["scheduler"]), (&json!("dpmpp_2m"), &json!("karras")));
    assert_eq!((&sampler["steps"], &sampler["cfg"], &sampler["seed"]), (&json!(3), &json!(3.5), &json!(7)));
    assert!(order["client_id"].as_str().unwrap().starts_with("ada2-sidecar-"));
    assert_eq!(order["extra_data"], json!({"preview_method": "none"}), "nobody looks");
    assert_eq!(order["prompt"].as_object().unwrap().len(), 7);
    assert!(fake.files().iter().all(|file| file.starts_with("output/ada2/")), "{:?}", fake.files());
}

#[tokio::test]
async fn models_go_by_file_name_with_and_without_ending_and_by_alias() {
    let fake = FakeComfy::start().await;
    let files = ["juggernautXL_v9.safetensors", "old/mine_sd15.ckpt"];
    fake.script(|script| script.checkpoints = files.map(str::to_owned).to_vec());
    let sidecar = Sidecar::comfyui(&fake.url(), &[]).await;
    sidecar.until_ready().await;
    let list =
        TestResponse::read(fakes::http().get(format!("{}/v1/models", sidecar.url)).send().await.unwrap())
            .await;
    let ids: Vec<_> = list.json["data"].as_array().unwrap().iter().map(|model| model["id"].clone()).collect();
    assert_eq!(ids, ["juggernautXL_v9", "old/mine_sd15", "sd-xl-base-1.0", "sd-v1-5"]);
    let asked = [
        ("JuggernautXL_V9", 0),
        ("juggernautXL_v9.safetensors", 0),
        ("juggernautxl_v9.SAFETENSORS", 0),
        ("sd-xl-base-1.0", 0),
        ("gpt-image-1", 0),
        ("old/mine_sd15", 1),
        ("sd-v1-5", 1),
    ];
    for (nth, (model, file)) in asked.into_iter().enumerate() {
        let answer =
            sidecar.generate(&json!({"model": model, "prompt": "a", "size": "64x64", "steps": 1})).await;
        assert_eq!(answer.status, 200, "{model}: {answer:?}");
        assert_eq!(orders(&fake)[nth]["prompt"]["model"]["inputs"]["ckpt_name"], files[file], "{model}");
    }
    let unknown = sidecar.generate(&json!({"model": "flux-dev", "prompt": "a"})).await;
    assert_eq!((unknown.status, unknown.code()), (404, "model_not_found"));
    assert!(unknown.message().contains("juggernautXL_v9"), "{}", unknown.message());
    assert_eq!(orders(&fake).len(), asked.len(), "the engine never heard of it");
}

#[tokio::test]
async fn a_request_that_spends_gpu_time_never_uses_a_connection_twice() {
    let (fake, sidecar) = both(&[]).await;
    for _ in 0..3 {
        assert_eq!(sidecar.generate(&request()).await.status, 200);
    }
    let seen = fake.requests();
    for (at, order) in
        seen.iter().enumerate().filter(|(_, seen)| seen.method == "POST" && seen.path == "/prompt")
    {
        let others = seen.iter().enumerate();
        let others = others.filter(|(other, seen)| *other != at && seen.connection == order.connection);
        assert_eq!(others.count(), 0, "an order shared its connection");
    }
}

#[tokio::test]
async fn a_failed_job_is_told_in_the_engines_words_and_the_rest_is_cancelled() {
    let (fake, sidecar) = both(&[]).await;
    let words = "No such file: /srv/comfyui/models/x.safetensors\nTraceback (most)";
    fake.script(|script| script.fail = Some(ComfyFailure::new("FileNotFoundError", words)));
    let answer = sidecar.generate(&json!({"prompt": "a secret", "size": "64x64", "n": 2, "steps": 2})).await;
    assert_eq!((answer.status, answer.code()), (502, "engine_error"));
    assert_eq!(answer.header("x-should-retry"), "false");
    assert_eq!(answer.message(), "The engine could not make the picture: No such file: [path].");
    fake.until_idle().await;
    sidecar.until_inflight(0).await;
}

#[tokio::test]
async fn running_out_of_memory_frees_the_engines_memory() {
    let (fake, sidecar) = both(&[]).await;
    fake.script(|script| script.fail = Some(ComfyFailure::out_of_memory()));
    let answer = sidecar.generate(&request()).await;
    assert_eq!((answer.status, answer.code()), (503, "gpu_out_of_memory"));
    assert_eq!((answer.header("retry-after"), answer.header("x-should-retry")), ("10", "false"));
    assert!(answer.message().contains("CUDA out of memory"), "{}", answer.message());
    assert!(!answer.message().contains("TIPS"), "{}", answer.message());
    let seen = fake.requests();
    let freed = seen.iter().find(|seen| seen.path == "/free").expect("memory was asked for");
    assert_eq!(&freed.body[..], br#"{"free_memory":true,"unload_models":true}"#);
}

#[tokio::test]
async fn half_a_picture_or_a_web_page_is_no_picture() {
    let (fake, sidecar) = both(&[]).await;
    for bytes in [ComfyImageBytes::CutOff, ComfyImageBytes::Hollow, ComfyImageBytes::Html] {
        fake.script(|script| script.image_bytes = bytes);
        let answer = sidecar.generate(&request()).await;
        assert_eq!((answer.status, answer.code()), (502, "engine_error"), "{bytes:?}");
        assert!(answer.message().contains("picture cannot be used"), "{}", answer.message());
    }
}

#[tokio::test]
async fn a_graph_that_the_engine_does_not_take_is_told_by_node_and_input() {
    let (fake, sidecar) = both(&[]).await;
    // Gone since the list was read.
    fake.script(|script| script.checkpoints = vec!["other.safetensors".to_owned()]);
    let answer = sidecar.generate(&json!({"prompt": "a", "size": "64x64", "model": "tiny-sd15"})).await;
    assert_eq!((answer.status, answer.code()), (502, "engine_error"));
    let words = "node \"model\" (CheckpointLoaderSimple), input \"ckpt_name\": Value not in list: \"tiny-sd15.safetensors\"";
    assert!(answer.message().contains(words), "{}", answer.message());
    assert!(!answer.message().contains("other"), "no list of what is installed: {}", answer.message());
    sidecar.until_inflight(0).await;
}

#[tokio::test]
async fn the_history_may_come_late() {
    let (fake, sidecar) = both(&[]).await;
    fake.script(|script| script.history_lag = Duration::from_millis(700));
    assert_eq!(sidecar.generate(&request()).await.status, 200);
}

#[tokio::test]
async fn an_event_that_never_comes_is_made_up_for() {
    let (fake, sidecar) = both(&[]).await;
    fake.script(|script| {
        script.swallow = vec!["\"executing\"".to_owned(), "\"execution_success\"".to_owned()];
    });
    let asked = request();
    let (answer, ()) = tokio::join!(sidecar.generate(&asked), async {
        fake.until(ended).await;
        fake.drop_sockets();
    });
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn a_job_outlives_its_connection_and_no_connection_has_the_name_of_another() {
    let (fake, sidecar) = both(&[]).await;
    fake.script(|script| script.hold = true);
    let asked = request();
    let (answer, ()) = tokio::join!(sidecar.generate(&asked), async {
        fake.until(|items| items.iter().any(|item| item.status == PromptStatus::Running)).await;
        fake.drop_sockets();
        fake.until_followed(0).await;
        fake.until_followed(1).await;
        fake.script(|script| script.hold = false);
    });
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(sidecar.generate(&asked).await.status, 200, "and the next is heard over the new one");
    let sockets: Vec<_> =
        fake.requests().into_iter().map(|seen| seen.path).filter(|path| path.starts_with("/ws")).collect();
    let names: BTreeSet<_> = sockets.iter().collect();
    assert!(sockets.len() >= 2 && names.len() == sockets.len(), "{sockets:?}");
    let last = orders(&fake).pop().unwrap();
    assert!(sockets.last().unwrap().ends_with(last["client_id"].as_str().unwrap()));
}

#[tokio::test]
async fn two_jobs_at_once_get_each_its_own_pictures() {
    let (_fake, sidecar) = both(&COMPARABLE).await;
    let ask = |seed: u64| {
        let request = json!({"prompt": "a", "size": "64x64", "n": 2, "seed": seed, "steps": 2});
        let sidecar = &sidecar;
        async move { pictures(&sidecar.generate(&request).await) }
    };
    let (first, second, third) = tokio::join!(ask(1), ask(100), ask(1));
    assert_eq!((first[0].0, first[1].0, second[0].0, second[1].0), (1, 2, 100, 101));
    assert_eq!(first, third);
    assert_ne!(first[0].1, second[0].1);
}

#[tokio::test]
async fn pictures_to_discard_stay_out_of_the_output_folder() {
    let (fake, sidecar) = both(&["--engine-outputs", "discard"]).await;
    let asked = json!({"prompt": "a", "size": "64x64", "steps": 2, "seed": 5});
    for _ in 0..2 {
        assert_eq!(sidecar.generate(&asked).await.status, 200);
    }
    let files = fake.files();
    assert!(files.len() == 2 && files.iter().all(|file| file.starts_with("temp/")), "{files:?}");
}

#[tokio::test]
async fn previews_come_as_the_engine_makes_them_and_then_the_picture() {
    let (fake, sidecar) = both(&[]).await;
    fake.script(|script| script.item = Duration::from_millis(200));
    let body =
        json!({"prompt": "a", "size": "64x64", "stream": true, "steps": 8, "partial_images": 2, "seed": 7});
    let asked = fakes::http().post(format!("{}/v1/images/generations", sidecar.url));
    let asked = asked.header("content-type", "application/json").body(body.to_string());
    let events = SseReader::new(asked.send().await.unwrap()).rest().await;
    let types: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    let partial = "image_generation.partial_image";
    assert_eq!(types, [partial, partial, "image_generation.completed"]);
    for (event, format) in events.iter().zip([Format::Jpeg, Format::Jpeg, Format::Png]) {
        let bytes = base64_simd::STANDARD.decode_to_vec(event["b64_json"].as_str().unwrap()).unwrap();
        assert_eq!(Format::detect(&bytes), Ok(format));
    }
    assert_eq!(orders(&fake)[0]["extra_data"], json!({"preview_method": "latent2rgb"}));
}
