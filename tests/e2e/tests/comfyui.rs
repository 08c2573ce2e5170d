//! What only a ComfyUI has: its graphs and files, versions that cancel differently, a history, jobs that people interrupt.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use e2e::sidecar::Sidecar;
use fakes::{
    TestResponse,
    comfyui::{ComfyPrompt, ComfyScript, ComfyState, ComfyVersion, FakeComfy, PromptStatus},
    engine::{EngineFailure, EngineJob, FakeEngine, JobState, RequestKind},
};
use serde_json::{Value, json};

use crate::{
    edit_form::{EditForm, encoded, source},
    engine_behaviour::{disconnect_when, ours_is, request, start, stream},
};

fn prompts(engine: &FakeComfy) -> Vec<Value> {
    let submissions = engine.requests_of(RequestKind::Submit);
    submissions.iter().map(|request| serde_json::from_slice(&request.body).unwrap()).collect()
}

fn interrupts(engine: &FakeComfy) -> Vec<Value> {
    let requests = engine.requests();
    let interrupts = requests.iter().filter(|request| request.path.ends_with("/interrupt"));
    interrupts.map(|request| serde_json::from_slice(&request.body).unwrap()).collect()
}

/// The prompts that were cancelled by the route for one job, with the first refusal of a version without it.
fn job_cancels(engine: &FakeComfy) -> Vec<String> {
    let requests = engine.requests().into_iter();
    let id = |path: String| Some(path.strip_prefix("/api/jobs/")?.strip_suffix("/cancel")?.to_owned());
    requests.filter_map(|request| id(request.path)).collect()
}

fn status_of(engine: &FakeComfy, prompt: &str) -> PromptStatus {
    engine.items().into_iter().find(|item| item.prompt_id == prompt).unwrap().status
}

fn statuses_of_ours(engine: &FakeComfy) -> Vec<PromptStatus> {
    let ours =
        |item: &ComfyPrompt| item.client_id.as_deref().is_some_and(|id| id.starts_with("ada2-sidecar-"));
    engine.items().into_iter().filter(ours).map(|item| item.status).collect()
}

/// So many jobs are there, and one of ours runs.
fn one_of(count: usize) -> impl Fn(&[EngineJob]) -> bool {
    move |jobs| jobs.len() == count && ours_is(JobState::Running)(jobs)
}

async fn held(version: ComfyVersion, flags: &[&str]) -> (FakeComfy, Sidecar) {
    let prepare = |engine: &mut ComfyState| {
        let script: &mut ComfyScript = engine.script();
        (script.hold, script.version) = (true, version);
    };
    start(prepare, flags).await
}

#[tokio::test]
async fn every_field_of_the_request_reaches_the_graph_and_nothing_else_does() {
    let (engine, sidecar) = start(|_: &mut ComfyState| (), &[]).await;
    let prompt = "a \"cat\"\n{}]";
    let answer = sidecar
        .generate(
            &json!({"prompt": prompt, "negative_prompt": "dogs", "size": "256x128", "seed": 7, "steps": 3,
            "cfg_scale": 3.5, "scheduler": "dpmpp_2m_k", "user": "u", "extra": {"nodes": {}}}),
        )
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let submitted = &prompts(&engine)[0];
    let inputs = |node: &str| submitted["prompt"][node]["inputs"].clone();
    assert_eq!((&inputs("positive")["text"], &inputs("negative")["text"]), (&json!(prompt), &json!("dogs")));
    assert_eq!((&inputs("latent")["width"], &inputs("latent")["height"]), (&json!(256), &json!(128)));
    let sampler = inputs("sampler");
    assert_eq!((&sampler["sampler_name"], &sampler["scheduler"]), (&json!("dpmpp_2m"), &json!("karras")));
    assert_eq!((&sampler["steps"], &sampler["cfg"], &sampler["seed"]), (&json!(3), &json!(3.5), &json!(7)));
    assert!(submitted["client_id"].as_str().unwrap().starts_with("ada2-sidecar-"));
    assert_eq!(submitted["extra_data"], json!({"preview_method": "none"}), "previews are not read");
    assert_eq!(submitted["prompt"].as_object().unwrap().len(), 7);
    assert!(engine.files().iter().all(|file| file.starts_with("output/ada2/")), "{:?}", engine.files());
    stream(&sidecar, json!({"steps": 2, "partial_images": 1})).await.rest().await;
    assert_eq!(prompts(&engine)[1]["extra_data"], json!({"preview_method": "latent2rgb"}));
}

