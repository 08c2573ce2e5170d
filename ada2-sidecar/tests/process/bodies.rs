//! What a large body costs: memory in proportion to its length, and no time of those who ask for health.
#![cfg(target_os = "linux")]

use std::time::Duration;

use fakes::hostile_bodies::{Cost, LARGE, all};

use crate::running::Running;

/// For the picture itself and what is made anew for any request, in MiB.
const ROOM: u64 = 16;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_costs_at_most_four_times_its_length_and_nobody_waits_for_it() {
    for hostile in all() {
        let (name, expected) = (hostile.name, hostile.sidecar);
        let sidecar = Running::start(&fakes::fresh_folder("bodies"), &["--engine", "builtin"]);
        sidecar.ready().await;
        let Cost { status, body, peak_mib, max_health_latency } =
            hostile.send(&sidecar.url, sidecar.child.id(), "").await;
        assert_eq!(status, expected, "{name}: {body:.500}");
        assert!(status == 200 || body.len() < 4_000, "{name}: an answer of {} bytes", body.len());
        assert!(peak_mib <= 4 * (LARGE as u64 >> 20) + ROOM, "{name}: {peak_mib} MiB");
        assert!(max_health_latency < Duration::from_secs(2), "{name}: no word for {max_health_latency:?}");
    }
}
