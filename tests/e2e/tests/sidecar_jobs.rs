//! Who holds the slot, and what becomes of jobs that nobody waits for.

use std::time::{Duration, Instant};

use e2e::sidecar::Sidecar;
use fakes::invokeai::{FakeInvoke, InvokeScript, ItemStatus, QueueItem};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

async fn both(script: impl FnOnce(&mut InvokeScript), flags: &[&str]) -> (FakeInvoke, Sidecar) {
    let fake = FakeInvoke::start().await;
    fake.script(script);
    let sidecar = Sidecar::invokeai(&fake.url(), flags).await;
    sidecar.until_ready().await;
    fake.until_followed(1).await;
    (fake, sidecar)
}

fn picture() -> Value {
    json!({"prompt": "a", "size": "64x64"})
}

fn ours(item: &QueueItem) -> bool {
    item.destination.as_deref().is_some_and(|destination| destination.starts_with("ada2-sidecar-"))
}

fn is(status: ItemStatus) -> impl Fn(&[QueueItem]) -> bool {
    move |items| items.iter().any(|item| ours(item) && item.status == status)
}

#[tokio::test]
async fn a_caller_who_leaves_takes_exactly_his_own_job_with_him() {
    let (fake, sidecar) = both(|script| script.hold = true, &[]).await;
    let request = picture();
    {
        let waiting = sidecar.generate(&request);
        tokio::select! {
            answer = waiting => panic!("held jobs do not end: {answer:?}"),
            () = fake.until(is(ItemStatus::InProgress)) => {}
        }
    }
    let left = Instant::now();
    let stranger = fake.foreign_job();
    fake.until(is(ItemStatus::Canceled)).await;
    assert!(left.elapsed() < Duration::from_secs(5), "{:?}", left.elapsed());
    fake.until(|items| items.iter().any(|item| item.id == stranger && item.status == ItemStatus::InProgress))
        .await;
    sidecar.until_inflight(0).await;
    let batch = fake.items().into_iter().find(|item| item.id == stranger).unwrap().batch_id;
    assert!(fake.cancels().iter().all(|cancel| !String::from_utf8_lossy(&cancel.body).contains(&batch)));
    assert_eq!(fake.cancels().len(), 1, "{:?}", fake.cancels());
}

#[tokio::test]
async fn a_job_that_still_waits_is_taken_out_of_the_queue_and_the_one_that_runs_is_left_alone() {
    let (fake, sidecar) = both(|script| script.hold = true, &[]).await;
    let stranger = fake.foreign_job();
    fake.until(|items| items.iter().any(|item| item.id == stranger && item.status == ItemStatus::InProgress))
        .await;
    let request = picture();
    {
        let waiting = sidecar.generate(&request);
        tokio::select! {
            answer = waiting => panic!("held jobs do not end: {answer:?}"),
            () = fake.until(is(ItemStatus::Pending)) => {}
        }
    }
    fake.until(is(ItemStatus::Canceled)).await;
    sidecar.until_inflight(0).await;
    let items = fake.items();
    assert_eq!(items.iter().find(|item| item.id == stranger).unwrap().status, ItemStatus::InProgress);
}

