//! The image requests that are running, and those that ended within the last ten minutes: what the page shows, and how a
//! request is cancelled by its id. In memory only; a restart forgets them.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
    time::{Duration, SystemTime},
};

use serde::Serialize;
use service::{
    clock::unix_seconds_f64,
    error_response::ErrorResponse,
    sync::{Mutex, MutexGuard},
    text::prefix,
};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

/// How long an ended job is kept.
const KEPT: Duration = Duration::from_mins(10);
const MAX_ENDED: usize = 500;
const MAX_ENDED_PER_OWNER: usize = 50;
const MAX_PROMPT_CHARS: usize = 200;

/// The registry. Cheap to clone; all clones are the same, across reloads.
#[derive(Debug, Clone, Default)]
pub(crate) struct ImageJobs(Arc<Registry>);

#[derive(Debug, Default)]
struct Registry {
    table: Mutex<JobTable>,
    /// Counts the changes.
    changes: watch::Sender<u64>,
}

/// A request that has been read.
#[derive(Debug, Clone, Default)]
pub(crate) struct NewJob<'a> {
    /// Its `X-Request-Id`, which the client chooses: several may have the same.
    pub(crate) request_id: String,
    /// The owner of its images; none where no token is required.
    pub(crate) owner: Option<String>,
    /// The name of its token.
    pub(crate) token: Option<String>,
    /// `generate`, `edit` or `inpaint`.
    pub(crate) task: &'static str,
    pub(crate) model: Option<String>,
    /// None if prompts are not to be kept.
    pub(crate) prompt: Option<&'a str>,
    /// How many images it asks for.
    pub(crate) n: u64,
    /// `WIDTHxHEIGHT`, if it asks for one.
    pub(crate) size: Option<String>,
    /// What cancels its work.
    pub(crate) cancel: CancellationToken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum JobState {
    Running,
    /// The images are stored.
    Done,
    Failed,
    /// By request, or because the client disconnected.
    Cancelled,
}

/// Why a job failed, as the client was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct JobError {
    pub(crate) status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<String>,
    pub(crate) message: String,
}

impl JobError {
    pub(crate) fn from_response(response: &ErrorResponse) -> Self {
        Self {
            status: response.status.as_u16(),
            code: response.body["error"]["code"].as_str().map(str::to_owned),
            message: response.message().to_owned(),
        }
    }
}

/// A job as clients see it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct JobView {
    /// The request's id.
    pub(crate) id: String,
    pub(crate) task: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) model: Option<String>,
    /// Its first 200 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prompt: Option<String>,
    pub(crate) n: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) size: Option<String>,
    /// The name of the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
    /// Unix seconds.
    pub(crate) started_at: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ended_at: Option<f64>,
    pub(crate) state: JobState,
    /// From 0 to 1, if the backend reports it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) progress: Option<f64>,
    /// The names of its stored images.
    pub(crate) pictures: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<JobError>,
}

impl ImageJobs {
    /// Registers a request as running. The guard says how it goes and how it ends.
    pub(crate) fn begin(&self, new: NewJob<'_>) -> JobGuard {
        let cancel = new.cancel.clone();
        let job = Job {
            owner: new.owner,
            cancel: new.cancel,
            is_storing: false,
            ended: None,
            view: JobView {
                id: new.request_id,
                task: new.task,
                model: new.model,
                prompt: new.prompt.map(|prompt| prefix(prompt, MAX_PROMPT_CHARS).to_owned()),
                n: new.n,
                size: new.size,
                token: new.token,
                started_at: unix_seconds_f64(SystemTime::now()),
                ended_at: None,
                state: JobState::Running,
                progress: None,
                pictures: Vec::new(),
                error: None,
            },
        };
        let key = self.lock().insert(job);
        self.announce();
        JobGuard { jobs: self.clone(), key, cancel }
    }

    /// The jobs of the owners that `sees` lets through, newest first.
    pub(crate) fn visible(&self, sees: &dyn Fn(Option<&str>) -> bool) -> Vec<JobView> {
        let mut table = self.lock();
        table.forget(Instant::now());
        let visible = table.jobs.values().rev().filter(|job| sees(job.owner.as_deref()));
        visible.map(|job| job.view.clone()).collect()
    }

    /// Cancels every running job with this id, of the owners that `sees` lets through; false if there is none. A job whose images
    /// are being stored is no longer cancelled.
    pub(crate) fn cancel(&self, request_id: &str, sees: &dyn Fn(Option<&str>) -> bool) -> bool {
        let table = self.lock();
        let can_be_cancelled = |job: &&Job| job.ended.is_none() && !job.is_storing;
        let is_meant = |job: &&Job| job.view.id == request_id && sees(job.owner.as_deref());
        let meant = table.jobs.values().filter(can_be_cancelled).filter(is_meant);
        // Under the lock, so that none of them begins to store its images meanwhile.
        meant.inspect(|job| job.cancel.cancel()).count() > 0
    }

