//! `/metrics`, for Prometheus. What was counted lives here; everything else is read from what is published when asked.
#![expect(clippy::cast_precision_loss, reason = "Prometheus has no numbers but f64")]

mod card;

use std::{sync::Arc, time::Duration};

use prometheus::{
    Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry, TextEncoder,
    core::Collector,
};
use shared::health::CheckStatus;

use crate::{jobs::Jobs, readiness::Published};

/// Answers from memory take milliseconds, pictures seconds to minutes.
const SECONDS: &[f64] = &[0.005, 0.05, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0];

/// What was counted since the start. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Counted>);

#[derive(Debug)]
struct Counted {
    requests: IntCounterVec,
    durations: HistogramVec,
    jobs: IntCounterVec,
}

impl Default for Metrics {
    fn default() -> Self {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            IntCounterVec::new(Opts::new(name, help), labels).expect("names are valid")
        };
        let buckets = HistogramOpts::new(
            "ada2_sidecar_request_duration_seconds",
            "Time from a request's head to its answer's.",
        )
        .buckets(SECONDS.to_vec());
        let jobs = counters("ada2_sidecar_jobs_total", "Jobs that ended, by how.", &["result"]);
        for result in ["done", "failed", "cancelled"] {
            // There from the start, so that the first one is an increase.
            let _ = jobs.with_label_values(&[result]);
        }
        Self(Arc::new(Counted {
            requests: counters("ada2_sidecar_requests_total", "Requests answered.", &["route", "status"]),
            durations: HistogramVec::new(buckets, &["route"]).expect("names are valid"),
            jobs,
        }))
    }
}

impl Metrics {
    /// A request was answered; 499 if its caller left before. The route is one of ours, or `other`.
    pub(crate) fn answered(&self, route: &str, status: &str, took: Duration) {
        self.0.requests.with_label_values(&[route, status]).inc();
        self.0.durations.with_label_values(&[route]).observe(took.as_secs_f64());
    }

    /// A job ended: `done`, `failed` or `cancelled`.
    pub(crate) fn job_ended(&self, result: &str) {
        self.0.jobs.with_label_values(&[result]).inc();
    }

    /// The whole text.
    pub(crate) fn scrape(&self, published: &Published, jobs: &Jobs) -> String {
        let page = Page::default();
        page.add(self.0.requests.clone());
        page.add(self.0.durations.clone());
        page.add(self.0.jobs.clone());
        page.labelled(
            "ada2_sidecar_build_info",
            "The running version.",
            &[("version", env!("CARGO_PKG_VERSION"))],
            1.0,
        );
        page.gauge(
            "ada2_sidecar_slots_limit",
            "Image requests that may run at once.",
            jobs.slots().limit() as f64,
        );
        page.gauge(
            "ada2_sidecar_slots_inflight",
            "Image requests that hold a slot.",
            jobs.slots().inflight() as f64,
        );
        page.counter(
            "ada2_sidecar_log_lines_dropped_total",
            "Log lines that could not be written.",
            shared::service::telemetry::dropped_lines(),
        );
        readiness(&page, published);
        card::add(&page, published);
        page.text()
    }
}

fn readiness(page: &Page, published: &Published) {
    let report = &published.report;
    page.gauge(
        "ada2_sidecar_ready",
        "1 while image requests are admitted.",
        f64::from(u8::from(report.admits())),
    );
    page.gauge(
        "ada2_sidecar_engine_queue_depth",
        "Jobs in the engine, whoever's.",
        report.engine.queue_depth as f64,
    );
    let status = page.family(
        "ada2_sidecar_check_status",
        "The result of a check: 1 for the one it has.",
        &["check", "status"],
    );
    for check in &report.checks {
        for (word, is) in [
            ("pass", CheckStatus::Pass),
            ("warn", CheckStatus::Warn),
            ("fail", CheckStatus::Fail),
            ("unknown", CheckStatus::Unknown),
        ] {
            status
                .with_label_values(&[check.name.as_str(), word])
                .set(f64::from(u8::from(check.status == is)));
        }
    }
}

/// One scrape.
#[derive(Default)]
struct Page(Registry);

impl Page {
    fn add(&self, collector: impl Collector + 'static) {
        self.0.register(Box::new(collector)).expect("every name is added once");
    }

    fn family(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        let family = GaugeVec::new(Opts::new(name, help), labels).expect("names are valid");
        self.add(family.clone());
        family
    }

    fn gauge(&self, name: &str, help: &str, value: f64) {
        let gauge = Gauge::new(name, help).expect("names are valid");
        gauge.set(value);
        self.add(gauge);
    }

    fn labelled(&self, name: &str, help: &str, labels: &[(&str, &str)], value: f64) {
        let (names, values): (Vec<_>, Vec<_>) = labels.iter().copied().unzip();
        self.family(name, help, &names).with_label_values(&values).set(value);
    }

    fn counter(&self, name: &str, help: &str, value: u64) {
        let counter = IntCounter::new(name, help).expect("names are valid");
        counter.inc_by(value);
        self.add(counter);
    }

    fn text(&self) -> String {
        TextEncoder::new().encode_to_string(&self.0.gather()).expect("metrics are text")
    }
}
