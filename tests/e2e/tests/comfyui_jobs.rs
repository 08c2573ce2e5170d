//! Who holds the slot in front of a ComfyUI, what becomes of jobs that nobody waits for, and that nobody else's is ever
//! touched.

use std::time::{Duration, Instant};

use e2e::sidecar::Sidecar;
use fakes::comfyui::{ComfyFailure, ComfyPrompt, ComfyScript, ComfyVersion, FakeComfy, PromptStatus};
use serde_json::{Value, json};

async fn both(script: impl FnOnce(&mut ComfyScript), flags: &[&str]) -> (FakeComfy, Sidecar) {
    let fake = FakeComfy::start().await;
    fake.script(script);
    let sidecar = Sidecar::comfyui(&fake.url(), flags).await;
    sidecar.until_ready().await;
    fake.until_followed(1).await;
    (fake, sidecar)
}

fn picture() -> Value {
    json!({"prompt": "a", "size": "64x64", "steps": 2})
}

fn ours(item: &ComfyPrompt) -> bool {
    item.client_id.as_deref().is_some_and(|client| client.starts_with("ada2-sidecar-"))
}

fn is(status: PromptStatus) -> impl Fn(&[ComfyPrompt]) -> bool {
    move |items| items.iter().any(|item| ours(item) && item.status == status)
}

fn status_of(fake: &FakeComfy, prompt: &str) -> PromptStatus {
    fake.items().into_iter().find(|item| item.prompt_id == prompt).unwrap().status
}

/// Orders a picture and leaves once the engine's items are so.
async fn order_and_leave(
    fake: &FakeComfy,
    sidecar: &Sidecar,
    request: &Value,
    wanted: impl Fn(&[ComfyPrompt]) -> bool,
) {
    tokio::select! {
        answer = sidecar.generate(request) => panic!("held jobs do not end: {answer:?}"),
        () = fake.until(wanted) => {}
    }
}

fn interrupts(fake: &FakeComfy) -> Vec<Value> {
    let seen = fake.requests();
    let interrupts = seen.iter().filter(|seen| seen.path.ends_with("/interrupt"));
    interrupts.map(|seen| serde_json::from_slice(&seen.body).unwrap()).collect()
}

#[tokio::test]
async fn a_caller_who_leaves_takes_exactly_his_own_job_with_him() {
    for version in [ComfyVersion::V0_33_0, ComfyVersion::V0_12_1, ComfyVersion::V0_3_64] {
        let (fake, sidecar) = both(
            |script| {
                script.hold = true;
                script.version = version;
            },
            &[],
        )
        .await;
        let request = json!({"prompt": "a", "size": "64x64", "steps": 2, "n": 3});
        order_and_leave(&fake, &sidecar, &request, |items| {
            items.len() == 3 && is(PromptStatus::Running)(items)
        })
        .await;
        let left = Instant::now();
        let stranger = fake.foreign_job();
        fake.until(is(PromptStatus::Interrupted)).await;
        assert!(left.elapsed() < Duration::from_secs(5), "{:?}", left.elapsed());
        fake.until(|items| {
            items.iter().any(|item| item.prompt_id == stranger && item.status == PromptStatus::Running)
        })
        .await;
        sidecar.until_inflight(0).await;
        let own: Vec<_> = fake.items().into_iter().filter(ours).map(|item| item.status).collect();
        assert_eq!(own, [PromptStatus::Interrupted, PromptStatus::Deleted, PromptStatus::Deleted]);
        let asked = interrupts(&fake);
        assert!(!asked.is_empty() && asked.iter().all(|asked| asked["prompt_id"] != json!(stranger)));
        assert!(asked.iter().all(|asked| asked["prompt_id"].is_string()), "never without a name: {asked:?}");
        assert_eq!(status_of(&fake, &stranger), PromptStatus::Running, "{version}");
    }
}

#[tokio::test]
async fn a_job_that_still_waits_is_taken_out_of_the_queue_and_the_one_that_runs_is_left_alone() {
    let (fake, sidecar) = both(|script| script.hold = true, &[]).await;
    let stranger = fake.foreign_job();
    fake.until(|items| items.iter().any(|item| item.status == PromptStatus::Running)).await;
    order_and_leave(&fake, &sidecar, &picture(), is(PromptStatus::Pending)).await;
    fake.until(is(PromptStatus::Deleted)).await;
    sidecar.until_inflight(0).await;
    assert_eq!(status_of(&fake, &stranger), PromptStatus::Running);
    assert_eq!(interrupts(&fake), [Value::Null; 0]);
}

