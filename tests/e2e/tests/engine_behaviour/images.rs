//! Images, and the ways in which they fail.

use fakes::{
    TestResponse,
    engine::{EngineFailure, EngineJob, FakeEngine, ImageBytes, RequestKind},
};
use picture::Format;
use serde_json::{Value, json};

use super::{request, start};

fn seeded_images(answer: &TestResponse) -> Vec<(u64, Vec<u8>)> {
    let images = answer.images();
    assert!(images.iter().all(|image| Format::detect(image) == Ok(Format::Png)));
    let seeds = answer.json["data"].as_array().unwrap().iter().map(|object| object["seed"].as_u64().unwrap());
    seeds.zip(images).collect()
}

pub(super) async fn seeds_count_up_and_the_same_seed_gives_the_same_image<E: FakeEngine>() {
    let (engine, sidecar) = start::<E>(|_| (), E::REPEATABLE).await;
    let request =
        json!({"model": "sd-v1-5", "prompt": "a red cat", "size": "128x64", "n": 3, "seed": 41, "steps": 2});
    let first = sidecar.generate(&request).await;
    assert_eq!((&first.json["size"], &first.json["output_format"]), (&json!("128x64"), &json!("png")));
    let first = seeded_images(&first);
    assert_eq!(first.iter().map(|(seed, _)| *seed).collect::<Vec<_>>(), [41, 42, 43]);
    assert!(first[0].1 != first[1].1 && first[1].1 != first[2].1);
    assert_eq!(seeded_images(&sidecar.generate(&request).await), first);
    engine.delete_images();
    let third = seeded_images(&sidecar.generate(&request).await);
    assert_eq!(third, first, "never an old file from the engine's cache");
    let seeds: Vec<_> = engine.jobs().iter().map(|job| job.seed).collect();
    assert_eq!(seeds, [41, 42, 43].repeat(3), "a job for each image");
}

pub(super) async fn a_submission_shares_its_connection_with_no_other_request<E: FakeEngine>() {
    let (engine, sidecar) = start::<E>(|_| (), &[]).await;
    for _ in 0..3 {
        assert_eq!(sidecar.generate(&request()).await.status, 200);
    }
    let requests = engine.requests();
    let submissions = engine.requests_of(RequestKind::Submit);
    assert_eq!(submissions.len(), 3);
    for submission in submissions {
        let sharing = requests.iter().filter(|request| request.connection == submission.connection);
        assert_eq!(sharing.count(), 1);
    }
}

pub(super) async fn a_failed_job_is_reported_with_the_engines_message_and_the_rest_is_cancelled<
    E: FakeEngine,
>() {
    let (engine, sidecar) = start::<E>(|_| (), &[]).await;
    let message = "No such file: /srv/engine/models/x.safetensors\nTraceback (most)";
    engine.change(|engine| engine.fail(Some(EngineFailure::new("FileNotFoundError", message))));
    let answer =
        sidecar.generate(&json!({"prompt": "a secret prompt", "size": "64x64", "n": 2, "steps": 2})).await;
    assert_eq!((answer.status, answer.code()), (502, "engine_error"));
    assert_eq!(answer.header("x-should-retry"), "false");
    assert_eq!(answer.message(), "The engine could not make the image: No such file: [path].");
    assert_eq!(answer.json["detail"], answer.json["error"]["message"]);
    engine.until_idle().await;
    assert!(engine.jobs().iter().all(EngineJob::is_over), "the second image was cancelled");
    sidecar.until_inflight(0).await;
}

pub(super) async fn running_out_of_memory_frees_the_engines_memory<E: FakeEngine>() {
    let (engine, sidecar) = start::<E>(|engine| engine.fail(Some(E::out_of_memory())), &[]).await;
    let answer = sidecar.generate(&request()).await;
    assert_eq!((answer.status, answer.code()), (503, "gpu_out_of_memory"));
    assert_eq!((answer.header("retry-after"), answer.header("x-should-retry")), ("10", "false"));
    assert!(answer.message().contains("CUDA out of memory"), "{}", answer.message());
    assert!(!answer.message().contains("TIPS"), "{}", answer.message());
    assert!(!engine.requests_of(RequestKind::FreeMemory).is_empty());
}

pub(super) async fn a_truncated_image_or_a_web_page_is_refused<E: FakeEngine>() {
    let (engine, sidecar) = start::<E>(|_| (), &[]).await;
    for bytes in [ImageBytes::CutOff, ImageBytes::Hollow, ImageBytes::Html] {
        engine.change(|engine| engine.serve_images(bytes));
        let answer = sidecar.generate(&request()).await;
        assert_eq!((answer.status, answer.code()), (502, "engine_error"), "{bytes:?}");
        assert!(answer.message().contains("image cannot be used"), "{}", answer.message());
    }
}

pub(super) async fn a_missing_completion_event_is_recovered_from<E: FakeEngine>() {
    let (engine, sidecar) = start::<E>(E::withhold_completions, &[]).await;
    let request = request();
    let (answer, ()) = tokio::join!(sidecar.generate(&request), async {
        engine.until_jobs(|jobs| jobs.iter().any(EngineJob::is_over)).await;
        engine.drop_sockets();
    });
    assert_eq!(answer.status, 200, "{answer:?}");
}

pub(super) async fn concurrent_requests_get_their_own_images<E: FakeEngine>() {
    let (_engine, sidecar) = start::<E>(|_| (), E::REPEATABLE).await;
    let generate = async |seed: u64| {
        let request: Value = json!({"prompt": "a", "size": "64x64", "n": 2, "seed": seed, "steps": 2});
        seeded_images(&sidecar.generate(&request).await)
    };
    let (first, second, third) = tokio::join!(generate(1), generate(100), generate(1));
    assert_eq!((first[0].0, first[1].0, second[0].0, second[1].0), (1, 2, 100, 101));
    assert_eq!(first, third);
    assert_ne!(first[0].1, second[0].1);
}
