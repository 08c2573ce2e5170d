//! Queue, history and jobs: order, cancelling, and what is left.

use std::sync::LazyLock;

use super::{recorded::shape, *};

static ANSWERS: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../../fixtures/comfyui/answers.json")).unwrap()
});

/// A prompt with more than a workflow; gives its id.
async fn enqueue_as(fake: &FakeComfy, seed: u64, more: Value) -> String {
    let mut body = json!({"prompt": txt2img(seed), "client_id": CLIENT});
    body.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    post(fake, "/prompt", &body).await.json["prompt_id"].as_str().unwrap().to_owned()
}

/// One runs, five wait, as recorded. Gives the ids.
async fn six(fake: &FakeComfy) -> Vec<String> {
    fake.script(|script| script.hold = true);
    let mut ids = vec![enqueue(fake, &txt2img(1)).await];
    fake.until(|items| items[0].status == PromptStatus::Running).await;
    for seed in 2..=4 {
        ids.push(enqueue(fake, &txt2img(seed)).await);
    }
    ids.push(enqueue_as(fake, 5, json!({"front": true})).await);
    ids.push(enqueue_as(fake, 6, json!({"number": -100.5})).await);
    ids
}

async fn cancel(fake: &FakeComfy, id: &str) -> Value {
    post(fake, &format!("/api/jobs/{id}/cancel"), &json!({})).await.json
}

/// A recorded number, as if the counter had not been at 53 already.
fn first_as_ours(item: &Value) -> f64 {
    let number = item[0].as_f64().unwrap();
    if number.fract() == 0.0 { number - 53.0 * number.signum() } else { number }
}

#[tokio::test]
async fn the_queue_is_listed_as_the_heap_that_it_is() {
    let fake = FakeComfy::start().await;
    let ids = six(&fake).await;
    let queue = get(&fake, "/queue").await;
    let listed: Vec<f64> =
        queue["queue_pending"].as_array().unwrap().iter().map(|item| item[0].as_f64().unwrap()).collect();
    let recorded: Vec<f64> = ANSWERS["heap_order"].as_array().unwrap().iter().map(first_as_ours).collect();
    assert_eq!(listed, recorded);
    let running = &queue["queue_running"][0];
    assert_eq!((&running[1], &running[4]), (&json!(ids[0]), &json!(["9"])));
    assert_eq!(running[3]["client_id"], CLIENT);
    assert!(running[3]["create_time"].is_u64());
    assert_eq!(get(&fake, "/api/prompt").await, json!({"exec_info": {"queue_remaining": 6}}));

    let jobs = get(&fake, "/api/jobs?status=pending,in_progress").await;
    assert_eq!(jobs["pagination"], ANSWERS["jobs_pending"]["pagination"]);
    assert_eq!(shape(&jobs["jobs"][0]), shape(&ANSWERS["jobs_pending"]["jobs"][0]));
    assert_eq!(shape(&get(&fake, &format!("/api/jobs/{}", ids[0])).await), shape(&ANSWERS["job_running"]));

    fake.script(|script| script.hold = false);
    fake.until_idle().await;
    let history = ask(&fake, Method::GET, "/history?max_items=6", None).await;
    let order =
        |ids: &[usize]| ids.iter().map(|nth| fake.items()[*nth].prompt_id.clone()).collect::<Vec<_>>();
    let ran = fake.look(|state| state.history.iter().map(|entry| entry.id.clone()).collect::<Vec<_>>());
    assert_eq!(ran, order(&[0, 5, 4, 1, 2, 3]));
    assert_eq!(history.json.as_object().unwrap().len(), 6);
}

#[tokio::test]
async fn each_way_to_cancel_hits_what_the_real_one_hits() {
    let fake = FakeComfy::start().await;
    let ids = six(&fake).await;
    let mut socket = follow(&fake, CLIENT).await;
    assert_eq!(frame(&mut socket).await.unwrap()["data"]["status"]["exec_info"]["queue_remaining"], 6);
    for (body, left) in
        [(json!({"delete": [ids[1]]}), 5), (json!({"delete": [ids[0]]}), 5), (json!({"delete": ["nope"]}), 5)]
    {
        assert_eq!(post(&fake, "/queue", &body).await.status, 200);
        assert_eq!(get(&fake, "/prompt").await["exec_info"]["queue_remaining"], left, "{body}");
    }
    post(&fake, "/interrupt", &json!({"prompt_id": ids[2]})).await;
    assert_eq!(cancel(&fake, &ids[2]).await, json!({"cancelled": true}));
    assert_eq!(fake.items()[0].status, PromptStatus::Running, "an interrupt of what waits does nothing");
    assert_eq!(cancel(&fake, &ids[0]).await, json!({"cancelled": true}));
    fake.until(|items| items[0].status == PromptStatus::Interrupted).await;
    assert_eq!(cancel(&fake, &ids[0]).await, json!({"cancelled": false}));
    fake.until(|items| items[5].status == PromptStatus::Running).await;
    post(&fake, "/queue", &json!({"clear": true})).await;
    post(&fake, "/interrupt", &json!("not an object")).await;
    post(&fake, "/interrupt", &json!({})).await;
    fake.until_idle().await;
    let ends: Vec<PromptStatus> = fake.items().iter().map(|item| item.status).collect();
    let (interrupted, deleted) = (PromptStatus::Interrupted, PromptStatus::Deleted);
    assert_eq!(ends, [interrupted, deleted, deleted, deleted, deleted, interrupted]);
    assert_eq!(fake.cancels().len(), 10);

    assert_eq!(get(&fake, &format!("/history/{}", ids[1])).await, json!({}), "the deleted leave nothing");
    assert_eq!(ask(&fake, Method::GET, &format!("/api/jobs/{}", ids[1]), None).await.status, 404);
    let told =
        frames(&mut socket, |frame| is_last(frame) && frame["data"]["prompt_id"] == json!(ids[5])).await;
    let about = |id: &String| told.iter().filter(|frame| frame["data"]["prompt_id"] == json!(id)).count();
    assert_eq!((about(&ids[1]), about(&ids[3])), (0, 0), "and only the queue's length tells of them");
}