    /// Its value changes whenever a job begins, gets on or ends.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    fn announce(&self) {
        self.0.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn lock(&self) -> MutexGuard<'_, JobTable> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running job. Dropped before it has ended, it counts as cancelled: the client has disconnected.
#[derive(Debug)]
pub(crate) struct JobGuard {
    jobs: ImageJobs,
    key: u64,
    cancel: CancellationToken,
}

impl JobGuard {
    /// Cancelled when somebody asks to cancel the job.
    pub(crate) fn cancelled(&self) -> &CancellationToken {
        &self.cancel
    }

    /// The model that the backend is asked for, once it is known.
    pub(crate) fn set_model(&self, model: Option<&str>) {
        self.update(|view| view.model = model.map(str::to_owned));
    }

    /// What is done, from 0 to 1.
    pub(crate) fn set_progress(&self, fraction: f64) {
        self.update(|view| view.progress = Some(fraction));
    }

    /// The images are about to be stored: from now on nobody can cancel the job. False if somebody has.
    pub(crate) fn begin_storing(&self) -> bool {
        let mut table = self.jobs.lock();
        let may_store = !self.cancel.is_cancelled();
        if let Some(job) = table.running(self.key) {
            job.is_storing = may_store;
        }
        may_store
    }

    /// The images are stored under these names.
    pub(crate) fn complete(&self, pictures: Vec<String>) {
        self.end(JobState::Done, |view| view.pictures = pictures);
    }

    /// The request failed; cancelled, if somebody asked for that.
    pub(crate) fn fail(&self, error: JobError) {
        self.end(JobState::Failed, |view| view.error = Some(error));
    }

    fn update(&self, change: impl FnOnce(&mut JobView)) {
        if let Some(job) = self.jobs.lock().running(self.key) {
            change(&mut job.view);
        }
        self.jobs.announce();
    }

    /// Only the first end counts.
    fn end(&self, state: JobState, change: impl FnOnce(&mut JobView)) {
        let now = Instant::now();
        let mut table = self.jobs.lock();
        let Some(job) = table.running(self.key) else { return };
        job.ended = Some(now);
        job.view.ended_at = Some(unix_seconds_f64(SystemTime::now()));
        // Under the lock, as whoever cancels it is told that it was running.
        if state == JobState::Failed && self.cancel.is_cancelled() {
            job.view.state = JobState::Cancelled;
        } else {
            job.view.state = state;
            change(&mut job.view);
        }
        let owner = job.owner.clone();
        table.forget(now);
        table.forget_oldest(MAX_ENDED_PER_OWNER, |job| job.owner == owner);
        table.forget_oldest(MAX_ENDED, |_| true);
        drop(table);
        self.jobs.announce();
    }
}

impl Drop for JobGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.fail(JobError::from_response(&ErrorResponse::internal()));
        } else {
            self.end(JobState::Cancelled, |_| {});
        }
    }
}

#[derive(Debug, Default)]
struct JobTable {
    last_key: u64,
    /// In the order in which they began.
    jobs: BTreeMap<u64, Job>,
}

#[derive(Debug)]
struct Job {
    owner: Option<String>,
    view: JobView,
    cancel: CancellationToken,
    /// Its images are being stored.
    is_storing: bool,
    ended: Option<Instant>,
}

impl JobTable {
    fn insert(&mut self, job: Job) -> u64 {
        self.last_key += 1;
        self.jobs.insert(self.last_key, job);
        self.last_key
    }

    fn running(&mut self, key: u64) -> Option<&mut Job> {
        self.jobs.get_mut(&key).filter(|job| job.ended.is_none())
    }

    /// Removes what ended too long ago.
    fn forget(&mut self, now: Instant) {
        self.jobs.retain(|_, job| job.ended.is_none_or(|ended| now.duration_since(ended) < KEPT));
    }

    /// Removes the jobs that ended first until at most `limit` ended ones are left of those that count.
    fn forget_oldest(&mut self, limit: usize, counts: impl Fn(&Job) -> bool) {
        let ended = self.jobs.iter().filter(|(_, job)| counts(job));
        let mut ended: Vec<_> = ended.filter_map(|(key, job)| Some((job.ended?, *key))).collect();
        let excess = ended.len().saturating_sub(limit);
        ended.sort_unstable();
        for (_, key) in &ended[..excess] {
            self.jobs.remove(key);
        }
    }
}

#[cfg(test)]
mod tests;
