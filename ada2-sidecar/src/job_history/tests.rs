use super::*;
use crate::images::{
    SourceImages,
    choice::ModelChoice,
    models::{EngineLora, EngineModel, LoraUse, SD_1},
};

fn job(name: &str) -> Job {
    let model = Some(EngineModel::in_process("k", name, &SD_1));
    Job::warm_up(ModelChoice { name: name.into(), model, preset: None, loras: std::sync::Arc::default() })
}

fn record(history: &JobHistory, result: &JobOutcome) -> u32 {
    history.record_result(result.as_ref().map(|_| ()));
    history.snapshot().failures
}

#[test]
fn only_failures_of_the_engine_count_and_a_success_resets_them() {
    let history = JobHistory::default();
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
        assert_eq!(record(&history, &result), failures);
    }
    assert_eq!(history.snapshot().last_failure.as_deref(), Some("other JSON"));
    assert_eq!(history.snapshot().last_success, None);
    assert_eq!(record(&history, &Ok(Vec::new())), 0);
    assert!(history.snapshot().last_success.is_some() && history.snapshot().last_failure.is_none());
}

#[test]
fn the_median_is_over_the_last_twenty_jobs_of_that_model_and_size() {
    let history = JobHistory::default();
    let median = |name: &str, size: u32, ms: u64| {
        let job = Job { size: Some(ImageSize::new(size, size)), ..job(name) };
        history.record_timing(&job, Duration::from_millis(ms));
        history.snapshot().step_timing.unwrap().median.map(|median| median.as_millis())
    };
    for ms in [10, 30, 20, 50, 40] {
        assert_eq!(median("m", 512, ms), None, "too few");
    }
    assert_eq!(median("m", 512, 900), Some(30));
    assert_eq!(median("m", 1024, 900), None, "another size");
    assert_eq!(median("other", 512, 900), None, "another model");
    for _ in 0..20 {
        median("m", 512, 70);
    }
    assert_eq!(median("m", 512, 70), Some(70), "older jobs are dropped");
    for model in 0..100 {
        median(&model.to_string(), 512, 1);
    }
    assert_eq!(history.lock().timings.len(), MAX_KEYS);
    assert_eq!(median("m", 512, 70), None, "so are models that are not used");
}

#[test]
fn jobs_with_other_numbers_of_source_images_or_loras_are_not_compared() {
    let source = |count| SourceImages { images: vec!["p".into(); count], mask: None };
    let lora = EngineLora {
        key: "l".into(),
        name: "l".into(),
        family: None,
        variant: None,
        handle: serde_json::Value::Null,
    };
    let lora = LoraUse { lora, weight: 1.0 };
    let edit = |images, loras| {
        let source = Some(std::sync::Arc::new(source(images)));
        TimingKey::of(&Job { source, loras: vec![lora.clone(); loras], task: Task::Edit, ..job("m") })
    };
    assert_eq!(edit(1, 1), edit(1, 1));
    assert_ne!(edit(1, 0), edit(10, 0));
    assert_ne!(edit(1, 0), edit(1, 2));
}

fn at(image_index: usize, image_fraction: f64) -> JobProgress {
    JobProgress { image_index, image_fraction, ..JobProgress::default() }
}

#[tokio::test(start_paused = true)]
async fn time_between_two_images_or_two_nodes_does_not_count() {
    let history = JobHistory::default();
    let (sender, receiver) = watch::channel(JobProgress::default());
    let run = async {
        for image in 0..4 {
            // Decoding, saving, the next session.
            tokio::time::sleep(Duration::from_secs(8)).await;
            for fraction in [0.0, 0.25, 0.5, 0.75, 1.0] {
                tokio::time::sleep(Duration::from_millis(100)).await;
                sender.send_replace(at(image, fraction));
                tokio::task::yield_now().await;
            }
            // An upscaler's own steps.
            tokio::time::sleep(Duration::from_secs(8)).await;
            sender.send_replace(at(image, 0.5));
            tokio::task::yield_now().await;
        }
        assert_eq!(history.snapshot().generating, 1);
        Ok(Vec::new())
    };
    history.track(&job("m"), receiver, run).await.unwrap();
    let snapshot = history.snapshot();
    assert_eq!(snapshot.step_timing.unwrap().mean, Duration::from_millis(100));
    assert_eq!(snapshot.generating, 0);
}

#[tokio::test(start_paused = true)]
async fn a_job_of_few_steps_has_no_step_time_however_many_images_it_makes() {
    for (steps, images, has_timing) in
        [(1, 10, false), (3, 1, false), (2, 2, false), (4, 1, true), (3, 2, true)]
    {
        let history = JobHistory::default();
        let (sender, receiver) = watch::channel(JobProgress::default());
        let run = async {
            for image in 0..images {
                for step in 1..=steps {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    sender.send_replace(at(image, f64::from(step) / f64::from(steps)));
                    tokio::task::yield_now().await;
                }
            }
            Ok(Vec::new())
        };
        history.track(&job("m"), receiver, run).await.unwrap();
        assert_eq!(history.snapshot().step_timing.is_some(), has_timing, "{steps} steps, {images} images");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_job_is_no_longer_generating() {
    let history = JobHistory::default();
    let (sender, receiver) = watch::channel(JobProgress::default());
    let job = job("m");
    let run = history.track(&job, receiver, async {
        sender.send_replace(at(0, 0.5));
        std::future::pending().await
    });
    assert!(tokio::time::timeout(Duration::from_secs(1), run).await.is_err());
    assert!(history.snapshot().generating == 0 && history.snapshot().generating_since.is_some());
}

#[tokio::test(start_paused = true)]
async fn only_steps_count_and_reports_without_news_do_not() {
    let history = JobHistory::default();
    let (sender, receiver) = watch::channel(JobProgress::default());
    let run = async {
        // The engine loads the model.
        tokio::time::sleep(Duration::from_mins(1)).await;
        for step in 1..=4_u32 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            for _ in 0..2 {
                sender.send_replace(at(0, f64::from(step) / 4.0));
                tokio::task::yield_now().await;
            }
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        Ok(Vec::new())
    };
    let start = now();
    history.track(&job("m"), receiver, run).await.unwrap();
    history.record_result(Ok(()));
    let snapshot = history.snapshot();
    assert_eq!(snapshot.step_timing.unwrap().mean, Duration::from_millis(100));
    assert_eq!(snapshot.generating_since.unwrap() - start, Duration::from_millis(60_100));
    assert_eq!(snapshot.last_success.unwrap() - start, Duration::from_millis(65_400));
}

#[tokio::test(start_paused = true)]
async fn a_job_of_one_step_has_no_step_time() {
    let history = JobHistory::default();
    let (sender, receiver) = watch::channel(JobProgress::default());
    let run = async {
        sender.send_replace(at(0, 1.0));
        tokio::task::yield_now().await;
        Err(EngineError::Cancelled)
    };
    assert_eq!(history.track(&job("m"), receiver, run).await.unwrap_err(), EngineError::Cancelled);
    let snapshot = history.snapshot();
    assert!(snapshot.step_timing.is_none() && snapshot.generating_since.is_some() && snapshot.failures == 0);
}
