//! The events of one stream: which of them are due, by what was sent before.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::readiness;
use crate::{app::App, middleware::auth::Caller, routes::status};

/// In ticks: 15 seconds.
const KEEP_ALIVE_TICKS: u64 = 120;
/// In ticks: a quarter of a second between two events with jobs, whose progress may come far more often.
const JOBS_TICKS: u64 = 2;

/// What one client gets.
pub(super) struct Feed {
    app: App,
    caller: Caller,
    ticks: u64,
    status: Snapshot,
    readiness: Snapshot,
    jobs: Snapshot,
    job_changes: watch::Receiver<u64>,
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
    fn replace(&mut self, new: Value) -> bool {
        let is_changed = self.sent.as_ref() != Some(&new);
        self.sent = Some(new);
        is_changed
    }
}

impl Feed {
    pub(super) fn new(app: App, caller: Caller) -> Self {
        let job_changes = app.jobs.changes();
        Self {
            app,
            caller,
            ticks: 0,
            status: Snapshot::default(),
            readiness: Snapshot::default(),
            jobs: Snapshot::default(),
            job_changes,
            seen_samples: BTreeMap::new(),
        }
    }

    /// What is due at this tick; empty if nothing is.
    pub(super) fn next(&mut self) -> Bytes {
        let mut out = String::new();
        if self.ticks == 0 {
            push(&mut out, "hello", &self.hello());
        }
        let status = status::snapshot(&self.app, &self.caller);
        if self.status.replace(without_readings(status.clone())) {
            push(&mut out, "status", &status);
        }
        let (class, mock) = (&self.app.config.images.class, self.app.config.images.engine);
        let readiness = readiness::of(class, mock, self.app.health.health(class).as_ref());
        if self.readiness.replace(readiness::essence(&readiness)) {
            push(&mut out, "readiness", &readiness);
        }
        for (class, samples) in self.app.health.new_samples(&mut self.seen_samples) {
            push(&mut out, "samples", &json!({"class": class, "samples": samples}));
        }
        if let Some(jobs) = self.changed_jobs() {
            push(&mut out, "jobs", &jobs);
        }
        if self.ticks > 0 && self.ticks.is_multiple_of(KEEP_ALIVE_TICKS) {
            out.push_str(": keep-alive\n\n");
        }
        self.ticks += 1;
        out.into()
    }

    /// The jobs that the caller sees, if they have changed. That one is forgotten after its time is no change that is announced.
    fn changed_jobs(&mut self) -> Option<Value> {
        let is_due = self.ticks.is_multiple_of(JOBS_TICKS) && self.job_changes.has_changed().unwrap_or(false);
        if !is_due && !self.ticks.is_multiple_of(KEEP_ALIVE_TICKS) {
            return None;
        }
        self.job_changes.mark_unchanged();
        let jobs = json!({"jobs": self.app.jobs.visible(&|owner| self.caller.sees(owner))});
        self.jobs.replace(jobs.clone()).then_some(jobs)
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

/// JSON has no raw line ends, so that one line holds any text.
fn push(out: &mut String, name: &str, data: &Value) {
    out.push_str(&format!("event: {name}\ndata: {data}\n\n"));
}

/// The status without what changes all the time.
fn without_readings(mut status: Value) -> Value {
    if let Some(gateway) = status["gateway"].as_object_mut() {
        gateway.remove("uptime_seconds");
    }
    for backend in status["backend_health"].as_object_mut().into_iter().flat_map(|all| all.values_mut()) {
        if let Some(backend) = backend.as_object_mut() {
            backend.retain(|name, _| name != "last_check" && name != "gpu");
        }
    }
    status
}
