//! Counters for `/metrics`. Labels come only from values that the gateway knows (routes, backends, codes), never from a request, so
//! that clients cannot create series. Gauges are read when scraped: see `routes::metrics`.

use std::time::Duration;

use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry, core::Collector,
    proto::MetricFamily,
};
use wire::openai::error::ErrorCode;

/// The label for unknown values.
const OTHER: &str = "other";
/// The label for requests that were answered before a backend was chosen.
const NO_BACKEND: &str = "none";
/// The access log's status if the client disconnected.
const CLIENT_CLOSED_REQUEST: u16 = 499;
/// In seconds: from the gateway's own answers to whole image requests.
const BUCKETS: [f64; 13] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0];

/// How a probe can end.
pub(crate) const PROBE_RESULTS: [&str; 5] = ["answered", "refused", "no_route", "timed_out", "broken"];

#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    rejected: IntCounterVec,
    probes: IntCounterVec,
    images_stored: IntCounter,
    image_bytes_stored: IntCounter,
}

impl Metrics {
    /// The probe counters of these backends exist from the start.
    pub(crate) fn new<'a>(classes: impl IntoIterator<Item = &'a str>) -> Self {
        let registry = Registry::new();
        let counters = |name, help, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels).expect("a valid name");
            register(&registry, counters)
        };
        let counter = |name, help| register(&registry, IntCounter::new(name, help).expect("a valid name"));
        let durations = HistogramOpts::new(
            "gateway_request_duration_seconds",
            "Time from a request's head to its answer's, or to the end of a stream, by route.",
        );
        let durations = HistogramVec::new(durations.buckets(BUCKETS.to_vec()), &["route"]);
        let metrics = Self {
            requests: counters(
                "gateway_requests_total",
                "Requests answered, by route, backend and status; 499 means that the client disconnected.",
                &["route", "backend", "status"],
            ),
            durations: register(&registry, durations.expect("a valid name")),
            rejected: counters(
                "gateway_rejected_total",
                "Requests refused before any backend was asked, by error code.",
                &["reason"],
            ),
            probes: counters("gateway_probes_total", "Health probes, by result.", &["backend", "result"]),
            images_stored: counter("gateway_pictures_stored_total", "Images stored."),
            image_bytes_stored: counter("gateway_pictures_stored_bytes_total", "Bytes of the images stored."),
            registry,
        };
        for class in classes {
            for result in PROBE_RESULTS {
                metrics.probes.with_label_values(&[class, result]);
            }
        }
        metrics
    }

    /// `route` is a path of the router; none for an unknown path.
    pub(crate) fn record_request(
        &self,
        route: Option<&str>,
        backend: Option<&str>,
        status: u16,
        took: Duration,
    ) {
        let (route, backend) = (route.unwrap_or(OTHER), backend.unwrap_or(NO_BACKEND));
        self.requests.with_label_values(&[route, backend, &status_label(status)]).inc();
        self.durations.with_label_values(&[route]).observe(took.as_secs_f64());
    }

    /// For a request that the gateway itself refused.
    pub(crate) fn record_rejection(&self, code: ErrorCode) {
        self.rejected.with_label_values(&[code.as_str()]).inc();
    }

    /// `result` is one of [`PROBE_RESULTS`].
    pub(crate) fn record_probe(&self, class: &str, result: &str) {
        self.probes.with_label_values(&[class, result]).inc();
    }

    pub(crate) fn record_stored_images(&self, images: usize, bytes: u64) {
        self.images_stored.inc_by(images as u64);
        self.image_bytes_stored.inc_by(bytes);
    }

    pub(crate) fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }
}

/// A backend may answer with any status; unknown ones share a series.
fn status_label(status: u16) -> String {
    let reason = axum::http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    if reason.is_some() || status == CLIENT_CLOSED_REQUEST { status.to_string() } else { OTHER.to_owned() }
}

pub(crate) fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> C {
    registry.register(Box::new(collector.clone())).expect("every name is registered once");
    collector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_statuses_share_a_series() {
        let labels = [200, 404, 421, 499, 599, 0].map(status_label);
        assert_eq!(labels, ["200", "404", "421", "499", "other", "other"]);
    }
}