#[tokio::test]
async fn the_slot_is_held_until_the_engine_has_let_go_of_a_cancelled_job() {
    let (fake, sidecar) = both(
        |script| {
            script.hold = true;
            script.cancel_tail = Duration::from_hours(1);
        },
        &["--max-inflight", "1"],
    )
    .await;
    order_and_leave(&fake, &sidecar, &picture(), is(PromptStatus::Running)).await;
    fakes::eventually("the engine is asked to end it", async || {
        (!interrupts(&fake).is_empty()).then_some(())
    })
    .await;
    let busy = sidecar.generate(&picture()).await;
    assert_eq!((busy.status, busy.code()), (429, "backend_overloaded"), "it still runs on the GPU");
    assert_eq!(busy.header("retry-after"), "5");
    fake.script(|script| {
        script.hold = false;
        script.cancel_tail = Duration::ZERO;
    });
    sidecar.until_inflight(0).await;
    assert_eq!(sidecar.generate(&picture()).await.status, 200);
}

#[tokio::test]
async fn a_version_that_stops_whatever_runs_is_never_asked_to_stop_anything() {
    for version in [ComfyVersion(0, 3, 50), ComfyVersion::V0_3_56] {
        let (fake, sidecar) = both(
            |script| {
                script.hold = true;
                script.version = version;
            },
            &["--max-inflight", "1"],
        )
        .await;
        let request = json!({"prompt": "a", "size": "64x64", "steps": 2, "n": 2});
        order_and_leave(&fake, &sidecar, &request, |items| {
            items.len() == 2 && is(PromptStatus::Running)(items)
        })
        .await;
        let stranger = fake.foreign_job();
        fake.until(is(PromptStatus::Deleted)).await;
        let busy = sidecar.generate(&picture()).await;
        assert_eq!(busy.status, 429, "the running one cannot be ended alone: it keeps the slot");
        fake.script(|script| script.hold = false);
        sidecar.until_inflight(0).await;
        fake.until_idle().await;
        let own: Vec<_> = fake.items().into_iter().filter(ours).map(|item| item.status).collect();
        assert_eq!(own, [PromptStatus::Completed, PromptStatus::Deleted]);
        assert_eq!(status_of(&fake, &stranger), PromptStatus::Completed);
        assert_eq!(interrupts(&fake), [Value::Null; 0], "{version}");
    }
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_answered_in_time_and_its_job_cancelled() {
    let (fake, sidecar) = both(|script| script.hold = true, &[]).await;
    let start = Instant::now();
    let url = format!("{}/v1/images/generations", sidecar.url);
    let request = fakes::http().post(url).header("content-type", "application/json");
    let request = request.header("x-request-timeout-ms", "300").body(picture().to_string());
    let answer = fakes::TestResponse::read(request.send().await.unwrap()).await;
    assert_eq!((answer.status, answer.code()), (504, "engine_timeout"));
    assert!(start.elapsed() < Duration::from_secs(5));
    fake.until_idle().await;
    sidecar.until_inflight(0).await;
}

#[tokio::test]
async fn a_job_whose_answer_was_lost_is_found_by_its_id_and_cancelled() {
    let (fake, sidecar) = both(
        |script| {
            script.hold = true;
            script.lose_prompt_answer = true;
        },
        &[],
    )
    .await;
    let answer = sidecar.generate(&picture()).await;
    assert_eq!((answer.status, answer.code()), (503, "engine_unavailable"));
    assert_eq!(answer.header("x-should-retry"), "false");
    fake.until(|items| is(PromptStatus::Interrupted)(items) || is(PromptStatus::Deleted)(items)).await;
    sidecar.until_inflight(0).await;
    let orders =
        fake.requests().iter().filter(|seen| seen.method == "POST" && seen.path == "/prompt").count();
    assert_eq!(orders, 1, "never sent twice");
}

#[tokio::test]
async fn what_an_earlier_process_left_behind_is_cancelled_before_readiness() {
    let fake = FakeComfy::start().await;
    fake.script(|script| script.hold = true);
    let state = fakes::fresh_folder("left-behind");
    std::fs::write(state.join("instance"), "7f0f8b6e-2a52-4b64-9c8b-0d6a3c1d9e11\npid 1\n").unwrap();
    let graph: Value = serde_json::from_str(include_str!("../../fixtures/comfyui/txt2img.json")).unwrap();
    let left = "ada2-sidecar-7f0f8b6e-2a52-4b64-9c8b-0d6a3c1d9e11.1";
    for client in [left, left, "ada2-sidecar-of-another-host.1"] {
        let order = json!({"prompt": graph, "client_id": client});
        assert_eq!(fakes::post(&format!("{}/prompt", fake.url()), &order).await.status, 200);
    }
    let stranger = fake.foreign_job();
    fake.until(|items| items[0].status == PromptStatus::Running).await;
    let sidecar = Sidecar::start_in(state, &["--engine", "comfyui", "--engine-url", &fake.url()]).await;
    sidecar.until_ready().await;
    fake.until(|items| {
        items[0].status == PromptStatus::Interrupted && items[1].status == PromptStatus::Deleted
    })
    .await;
    fake.until(|items| items[2].status == PromptStatus::Running).await;
    assert_eq!(status_of(&fake, &stranger), PromptStatus::Pending, "of another instance, of a person");
}

#[tokio::test]
async fn an_engine_killed_in_mid_job_ends_the_request_and_frees_the_slot() {
    let (fake, sidecar) = both(|script| script.hold = true, &[]).await;
    let request = json!({"prompt": "a", "size": "64x64", "n": 2, "steps": 2});
    let (answer, killed) = tokio::join!(sidecar.generate(&request), async {
        fake.until(is(PromptStatus::Running)).await;
        fake.stop().await;
        Instant::now()
    });
    assert!(killed.elapsed() < Duration::from_secs(4), "{:?}", killed.elapsed());
    assert_eq!((answer.status, answer.code()), (503, "engine_unavailable"));
    let check = sidecar.until_fails("engine_reachable").await;
    assert!(check.message.contains("nothing listens"), "{}", check.message);
    assert!(sidecar.readyz().await.checks.iter().any(|check| check.observed.starts_with("0 of 4")));
    fake.script(|script| script.hold = false);
    fake.restart();
    sidecar.until_ready().await;
    assert_eq!(sidecar.generate(&picture()).await.status, 200, "no restart of ours was needed");
}

#[tokio::test]
async fn a_job_that_the_engine_no_longer_knows_is_told_to_be_lost() {
    let (fake, sidecar) = both(|script| script.hold = true, &[]).await;
    fake.foreign_job();
    let request = picture();
    let (answer, ()) = tokio::join!(sidecar.generate(&request), async {
        fake.until(is(PromptStatus::Pending)).await;
        // As the web page does; nothing is told of it.
        fakes::post(&format!("{}/queue", fake.url()), &json!({"clear": true})).await;
    });
    assert_eq!((answer.status, answer.code()), (502, "engine_error"));
    assert!(answer.message().contains("the engine lost the job: it was restarted"), "{}", answer.message());
    sidecar.until_inflight(0).await;
}

#[tokio::test]
async fn jobs_that_people_interrupt_are_told_so_and_say_nothing_of_the_engine() {
    let (fake, sidecar) = both(|script| script.hold = true, &[]).await;
    let request = picture();
    for _ in 0..2 {
        let (answer, ()) = tokio::join!(sidecar.generate(&request), async {
            fake.until(is(PromptStatus::Running)).await;
            fakes::post(&format!("{}/interrupt", fake.url()), &json!({})).await;
        });
        assert_eq!((answer.status, answer.code()), (502, "engine_error"));
        assert!(answer.message().contains("was interrupted in ComfyUI"), "{}", answer.message());
        sidecar.until_inflight(0).await;
    }
    fake.script(|script| {
        (script.hold, script.fail) = (false, Some(ComfyFailure::new("RuntimeError", "no kernel image")));
    });
    assert_eq!(sidecar.generate(&request).await.status, 502);
    fakes::eventually("only its own failure counts", async || {
        let report = sidecar.readyz().await;
        let works = report.checks.into_iter().find(|check| check.name == "engine_works")?;
        (works.observed == "the last image failed").then_some(())
    })
    .await;
}

#[tokio::test]
async fn draining_finishes_what_runs_and_admits_nothing_new() {
    let (fake, sidecar) = both(|script| script.hold = true, &[]).await;
    let request = picture();
    let (answer, ()) = tokio::join!(sidecar.generate(&request), async {
        fake.until(is(PromptStatus::Running)).await;
        sidecar.lifecycle.begin_drain();
        fake.script(|script| script.hold = false);
    });
    assert_eq!(answer.status, 200, "{answer:?}");
    sidecar.stop().await;
}