#[tokio::test]
async fn models_are_found_by_file_name_with_or_without_extension_and_by_alias() {
    let engine = FakeComfy::start().await;
    let files = ["juggernautXL_v9.safetensors", "old/mine_sd15.ckpt"];
    engine.script(|script| script.checkpoints = files.map(str::to_owned).to_vec());
    let sidecar = Sidecar::comfyui(&engine.url(), &[]).await;
    sidecar.until_ready().await;
    let list =
        TestResponse::read(fakes::http().get(format!("{}/v1/models", sidecar.url)).send().await.unwrap())
            .await;
    let ids: Vec<_> = list.json["data"].as_array().unwrap().iter().map(|model| model["id"].clone()).collect();
    assert_eq!(ids, ["juggernautXL_v9", "old/mine_sd15", "sd-xl-base-1.0", "sd-v1-5"]);
    let names = [
        ("JuggernautXL_V9", 0),
        ("juggernautXL_v9.safetensors", 0),
        ("juggernautxl_v9.SAFETENSORS", 0),
        ("sd-xl-base-1.0", 0),
        ("gpt-image-1", 0),
        ("old/mine_sd15", 1),
        ("sd-v1-5", 1),
    ];
    for (nth, (model, file)) in names.into_iter().enumerate() {
        let answer =
            sidecar.generate(&json!({"model": model, "prompt": "a", "size": "64x64", "steps": 1})).await;
        assert_eq!(answer.status, 200, "{model}: {answer:?}");
        assert_eq!(prompts(&engine)[nth]["prompt"]["model"]["inputs"]["ckpt_name"], files[file], "{model}");
    }
    let unknown = sidecar.generate(&json!({"model": "flux-dev", "prompt": "a"})).await;
    assert_eq!((unknown.status, unknown.code()), (404, "model_not_found"));
    assert!(unknown.message().contains("juggernautXL_v9"), "{}", unknown.message());
    assert_eq!(prompts(&engine).len(), names.len(), "the engine got nothing");
}

#[tokio::test]
async fn a_graph_that_the_engine_refuses_is_reported_by_node_and_input() {
    let (engine, sidecar) = start(|_: &mut ComfyState| (), &[]).await;
    // Deleted since the list was read.
    engine.script(|script| script.checkpoints = vec!["other.safetensors".to_owned()]);
    let answer = sidecar.generate(&json!({"prompt": "a", "size": "64x64", "model": "tiny-sd15"})).await;
    assert_eq!((answer.status, answer.code()), (502, "engine_error"));
    let text = "node \"model\" (CheckpointLoaderSimple), input \"ckpt_name\": Value not in list: \"tiny-sd15.safetensors\"";
    assert!(answer.message().contains(text), "{}", answer.message());
    assert!(!answer.message().contains("other"), "no list of what is installed: {}", answer.message());
    sidecar.until_inflight(0).await;
}

#[tokio::test]
async fn the_history_may_come_late() {
    let (engine, sidecar) = start(|_: &mut ComfyState| (), &[]).await;
    engine.script(|script| script.history_lag = Duration::from_millis(700));
    assert_eq!(sidecar.generate(&request()).await.status, 200);
}

#[tokio::test]
async fn a_job_outlives_its_connection_and_no_two_connections_share_a_name() {
    let (engine, sidecar) = start(|_: &mut ComfyState| (), &[]).await;
    engine.script(|script| script.hold = true);
    let request = request();
    let (answer, ()) = tokio::join!(sidecar.generate(&request), async {
        engine.until(|items| items.iter().any(|item| item.status == PromptStatus::Running)).await;
        engine.drop_sockets();
        engine.until_followed(0).await;
        engine.until_followed(1).await;
        engine.script(|script| script.hold = false);
    });
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(sidecar.generate(&request).await.status, 200, "and the next is heard over the new one");
    let sockets: Vec<_> = engine
        .requests()
        .into_iter()
        .map(|request| request.path)
        .filter(|path| path.starts_with("/ws"))
        .collect();
    let names: BTreeSet<_> = sockets.iter().collect();
    assert!(sockets.len() >= 2 && names.len() == sockets.len(), "{sockets:?}");
    let last = prompts(&engine).pop().unwrap();
    assert!(sockets.last().unwrap().ends_with(last["client_id"].as_str().unwrap()));
}