#[tokio::test]
async fn cancelling_many_jobs_checks_their_ids() {
    let fake = FakeComfy::start().await;
    for (body, name) in [(json!({"job_ids": ["zz"]}), "cancel_batch_bad"), (json!({}), "cancel_batch_empty")]
    {
        let answer = post(&fake, "/api/jobs/cancel", &body).await;
        assert_eq!(json!({"status": answer.status, "answer": answer.json}), ANSWERS[name]);
    }
    let id = six(&fake).await.remove(3);
    let answer = post(&fake, "/api/jobs/cancel", &json!({"job_ids": [id]})).await;
    assert_eq!(answer.json, json!({"cancelled": true}));
    assert_eq!(fake.items()[3].status, PromptStatus::Deleted);
}

#[tokio::test]
async fn plain_questions_are_answered_as_recorded() {
    let fake = FakeComfy::start().await;
    fake.script(|script| script.checkpoints.clear());
    for (asked, recorded) in ANSWERS.as_object().unwrap() {
        let Some((method, path)) = asked.split_once(' ') else { continue };
        let method: Method = method.parse().unwrap();
        let answer = http().request(method, format!("{}{path}", fake.url())).send().await.unwrap();
        assert_eq!(json!(answer.status().as_u16()), recorded["status"], "{asked}");
        if let Some(kind) = recorded.get("content_type").filter(|kind| *kind != "application/octet-stream") {
            assert_eq!(answer.headers()["content-type"], kind.as_str().unwrap(), "{asked}");
        }
        let text = answer.text().await.unwrap();
        let told = serde_json::from_str(&text).unwrap_or_else(|_| json!(text));
        if let Some(answer) = recorded.get("answer") {
            assert_eq!(&told, answer, "{asked}");
        }
    }
    for (path, body) in [("/free", json!(null)), ("/interrupt", json!([])), ("/queue", json!([]))] {
        assert_eq!(post(&fake, path, &body).await.status, 500, "{path}");
    }
}

#[tokio::test]
async fn history_is_cut_and_forgotten_as_asked() {
    let fake = FakeComfy::start().await;
    let mut ids = Vec::new();
    for seed in 1..=3 {
        ids.push(enqueue(&fake, &txt2img(seed)).await);
    }
    fake.until_idle().await;
    for (query, kept) in
        [("max_items=2", &ids[1..]), ("max_items=1&offset=1", &ids[1..2]), ("offset=0", &ids[..])]
    {
        let history = get(&fake, &format!("/history?{query}")).await;
        let mut kept = kept.to_vec();
        kept.sort();
        assert_eq!(history.as_object().unwrap().keys().cloned().collect::<Vec<_>>(), kept, "{query}");
    }
    post(&fake, "/history", &json!({"delete": [ids[0]]})).await;
    assert_eq!(get(&fake, &format!("/history/{}", ids[0])).await, json!({}));
    let jobs = get(&fake, "/api/jobs?limit=1&sort_order=asc").await;
    assert_eq!(jobs["pagination"], json!({"offset": 0, "limit": 1, "total": 2, "has_more": true}));
    post(&fake, "/history", &json!({"clear": true})).await;
    assert_eq!(get(&fake, "/history").await, json!({}));
    assert_eq!(fake.files().len(), 3, "files stay");
}

#[tokio::test]
async fn a_given_id_may_come_twice_and_the_later_run_overwrites_the_entry() {
    let fake = FakeComfy::start().await;
    let id = "8a78ad0b-6603-483f-83fb-0d1e5425ac53";
    for seed in [1, 2] {
        assert_eq!(enqueue_as(&fake, seed, json!({"prompt_id": id})).await, id);
    }
    fake.until_idle().await;
    assert_eq!(get(&fake, "/history").await.as_object().unwrap().len(), 1);
    assert_eq!(entry(&fake, id).await["outputs"]["9"]["images"][0]["filename"], "t2i_00002_.png");
}

#[tokio::test]
async fn a_null_workflow_breaks_the_list_of_jobs_for_everybody() {
    let fake = FakeComfy::start().await;
    let extra = json!({"extra_data": {"extra_pnginfo": {"workflow": null}, "api_key_comfy_org": "secret"}});
    let id = enqueue_as(&fake, 1, extra).await;
    fake.until_idle().await;
    for path in ["/api/jobs".to_owned(), format!("/api/jobs/{id}")] {
        assert_eq!(ask(&fake, Method::GET, &path, None).await.status, 500);
    }
    assert!(!entry(&fake, &id).await.to_string().contains("secret"));
}
