//! Tests of the registry of image requests: who sees and cancels which, and how each ends.

use super::*;

const ALL: &dyn Fn(Option<&str>) -> bool = &|_| true;
/// Longer than what is kept of it.
const PROMPT: &str = include_str!("tests.rs");

fn new_job(request_id: &str, owner: &str) -> NewJob<'static> {
    NewJob {
        request_id: request_id.to_owned(),
        owner: Some(owner.to_owned()),
        token: Some(owner.to_owned()),
        task: "generate",
        prompt: Some(PROMPT),
        n: 1,
        ..NewJob::default()
    }
}

fn error() -> JobError {
    JobError { status: 503, code: Some("backend_not_ready".to_owned()), message: "no".to_owned() }
}

fn ids(jobs: &ImageJobs, sees: &dyn Fn(Option<&str>) -> bool) -> Vec<String> {
    jobs.visible(sees).into_iter().map(|job| job.id).collect()
}

#[test]
fn a_job_shows_how_it_goes_and_how_it_ended() {
    let jobs = ImageJobs::default();
    let mut changes = jobs.changes();
    let guard = jobs.begin(new_job("a", "alice"));
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    guard.set_model(Some("sd"));
    guard.set_progress(0.25);
    assert!(changes.has_changed().unwrap());
    let [running] = &jobs.visible(ALL)[..] else { panic!("one job") };
    assert_eq!((running.state, running.progress), (JobState::Running, Some(0.25)));
    assert_eq!(running.prompt.as_deref(), Some(&PROMPT[..200]));
    assert_eq!((running.model.as_deref(), running.ended_at), (Some("sd"), None));
    guard.complete(vec!["x.png".to_owned()]);
    changes.mark_unchanged();
    guard.fail(error());
    drop(guard);
    assert!(!changes.has_changed().unwrap(), "only the first end counts");
    let done = &jobs.visible(ALL)[0];
    assert_eq!(
        (done.state, &done.pictures[..], &done.error),
        (JobState::Done, &["x.png".to_owned()][..], &None)
    );
    assert!(done.ended_at >= Some(done.started_at));
    let json = serde_json::to_value(done).unwrap();
    assert_eq!((&json["state"], &json["n"]), (&"done".into(), &1.into()));
    assert!(json.get("size").is_none() && json.get("error").is_none(), "{json}");
}

#[test]
fn a_job_that_is_dropped_or_was_to_be_cancelled_is_cancelled_and_any_other_failed() {
    let jobs = ImageJobs::default();
    drop(jobs.begin(new_job("dropped", "alice")));
    jobs.begin(new_job("failed", "alice")).fail(error());
    let guard = jobs.begin(new_job("asked", "alice"));
    assert!(jobs.cancel("asked", ALL) && guard.cancelled().is_cancelled());
    guard.fail(error());
    let ends: Vec<_> = jobs.visible(ALL).into_iter().map(|job| (job.state, job.error)).collect();
    let expected =
        [(JobState::Cancelled, None), (JobState::Failed, Some(error())), (JobState::Cancelled, None)];
    assert_eq!(ends, expected);
}

#[test]
fn a_job_is_either_cancelled_or_its_images_are_stored() {
    let jobs = ImageJobs::default();
    let storing = jobs.begin(new_job("storing", "alice"));
    assert!(storing.begin_storing());
    assert!(!jobs.cancel("storing", ALL) && !storing.cancelled().is_cancelled(), "too late");
    let cancelled = jobs.begin(new_job("cancelled", "alice"));
    assert!(jobs.cancel("cancelled", ALL) && !cancelled.begin_storing());
}

#[test]
fn a_panic_is_a_failure_and_no_cancellation() {
    let jobs = ImageJobs::default();
    let guard = jobs.begin(new_job("a", "alice"));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _guard = guard;
        panic!("a bug");
    }));
    assert!(panicked.is_err());
    let job = &jobs.visible(ALL)[0];
    let code = job.error.as_ref().and_then(|error| error.code.as_deref());
    assert_eq!((job.state, code), (JobState::Failed, Some("internal_error")));
}

#[test]
fn cancelling_reaches_the_running_jobs_of_this_id_that_the_caller_sees() {
    let jobs = ImageJobs::default();
    let [first, second, other] =
        [("a", "alice"), ("a", "alice"), ("b", "alice")].map(|(id, owner)| jobs.begin(new_job(id, owner)));
    let of_bob = jobs.begin(new_job("a", "bob"));
    assert!(!jobs.cancel("c", ALL), "no such job");
    assert!(!jobs.cancel("b", &|owner| owner == Some("bob")), "another owner's");
    assert!(jobs.cancel("a", &|owner| owner == Some("alice")));
    let cancelled = [&first, &second, &other, &of_bob].map(|job| job.cancelled().is_cancelled());
    assert_eq!(cancelled, [true, true, false, false]);
    drop((first, second));
    assert!(!jobs.cancel("a", &|owner| owner == Some("alice")), "they have ended");
}

#[tokio::test(start_paused = true)]
async fn an_ended_job_is_kept_for_ten_minutes_and_a_running_one_as_long_as_it_runs() {
    let jobs = ImageJobs::default();
    let running = jobs.begin(new_job("running", "alice"));
    drop(jobs.begin(new_job("ended", "alice")));
    tokio::time::sleep(KEPT.checked_sub(Duration::from_secs(1)).unwrap()).await;
    assert_eq!(ids(&jobs, ALL), ["ended", "running"]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(ids(&jobs, ALL), ["running"]);
    drop(running);
    assert_eq!(ids(&jobs, ALL), ["running"], "it has just ended");
}

#[tokio::test(start_paused = true)]
async fn ended_jobs_are_bounded_per_owner_and_in_all_and_those_that_ended_first_go_first() {
    let jobs = ImageJobs::default();
    let late = jobs.begin(new_job("late", "alice"));
    let running: Vec<_> = (0..60).map(|_| jobs.begin(new_job("running", "alice"))).collect();
    for index in 0..MAX_ENDED_PER_OWNER {
        tokio::time::sleep(Duration::from_millis(1)).await;
        drop(jobs.begin(new_job(&index.to_string(), "alice")));
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    drop(late);
    let all = ids(&jobs, ALL);
    assert_eq!(all.len(), running.len() + MAX_ENDED_PER_OWNER);
    assert!(
        all.contains(&"late".to_owned()) && all.contains(&"1".to_owned()) && !all.contains(&"0".to_owned())
    );
    for owner in 0..20 {
        for _ in 0..MAX_ENDED_PER_OWNER {
            drop(jobs.begin(new_job("x", &owner.to_string())));
        }
    }
    assert_eq!(jobs.visible(ALL).len(), running.len() + MAX_ENDED);
    assert!(jobs.visible(&|owner| owner == Some("19")).len() == MAX_ENDED_PER_OWNER, "the newest stay");
}
