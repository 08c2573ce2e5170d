//! `GET /metrics`: the counters, and gauges read from snapshots at each scrape.
#![expect(clippy::cast_precision_loss, reason = "Prometheus has no numbers but f64")]

mod card;

use prometheus::{Gauge, GaugeVec, IntCounter, Opts, Registry, TextEncoder, core::Collector};
use wire::health::CheckStatus;

use crate::{jobs::Jobs, metrics::Metrics, readiness::ReadinessSnapshot};

pub(super) fn render(counters: &Metrics, published: &ReadinessSnapshot, jobs: &Jobs) -> String {
    let page = MetricsPage::default();
    counters.collectors().into_iter().for_each(|collector| page.register(collector));
    page.gauge_with_labels(
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
        service::telemetry::dropped_lines(),
    );
    readiness(&page, published);
    card::add(&page, published);
    page.text()
}

fn readiness(page: &MetricsPage, published: &ReadinessSnapshot) {
    let report = &published.report;
    page.gauge(
        "ada2_sidecar_ready",
        "1 while image requests are admitted.",
        f64::from(u8::from(report.admits())),
    );
    page.gauge(
        "ada2_sidecar_engine_queue_depth",
        "Jobs in the engine, including those of others.",
        report.engine.queue_depth as f64,
    );
    let status = page.gauge_family(
        "ada2_sidecar_check_status",
        "1 for the status that a check has.",
        &["check", "status"],
    );
    for check in &report.checks {
        for (label, status_value) in [
            ("pass", CheckStatus::Pass),
            ("warn", CheckStatus::Warn),
            ("fail", CheckStatus::Fail),
            ("unknown", CheckStatus::Unknown),
        ] {
            status
                .with_label_values(&[check.name.as_str(), label])
                .set(f64::from(u8::from(check.status == status_value)));
        }
    }
}

#[derive(Default)]
struct MetricsPage(Registry);

impl MetricsPage {
    fn add(&self, collector: impl Collector + 'static) {
        self.register(Box::new(collector));
    }

    fn register(&self, collector: Box<dyn Collector>) {
        self.0.register(collector).expect("every name is added once");
    }

    fn gauge_family(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        let family = GaugeVec::new(Opts::new(name, help), labels).expect("names are valid");
        self.add(family.clone());
        family
    }

    fn gauge(&self, name: &str, help: &str, value: f64) {
        let gauge = Gauge::new(name, help).expect("names are valid");
        gauge.set(value);
        self.add(gauge);
    }

    fn gauge_with_labels(&self, name: &str, help: &str, labels: &[(&str, &str)], value: f64) {
        let (names, values): (Vec<_>, Vec<_>) = labels.iter().copied().unzip();
        self.gauge_family(name, help, &names).with_label_values(&values).set(value);
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
