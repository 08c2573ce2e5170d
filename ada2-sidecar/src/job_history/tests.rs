//! What is remembered of jobs, and what is not.

use super::*;
use crate::images::{
    choice::ModelChoice,
    models::{EngineModel, SD_1},
};

fn job(name: &str) -> Job {
    let model = Some(EngineModel::without_settings("k", name, &SD_1));
    Job::warm_up(ModelChoice { name: name.into(), model, preset: None })
}

fn ended(outcomes: &JobHistory, result: &JobOutcome) -> u32 {
    outcomes.record_result(result.as_ref().map(|_| ()));
    outcomes.snapshot().failures
}

#[test]
fn only_the_engines_own_failures_count_and_a_picture_ends_them() {
    let outcomes = JobHistory::default();
    let text = || "x".to_owned();
    for (result, failures) in [
        (Err(EngineError::Failed(text())), 1),
        (Err(EngineError::Interrupted(text())), 1),
        (Err(EngineError::Cancelled), 1),
        (Err(EngineError::ConnectionRefused(text())), 1),
        (Err(EngineError::Unresponsive(text())), 1),
        (Err(EngineError::QueueFull), 1),
        (Err(EngineError::OutOfMemory("out of memory".into())), 2),
        (Err(EngineError::UnexpectedResponse("other JSON".into())), 3),
    ] {
        assert_eq!(ended(&outcomes, &result), failures);
    }
    assert_eq!(outcomes.snapshot().last_failure.as_deref(), Some("other JSON"));
    assert_eq!(outcomes.snapshot().last_success, None);
    assert_eq!(ended(&outcomes, &Ok(Vec::new())), 0);
    assert!(outcomes.snapshot().last_success.is_some() && outcomes.snapshot().last_failure.is_none());
}

#[test]
fn what_is_usual_is_the_median_of_the_last_twenty_for_that_model_and_size() {
    let outcomes = JobHistory::default();
    let pace = |name: &str, size: u32, ms: u64| {
        let job = Job { size: Some(ImageSize::new(size, size)), ..job(name) };
        outcomes.record_timing(&job, Duration::from_millis(ms));
        outcomes.snapshot().step_timing.unwrap().median.map(|usual| usual.as_millis())
    };
    for ms in [10, 30, 20, 50, 40] {
        assert_eq!(pace("m", 512, ms), None, "too few");
    }
    assert_eq!(pace("m", 512, 900), Some(30));
    assert_eq!(pace("m", 1024, 900), None, "another size");
    assert_eq!(pace("other", 512, 900), None, "another model");
    for _ in 0..20 {
        pace("m", 512, 70);
    }
    assert_eq!(pace("m", 512, 70), Some(70), "older ones are forgotten");
    for model in 0..100 {
        pace(&model.to_string(), 512, 1);
    }
    assert_eq!(outcomes.lock().timings.len(), MAX_KEYS);
    assert_eq!(pace("m", 512, 70), None, "and models that nobody asks for");
}

fn at(picture: usize, within: f64) -> JobProgress {
    JobProgress { image_index: picture, image_fraction: within, ..JobProgress::default() }
}

#[tokio::test(start_paused = true)]
async fn what_lies_between_two_pictures_or_two_nodes_is_no_step() {
    let outcomes = JobHistory::default();
    let (sender, receiver) = watch::channel(JobProgress::default());
    let run = async {
        for picture in 0..4 {
            // Decoding, saving, the next session.
            tokio::time::sleep(Duration::from_secs(8)).await;
            for part in [0.0, 0.25, 0.5, 0.75, 1.0] {
                tokio::time::sleep(Duration::from_millis(100)).await;
                sender.send_replace(at(picture, part));
                tokio::task::yield_now().await;
            }
            // An upscaler's own steps.
            tokio::time::sleep(Duration::from_secs(8)).await;
            sender.send_replace(at(picture, 0.5));
            tokio::task::yield_now().await;
        }
        assert_eq!(outcomes.snapshot().generating, 1);
        Ok(Vec::new())
    };
    outcomes.track(&job("m"), receiver, run).await.unwrap();
    let seen = outcomes.snapshot();
    assert_eq!(seen.step_timing.unwrap().mean, Duration::from_millis(100));
    assert_eq!(seen.generating, 0);
}

#[tokio::test(start_paused = true)]
async fn a_job_of_few_steps_has_no_pace_however_many_pictures_it_makes() {
    for (steps, pictures, has) in [(1, 10, false), (3, 1, false), (2, 2, false), (4, 1, true), (3, 2, true)] {
        let outcomes = JobHistory::default();
        let (sender, receiver) = watch::channel(JobProgress::default());
        let run = async {
            for picture in 0..pictures {
                for step in 1..=steps {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    sender.send_replace(at(picture, f64::from(step) / f64::from(steps)));
                    tokio::task::yield_now().await;
                }
            }
            Ok(Vec::new())
        };
        outcomes.track(&job("m"), receiver, run).await.unwrap();
        assert_eq!(outcomes.snapshot().step_timing.is_some(), has, "{steps} steps, {pictures} pictures");
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_given_up_is_no_longer_worked_at() {
    let outcomes = JobHistory::default();
    let (sender, receiver) = watch::channel(JobProgress::default());
    let job = job("m");
    let run = outcomes.track(&job, receiver, async {
        sender.send_replace(at(0, 0.5));
        std::future::pending().await
    });
    assert!(tokio::time::timeout(Duration::from_secs(1), run).await.is_err());
    assert!(outcomes.snapshot().generating == 0 && outcomes.snapshot().generating_since.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_pace_is_of_steps_alone() {
    let outcomes = JobHistory::default();
    let (sender, receiver) = watch::channel(JobProgress::default());
    let run = async {
        // The model is loaded.
        tokio::time::sleep(Duration::from_mins(1)).await;
        for step in 1..=4_u32 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            // A report without news is no step.
            for _ in 0..2 {
                sender.send_replace(at(0, f64::from(step) / 4.0));
                tokio::task::yield_now().await;
            }
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        Ok(Vec::new())
    };
    let began = now();
    outcomes.track(&job("m"), receiver, run).await.unwrap();
    outcomes.record_result(Ok(()));
    let seen = outcomes.snapshot();
    assert_eq!(seen.step_timing.unwrap().mean, Duration::from_millis(100));
    assert_eq!(seen.generating_since.unwrap() - began, Duration::from_millis(60_100));
    assert_eq!(seen.last_success.unwrap() - began, Duration::from_millis(65_400));
}

#[tokio::test(start_paused = true)]
async fn a_job_of_one_step_has_no_pace() {
    let outcomes = JobHistory::default();
    let (sender, receiver) = watch::channel(JobProgress::default());
    let run = async {
        sender.send_replace(at(0, 1.0));
        tokio::task::yield_now().await;
        Err(EngineError::Cancelled)
    };
    assert_eq!(outcomes.track(&job("m"), receiver, run).await.unwrap_err(), EngineError::Cancelled);
    let seen = outcomes.snapshot();
    assert!(seen.step_timing.is_none() && seen.generating_since.is_some() && seen.failures == 0);
}
