//! Who holds the slot, and until when.

use std::sync::mpsc;

use picture::Format;

use wire::openai::fields::FieldError;

use super::*;
use crate::images::{
    choice::ModelChoice,
    models::{EngineModel, SD_1},
};

fn job(steps: u32) -> Job {
    let model = Some(EngineModel::in_process("k", "n", &SD_1));
    Job {
        steps: Some(steps),
        ..Job::warm_up(ModelChoice {
            name: "n".into(),
            model,
            preset: None,
            loras: std::sync::Arc::default(),
        })
    }
}

fn spec(steps: u32) -> JobSpec<Vec<GeneratedImage>> {
    JobSpec { job: job(steps), decode: None, finish: Box::new(|images, _, _| Ok(images)) }
}

fn jobs() -> Jobs {
    Jobs::new(Engine::builtin(), 1, Lifecycle::new(), Metrics::default())
}

async fn until_free(jobs: &Jobs) {
    while jobs.slots().available() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_slot_is_free_once_the_response_is_read() {
    let jobs = jobs();
    let permit = jobs.slots().try_acquire().unwrap();
    let mut handle = jobs.start(spec(2), permit, "r".into());
    assert_eq!(jobs.slots().available(), 0);
    assert_eq!(handle.wait().await.unwrap().len(), 1);
    assert_eq!(jobs.slots().available(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_handle_cancels_the_job_and_frees_the_slot() {
    let jobs = jobs();
    let permit = jobs.slots().try_acquire().unwrap();
    drop(jobs.start(spec(150), permit, "r".into()));
    let start = tokio::time::Instant::now();
    until_free(&jobs).await;
    assert!(start.elapsed() < Duration::from_secs(1), "far less than the job's 3 s");
    assert_eq!(jobs.oldest_cancel_age(Instant::now()), None);
}

/// Work with a signal that it has started, and a sender whose drop ends it.
fn blocking<I: Send + 'static>()
-> (impl FnOnce(I) -> I + Send + 'static, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (started_tx, started_rx) = mpsc::channel();
    let (end_tx, end_rx) = mpsc::channel::<()>();
    let work = move |input| {
        started_tx.send(()).unwrap();
        let _ = end_rx.recv();
        input
    };
    (work, started_rx, end_tx)
}

#[tokio::test]
async fn the_slot_is_held_while_the_source_is_decoded_after_a_disconnect() {
    let jobs = jobs();
    let permit = jobs.slots().try_acquire().unwrap();
    let (decoding, started, end) = blocking::<Job>();
    let decode = DecodeStep { is_large: true, run: Box::new(|job, _| Ok(decoding(job))) };
    let handle = jobs.start(JobSpec { decode: Some(decode), ..spec(1) }, permit, "r".into());
    tokio::task::spawn_blocking(move || started.recv().unwrap()).await.unwrap();
    drop(handle);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(jobs.slots().available(), 0, "it is still being decoded");
    assert!(jobs.oldest_cancel_age(Instant::now()).is_some());
    drop(end);
    until_free(&jobs).await;
}

#[tokio::test]
async fn the_slot_is_held_while_the_response_is_encoded_after_a_disconnect() {
    let jobs = jobs();
    let permit = jobs.slots().try_acquire().unwrap();
    let (encoding, started, end) = blocking::<Vec<GeneratedImage>>();
    let finish: FinishFn<_> = Box::new(|images, _, _| Ok(encoding(images)));
    let handle = jobs.start(JobSpec { finish, ..spec(1) }, permit, "r".into());
    tokio::task::spawn_blocking(move || started.recv().unwrap()).await.unwrap();
    drop(handle);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(jobs.slots().available(), 0, "it is still being encoded");
    drop(end);
    until_free(&jobs).await;
}

#[tokio::test]
async fn an_undecodable_source_is_an_input_error_and_frees_the_slot() {
    let jobs = jobs();
    let permit = jobs.slots().try_acquire().unwrap();
    let decode =
        DecodeStep { is_large: false, run: Box::new(|_, _| Err(FieldError::new("image", "no image"))) };
    let mut handle = jobs.start(JobSpec { decode: Some(decode), ..spec(1) }, permit, "r".into());
    let rejected = JobError::Input(FieldError::new("image", "no image"));
    assert_eq!(handle.wait_decoded().await, Err(rejected.clone()));
    assert_eq!(jobs.slots().available(), 1);
    assert_eq!(handle.wait().await.unwrap_err(), rejected);
}

#[tokio::test]
async fn a_wrong_number_of_images_is_an_error() {
    let jobs = jobs();
    let (context, _) = JobContext::new();
    let run = JobRun::new(&jobs, &context, &job(1), "r");
    let image = GeneratedImage { bytes: bytes::Bytes::new(), format: Format::Png, seed: 1 };
    for (count, is_right) in [(0, false), (1, false), (2, true), (3, false)] {
        let (outcome_tx, outcome_rx) = oneshot::channel();
        outcome_tx.send(Ok(vec![image.clone(); count])).unwrap();
        let two = Job { seeds: vec![0, 1], ..job(1) };
        let response = run.response(outcome_rx, Arc::new(two), Box::new(|images, _, _| Ok(images.len())));
        match response.await {
            Ok(returned) => assert!(is_right && returned == count),
            Err(JobError::Engine(EngineError::Failed(message))) => {
                assert!(!is_right && message.contains("2 images were requested"), "{message}");
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_unusable_image_counts_as_a_failure_of_the_engine() {
    let jobs = jobs();
    for failures in 1..=3 {
        let finish: FinishFn<()> =
            Box::new(|_, _, _| Err(EngineError::Failed("its image is unusable".into())));
        let permit = jobs.slots().try_acquire().unwrap();
        let mut handle = jobs.start(JobSpec { job: job(1), decode: None, finish }, permit, "r".into());
        assert!(handle.wait().await.is_err());
        assert_eq!(
            (jobs.history().snapshot().failures, jobs.history().snapshot().last_success),
            (failures, None)
        );
    }
    let permit = jobs.slots().try_acquire().unwrap();
    jobs.start(spec(1), permit, "r".into()).wait().await.unwrap();
    assert_eq!(jobs.history().snapshot().failures, 0);
}
