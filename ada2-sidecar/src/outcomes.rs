//! What became of the last pictures: failures in a row, the pace of steps, when the engine last worked. Written by jobs,
//! read by readiness; bounded, and of this process's time only.

use std::{
    collections::VecDeque,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use shared::openai::images::Size;
use tokio::sync::watch;

use crate::{
    engine::{EngineError, Outcome, Progress},
    images::{Job, Task},
};

/// Paces that the usual one is made of.
const REMEMBERED: usize = 20;
/// Fewer say nothing of what is usual.
const ENOUGH: usize = 5;
/// Pairs of model and size that are remembered; the one unused for longest is forgotten.
const KINDS: usize = 32;
/// Steps that a pace is at least the mean of: one or two may have waited for anything.
const FEWEST_STEPS: u32 = 3;

/// The record. Cheap to clone; all clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Outcomes(Arc<Mutex<Record>>);

#[derive(Debug, Default)]
struct Record {
    seen: Seen,
    /// Newest use last.
    paces: VecDeque<(Kind, VecDeque<Duration>)>,
}

/// What paces are compared within.
#[derive(Debug, Clone, PartialEq)]
struct Kind {
    model: String,
    size: Size,
    task: Task,
}

/// What is known of the last pictures.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Seen {
    /// Failures of the engine's own since a picture succeeded.
    pub failures: u32,
    /// The last of them, in the engine's words.
    pub failure: Option<String>,
    /// When a picture succeeded last.
    pub succeeded: Option<Instant>,
    /// When the engine began to paint last, as its first step shows.
    pub working: Option<Instant>,
    /// Jobs that the engine has taken a step of and has not ended.
    pub painting: u32,
    /// How long steps took in the last job that made some.
    pub pace: Option<Pace>,
}

/// How long a job's steps took.
#[derive(Debug, Clone, PartialEq)]
pub struct Pace {
    /// What the job was asked for as.
    pub model: String,
    /// Of the picture.
    pub size: Size,
    /// The mean of its steps.
    pub step: Duration,
    /// The median of up to 20 jobs before it for that model and size; absent where there were fewer than five.
    pub usual: Option<Duration>,
}

impl Outcomes {
    /// What is known now.
    pub fn seen(&self) -> Seen {
        self.record().seen.clone()
    }

    /// Runs the engine's part of a job, and remembers its pace.
    pub(crate) async fn follow(
        &self,
        job: &Job,
        mut progress: watch::Receiver<Progress>,
        run: impl Future<Output = Outcome>,
    ) -> Outcome {
        let mut run = pin!(run);
        let mut steps = Steps::default();
        let mut painting = None;
        let result = loop {
            tokio::select! {
                biased;
                result = run.as_mut() => break result,
                told = progress.changed() => {
                    if told.is_err() {
                        break run.as_mut().await;
                    }
                    let Progress { picture, within, .. } = *progress.borrow_and_update();
                    if steps.report(picture, within, now()) {
                        painting.get_or_insert_with(|| Painting::begin(self));
                    }
                }
            }
        };
        if let Some(step) = steps.pace() {
            self.paced(job, step);
        }
        result
    }

    fn paced(&self, job: &Job, step: Duration) {
        let kind = Kind { model: job.name.clone(), size: job.size, task: job.task() };
        let mut record = self.record();
        record.seen.pace = Some(record.pace(kind, step));
    }

    /// Remembers what came of a job: pictures that can be used, or why there are none.
    pub(crate) fn ended(&self, result: Result<(), &EngineError>) {
        let mut record = self.record();
        match result {
            Ok(()) => {
                record.seen.succeeded = Some(now());
                (record.seen.failures, record.seen.failure) = (0, None);
            }
            Err(error) if is_engines_own(error) => {
                record.seen.failures = record.seen.failures.saturating_add(1);
                record.seen.failure = Some(error.to_string());
            }
            Err(_) => {}
        }
    }

