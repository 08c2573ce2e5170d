//! How long a slot is held, what becomes of jobs without a client, and that jobs of others are never touched.

use std::time::{Duration, Instant};

use e2e::sidecar::Sidecar;
use fakes::{
    TestResponse,
    engine::{EngineJob, Fake, FakeEngine, JobState, RequestKind},
    process::EngineRequest,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{ours_is, request, start};

/// Asks for an image, and disconnects once the engine's jobs are so.
pub(crate) async fn disconnect_when<E: FakeEngine>(
    engine: &Fake<E>,
    sidecar: &Sidecar,
    request: &Value,
    jobs: impl Fn(&[EngineJob]) -> bool,
) {
    tokio::select! {
        answer = sidecar.generate(request) => panic!("held jobs do not end: {answer:?}"),
        () = engine.until_jobs(jobs) => {}
    }
}

async fn until_running<E: FakeEngine>(engine: &Fake<E>, id: &str) {
    engine.until_jobs(|jobs| jobs.iter().any(|job| job.id == id && job.state == JobState::Running)).await;
}

pub(super) async fn a_client_that_disconnects_cancels_its_own_job_and_no_other<E: FakeEngine>() {
    let (engine, sidecar) = start::<E>(|engine| engine.hold(true), &[]).await;
    disconnect_when(&engine, &sidecar, &request(), ours_is(JobState::Running)).await;
    let disconnected = Instant::now();
    let foreign = engine.foreign_job().to_string();
    engine.until_jobs(ours_is(JobState::Cancelled)).await;
    assert!(disconnected.elapsed() < Duration::from_secs(5), "{:?}", disconnected.elapsed());
    until_running(&engine, &foreign).await;
    sidecar.until_inflight(0).await;
    let key = engine.job(&foreign).cancelled_by;
    let names_it = |cancel: &EngineRequest| {
        cancel.path.contains(&key) || String::from_utf8_lossy(&cancel.body).contains(&key)
    };
    assert!(!engine.cancels().is_empty() && !engine.cancels().iter().any(names_it), "{:?}", engine.cancels());
}

pub(super) async fn cancelling_a_waiting_job_leaves_the_running_one_alone<E: FakeEngine>() {
    let (engine, sidecar) = start::<E>(|engine| engine.hold(true), &[]).await;
    let foreign = engine.foreign_job().to_string();
    until_running(&engine, &foreign).await;
    disconnect_when(&engine, &sidecar, &request(), ours_is(JobState::Pending)).await;
    engine.until_jobs(ours_is(JobState::Cancelled)).await;
    sidecar.until_inflight(0).await;
    assert_eq!(engine.job(&foreign).state, JobState::Running);
}

pub(super) async fn the_slot_is_held_until_the_engine_has_stopped_a_cancelled_job<E: FakeEngine>() {
    let held = |engine: &mut E| {
        engine.hold(true);
        engine.set_cancel_delay(Duration::from_hours(1));
    };
    let (engine, sidecar) = start::<E>(held, &["--max-inflight", "1"]).await;
    disconnect_when(&engine, &sidecar, &request(), ours_is(JobState::Running)).await;
    fakes::eventually("the engine is told to stop it and then polled", async || {
        let queries = engine.requests_of(RequestKind::JobStatus).len();
        (!engine.cancels().is_empty() && queries >= 3).then_some(())
    })
    .await;
    let busy = sidecar.generate(&request()).await;
    assert_eq!((busy.status, busy.code()), (429, "backend_overloaded"), "it still runs on the GPU");
    assert_eq!(busy.header("retry-after"), "5");
    engine.change(|engine| {
        engine.hold(false);
        engine.set_cancel_delay(Duration::ZERO);
    });
    sidecar.until_inflight(0).await;
    assert_eq!(sidecar.generate(&request()).await.status, 200);
}

pub(super) async fn a_request_timeout_is_answered_in_time_and_cancels_its_job<E: FakeEngine>() {
    let (engine, sidecar) = start::<E>(|engine| engine.hold(true), &[]).await;
    let start = Instant::now();
    let url = format!("{}/v1/images/generations", sidecar.url);
    let post = fakes::http().post(url).header("content-type", "application/json");
    let post = post.header("x-request-timeout-ms", "300").body(request().to_string());
    let answer = TestResponse::read(post.send().await.unwrap()).await;
    assert_eq!((answer.status, answer.code()), (504, "engine_timeout"));
    assert_eq!(answer.header("x-should-retry"), "false");
    assert!(start.elapsed() < Duration::from_secs(5));
    engine.until_jobs(ours_is(JobState::Cancelled)).await;
    engine.until_idle().await;
    sidecar.until_inflight(0).await;
}

pub(super) async fn a_job_whose_answer_was_lost_is_found_and_cancelled<E: FakeEngine>() {
    let lossy = |engine: &mut E| {
        engine.hold(true);
        engine.lose_next_answer();
    };
    let (engine, sidecar) = start::<E>(lossy, &[]).await;
    let answer = sidecar.generate(&request()).await;
    assert_eq!((answer.status, answer.code()), (503, "engine_unavailable"));
    assert_eq!(answer.header("x-should-retry"), "false");
    engine.until_jobs(ours_is(JobState::Cancelled)).await;
    sidecar.until_inflight(0).await;
    assert_eq!(engine.requests_of(RequestKind::Submit).len(), 1, "never sent twice");
    let foreign = engine.foreign_job().to_string();
    until_running(&engine, &foreign).await;
}

pub(super) async fn jobs_of_an_earlier_process_are_cancelled_before_readiness<E: FakeEngine>() {
    const INSTANCE: &str = "7f0f8b6e-2a52-4b64-9c8b-0d6a3c1d9e11";
    let engine = Fake::<E>::start().await;
    engine.change(|engine| engine.hold(true));
    let state_dir = fakes::fresh_dir("left-behind");
    std::fs::write(state_dir.join("instance"), format!("{INSTANCE}\npid 1\n")).unwrap();
    let ours = format!("ada2-sidecar-{INSTANCE}");
    for tag in [&ours, &ours, "ada2-sidecar-of-another-host"] {
        engine.submit_as(tag).await;
    }
    let foreign = engine.foreign_job().to_string();
    engine.until_jobs(|jobs| jobs[0].state == JobState::Running).await;
    let flags = ["--engine", E::NAME, "--engine-url", &engine.url()];
    let sidecar = Sidecar::start_in(state_dir, &flags).await;
    sidecar.until_ready().await;
    assert_eq!(engine.jobs()[1].state, JobState::Cancelled, "the one that waited");
    engine.until_jobs(|jobs| jobs[..2].iter().all(|job| job.state == JobState::Cancelled)).await;
    engine.until_jobs(|jobs| jobs[2].state == JobState::Running).await;
    assert_eq!(engine.job(&foreign).state, JobState::Pending, "of another instance, of a person");
}

pub(super) async fn an_engine_killed_in_mid_job_ends_the_request_and_frees_the_slot<E: FakeEngine>() {
    let (engine, sidecar) = start::<E>(|engine| engine.hold(true), &[]).await;
    let two = json!({"prompt": "a", "size": "64x64", "n": 2, "steps": 2});
    let (answer, killed) = tokio::join!(sidecar.generate(&two), async {
        engine.until_jobs(ours_is(JobState::Running)).await;
        engine.stop().await;
        Instant::now()
    });
    assert!(killed.elapsed() < Duration::from_secs(4), "{:?}", killed.elapsed());
    assert_eq!((answer.status, answer.code()), (503, "engine_unavailable"));
    let check = sidecar.until_fails("engine_reachable").await;
    assert!(check.message.contains("nothing listens"), "{}", check.message);
    assert!(sidecar.readyz().await.checks.iter().any(|check| check.observed.starts_with("0 of 4")));
    engine.restart();
    sidecar.until_ready().await;
    assert!(engine.jobs().iter().all(EngineJob::is_over), "none is left when the engine is back");
    engine.change(|engine| engine.hold(false));
    assert_eq!(sidecar.generate(&request()).await.status, 200, "no restart of ours was needed");
}

pub(super) async fn jobs_run_in_request_order<E: FakeEngine>() {
    let (engine, sidecar) = start::<E>(|engine| engine.hold(true), &[]).await;
    let request = |seed: u64| json!({"prompt": "a", "size": "64x64", "steps": 2, "seed": seed});
    let (first, second, third) = (request(3), request(1), request(2));
    let (first, second, third, ()) = tokio::join!(
        sidecar.generate(&first),
        async {
            engine.until_jobs(|jobs| jobs.len() == 1).await;
            sidecar.generate(&second).await
        },
        async {
            engine.until_jobs(|jobs| jobs.len() == 3).await;
            sidecar.generate(&third).await
        },
        async {
            engine.until_jobs(|jobs| jobs.len() == 2).await;
            engine.foreign_job();
            engine.until_jobs(|jobs| jobs.len() == 4).await;
            engine.change(|engine| engine.hold(false));
        },
    );
    assert_eq!([first.status, second.status, third.status], [200; 3]);
    let mut jobs: Vec<_> = engine.jobs().into_iter().filter(EngineJob::is_ours).collect();
    jobs.sort_by_key(|job| job.finished);
    assert_eq!(jobs.iter().map(|job| job.seed).collect::<Vec<_>>(), [3, 1, 2]);
    engine.until_idle().await;
    assert!(engine.jobs().iter().all(|job| job.state == JobState::Completed), "the other's too");
}

pub(super) async fn draining_finishes_running_jobs_and_admits_none<E: FakeEngine>() {
    let (engine, sidecar) = start::<E>(|engine| engine.hold(true), &[]).await;
    let request = request();
    let (answer, ()) = tokio::join!(sidecar.generate(&request), async {
        engine.until_jobs(ours_is(JobState::Running)).await;
        sidecar.lifecycle.begin_drain();
        fakes::eventually("no new connections", async || {
            fakes::http().get(format!("{}/healthz", sidecar.url)).send().await.is_err().then_some(())
        })
        .await;
        engine.change(|engine| engine.hold(false));
    });
    assert_eq!(answer.status, 200, "{answer:?}");
    sidecar.stop().await;
}

/// As in a restart under load.
pub(super) async fn a_request_on_a_connection_from_before_the_drain_is_served<E: FakeEngine>() {
    let (_engine, sidecar) = start::<E>(|_| (), &[]).await;
    let connected = |some: bool| (some == (sidecar.lifecycle.inflight() > 0)).then_some(());
    fakes::eventually("nobody is connected", async || connected(false)).await;
    let mut stream = TcpStream::connect(sidecar.url.trim_start_matches("http://")).await.unwrap();
    fakes::eventually("accepted", async || connected(true)).await;
    sidecar.lifecycle.begin_drain();
    fakes::eventually("no new connections", async || {
        fakes::http().get(format!("{}/healthz", sidecar.url)).send().await.is_err().then_some(())
    })
    .await;
    let body = request().to_string();
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

pub(super) async fn jobs_that_outlast_the_shutdown_grace_are_cancelled_in_the_engine<E: FakeEngine>() {
    let (engine, sidecar) = start::<E>(|engine| engine.hold(true), &["--shutdown-grace", "200ms"]).await;
    let request = request();
    {
        let waiting = sidecar.generate(&request);
        tokio::pin!(waiting);
        tokio::select! {
            answer = &mut waiting => panic!("held jobs do not end: {answer:?}"),
            () = engine.until_jobs(ours_is(JobState::Running)) => {}
        }
        sidecar.lifecycle.begin_drain();
        engine.until_jobs(ours_is(JobState::Cancelled)).await;
    }
    sidecar.stop().await;
    engine.until_idle().await;
}
