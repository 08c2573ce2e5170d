//! Requests through the pass-through while the engine is killed and started again every 2 s: each answer is the engine's
//! own or a clean 502 or 503, none takes longer than connecting may, and afterwards no descriptor or task is left behind.
//!
//! `cargo bench -p benches --bench restarts -- [requests]`

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use e2e::sidecar::Sidecar;
use fakes::{invokeai::FakeInvoke, stats::percentile};
use futures_util::future::join_all;
use service::outbound::{ConnectionPolicy, client_builder};

const REQUESTS: usize = 10_000;
const AT_ONCE: usize = 8;
const UP: Duration = Duration::from_millis(1_500);
const DOWN: Duration = Duration::from_millis(500);
/// Between two requests of one client: the engine is killed many times before the last.
const PAUSE: Duration = Duration::from_millis(40);
/// The stated bound: a connection to the engine is made within 3 s, and a broken one is noticed at once.
const BOUND: Duration = Duration::from_secs(4);
/// The engine's complete response.
const COMPLETE: &str = "\"version\"";

#[tokio::main]
async fn main() {
    let given = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    let requests = given.unwrap_or(REQUESTS);
    let engine = FakeInvoke::start().await;
    let sidecar = Sidecar::invokeai(&engine.url(), &[]).await;
    sidecar.until_ready().await;
    let descriptors = || fs::read_dir("/proc/self/fd").expect("procfs").count();
    settle(&sidecar).await;
    let before = descriptors();
    let next = AtomicUsize::new(0);
    let clients = join_all((0..AT_ONCE).map(|_| client(&sidecar.url, &next, requests)));
    let mut kills = 0_u32;
    let kill = async {
        loop {
            tokio::time::sleep(UP).await;
            engine.stop().await;
            kills += 1;
            tokio::time::sleep(DOWN).await;
            engine.restart();
        }
    };
    let begun = Instant::now();
    let answers = tokio::select! {
        answers = clients => answers.concat(),
        () = kill => unreachable!("it goes on"),
    };
    let took = begun.elapsed();
    // It may have been cut off while the engine was down.
    engine.stop().await;
    engine.restart();
    sidecar.until_ready().await;
    settle(&sidecar).await;
    let after = descriptors();
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for (kind, _) in &answers {
        *kinds.entry(kind).or_default() += 1;
    }
    let mut times: Vec<_> = answers.iter().map(|(_, time)| *time).collect();
    let slowest = percentile(&mut times, 100);
    let _ = writeln!(
        std::io::stdout(),
        "{} requests in {took:.1?}, engine killed {kills} times: {kinds:?}; p50 {:.1?}, p99 {:.1?}, max {slowest:.1?}; descriptors {before} before, {after} after, tasks {}",
        answers.len(),
        percentile(&mut times, 50),
        percentile(&mut times, 99),
        sidecar.lifecycle.inflight(),
    );
    assert!(slowest < BOUND, "longer than stated");
    assert!(!kinds.contains_key("other"), "an answer that is neither the engine's nor clean");
    assert!(after <= before + 2, "descriptors are left behind");
}

/// Until clients' and the pool's connections have closed.
async fn settle(sidecar: &Sidecar) {
    tokio::time::sleep(Duration::from_secs(6)).await;
    let _ = sidecar.readyz().await;
}

async fn client(url: &str, next: &AtomicUsize, requests: usize) -> Vec<(&'static str, Duration)> {
    let client = client_builder(ConnectionPolicy::Pooled).build().expect("no settings that can fail");
    let mut answers = Vec::new();
    loop {
        let nth = next.fetch_add(1, Ordering::Relaxed);
        if nth >= requests {
            return answers;
        }
        tokio::time::sleep(PAUSE).await;
        let begun = Instant::now();
        // One in four may change something: it is never sent twice.
        let request = if nth.is_multiple_of(4) {
            client.post(format!("{url}/api/v2/models/empty_model_cache"))
        } else {
            client.get(format!("{url}/api/v1/app/version"))
        };
        let kind = match request.send().await {
            Err(_) => "other",
            Ok(answer) => {
                let status = answer.status().as_u16();
                let body = answer.text().await.unwrap_or_default();
                match status {
                    200 if nth.is_multiple_of(4) || body.contains(COMPLETE) => "200",
                    502 if body.contains("engine_unavailable") => "502",
                    503 if body.contains("engine_unavailable") => "503",
                    _ => "other",
                }
            }
        };
        answers.push((kind, begun.elapsed()));
    }
}
