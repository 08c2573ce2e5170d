//! Streams: previews, the image, errors, and the end.

use std::time::Duration;

use e2e::sidecar::Sidecar;
use fakes::{
    engine::{EngineFailure, FakeEngine, JobState},
    sse::SseReader,
};
use picture::Format;
use serde_json::{Value, json};

use super::{ours_is, start};

/// Asks for a stream, with these fields besides.
pub(crate) async fn stream(sidecar: &Sidecar, fields: Value) -> SseReader {
    let mut body = json!({"prompt": "a", "size": "64x64", "stream": true});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let request = fakes::http().post(format!("{}/v1/images/generations", sidecar.url));
    let request = request.header("content-type", "application/json").body(body.to_string());
    SseReader::new(request.send().await.unwrap())
}

pub(crate) fn format_of(event: &Value) -> Format {
    Format::detect(&fakes::decode_image(event)).unwrap()
}

/// Two previews in this format and the image, each with its fields.
pub(crate) fn assert_two_previews_and_the_image(events: &[Value], preview: Format) {
    let types: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    let partial = "image_generation.partial_image";
    assert_eq!(types, [partial, partial, "image_generation.completed"]);
    for (nth, event) in events[..2].iter().enumerate() {
        assert_eq!((&event["partial_image_index"], format_of(event)), (&json!(nth), preview));
    }
    let last = &events[2];
    assert_eq!(
        (format_of(last), &last["seed"], &last["usage"]["total_tokens"]),
        (Format::Png, &json!(7), &json!(0))
    );
    for event in events {
        assert!(event["created_at"].is_u64());
        assert_eq!(
            (&event["size"], &event["quality"], &event["background"]),
            (&json!("64x64"), &json!("medium"), &json!("opaque"))
        );
    }
}

pub(super) async fn previews_arrive_as_the_engine_makes_them_and_then_the_image<E: FakeEngine>() {
    let job_time = Duration::from_millis(200);
    let (_engine, sidecar) = start::<E>(|engine| engine.set_job_time(job_time), &[]).await;
    let events = stream(&sidecar, json!({"steps": 8, "partial_images": 2, "seed": 7})).await.rest().await;
    assert_two_previews_and_the_image(&events, E::PREVIEW);
}

pub(super) async fn a_failure_in_mid_stream_is_an_event_that_sdks_raise<E: FakeEngine>() {
    let failure = EngineFailure::new("RuntimeError", "the model is broken");
    let (_engine, sidecar) = start::<E>(|engine| engine.fail(Some(failure)), &[]).await;
    let events = stream(&sidecar, json!({"steps": 4})).await.rest().await;
    let error = &events[0]["error"];
    assert_eq!(
        (events.len(), &events[0]["type"], &error["code"]),
        (1, &json!("error"), &json!("engine_error"))
    );
    assert!(error["message"].as_str().unwrap().contains("the model is broken"), "{error}");
    assert!(error["type"].is_string() && error.as_object().unwrap().contains_key("param"));
}

pub(super) async fn a_stream_timeout_is_an_error_event_and_cancels_its_job<E: FakeEngine>() {
    let (engine, sidecar) = start::<E>(|engine| engine.hold(true), &["--request-timeout", "1s"]).await;
    let events = stream(&sidecar, json!({"steps": 4})).await.rest().await;
    assert_eq!(events[0]["error"]["code"], "engine_timeout");
    engine.until_jobs(|jobs| jobs[0].state == JobState::Cancelled).await;
    sidecar.until_inflight(0).await;
}

pub(super) async fn a_client_that_disconnects_from_its_stream_cancels_its_job<E: FakeEngine>() {
    let (engine, sidecar) = start::<E>(|engine| engine.hold(true), &[]).await;
    let foreign = engine.foreign_job().to_string();
    let events = stream(&sidecar, json!({"steps": 4, "partial_images": 3})).await;
    engine.until_jobs(|jobs| jobs.len() == 2).await;
    drop(events);
    engine.until_jobs(ours_is(JobState::Cancelled)).await;
    sidecar.until_inflight(0).await;
    assert_ne!(engine.job(&foreign).state, JobState::Cancelled);
}
