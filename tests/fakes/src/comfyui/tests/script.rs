//! The knobs, one by one.

use std::time::Duration;

use super::*;

const LONG: Duration = Duration::from_hours(1);

#[tokio::test]
async fn an_interrupt_is_noticed_only_after_the_tail_and_nothing_else_starts() {
    let fake = FakeComfy::start().await;
    fake.script(|script| (script.hold, script.cancel_tail) = (true, LONG));
    let mut socket = follow(&fake, CLIENT).await;
    let id = enqueue(&fake, &txt2img(1)).await;
    frames(&mut socket, is_of("progress")).await;
    let stranger = fake.foreign_job();
    post(&fake, "/interrupt", &json!({"prompt_id": id})).await;
    assert_eq!(get(&fake, "/queue").await["queue_running"][0][1], json!(id));
    assert_eq!(fake.items()[1].status, PromptStatus::Pending);
    fake.script(|script| (script.hold, script.cancel_tail) = (false, Duration::ZERO));
    let told = frames(&mut socket, is_last).await;
    assert_eq!(told[1]["type"], "execution_interrupted");
    fake.until_idle().await;
    let ends: Vec<PromptStatus> = fake.items().iter().map(|item| item.status).collect();
    assert_eq!(ends, [PromptStatus::Interrupted, PromptStatus::Completed]);
    assert_eq!(fake.items()[1].prompt_id, stranger);
    assert_ne!(fake.items()[1].client_id, fake.items()[0].client_id);
}

#[tokio::test]
async fn an_interrupt_while_idle_is_forgotten() {
    let fake = FakeComfy::start().await;
    post(&fake, "/interrupt", &json!({})).await;
    enqueue(&fake, &txt2img(1)).await;
    fake.until_idle().await;
    assert_eq!(fake.items()[0].status, PromptStatus::Completed);
}

#[tokio::test]
async fn the_entry_lags_behind_the_event_and_comes_before_the_last_frame() {
    let fake = FakeComfy::start().await;
    fake.script(|script| script.history_lag = LONG);
    let mut socket = follow(&fake, CLIENT).await;
    let id = enqueue(&fake, &txt2img(1)).await;
    frames(&mut socket, is_of("execution_success")).await;
    assert!(entry(&fake, &id).await.is_null());
    assert_eq!(get(&fake, &format!("/api/jobs/{id}")).await["status"], "in_progress");
    fake.script(|script| script.history_lag = Duration::ZERO);
    frames(&mut socket, is_last).await;
    assert_eq!(entry(&fake, &id).await["status"]["status_str"], "success");
}

#[tokio::test]
async fn a_scripted_failure_ends_in_mid_sampling_and_the_server_lives() {
    let fake = FakeComfy::start().await;
    fake.script(|script| script.fail = Some(EngineFailure::new("ValueError", "no such thing")));
    let mut socket = follow(&fake, CLIENT).await;
    let id = enqueue(&fake, &txt2img(1)).await;
    let told = frames(&mut socket, is_last).await;
    assert!(types(&told).contains(&"progress"));
    let job = get(&fake, &format!("/api/jobs/{id}")).await;
    assert_eq!(
        (&job["status"], &job["execution_error"]["exception_message"]),
        (&json!("failed"), &json!("no such thing"))
    );
    let without_sampler = json!({
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 255}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "blue"}},
    });
    enqueue(&fake, &without_sampler).await;
    fake.until_idle().await;
    assert_eq!(fake.items()[1].status, PromptStatus::Failed);
    fake.script(|script| script.fail = None);
    enqueue(&fake, &without_sampler).await;
    fake.until_idle().await;
    assert_eq!(fake.items()[2].images, ["output/blue_00001_.png"]);
}

#[tokio::test]
async fn swallowed_events_are_not_sent_and_sockets_can_be_dropped() {
    let fake = FakeComfy::start().await;
    fake.script(|script| script.swallow = vec!["execution_success".to_owned(), "\"node\":null".to_owned()]);
    let mut socket = follow(&fake, CLIENT).await;
    let id = enqueue(&fake, &txt2img(1)).await;
    frames(&mut socket, is_of("executed")).await;
    fake.until_idle().await;
    fake.drop_sockets();
    let told = frames(&mut socket, |_| false).await;
    assert!(types(&told).iter().all(|kind| matches!(*kind, "progress_state" | "status")));
    fake.until_followed(0).await;
    assert_eq!(fake.finished_event_at(&id), None);
}

