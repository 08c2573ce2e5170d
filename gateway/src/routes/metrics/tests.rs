use std::time::Duration;

use wire::openai::error::ErrorCode;

use super::*;

impl MetricsSnapshot {
    fn with_disk(self, total: u64, free: u64) -> Self {
        Self { disk: Some(DiskSpace { total, free }), ..self }
    }

    /// One ready backend and one of which nothing is known.
    fn example() -> Self {
        let ready =
            Health { alive: true, ready: true, last_check: Some(1_736_697_234.5), ..Health::unknown() };
        let usage = |class: &str, capability, inflight| SlotUsage {
            class: class.to_owned(),
            capability,
            limit: 2,
            inflight,
        };
        Self {
            slots: vec![usage("gpu_heavy", Capability::Images, 1), usage("local_mlx", Capability::Chat, 0)],
            tokens: Vec::new(),
            backends: vec![("gpu_heavy".to_owned(), ready), ("local_mlx".to_owned(), Health::unknown())],
            store: StoreTotals { images: 7, bytes: 9_000_000_000 },
            disk: None,
            dropped_lines: 3,
            started: 1_736_690_000,
        }
    }
}

/// One of every counter.
fn counters() -> Metrics {
    let metrics = Metrics::new(["gpu_heavy"]);
    metrics.record_request(Some("/v1/images/generations"), Some("gpu_heavy"), 200, Duration::from_secs(7));
    metrics.record_request(None, None, 404, Duration::from_millis(1));
    metrics.record_rejection(ErrorCode::NotFound);
    metrics.record_probe("gpu_heavy", "refused");
    metrics.record_stored_images(2, 1234);
    metrics
}

#[test]
fn the_page_has_every_metric_with_its_help() {
    let text =
        super::text(&counters(), &MetricsSnapshot::example()).replace(env!("CARGO_PKG_VERSION"), "x.y.z");
    let (buckets, lines): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.contains("_bucket{"));
    assert_eq!(buckets.len(), 2 * (13 + 1), "per route, including +Inf");
    insta::assert_snapshot!(lines.join("\n"), @r#"
    # HELP gateway_backend_healthy Whether a backend is alive.
    # TYPE gateway_backend_healthy gauge
    gateway_backend_healthy{backend="gpu_heavy"} 1
    gateway_backend_healthy{backend="local_mlx"} 0
    # HELP gateway_backend_last_check_timestamp_seconds Unix time of the last evidence of a backend's health; absent before the first.
    # TYPE gateway_backend_last_check_timestamp_seconds gauge
    gateway_backend_last_check_timestamp_seconds{backend="gpu_heavy"} 1736697234.5
    # HELP gateway_backend_ready Whether a backend gets requests.
    # TYPE gateway_backend_ready gauge
    gateway_backend_ready{backend="gpu_heavy"} 1
    gateway_backend_ready{backend="local_mlx"} 0
    # HELP gateway_build_info Always 1; the label is the running version.
    # TYPE gateway_build_info gauge
    gateway_build_info{version="x.y.z"} 1
    # HELP gateway_log_lines_dropped_total Log lines that could not be written, on a full disk for example.
    # TYPE gateway_log_lines_dropped_total counter
    gateway_log_lines_dropped_total 3
    # HELP gateway_pictures_stored_bytes_total Bytes of the images stored.
    # TYPE gateway_pictures_stored_bytes_total counter
    gateway_pictures_stored_bytes_total 1234
    # HELP gateway_pictures_stored_total Images stored.
    # TYPE gateway_pictures_stored_total counter
    gateway_pictures_stored_total 2
    # HELP gateway_probes_total Health probes, by result.
    # TYPE gateway_probes_total counter
    gateway_probes_total{backend="gpu_heavy",result="answered"} 0
    gateway_probes_total{backend="gpu_heavy",result="broken"} 0
    gateway_probes_total{backend="gpu_heavy",result="no_route"} 0
    gateway_probes_total{backend="gpu_heavy",result="refused"} 1
    gateway_probes_total{backend="gpu_heavy",result="timed_out"} 0
    # HELP gateway_rejected_total Requests refused before any backend was asked, by error code.
    # TYPE gateway_rejected_total counter
    gateway_rejected_total{reason="not_found"} 1
    # HELP gateway_request_duration_seconds Time from a request's head to its answer's, or to the end of a stream, by route.
    # TYPE gateway_request_duration_seconds histogram
    gateway_request_duration_seconds_sum{route="/v1/images/generations"} 7
    gateway_request_duration_seconds_count{route="/v1/images/generations"} 1
    gateway_request_duration_seconds_sum{route="other"} 0.001
    gateway_request_duration_seconds_count{route="other"} 1
    # HELP gateway_requests_total Requests answered, by route, backend and status; 499 means that the client disconnected.
    # TYPE gateway_requests_total counter
    gateway_requests_total{backend="gpu_heavy",route="/v1/images/generations",status="200"} 1
    gateway_requests_total{backend="none",route="other",status="404"} 1
    # HELP gateway_slots_inflight Requests that a backend has in flight.
    # TYPE gateway_slots_inflight gauge
    gateway_slots_inflight{backend="gpu_heavy",capability="images"} 1
    gateway_slots_inflight{backend="local_mlx",capability="chat"} 0
    # HELP gateway_slots_limit Requests that a backend may have at once.
    # TYPE gateway_slots_limit gauge
    gateway_slots_limit{backend="gpu_heavy",capability="images"} 2
    gateway_slots_limit{backend="local_mlx",capability="chat"} 2
    # HELP gateway_store_bytes Bytes of the images in the store and of their metadata.
    # TYPE gateway_store_bytes gauge
    gateway_store_bytes 9000000000
    # HELP gateway_store_pictures Images in the store.
    # TYPE gateway_store_pictures gauge
    gateway_store_pictures 7
    # HELP process_start_time_seconds Unix time when the process started.
    # TYPE process_start_time_seconds gauge
    process_start_time_seconds 1736690000
    "#);
}

#[test]
fn the_stores_disk_appears_once_its_space_is_known() {
    let text =
        super::text(&counters(), &MetricsSnapshot::example().with_disk(1_000_000_000_000, 60_000_000_000));
    for line in ["gateway_store_disk_bytes 1000000000000", "gateway_store_disk_free_bytes 60000000000"] {
        assert!(text.lines().any(|other| other == line), "{line} in {text}");
    }
    assert!(!super::text(&counters(), &MetricsSnapshot::example()).contains("gateway_store_disk"));
}

#[test]
fn a_token_has_metrics_if_it_has_a_limit() {
    let values = |tokens| {
        let families = MetricsSnapshot { tokens, ..MetricsSnapshot::example() }.families();
        let token_families = families.iter().filter(|family| family.name().starts_with("gateway_token_"));
        token_families
            .map(|family| (family.name().to_owned(), family.get_metric()[0].get_gauge().get_value()))
            .collect::<Vec<_>>()
    };
    let expected = [("gateway_token_inflight".to_owned(), 1.0), ("gateway_token_limit".to_owned(), 2.0)];
    assert_eq!(values(vec![("alice".to_owned(), 2, 1)]), expected);
    assert!(values(Vec::new()).is_empty());
}

#[test]
fn the_reference_has_every_metric() {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("REFERENCE.md");
    let snapshot = MetricsSnapshot { tokens: vec![("alice".to_owned(), 2, 1)], ..MetricsSnapshot::example() }
        .with_disk(2, 1);
    let text = super::text(&counters(), &snapshot);
    fakes::reference::check_names(&page, "metrics", fakes::reference::metric_names(&text));
}
