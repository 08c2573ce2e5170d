//! `GET /metrics`, for Prometheus: with the token on the main port, and without a token on a separate listener. Counters are in
//! `metrics`; the state of slots, backends, store and process is read here at each scrape.

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use prometheus::{GaugeVec, IntCounter, Opts, Registry, TextEncoder, proto::MetricFamily};
use service::{files::DiskSpace, telemetry};

use crate::{
    app::App,
    config::Capability,
    health::state::Health,
    metrics::{Metrics, register},
    store::index::StoreTotals,
};

pub(crate) async fn scrape(State(app): State<App>) -> Response {
    ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text(&app.metrics, &MetricsSnapshot::take(&app)))
        .into_response()
}

/// Everything in Prometheus' text format.
fn text(counters: &Metrics, snapshot: &MetricsSnapshot) -> String {
    let mut families = [counters.gather(), snapshot.families()].concat();
    families.sort_by(|one, other| one.name().cmp(other.name()));
    TextEncoder::new().encode_to_string(&families).expect("gathered families have names and samples")
}

/// The gauges, read at each scrape.
#[derive(Debug)]
struct MetricsSnapshot {
    slots: Vec<SlotUsage>,
    tokens: Vec<(String, usize, usize)>,
    backends: Vec<(String, Health)>,
    store: StoreTotals,
    disk: Option<DiskSpace>,
    dropped_lines: u64,
    started: u64,
}

#[derive(Debug)]
struct SlotUsage {
    class: String,
    capability: Capability,
    limit: usize,
    inflight: usize,
}

impl MetricsSnapshot {
    fn take(app: &App) -> Self {
        let slots = app.admission.snapshot().map(|(class, capability, slots)| SlotUsage {
            class: class.to_owned(),
            capability,
            limit: slots.limit(),
            inflight: slots.inflight(),
        });
        let backends = app.health.snapshot().into_iter();
        Self {
            slots: slots.collect(),
            tokens: app
                .admission
                .tokens()
                .map(|(name, slots)| (name.to_owned(), slots.limit(), slots.inflight()))
                .collect(),
            backends: backends.map(|(backend, health)| (backend.class.clone(), health)).collect(),
            store: app.store.totals(),
            disk: app.warnings.load().disk,
            dropped_lines: telemetry::dropped_lines(),
            started: app.started_at,
        }
    }

    fn families(&self) -> Vec<MetricFamily> {
        let registry = Registry::new();
        self.slot_families(&registry);
        self.backends(&registry);
        let dropped = IntCounter::new(
            "gateway_log_lines_dropped_total",
            "Log lines that could not be written, on a full disk for example.",
        );
        register(&registry, dropped.expect("a valid metric name")).inc_by(self.dropped_lines);
        gauge(&registry, "gateway_build_info", "Always 1; the label is the running version.", &["version"])
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1.0);
        gauge(&registry, "gateway_store_pictures", "Images in the store.", &[])
            .with_label_values::<&str>(&[])
            .set(count(self.store.images));
        gauge(
            &registry,
            "gateway_store_bytes",
            "Bytes of the images in the store and of their metadata.",
            &[],
        )
        .with_label_values::<&str>(&[])
        .set(to_f64(self.store.bytes));
        if let Some(disk) = self.disk {
            gauge(
                &registry,
                "gateway_store_disk_bytes",
                "Size of the disk that the store is on, in bytes.",
                &[],
            )
            .with_label_values::<&str>(&[])
            .set(to_f64(disk.total));
            gauge(
                &registry,
                "gateway_store_disk_free_bytes",
                "Bytes that are free on the store's disk.",
                &[],
            )
            .with_label_values::<&str>(&[])
            .set(to_f64(disk.free));
        }
        gauge(&registry, "process_start_time_seconds", "Unix time when the process started.", &[])
            .with_label_values::<&str>(&[])
            .set(to_f64(self.started));
        registry.gather()
    }

    fn slot_families(&self, registry: &Registry) {
        const LABELS: &[&str] = &["backend", "capability"];
        let limit =
            gauge(registry, "gateway_slots_limit", "Requests that a backend may have at once.", LABELS);
        let inflight =
            gauge(registry, "gateway_slots_inflight", "Requests that a backend has in flight.", LABELS);
        for usage in &self.slots {
            let labels = [usage.class.as_str(), usage.capability.as_str()];
            limit.with_label_values(&labels).set(count(usage.limit));
            inflight.with_label_values(&labels).set(count(usage.inflight));
        }
        if self.tokens.is_empty() {
            return;
        }
        let limit = gauge(
            registry,
            "gateway_token_limit",
            "Requests that a token with a limit of its own may have at once.",
            &["token"],
        );
        let inflight = gauge(
            registry,
            "gateway_token_inflight",
            "Requests that a token with a limit of its own has in flight.",
            &["token"],
        );
        for (name, max, taken) in &self.tokens {
            limit.with_label_values(&[name]).set(count(*max));
            inflight.with_label_values(&[name]).set(count(*taken));
        }
    }

    fn backends(&self, registry: &Registry) {
        const LABELS: &[&str] = &["backend"];
        let ready = gauge(registry, "gateway_backend_ready", "Whether a backend gets requests.", LABELS);
        let healthy = gauge(registry, "gateway_backend_healthy", "Whether a backend is alive.", LABELS);
        let checked = gauge(
            registry,
            "gateway_backend_last_check_timestamp_seconds",
            "Unix time of the last evidence of a backend's health; absent before the first.",
            LABELS,
        );
        for (class, health) in &self.backends {
            ready.with_label_values(&[class]).set(f64::from(u8::from(health.ready)));
            healthy.with_label_values(&[class]).set(f64::from(u8::from(health.alive)));
            if let Some(seconds) = health.last_check {
                checked.with_label_values(&[class]).set(seconds);
            }
        }
    }
}

fn gauge(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
    register(registry, GaugeVec::new(Opts::new(name, help), labels).expect("a valid metric name"))
}

fn count(number: usize) -> f64 {
    u32::try_from(number).unwrap_or(u32::MAX).into()
}

#[expect(clippy::cast_precision_loss, reason = "seconds and stores' bytes stay below 2^53")]
fn to_f64(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests;