#[tokio::test]
async fn a_lost_answer_leaves_the_prompt_running_once() {
    let fake = FakeComfy::start().await;
    fake.script(|script| script.lose_prompt_answer = true);
    let body = json!({"prompt": txt2img(1), "prompt_id": "8a78ad0b-6603-483f-83fb-0d1e5425ac53"});
    let lost = http().post(format!("{}/prompt", fake.url())).body(body.to_string()).send().await;
    lost.unwrap_err();
    fake.until(|items| items.iter().any(|item| item.status == PromptStatus::Completed)).await;
    enqueue(&fake, &txt2img(2)).await;
}

#[tokio::test]
async fn a_killed_server_refuses_and_comes_back_knowing_nothing() {
    let fake = FakeComfy::start().await;
    fake.script(|script| script.hold = true);
    let mut socket = follow(&fake, CLIENT).await;
    let id = enqueue(&fake, &txt2img(1)).await;
    enqueue(&fake, &txt2img(2)).await;
    frames(&mut socket, is_of("progress")).await;
    fake.stop().await;
    let last = loop {
        match bounded("the end", socket.next()).await {
            Some(Ok(Message::Close(_))) => panic!("a killed process says no goodbye"),
            Some(Ok(_)) => {}
            other => break other,
        }
    };
    assert!(last.is_none_or(|last| last.is_err()));
    let refused = http().get(format!("{}/queue", fake.url())).send().await.unwrap_err();
    assert!(refused.is_connect());

    fake.script(|script| script.hold = false);
    fake.restart();
    assert_eq!(get(&fake, "/queue").await, json!({"queue_running": [], "queue_pending": []}));
    assert!(entry(&fake, &id).await.is_null());
    assert_eq!(ask(&fake, Method::GET, &format!("/api/jobs/{id}"), None).await.status, 404);
    let mut socket = follow(&fake, CLIENT).await;
    enqueue(&fake, &txt2img(1)).await;
    let told = frames(&mut socket, is_last).await;
    let cached = told.iter().find(|frame| is_of("execution_cached")(frame)).unwrap();
    assert_eq!(cached["data"]["nodes"], json!([]));
    let ends: Vec<PromptStatus> = fake.items().iter().map(|item| item.status).collect();
    assert_eq!(ends, [PromptStatus::Lost, PromptStatus::Lost, PromptStatus::Completed]);
    assert_eq!(fake.items()[2].number.as_i64(), Some(0));
}

#[tokio::test]
async fn a_hung_server_accepts_and_answers_nothing_until_it_goes_on() {
    let fake = FakeComfy::start().await;
    fake.script(|script| script.hang = true);
    let asked = ask(&fake, Method::GET, "/queue", None);
    tokio::pin!(asked);
    tokio::select! {
        _ = &mut asked => panic!("a hung server answered"),
        () = crate::eventually("it arrives", async || (!fake.requests().is_empty()).then_some(())) => {}
    }
    fake.script(|script| script.hang = false);
    assert_eq!(asked.await.status, 200);
    let seen = &fake.requests()[0];
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("GET", "/queue"));
}

#[tokio::test]
async fn what_the_stats_answer_is_scripted() {
    let fake = FakeComfy::start().await;
    assert_eq!(get(&fake, "/api/system_stats").await["system"]["comfyui_version"], "0.33.0");
    fake.script(|script| script.stats = StatsAnswer::Json(json!({"system": 3})));
    assert_eq!(get(&fake, "/system_stats").await, json!({"system": 3}));
    fake.script(|script| script.stats = StatsAnswer::Html);
    let answer = ask(&fake, Method::GET, "/system_stats", None).await;
    assert!(answer.header("content-type").starts_with("text/html"));
    fake.script(|script| script.checkpoints = vec!["other.safetensors".to_owned()]);
    assert_eq!(get(&fake, "/models/checkpoints").await, json!(["other.safetensors"]));
    let info = get(&fake, "/object_info").await;
    assert_eq!(
        info["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"][0],
        json!(["other.safetensors"])
    );
    assert!(info["KSampler"].is_object());
}
