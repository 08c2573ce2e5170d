//! Counters for `/metrics`. What a snapshot holds is read when scraped: see `routes::metrics`.

use std::{sync::Arc, time::Duration};

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, core::Collector};

/// Buckets: responses from memory take milliseconds, images seconds to minutes.
const SECONDS: &[f64] = &[0.005, 0.05, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0];

/// Counters since the start. Cheap to clone; clones share everything.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Counters>);

#[derive(Debug)]
struct Counters {
    requests: IntCounterVec,
    durations: HistogramVec,
    jobs: IntCounterVec,
}

impl Default for Metrics {
    fn default() -> Self {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            IntCounterVec::new(Opts::new(name, help), labels).expect("names are valid")
        };
        let buckets = HistogramOpts::new(
            "ada2_sidecar_request_duration_seconds",
            "Time from a request's head to the response's.",
        )
        .buckets(SECONDS.to_vec());
        let jobs = counter("ada2_sidecar_jobs_total", "Jobs that ended, by how.", &["result"]);
        for result in ["done", "failed", "cancelled"] {
            // Present from the start, so that Prometheus sees the first job as an increase.
            let _ = jobs.with_label_values(&[result]);
        }
        Self(Arc::new(Counters {
            requests: counter("ada2_sidecar_requests_total", "Requests answered.", &["route", "status"]),
            durations: HistogramVec::new(buckets, &["route"]).expect("names are valid"),
            jobs,
        }))
    }
}

impl Metrics {
    /// Counts a request; 499 if the client disconnected first. The route is one of the router's, or `other`.
    pub(crate) fn answered(&self, route: &str, status: &str, took: Duration) {
        self.0.requests.with_label_values(&[route, status]).inc();
        self.0.durations.with_label_values(&[route]).observe(took.as_secs_f64());
    }

    /// `done`, `failed` or `cancelled`.
    pub(crate) fn job_ended(&self, result: &str) {
        self.0.jobs.with_label_values(&[result]).inc();
    }

    pub(crate) fn collectors(&self) -> [Box<dyn Collector>; 3] {
        [Box::new(self.0.requests.clone()), Box::new(self.0.durations.clone()), Box::new(self.0.jobs.clone())]
    }
}