#[tokio::test]
async fn discarded_images_stay_out_of_the_output_directory() {
    let (engine, sidecar) = start(|_: &mut ComfyState| (), &["--engine-outputs", "discard"]).await;
    let request = json!({"prompt": "a", "size": "64x64", "steps": 2, "seed": 5});
    for _ in 0..2 {
        assert_eq!(sidecar.generate(&request).await.status, 200);
    }
    let files = engine.files();
    assert!(files.len() == 2 && files.iter().all(|file| file.starts_with("temp/")), "{files:?}");
}

#[tokio::test]
async fn an_uploaded_source_is_stored_where_the_engine_cleans_up() {
    let (engine, sidecar) = start(|_: &mut ComfyState| (), &[]).await;
    let source = encoded(&source(), image::ImageFormat::Png);
    let form = EditForm::new().text("prompt", "a cat").text("steps", "2").file("image", &source);
    assert_eq!(form.send(&sidecar).await.status, 200);
    let uploads: Vec<_> = engine.files().into_iter().filter(|file| file.contains("ada2-sidecar/")).collect();
    assert!(uploads.len() == 1 && uploads[0].starts_with("temp/"), "{uploads:?}");
}

#[tokio::test]
async fn a_disconnect_cancels_its_own_job_by_name_in_every_version() {
    for version in [ComfyVersion::V0_33_0, ComfyVersion::V0_12_1, ComfyVersion::V0_3_64] {
        let (engine, sidecar) = held(version, &[]).await;
        let request = json!({"prompt": "a", "size": "64x64", "steps": 2, "n": 3});
        disconnect_when(&engine, &sidecar, &request, one_of(3)).await;
        let disconnected = Instant::now();
        let foreign = engine.foreign_job();
        engine.until_jobs(ours_is(JobState::Cancelled)).await;
        assert!(disconnected.elapsed() < Duration::from_secs(5), "{:?}", disconnected.elapsed());
        engine
            .until(|items| {
                items.iter().any(|item| item.prompt_id == foreign && item.status == PromptStatus::Running)
            })
            .await;
        sidecar.until_inflight(0).await;
        assert_eq!(
            statuses_of_ours(&engine),
            [PromptStatus::Interrupted, PromptStatus::Deleted, PromptStatus::Deleted]
        );
        let (interrupts, job_cancels) = (interrupts(&engine), job_cancels(&engine));
        assert!(!job_cancels.contains(&foreign));
        if version == ComfyVersion::V0_33_0 {
            let deletes = engine
                .requests()
                .iter()
                .filter(|request| request.method == "POST" && request.path == "/queue")
                .count();
            assert_eq!((interrupts.len(), deletes), (0, 0), "one route does both");
            assert!(job_cancels.len() >= 3, "each of three: {job_cancels:?}");
        } else {
            assert_eq!(job_cancels.len(), 1, "asked once, and not again: {job_cancels:?}");
            assert!(
                !interrupts.is_empty() && interrupts.iter().all(|body| body["prompt_id"] != json!(foreign))
            );
            assert!(
                interrupts.iter().all(|body| body["prompt_id"].is_string()),
                "never without a name: {interrupts:?}"
            );
        }
        assert_eq!(status_of(&engine, &foreign), PromptStatus::Running, "{version}");
    }
}

#[tokio::test]
async fn a_cancel_that_fails_is_repeated_by_the_same_route() {
    let (engine, sidecar) = held(ComfyVersion::V0_33_0, &[]).await;
    engine.script(|script| script.broken_job_cancel = true);
    disconnect_when(&engine, &sidecar, &request(), ours_is(JobState::Running)).await;
    fakes::eventually("it is repeated", async || (job_cancels(&engine).len() > 2).then_some(())).await;
    engine.script(|script| script.broken_job_cancel = false);
    sidecar.until_inflight(0).await;
    assert_eq!(interrupts(&engine).len(), 0);
    assert_eq!(statuses_of_ours(&engine)[0], PromptStatus::Interrupted);
}

