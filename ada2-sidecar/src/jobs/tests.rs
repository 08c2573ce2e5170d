//! Whose the slot is, and until when.

use std::sync::mpsc;

use picture::Format;

use super::*;
use crate::images::{
    choice::ModelChoice,
    models::{EngineModel, SD_1},
};

fn job(steps: u32) -> Job {
    let model = Some(EngineModel::without_settings("k", "n", &SD_1));
    Job { steps: Some(steps), ..Job::warm_up(ModelChoice { name: "n".into(), model, preset: None }) }
}

fn work(steps: u32) -> JobSpec<Vec<GeneratedImage>> {
    JobSpec { job: job(steps), prepare: None, finish: Box::new(|pictures, _, _| Ok(pictures)) }
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
async fn the_slot_is_free_when_the_answer_is_read() {
    let jobs = jobs();
    let permit = jobs.slots().try_acquire().unwrap();
    let mut handle = jobs.start(work(2), permit, "r".into());
    assert_eq!(jobs.slots().available(), 0);
    assert_eq!(handle.wait().await.unwrap().len(), 1);
    assert_eq!(jobs.slots().available(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_handle_cancels_the_job_and_frees_the_slot() {
    let jobs = jobs();
    let permit = jobs.slots().try_acquire().unwrap();
    drop(jobs.start(work(150), permit, "r".into()));
    let start = tokio::time::Instant::now();
    until_free(&jobs).await;
    assert!(start.elapsed() < Duration::from_secs(1), "far less than the job's 3 s");
    assert_eq!(jobs.oldest_cancel_age(Instant::now()), None);
}

/// Work that has begun, and that ends when it is told to.
fn held<I: Send + 'static>() -> (impl FnOnce(I) -> I + Send + 'static, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (begun, has_begun) = mpsc::channel();
    let (end, ends) = mpsc::channel::<()>();
    let work = move |input| {
        begun.send(()).unwrap();
        let _ = ends.recv();
        input
    };
    (work, has_begun, end)
}

#[tokio::test]
async fn a_slot_is_taken_while_what_the_job_starts_from_is_decoded_though_nobody_waits() {
    let jobs = jobs();
    let permit = jobs.slots().try_acquire().unwrap();
    let (decoding, begun, end) = held::<Job>();
    let prepare = DecodeStep { is_large: true, decode: Box::new(|job, _| Ok(decoding(job))) };
    let handle = jobs.start(JobSpec { prepare: Some(prepare), ..work(1) }, permit, "r".into());
    tokio::task::spawn_blocking(move || begun.recv().unwrap()).await.unwrap();
    drop(handle);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(jobs.slots().available(), 0, "it is still being decoded");
    assert!(jobs.oldest_cancel_age(Instant::now()).is_some());
    drop(end);
    until_free(&jobs).await;
}

#[tokio::test]
async fn a_slot_is_taken_while_the_answer_is_encoded_though_nobody_waits() {
    let jobs = jobs();
    let permit = jobs.slots().try_acquire().unwrap();
    let (encoding, begun, end) = held::<Vec<GeneratedImage>>();
    let finish: FinishFn<_> = Box::new(|pictures, _, _| Ok(encoding(pictures)));
    let handle = jobs.start(JobSpec { finish, ..work(1) }, permit, "r".into());
    tokio::task::spawn_blocking(move || begun.recv().unwrap()).await.unwrap();
    drop(handle);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(jobs.slots().available(), 0, "it is still being encoded");
    drop(end);
    until_free(&jobs).await;
}

#[tokio::test]
async fn what_cannot_be_decoded_is_told_as_such_and_frees_the_slot() {
    let jobs = jobs();
    let permit = jobs.slots().try_acquire().unwrap();
    let prepare =
        DecodeStep { is_large: false, decode: Box::new(|_, _| Err(FieldError::new("image", "no picture"))) };
    let mut handle = jobs.start(JobSpec { prepare: Some(prepare), ..work(1) }, permit, "r".into());
    let refused = JobError::Input(FieldError::new("image", "no picture"));
    assert_eq!(handle.wait_prepared().await, Err(refused.clone()));
    assert_eq!(jobs.slots().available(), 1);
    assert_eq!(handle.wait().await.unwrap_err(), refused);
}

#[tokio::test]
async fn as_many_pictures_as_were_asked_for_or_an_error() {
    let jobs = jobs();
    let (desk, _) = JobContext::new();
    let course = JobRun::new(&jobs, &desk, &job(1), "r");
    let picture = GeneratedImage { bytes: bytes::Bytes::new(), format: Format::Png, seed: 1 };
    for (made, fits) in [(0, false), (1, false), (2, true), (3, false)] {
        let (tell, told) = oneshot::channel();
        tell.send(Ok(vec![picture.clone(); made])).unwrap();
        let two = Job { seeds: vec![0, 1], ..job(1) };
        let answer = course.answer(told, Arc::new(two), Box::new(|pictures, _, _| Ok(pictures.len())));
        match answer.await {
            Ok(answered) => assert!(fits && answered == made),
            Err(JobError::Engine(EngineError::Failed(words))) => {
                assert!(!fits && words.contains("2 pictures were asked for"), "{words}");
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_picture_that_cannot_be_used_proves_nothing_good_of_the_engine() {
    let jobs = jobs();
    for failures in 1..=3 {
        let finish: FinishFn<()> =
            Box::new(|_, _, _| Err(EngineError::Failed("its picture cannot be used".into())));
        let permit = jobs.slots().try_acquire().unwrap();
        let mut handle = jobs.start(JobSpec { job: job(1), prepare: None, finish }, permit, "r".into());
        assert!(handle.wait().await.is_err());
        assert_eq!(
            (jobs.outcomes().snapshot().failures, jobs.outcomes().snapshot().last_success),
            (failures, None)
        );
    }
    let permit = jobs.slots().try_acquire().unwrap();
    jobs.start(work(1), permit, "r".into()).wait().await.unwrap();
    assert_eq!(jobs.outcomes().snapshot().failures, 0);
}
