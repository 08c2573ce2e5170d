//! 1,000 images at a concurrency of 8 through gateway and sidecar on the builtin engine, limits raised: no error, and
//! afterwards no task or descriptor more than before, and memory flat from the first hundred to the last.
//!
//! `cargo bench -p benches --bench soak`

use std::{
    io::Write,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use e2e::{gateway::Gateway, sidecar::Sidecar};
use futures_util::future::join_all;
use serde_json::json;

const IMAGES: u64 = 1_000;
const AT_ONCE: usize = 8;

#[tokio::main]
async fn main() {
    let sidecar = Sidecar::builtin(&["--max-inflight", "8"]).await;
    sidecar.until_ready().await;
    let backends = format!(
        "backends:\n  gpu_heavy:\n    base_url: {}\n    supported_capabilities: [images]\n    concurrency_limits: {{images: 8}}\n",
        sidecar.url
    );
    let gateway = Gateway::with_backends(&backends, &[]).await;
    gateway.until_ready("gpu_heavy", true).await;
    let mut out = std::io::stdout();
    let (mut done, mut samples) = (0, Vec::new());
    // The first hundred bring allocator and pools to their size.
    for goal in [100, 400, 700, IMAGES] {
        let start = Instant::now();
        run(&gateway, done, goal).await;
        let took = start.elapsed();
        done = goal;
        let footprint = settled(&sidecar, &gateway).await;
        let _ = writeln!(out, "after {goal:>4} images: {footprint:?}, the last in {took:.1?}, no error");
        samples.push(footprint);
    }
    let (first, last) = (&samples[0], &samples[samples.len() - 1]);
    assert_eq!((first.tasks, first.descriptors), (last.tasks, last.descriptors), "something is left behind");
    assert!(last.resident_kib < first.resident_kib + 32 * 1024, "memory grows");
}

async fn run(gateway: &Gateway, from: u64, to: u64) {
    let next = AtomicU64::new(from);
    let worker = || async {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= to {
                return;
            }
            let answer = gateway
                .generate(&json!({"prompt": "soak", "size": "512x512", "steps": 2, "seed": seed}))
                .await;
            assert_eq!(answer.status, 200, "image {seed}: {answer:?}");
        }
    };
    join_all((0..AT_ONCE).map(|_| worker())).await;
}

#[derive(Debug)]
struct Footprint {
    tasks: usize,
    descriptors: usize,
    resident_kib: u64,
}

/// Once every connection has ended.
async fn settled(sidecar: &Sidecar, gateway: &Gateway) -> Footprint {
    fakes::eventually("connections end", async || {
        // Pooled probe connections end 4 s after their last use at the latest.
        (sidecar.lifecycle.inflight() <= 1 && gateway.lifecycle.inflight() == 0).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    Footprint {
        tasks: sidecar.lifecycle.inflight() + gateway.lifecycle.inflight(),
        descriptors: std::fs::read_dir("/proc/self/fd").expect("procfs").count(),
        resident_kib: line.trim().split(' ').next().and_then(|kib| kib.parse().ok()).expect("a number"),
    }
}