    fn record(&self) -> std::sync::MutexGuard<'_, Record> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a failure says that the engine does not work: a caller who left, a full queue and an engine that is not there
/// say nothing of that.
fn is_engines_own(error: &EngineError) -> bool {
    // An engine that a person stops, or starts anew, is none that fails by itself.
    matches!(error, EngineError::Failed(_) | EngineError::OutOfMemory(_) | EngineError::Strange(_))
}

impl Record {
    /// One more job's pace, beside those before it.
    fn pace(&mut self, kind: Kind, step: Duration) -> Pace {
        let known = self.paces.iter().position(|(known, _)| *known == kind);
        let (_, mut before) =
            known.and_then(|at| self.paces.remove(at)).unwrap_or((kind.clone(), VecDeque::new()));
        let usual = median(&before);
        before.push_back(step);
        if before.len() > REMEMBERED {
            before.pop_front();
        }
        self.paces.push_back((kind.clone(), before));
        if self.paces.len() > KINDS {
            self.paces.pop_front();
        }
        Pace { model: kind.model, size: kind.size, step, usual }
    }
}

fn median(paces: &VecDeque<Duration>) -> Option<Duration> {
    let mut sorted: Vec<_> = paces.iter().copied().collect();
    sorted.sort_unstable();
    (sorted.len() >= ENOUGH).then(|| sorted[sorted.len() / 2])
}

/// A job at which the engine is seen to work, until it ends or is given up.
struct Painting<'a>(&'a Outcomes);

impl<'a> Painting<'a> {
    fn begin(outcomes: &'a Outcomes) -> Self {
        let mut record = outcomes.record();
        record.seen.working = Some(now());
        record.seen.painting += 1;
        Self(outcomes)
    }
}

impl Drop for Painting<'_> {
    fn drop(&mut self) {
        self.0.record().seen.painting -= 1;
    }
}

/// The time between two steps of the same picture, summed up. What lies between two pictures (decoding, saving, loading
/// what comes next) is no step.
#[derive(Debug, Default)]
struct Steps {
    count: u32,
    took: Duration,
    last: Option<Step>,
}

#[derive(Debug, Clone, Copy)]
struct Step {
    picture: usize,
    within: f64,
    at: Instant,
}

impl Steps {
    /// One more report; whether it tells of a step.
    fn report(&mut self, picture: usize, within: f64, at: Instant) -> bool {
        let before = self.last.filter(|last| last.picture == picture);
        let unchanged = before.is_some_and(|before| (within - before.within).abs() < f64::EPSILON);
        if within <= 0.0 || unchanged {
            return false;
        }
        // Where it falls, another node of the graph begins.
        if let Some(before) = before.filter(|before| within > before.within) {
            self.count = self.count.saturating_add(1);
            self.took += at.saturating_duration_since(before.at);
        }
        self.last = Some(Step { picture, within, at });
        true
    }

    /// What came before the first step, loading and waiting, is none.
    fn pace(&self) -> Option<Duration> {
        (self.count >= FEWEST_STEPS).then(|| self.took / self.count)
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::catalog::Choice,
        models::{Base, EngineModel},
    };

    fn job(name: &str) -> Job {
        let model = Some(EngineModel::plain("k", name, Base::Sd1));
        Job::warm_up(Choice { name: name.into(), model, preset: None })
    }

    fn ended(outcomes: &Outcomes, result: &Outcome) -> u32 {
        outcomes.ended(result.as_ref().map(|_| ()));
        outcomes.seen().failures
    }

