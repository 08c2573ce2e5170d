//! The events of one stream: which of them are due, by what was sent before.

use std::{collections::BTreeMap, fmt::Write};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::readiness;
use crate::{app::App, health::state::Health, middleware::auth::Caller, routes::status};

/// In ticks: 15 seconds.
const KEEP_ALIVE_TICKS: u64 = 120;
/// In ticks: a quarter of a second between two events with jobs, whose progress may come far more often.
const JOBS_TICKS: u64 = 2;
/// An event with many jobs is followed by a longer pause: they take at most 128 KiB a second.
const JOBS_BYTES_PER_TICK: usize = 16 << 10;

/// What one client gets.
pub(super) struct Feed {
    app: App,
    caller: Caller,
    ticks: u64,
    status: Snapshot,
    readiness: Snapshot,
    images_health: Option<watch::Receiver<Health>>,
    jobs: Snapshot,
    job_changes: watch::Receiver<u64>,
    /// The tick from which on jobs may be sent again.
    jobs_due: u64,
    /// How many samples of each class were sent, or had expired before.
    seen_samples: BTreeMap<String, u64>,
}

/// An event with a state of which only the newest is of interest.
#[derive(Debug, Default)]
struct Snapshot {
    /// What matters in it, as last sent.
    sent: Option<Value>,
}

impl Snapshot {
    /// Whether what matters has changed; counts it as sent.
    fn replace(&mut self, new: &Value) -> bool {
        let is_changed = self.sent.as_ref() != Some(new);
        if is_changed {
            self.sent = Some(new.clone());
        }
        is_changed
    }
}

impl Feed {
    pub(super) fn new(app: App, caller: Caller) -> Self {
        let (job_changes, images_health) =
            (app.jobs.changes(), app.health.subscribe(&app.config.images.class));
        Self {
            app,
            caller,
            ticks: 0,
            status: Snapshot::default(),
            readiness: Snapshot::default(),
            images_health,
            jobs: Snapshot::default(),
            job_changes,
            jobs_due: 0,
            seen_samples: BTreeMap::new(),
        }
    }

    /// What is due at this tick; empty if nothing is.
    pub(super) fn next(&mut self) -> Bytes {
        let mut out = String::new();
        if self.ticks == 0 {
            push(&mut out, "hello", &self.hello());
        }
        let state = status::state(&self.app, &self.caller);
        if self.status.replace(&state) {
            push(&mut out, "status", &status::with_readings(&self.app, state));
        }
        if let Some(readiness) = self.changed_readiness() {
            push(&mut out, "readiness", &readiness);
        }
        for (class, samples) in self.app.health.new_samples(&mut self.seen_samples) {
            push(&mut out, "samples", &json!({"class": class, "samples": samples}));
        }
        if let Some(jobs) = self.changed_jobs() {
            let before = out.len();
            push(&mut out, "jobs", &jobs);
            self.jobs_due = self.ticks + pause_after(out.len() - before);
        }
        if self.ticks > 0 && self.ticks.is_multiple_of(KEEP_ALIVE_TICKS) {
            out.push_str(": keep-alive\n\n");
        }
        self.ticks += 1;
        out.into()
    }

    /// The readiness of the images backend, if it has changed.
    fn changed_readiness(&mut self) -> Option<Value> {
        let has_news = |health: &watch::Receiver<Health>| health.has_changed().unwrap_or(false);
        if self.ticks > 0 && !self.images_health.as_ref().is_some_and(has_news) {
            return None;
        }
        let images = &self.app.config.images;
        let health = self.images_health.as_mut().map(|health| health.borrow_and_update().clone());
        let readiness = readiness::of(&images.class, images.engine, health.as_ref());
        self.readiness.replace(&readiness::essence(&readiness)).then_some(readiness)
    }

    /// The jobs that the caller sees, if they have changed. That one is forgotten after its time is no change that is announced.
    fn changed_jobs(&mut self) -> Option<Value> {
        let is_due = self.ticks >= self.jobs_due && self.job_changes.has_changed().unwrap_or(false);
        if !is_due && !self.ticks.is_multiple_of(KEEP_ALIVE_TICKS) {
            return None;
        }
        self.job_changes.mark_unchanged();
        let jobs = json!({"jobs": self.app.jobs.visible(&|owner| self.caller.sees(owner))});
        self.jobs.replace(&jobs).then_some(jobs)
    }

    fn hello(&self) -> Value {
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "started_at": self.app.started_at,
            "token": {"name": self.caller.name(), "sees_all": self.caller.sees_all()},
            "images_class": self.app.config.images.class,
            "max_request_bytes": self.app.body_budget.body_limit(),
            "auth": self.app.config.access.auth_required,
        })
    }
}

/// How many ticks later the next event with jobs may follow one of this size.
fn pause_after(bytes: usize) -> u64 {
    JOBS_TICKS.max(u64::try_from(bytes / JOBS_BYTES_PER_TICK).unwrap_or(u64::MAX))
}

/// JSON has no raw line ends, so that one line holds any text.
fn push(out: &mut String, name: &str, data: &Value) {
    let _ = write!(out, "event: {name}\ndata: {data}\n\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_with_jobs_take_a_bounded_part_of_a_connection() {
        for (bytes, ticks) in [(0, 2), (9_000, 2), (48 << 10, 3), (160 << 10, 10)] {
            assert_eq!(pause_after(bytes), ticks, "{bytes}");
        }
    }
}
