//! `X-On-Disconnect: finish`: jobs that outlive their client.

use e2e::sidecar::Sidecar;
use fakes::{
    TestResponse,
    engine::{EngineJob, Fake, FakeEngine, JobState},
    sse::SseReader,
    upstream::fake_image,
};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use wire::openai::images::ImageSize;

use super::{ours_is, request, start};

fn finish(sidecar: &Sidecar, path: &str, body: &Value) -> RequestBuilder {
    let request = fakes::http().post(format!("{}{path}", sidecar.url));
    let request = request.header("content-type", "application/json").header("x-on-disconnect", "finish");
    request.body(body.to_string())
}

/// Requests images, and disconnects once their job runs and the client's stream has begun; returns when the sidecar has
/// noticed: only the request and its job are left.
async fn leave<E: FakeEngine>(engine: &Fake<E>, sidecar: &Sidecar, request: RequestBuilder) {
    let before = sidecar.lifecycle.inflight();
    let stay = async {
        let answer = request.send().await.unwrap();
        answer.bytes().await.unwrap()
    };
    tokio::select! {
        answer = stay => panic!("held jobs do not end: {answer:?}"),
        () = engine.until_jobs(ours_is(JobState::Running)) => {}
    }
    fakes::eventually("the disconnect is noticed", async || {
        (sidecar.lifecycle.inflight() == before + 2).then_some(())
    })
    .await;
}

fn edit() -> Value {
    let image = base64_simd::STANDARD.encode_to_string(fake_image("p", 7, ImageSize::new(64, 64)));
    json!({"prompt": "a", "steps": 2, "images": [{"image_url": format!("data:image/png;base64,{image}")}]})
}

fn streamed(mut body: Value) -> Value {
    body["stream"] = true.into();
    body["partial_images"] = 2.into();
    body
}

async fn until_completed<E: FakeEngine>(engine: &Fake<E>, sidecar: &Sidecar) {
    engine.change(|engine| engine.hold(false));
    engine.until_jobs(ours_is(JobState::Completed)).await;
    sidecar.until_inflight(0).await;
}

pub(super) async fn a_job_that_is_to_finish_outlives_its_client<E: FakeEngine>() {
    for (path, body) in [
        ("/v1/images/generations", request()),
        ("/v1/images/generations", streamed(request())),
        ("/v1/images/edits", edit()),
        ("/v1/images/edits", streamed(edit())),
    ] {
        let (engine, sidecar) = start::<E>(|engine| engine.hold(true), &["--max-inflight", "1"]).await;
        leave(&engine, &sidecar, finish(&sidecar, path, &body)).await;
        let busy = sidecar.generate(&request()).await;
        assert_eq!((busy.status, busy.code()), (429, "backend_overloaded"), "the slot is held");
        until_completed(&engine, &sidecar).await;
        assert!(engine.cancels().is_empty(), "{path}: {:?}", engine.cancels());
        assert_eq!(sidecar.generate(&request()).await.status, 200);
    }
}

pub(super) async fn a_client_that_is_to_get_a_finished_job_gets_it<E: FakeEngine>() {
    let (_engine, sidecar) = start::<E>(|_| (), &[]).await;
    let path = "/v1/images/generations";
    let answer = finish(&sidecar, path, &request()).send().await.unwrap();
    assert_eq!(TestResponse::read(answer).await.images().len(), 1);
    let events = SseReader::new(finish(&sidecar, path, &streamed(request())).send().await.unwrap());
    let events = events.rest().await;
    assert_eq!(events.last().unwrap()["type"], "image_generation.completed");
    let refused =
        finish(&sidecar, path, &request()).header("x-on-disconnect", "cancel").send().await.unwrap();
    let refused = TestResponse::read(refused).await;
    assert_eq!((refused.status, refused.code()), (400, "invalid_value"), "both");
    assert_eq!(refused.json["error"]["param"], "X-On-Disconnect");
}

pub(super) async fn a_job_without_a_client_ends_at_its_time_limit<E: FakeEngine>() {
    for body in [request(), streamed(request())] {
        let (engine, sidecar) = start::<E>(|engine| engine.hold(true), &[]).await;
        let request =
            finish(&sidecar, "/v1/images/generations", &body).header("x-request-timeout-ms", "3000");
        leave(&engine, &sidecar, request).await;
        engine.until_jobs(ours_is(JobState::Cancelled)).await;
        sidecar.until_inflight(0).await;
    }
}

pub(super) async fn draining_finishes_a_job_without_a_client<E: FakeEngine>() {
    for body in [request(), streamed(request())] {
        let (engine, sidecar) = start::<E>(|engine| engine.hold(true), &[]).await;
        leave(&engine, &sidecar, finish(&sidecar, "/v1/images/generations", &body)).await;
        let released = async { engine.change(|engine| engine.hold(false)) };
        tokio::join!(sidecar.stop(), released);
        assert!(engine.jobs().iter().all(|job: &EngineJob| job.state == JobState::Completed));
    }
}

pub(super) async fn a_job_without_a_client_that_outlasts_the_shutdown_grace_is_cancelled_in_the_engine<
    E: FakeEngine,
>() {
    let (engine, sidecar) = start::<E>(|engine| engine.hold(true), &["--shutdown-grace", "200ms"]).await;
    leave(&engine, &sidecar, finish(&sidecar, "/v1/images/generations", &request())).await;
    sidecar.stop().await;
    engine.until_jobs(ours_is(JobState::Cancelled)).await;
    engine.until_idle().await;
}
