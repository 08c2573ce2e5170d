//! Whole runs, frame by frame, and what is left of them.

use std::sync::LazyLock;

use super::*;

static RUNS: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../../../fixtures/comfyui/runs.json")).unwrap());

/// The same JSON with everything that differs from run to run blanked. Node ids in sets are sorted: the real server
/// lists them in any order.
pub(super) fn shape(value: &Value) -> Value {
    const OWN: [&str; 14] = [
        "prompt_id",
        "timestamp",
        "sid",
        "filename",
        "client_id",
        "create_time",
        "id",
        "priority",
        "traceback",
        "current_inputs",
        "current_outputs",
        "execution_start_time",
        "execution_end_time",
        "workflow",
    ];
    match value {
        Value::Object(members) => {
            let blank = |(key, value): (&String, &Value)| {
                let kept = if OWN.contains(&key.as_str()) { json!("*") } else { shape(value) };
                (key.clone(), kept)
            };
            Value::Object(members.iter().map(blank).collect())
        }
        Value::Array(elements) => {
            let mut elements: Vec<Value> = elements.iter().map(shape).collect();
            if elements.iter().all(Value::is_string) && elements.first() != Some(&json!("execution_start")) {
                elements.sort_by_key(ToString::to_string);
            }
            Value::Array(elements)
        }
        other => other.clone(),
    }
}

pub(super) fn shapes(frames: &[Value]) -> Vec<Value> {
    frames.iter().map(shape).collect()
}

/// A recorded run. The real server ran the outputs of the model-free one in the order 2, 4, 3, because it keeps them
/// in a set; ours come in the order of their names.
fn recorded(name: &str) -> Value {
    let text = RUNS[name].to_string();
    let text = if name.starts_with("model_free") { text.replace("\"3\"", "\"5\"") } else { text };
    serde_json::from_str(&text).unwrap()
}

/// Plays a recorded workflow and compares frames, history entry and job. What ran before decides what is cached.
async fn compare(fake: &FakeComfy, name: &str, mut socket: Socket) {
    let run = recorded(name);
    let mut body = json!({"prompt": run["prompt"], "client_id": CLIENT});
    if let Some(extra) = run.get("extra_data") {
        body["extra_data"] = extra.clone();
    }
    let mut told = Vec::new();
    if run["frames"][0]["data"].get("sid").is_none() {
        frame(&mut socket).await.unwrap();
    }
    if run["frames"][1]["type"] == "feature_flags" {
        told = frames(&mut socket, is_of("feature_flags")).await;
    }
    let answer = post(fake, "/prompt", &body).await;
    assert_eq!(answer.status, 200, "{name}: {}", answer.json);
    if let Some(recorded) = run.get("answer") {
        assert_eq!(shape(&answer.json["node_errors"]), shape(&recorded["node_errors"]), "{name}");
    }
    told.extend(frames(&mut socket, is_last).await);
    let recorded: Vec<Value> = shapes(run["frames"].as_array().unwrap());
    for (nth, (told, recorded)) in shapes(&told).iter().zip(&recorded).enumerate() {
        assert_eq!(told, recorded, "{name}, frame {nth}");
    }
    assert_eq!(told.len(), recorded.len(), "{name}");

    let id = answer.json["prompt_id"].as_str().unwrap();
    let left = |entry: &Value| {
        let mut entry = shape(entry);
        // Number, id and workflow are this run's own.
        entry["prompt"].as_array_mut().unwrap().drain(..3);
        entry
    };
    assert_eq!(left(&entry(fake, id).await), left(&run["history"]), "{name}");
    if let Some(recorded) = run.get("job") {
        let mut job = shape(&get(fake, &format!("/api/jobs/{id}")).await);
        job.as_object_mut().unwrap().remove("workflow");
        assert_eq!(job, shape(recorded), "{name}");
    }
}

/// A fake with the recorded input files; `warm` has run, if it is a workflow.
async fn with_inputs(warm_by: Option<Value>) -> FakeComfy {
    let fake = FakeComfy::start().await;
    let picture = pixels::Pixels::paint("input", 1, 64, 64).to_png(&[]);
    fake.change(|state| {
        for name in ["in.png", "rgba.png", "mask_rgba.png", "req-1/sub.png"] {
            state.files.insert(format!("input/{name}"), picture.clone());
        }
        state.files.insert("input/junk.png".to_owned(), "not a picture".into());
    });
    if let Some(graph) = warm_by {
        warm(&fake, &graph).await;
    }
    fake
}

/// What leaves the loader and the two prompts in the cache, and no latent of 64x64.
fn other_size() -> Value {
    let mut graph = txt2img(7);
    graph["5"]["inputs"]["width"] = json!(72);
    graph
}

#[tokio::test]
async fn text_to_image_is_told_as_recorded_with_and_without_negotiated_previews() {
    let fake = FakeComfy::start().await;
    fake.script(|script| script.previews = true);
    compare(&fake, "txt2img_flags", follow_with_flags(&fake, CLIENT).await).await;

    let fake = FakeComfy::start().await;
    fake.script(|script| script.previews = true);
    let mut graph = RUNS["txt2img_noflags"]["prompt"].clone();
    graph["3"]["inputs"]["seed"] = json!(99);
    warm(&fake, &graph).await;
    compare(&fake, "txt2img_noflags", follow(&fake, CLIENT).await).await;
}

