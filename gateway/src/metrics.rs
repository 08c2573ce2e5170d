//! What is counted, for `/metrics`. Labels come from what the gateway itself knows (its routes, backends, codes), never
//! from a request, so that nobody can make series. What can be read from a snapshot is read when
//! scraped: see `routes::metrics`.

use std::time::Duration;

use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry, core::Collector,
    proto::MetricFamily,
};
use wire::openai::error::ErrorCode;

/// For what is none of the known values.
const OTHER: &str = "other";
/// Where a request was answered before a backend was chosen.
const NO_BACKEND: &str = "none";
/// The access log's status of a caller who left.
const CLIENT_CLOSED_REQUEST: u16 = 499;
/// Seconds: from answers of the gateway itself to whole image requests.
const BUCKETS: [f64; 13] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0];

/// How a probe can end.
pub(crate) const PROBE_RESULTS: [&str; 5] = ["answered", "refused", "no_route", "timed_out", "broken"];

/// The counters.
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
    /// All at 0; the probes of these backends are there from the start.
    pub(crate) fn new<'a>(classes: impl IntoIterator<Item = &'a str>) -> Self {
        let registry = Registry::new();
        let counters = |name, help, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels).expect("a sound name");
            register(&registry, counters)
        };
        let counter = |name, help| register(&registry, IntCounter::new(name, help).expect("a sound name"));
        let durations = HistogramOpts::new(
            "gateway_request_duration_seconds",
            "Time from a request's head to its answer's, or to the end of a stream, by route.",
        );
        let durations = HistogramVec::new(durations.buckets(BUCKETS.to_vec()), &["route"]);
        let metrics = Self {
            requests: counters(
                "gateway_requests_total",
                "Requests answered, by route, backend and status; 499 is a caller who left.",
                &["route", "backend", "status"],
            ),
            durations: register(&registry, durations.expect("a sound name")),
            rejected: counters(
                "gateway_rejected_total",
                "Requests refused before any backend was asked, by error code.",
                &["reason"],
            ),
            probes: counters("gateway_probes_total", "Health probes, by result.", &["backend", "result"]),
            images_stored: counter("gateway_pictures_stored_total", "Pictures stored."),
            image_bytes_stored: counter(
                "gateway_pictures_stored_bytes_total",
                "Bytes of the pictures stored.",
            ),
            registry,
        };
        for class in classes {
            for result in PROBE_RESULTS {
                metrics.probes.with_label_values(&[class, result]);
            }
        }
        metrics
    }

    /// A request was answered. `route` is a path of the router; without one, the path was none of ours.
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

    /// A request was refused by the gateway itself.
    pub(crate) fn record_rejection(&self, code: ErrorCode) {
        self.rejected.with_label_values(&[code.as_str()]).inc();
    }

    /// A probe of a backend ended with one of [`PROBE_RESULTS`].
    pub(crate) fn record_probe(&self, class: &str, result: &str) {
        self.probes.with_label_values(&[class, result]).inc();
    }

    /// Pictures were stored.
    pub(crate) fn record_stored_images(&self, images: usize, bytes: u64) {
        self.images_stored.inc_by(images as u64);
        self.image_bytes_stored.inc_by(bytes);
    }

    /// Everything that was counted.
    pub(crate) fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }
}

/// A backend's own status passes through; one that is no known one makes no series of its own.
fn status_label(status: u16) -> String {
    let known = axum::http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    if known.is_some() || status == CLIENT_CLOSED_REQUEST { status.to_string() } else { OTHER.to_owned() }
}

pub(crate) fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> C {
    registry.register(Box::new(collector.clone())).expect("every name is registered once");
    collector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_status_makes_a_series_unless_it_is_a_known_one() {
        let labels = [200, 404, 421, 499, 599, 0].map(status_label);
        assert_eq!(labels, ["200", "404", "421", "499", "other", "other"]);
    }
}