    #[test]
    fn only_the_engines_own_failures_count_and_a_picture_ends_them() {
        let outcomes = Outcomes::default();
        let text = || "x".to_owned();
        for (result, failures) in [
            (Err(EngineError::Failed(text())), 1),
            (Err(EngineError::Interrupted(text())), 1),
            (Err(EngineError::Cancelled), 1),
            (Err(EngineError::Refused(text())), 1),
            (Err(EngineError::NoAnswer(text())), 1),
            (Err(EngineError::QueueFull), 1),
            (Err(EngineError::OutOfMemory("out of memory".into())), 2),
            (Err(EngineError::Strange("other JSON".into())), 3),
        ] {
            assert_eq!(ended(&outcomes, &result), failures);
        }
        assert_eq!(outcomes.seen().failure.as_deref(), Some("other JSON"));
        assert_eq!(outcomes.seen().succeeded, None);
        assert_eq!(ended(&outcomes, &Ok(Vec::new())), 0);
        assert!(outcomes.seen().succeeded.is_some() && outcomes.seen().failure.is_none());
    }

    #[test]
    fn what_is_usual_is_the_median_of_the_last_twenty_for_that_model_and_size() {
        let outcomes = Outcomes::default();
        let pace = |name: &str, size: u32, ms: u64| {
            let job = Job { size: Size::new(size, size), ..job(name) };
            outcomes.paced(&job, Duration::from_millis(ms));
            outcomes.seen().pace.unwrap().usual.map(|usual| usual.as_millis())
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
        assert_eq!(outcomes.record().paces.len(), KINDS);
        assert_eq!(pace("m", 512, 70), None, "and models that nobody asks for");
    }

    fn at(picture: usize, within: f64) -> Progress {
        Progress { picture, within, ..Progress::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn what_lies_between_two_pictures_or_two_nodes_is_no_step() {
        let outcomes = Outcomes::default();
        let (sender, receiver) = watch::channel(Progress::default());
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
            assert_eq!(outcomes.seen().painting, 1);
            Ok(Vec::new())
        };
        outcomes.follow(&job("m"), receiver, run).await.unwrap();
        let seen = outcomes.seen();
        assert_eq!(seen.pace.unwrap().step, Duration::from_millis(100));
        assert_eq!(seen.painting, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_of_few_steps_has_no_pace_however_many_pictures_it_makes() {
        for (steps, pictures, has) in
            [(1, 10, false), (3, 1, false), (2, 2, false), (4, 1, true), (3, 2, true)]
        {
            let outcomes = Outcomes::default();
            let (sender, receiver) = watch::channel(Progress::default());
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
            outcomes.follow(&job("m"), receiver, run).await.unwrap();
            assert_eq!(outcomes.seen().pace.is_some(), has, "{steps} steps, {pictures} pictures");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_is_given_up_is_no_longer_worked_at() {
        let outcomes = Outcomes::default();
        let (sender, receiver) = watch::channel(Progress::default());
        let job = job("m");
        let run = outcomes.follow(&job, receiver, async {
            sender.send_replace(at(0, 0.5));
            std::future::pending().await
        });
        assert!(tokio::time::timeout(Duration::from_secs(1), run).await.is_err());
        assert!(outcomes.seen().painting == 0 && outcomes.seen().working.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pace_is_of_steps_alone() {
        let outcomes = Outcomes::default();
        let (sender, receiver) = watch::channel(Progress::default());
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
        outcomes.follow(&job("m"), receiver, run).await.unwrap();
        outcomes.ended(Ok(()));
        let seen = outcomes.seen();
        assert_eq!(seen.pace.unwrap().step, Duration::from_millis(100));
        assert_eq!(seen.working.unwrap() - began, Duration::from_millis(60_100));
        assert_eq!(seen.succeeded.unwrap() - began, Duration::from_millis(65_400));
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_of_one_step_has_no_pace() {
        let outcomes = Outcomes::default();
        let (sender, receiver) = watch::channel(Progress::default());
        let run = async {
            sender.send_replace(at(0, 1.0));
            tokio::task::yield_now().await;
            Err(EngineError::Cancelled)
        };
        assert_eq!(outcomes.follow(&job("m"), receiver, run).await.unwrap_err(), EngineError::Cancelled);
        let seen = outcomes.seen();
        assert!(seen.pace.is_none() && seen.working.is_some() && seen.failures == 0);
    }
}