#[tokio::test]
async fn an_engine_that_was_updated_is_asked_again_whether_it_cancels_single_jobs() {
    let (engine, sidecar) = held(ComfyVersion::V0_12_1, &[]).await;
    let asked = async |expected: usize| {
        disconnect_when(&engine, &sidecar, &request(), ours_is(JobState::Running)).await;
        sidecar.until_inflight(0).await;
        engine.until_idle().await;
        assert!(job_cancels(&engine).len() >= expected, "{:?}", job_cancels(&engine));
    };
    asked(1).await;
    let interrupted = interrupts(&engine).len();
    assert_eq!((job_cancels(&engine).len(), interrupted), (1, 1));
    engine.script(|script| script.version = ComfyVersion::V0_33_0);
    fakes::eventually("the new version is seen", async || {
        (sidecar.readyz().await.engine.version.as_deref() == Some("0.33.0")).then_some(())
    })
    .await;
    asked(2).await;
    assert_eq!(interrupts(&engine).len(), interrupted, "it is cancelled by the new route");
}

#[tokio::test]
async fn a_waiting_job_is_deleted_and_nothing_interrupted() {
    let (engine, sidecar) = start(|engine: &mut ComfyState| engine.hold(true), &[]).await;
    let foreign = engine.foreign_job();
    engine.until(|items| items.iter().any(|item| item.status == PromptStatus::Running)).await;
    disconnect_when(&engine, &sidecar, &request(), ours_is(JobState::Pending)).await;
    engine.until_jobs(ours_is(JobState::Cancelled)).await;
    sidecar.until_inflight(0).await;
    assert_eq!(status_of(&engine, &foreign), PromptStatus::Running);
    assert_eq!(interrupts(&engine), [Value::Null; 0]);
}

#[tokio::test]
async fn a_version_without_targeted_interrupts_is_never_interrupted() {
    for version in [ComfyVersion(0, 3, 50), ComfyVersion::V0_3_56] {
        let (engine, sidecar) = held(version, &["--max-inflight", "1"]).await;
        let two = json!({"prompt": "a", "size": "64x64", "steps": 2, "n": 2});
        disconnect_when(&engine, &sidecar, &two, one_of(2)).await;
        let foreign = engine.foreign_job();
        engine.until_jobs(ours_is(JobState::Cancelled)).await;
        let busy = sidecar.generate(&request()).await;
        assert_eq!(busy.status, 429, "the running one cannot be ended alone: it keeps the slot");
        engine.script(|script| script.hold = false);
        sidecar.until_inflight(0).await;
        engine.until_idle().await;
        assert_eq!(statuses_of_ours(&engine), [PromptStatus::Completed, PromptStatus::Deleted]);
        assert_eq!(status_of(&engine, &foreign), PromptStatus::Completed);
        assert_eq!(interrupts(&engine), [Value::Null; 0], "{version}");
    }
}

#[tokio::test]
async fn a_job_that_the_engine_no_longer_knows_is_reported_as_lost() {
    let (engine, sidecar) = start(|engine: &mut ComfyState| engine.hold(true), &[]).await;
    engine.foreign_job();
    let request = request();
    let (answer, ()) = tokio::join!(sidecar.generate(&request), async {
        engine.until_jobs(ours_is(JobState::Pending)).await;
        // As the web page does; no event reports it.
        fakes::post(&format!("{}/queue", engine.url()), &json!({"clear": true})).await;
    });
    assert_eq!((answer.status, answer.code()), (502, "engine_error"));
    assert!(answer.message().contains("the engine lost the job: it was restarted"), "{}", answer.message());
    sidecar.until_inflight(0).await;
}

#[tokio::test]
async fn a_job_interrupted_by_a_user_is_reported_as_such_and_does_not_count_against_the_engine() {
    let (engine, sidecar) = start(|engine: &mut ComfyState| engine.hold(true), &[]).await;
    let request = request();
    for _ in 0..2 {
        let (answer, ()) = tokio::join!(sidecar.generate(&request), async {
            engine.until_jobs(ours_is(JobState::Running)).await;
            fakes::post(&format!("{}/interrupt", engine.url()), &json!({})).await;
        });
        assert_eq!((answer.status, answer.code()), (502, "engine_error"));
        assert!(answer.message().contains("was interrupted in ComfyUI"), "{}", answer.message());
        sidecar.until_inflight(0).await;
    }
    engine.script(|script| {
        (script.hold, script.fail) = (false, Some(EngineFailure::new("RuntimeError", "no kernel image")));
    });
    assert_eq!(sidecar.generate(&request).await.status, 502);
    fakes::eventually("only its own failure counts", async || {
        let report = sidecar.readyz().await;
        let works = report.checks.into_iter().find(|check| check.name == "engine_works")?;
        (works.observed == "the last image failed").then_some(())
    })
    .await;
}