#[tokio::test]
async fn the_slot_is_held_until_the_engine_has_let_go_of_a_cancelled_job() {
    let forever = Duration::from_hours(1);
    let (fake, sidecar) = both(
        |script| {
            script.hold = true;
            script.cancel_tail = forever;
        },
        &["--max-inflight", "1"],
    )
    .await;
    let request = picture();
    {
        let waiting = sidecar.generate(&request);
        tokio::select! {
            answer = waiting => panic!("held jobs do not end: {answer:?}"),
            () = fake.until(is(ItemStatus::InProgress)) => {}
        }
    }
    fake.until(is(ItemStatus::Canceled)).await;
    fakes::eventually("the engine is asked again and again whether it has let go", async || {
        let asked = fake.requests().into_iter().filter(|seen| seen.path.contains("/b/")).count();
        (asked >= 3).then_some(())
    })
    .await;
    let busy = sidecar.generate(&request).await;
    assert_eq!((busy.status, busy.code()), (429, "backend_overloaded"), "the step still runs on the GPU");
    assert_eq!(busy.header("retry-after"), "5");
    fake.script(|script| {
        script.hold = false;
        script.cancel_tail = Duration::ZERO;
    });
    sidecar.until_inflight(0).await;
    assert_eq!(sidecar.generate(&request).await.status, 200);
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_answered_in_time_and_its_job_cancelled() {
    let (fake, sidecar) = both(|script| script.hold = true, &[]).await;
    let start = Instant::now();
    let url = format!("{}/v1/images/generations", sidecar.url);
    let request = fakes::http()
        .post(url)
        .header("content-type", "application/json")
        .header("x-request-timeout-ms", "300");
    let answer = fakes::TestResponse::read(request.body(picture().to_string()).send().await.unwrap()).await;
    assert_eq!((answer.status, answer.code()), (504, "engine_timeout"));
    assert_eq!(answer.header("x-should-retry"), "false");
    assert!(start.elapsed() < Duration::from_secs(5));
    fake.until(is(ItemStatus::Canceled)).await;
    sidecar.until_inflight(0).await;
}

#[tokio::test]
async fn a_job_whose_enqueue_answer_was_lost_is_found_by_its_tag_and_cancelled() {
    let (fake, sidecar) = both(
        |script| {
            script.hold = true;
            script.lose_enqueue_answer = true;
        },
        &[],
    )
    .await;
    let answer = sidecar.generate(&picture()).await;
    assert_eq!((answer.status, answer.code()), (503, "engine_unavailable"));
    assert_eq!(answer.header("x-should-retry"), "false");
    fake.until(is(ItemStatus::Canceled)).await;
    sidecar.until_inflight(0).await;
    let stranger = fake.foreign_job();
    assert_eq!(
        fake.requests().iter().filter(|seen| seen.path.ends_with("enqueue_batch")).count(),
        1,
        "never sent twice"
    );
    fake.until(|items| items.iter().any(|item| item.id == stranger && item.status == ItemStatus::InProgress))
        .await;
}

#[tokio::test]
async fn what_an_earlier_process_left_behind_is_cancelled_before_readiness() {
    let fake = FakeInvoke::start().await;
    fake.script(|script| script.hold = true);
    let state = fakes::fresh_folder("left-behind");
    std::fs::write(state.join("instance"), "7f0f8b6e-2a52-4b64-9c8b-0d6a3c1d9e11\npid 1\n").unwrap();
    let left: Value = serde_json::from_str(include_str!("../../fixtures/invokeai/stranger.json")).unwrap();
    for destination in ["ada2-sidecar-7f0f8b6e-2a52-4b64-9c8b-0d6a3c1d9e11", "ada2-sidecar-of-another-host"] {
        let mut batch = left.clone();
        batch["batch"]["destination"] = json!(destination);
        let url = format!("{}/api/v1/queue/default/enqueue_batch", fake.url());
        assert_eq!(fakes::post(&url, &batch).await.status, 200);
    }
    let stranger = fake.foreign_job();
    let sidecar = Sidecar::start_in(state, &["--engine", "invokeai", "--engine-url", &fake.url()]).await;
    sidecar.until_ready().await;
    let items = fake.items();
    assert_eq!(items[0].status, ItemStatus::Canceled, "ours");
    assert!(
        items[1..].iter().all(|item| item.status != ItemStatus::Canceled),
        "of another instance, of a person"
    );
    assert_eq!(items.last().unwrap().id, stranger);
}

#[tokio::test]
async fn an_engine_killed_in_mid_job_ends_the_request_frees_the_slot_and_finds_no_leftovers_on_its_return() {
    let (fake, sidecar) = both(|script| script.hold = true, &[]).await;
    let request = json!({"prompt": "a", "size": "64x64", "n": 2});
    let (answer, killed) = tokio::join!(sidecar.generate(&request), async {
        fake.until(is(ItemStatus::InProgress)).await;
        fake.stop().await;
        Instant::now()
    });
    assert!(killed.elapsed() < Duration::from_secs(4), "{:?}", killed.elapsed());
    assert_eq!((answer.status, answer.code()), (503, "engine_unavailable"));
    let check = sidecar.until_fails("engine_reachable").await;
    assert!(check.message.contains("nothing listens"), "{}", check.message);
    assert!(sidecar.readyz().await.checks.iter().any(|check| check.observed.starts_with("0 of 4")));
    fake.restart();
    sidecar.until_ready().await;
    assert!(
        !fake.items().iter().any(|item| matches!(item.status, ItemStatus::Pending | ItemStatus::InProgress))
    );
    fake.script(|script| script.hold = false);
    assert_eq!(sidecar.generate(&picture()).await.status, 200, "no restart of ours was needed");
}

#[tokio::test]
async fn draining_finishes_what_runs_and_admits_nothing_new() {
    let (fake, sidecar) = both(|script| script.hold = true, &[]).await;
    let request = picture();
    let (answer, ()) = tokio::join!(sidecar.generate(&request), async {
        fake.until(is(ItemStatus::InProgress)).await;
        sidecar.lifecycle.begin_drain();
        fakes::eventually("no new connections", async || {
            fakes::http().get(format!("{}/healthz", sidecar.url)).send().await.is_err().then_some(())
        })
        .await;
        fake.script(|script| script.hold = false);
    });
    assert_eq!(answer.status, 200, "{answer:?}");
    sidecar.stop().await;
}

/// As in a restart under load: the connection is there, its request not yet.
#[tokio::test]
async fn a_request_of_somebody_who_connected_before_the_drain_is_served() {
    let (_fake, sidecar) = both(|_| {}, &[]).await;
    let connected = |some: bool| (some == (sidecar.lifecycle.inflight() > 0)).then_some(());
    fakes::eventually("nobody is connected", async || connected(false)).await;
    let mut stream = TcpStream::connect(sidecar.url.trim_start_matches("http://")).await.unwrap();
    fakes::eventually("accepted", async || connected(true)).await;
    sidecar.lifecycle.begin_drain();
    fakes::eventually("no new connections", async || {
        fakes::http().get(format!("{}/healthz", sidecar.url)).send().await.is_err().then_some(())
    })
    .await;
    let body = picture().to_string();
    let head = format!(
        "POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    fakes::bounded("an answer", stream.read_to_end(&mut answer)).await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{}", answer.lines().next().unwrap_or_default());
    sidecar.stop().await;
}

#[tokio::test]
async fn when_the_grace_is_over_what_still_runs_is_cancelled_in_the_engine() {
    let (fake, sidecar) = both(|script| script.hold = true, &["--shutdown-grace", "200ms"]).await;
    let request = picture();
    {
        let waiting = sidecar.generate(&request);
        tokio::pin!(waiting);
        tokio::select! {
            answer = &mut waiting => panic!("held jobs do not end: {answer:?}"),
            () = fake.until(is(ItemStatus::InProgress)) => {}
        }
        sidecar.lifecycle.begin_drain();
        fake.until(is(ItemStatus::Canceled)).await;
    }
    sidecar.stop().await;
    fake.until_idle().await;
}