#[tokio::test]
async fn pictures_from_pictures_are_told_as_recorded() {
    for name in ["img2img_n2", "inpaint", "denoise_zero"] {
        let fake = with_inputs(Some(other_size())).await;
        fake.script(|script| script.previews = true);
        compare(&fake, name, follow(&fake, CLIENT).await).await;
    }
}

#[tokio::test]
async fn every_kind_of_output_is_told_as_recorded_new_and_cached() {
    let fake = FakeComfy::start().await;
    compare(&fake, "model_free_noflags", follow(&fake, CLIENT).await).await;
    fake.until_followed(0).await;
    compare(&fake, "model_free_flags", follow_with_flags(&fake, CLIENT).await).await;
}

#[tokio::test]
async fn an_identical_prompt_is_told_as_recorded_and_names_a_file_that_is_gone() {
    let fake = FakeComfy::start().await;
    let graph = RUNS["repeated"]["prompt"].clone();
    warm(&fake, &graph).await;
    fake.delete_images();
    compare(&fake, "repeated", follow(&fake, CLIENT).await).await;
    let view = ask(&fake, Method::GET, "/view?filename=cachetest_00001_.png", None).await;
    assert_eq!(view.status, 404);

    post(&fake, "/free", &json!({"unload_models": true, "free_memory": true})).await;
    warm(&fake, &graph).await;
    assert_eq!(fake.items()[2].images, ["output/cachetest_00001_.png"], "numbers are those of the files");
    assert_eq!(fake.files(), fake.items()[2].images);
}

#[tokio::test]
async fn failures_are_told_as_recorded() {
    let fake = with_inputs(Some(other_size())).await;
    compare(&fake, "junk_image", follow(&fake, CLIENT).await).await;
    let fake = with_inputs(Some(txt2img(7))).await;
    fake.script(|script| script.previews = true);
    compare(&fake, "outside_output", follow(&fake, CLIENT).await).await;

    let fake = FakeComfy::start().await;
    fake.script(|script| script.fail = Some(ComfyState::out_of_memory()));
    let mut socket = follow(&fake, CLIENT).await;
    enqueue(&fake, &txt2img(1)).await;
    let told = frames(&mut socket, is_of("execution_error")).await;
    let told = shape(told.last().unwrap());
    let recorded = RUNS["out_of_memory"]["frames"].as_array().unwrap();
    let recorded = shape(recorded.iter().find(|frame| is_of("execution_error")(frame)).unwrap());
    for key in ["exception_message", "exception_type", "traceback"] {
        assert_eq!(told["data"][key], recorded["data"][key]);
    }
    let keys = |frame: &Value| frame["data"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&told), keys(&recorded));
    assert_eq!((&told["data"]["node_id"], &told["data"]["node_type"]), (&json!("3"), &json!("KSampler")));
}

#[tokio::test]
async fn a_bad_output_beside_a_good_one_is_skipped_as_recorded() {
    let fake = with_inputs(Some(other_size())).await;
    fake.script(|script| script.previews = true);
    compare(&fake, "one_output_invalid", follow(&fake, CLIENT).await).await;
}

#[tokio::test]
async fn an_interrupt_is_told_as_recorded() {
    let fake = with_inputs(Some(other_size())).await;
    fake.script(|script| (script.previews, script.hold) = (true, true));
    let mut socket = follow(&fake, CLIENT).await;
    let mut graph = txt2img(1);
    graph["3"]["inputs"]["steps"] = json!(60);
    let id = enqueue(&fake, &graph).await;
    let mut told = frames(&mut socket, |frame| frame.get("binary").is_some()).await;
    assert_eq!(post(&fake, "/interrupt", &json!({"prompt_id": id})).await.status, 200);
    told.extend(frames(&mut socket, is_last).await);
    let run = &RUNS["interrupted"];
    assert_eq!(shapes(&told), shapes(run["frames"].as_array().unwrap()));
    let status = |entry: &Value| shape(&entry["status"]);
    assert_eq!(status(&entry(&fake, &id).await), status(&run["history"]));
    let job = get(&fake, &format!("/api/jobs/{id}")).await;
    assert_eq!((&job["status"], &job["outputs"]), (&json!("cancelled"), &json!({})));
}

#[tokio::test]
async fn a_prompt_without_a_client_is_broadcast_as_recorded() {
    let fake = with_inputs(Some(txt2img(7))).await;
    fake.script(|script| script.hold = true);
    let mut bystander = follow(&fake, "somebody-else").await;
    frame(&mut bystander).await.unwrap();
    let mut graph = txt2img(1);
    graph["3"]["inputs"]["steps"] = json!(40);
    post(&fake, "/prompt", &json!({ "prompt": graph })).await;
    let mut told = frames(&mut bystander, is_of("progress")).await;
    post(&fake, "/interrupt", &json!({})).await;
    let over = |frame: &Value| frame["data"]["status"]["exec_info"]["queue_remaining"] == 0;
    told.extend(frames(&mut bystander, over).await);
    let recorded = RUNS["broadcast_interrupted"]["frames"].as_array().unwrap();
    let recorded: Vec<Value> =
        recorded.iter().map(|frame| frame.get("frame").unwrap_or(frame).clone()).collect();
    assert_eq!(shapes(&told), shapes(&recorded));
}
