//! From the engine's last event to the answer in the caller's hands: through gateway and sidecar, 1024x1024, against a
//! fake InvokeAI that notes when it wrote the event. Beside it, in the same run, what a poller of 250 ms would add.
//!
//! `cargo bench -p e2e --bench latency`

use std::{
    io::Write,
    time::{Duration, Instant},
};

use e2e::{
    gateway::Gateway,
    invokeai::{FakeInvoke, Status},
    sidecar::Sidecar,
};
use serde_json::json;

const PICTURES: u64 = 60;
const POLL: Duration = Duration::from_millis(250);

#[tokio::main]
async fn main() {
    let engine = FakeInvoke::start().await;
    let sidecar = Sidecar::invokeai(&engine.url(), &[]).await;
    sidecar.until_ready().await;
    let backends = format!(
        "backends:\n  gpu_heavy:\n    base_url: {}\n    supported_capabilities: [images]\n",
        sidecar.url
    );
    let gateway = Gateway::with_backends(&backends, &[]).await;
    gateway.until_ready("gpu_heavy", true).await;
    engine.until_followed(1).await;
    let (mut ours, mut polled, mut bytes) = (Vec::new(), Vec::new(), 0);
    for seed in 0..PICTURES {
        // Spread the ends over the poller's period, as real jobs' are.
        engine.script(|script| script.item = Duration::from_millis(200 + seed * 37 % 250));
        let request =
            json!({"prompt": "a lighthouse", "size": "1024x1024", "model": "sd-xl-base-1.0", "seed": seed});
        let (answered, seen) = tokio::join!(
            async {
                let answer = gateway.generate(&request).await;
                assert_eq!(answer.status, 200, "{answer:?}");
                (Instant::now(), answer.json["data"][0]["url"].as_str().expect("an address").to_owned())
            },
            poll(&engine, seed)
        );
        let item = engine.items().last().expect("an item").id;
        let finished = engine.finished_event_at(item).expect("the event was written");
        ours.push(answered.0 - finished);
        polled.push(seen.saturating_duration_since(finished));
        bytes = gateway.picture(&answered.1).await.len();
    }
    let mut out = std::io::stdout();
    let (events, polls) = (summary(&mut ours), summary(&mut polled));
    let _ = writeln!(
        out,
        "engine's finished event -> gateway's answer, 1024x1024, {} KiB, n = {PICTURES}",
        bytes >> 10
    );
    let _ = writeln!(
        out,
        "  event-driven, stored    p50 {:>8.2?}  p90 {:>8.2?}  max {:>8.2?}",
        events.0, events.1, events.2
    );
    let _ = writeln!(
        out,
        "  seen by a 250 ms poller p50 {:>8.2?}  p90 {:>8.2?}  max {:>8.2?}",
        polls.0, polls.1, polls.2
    );
    let _ = writeln!(out, "  ratio of the medians    {:.1}", polls.0.as_secs_f64() / events.0.as_secs_f64());
}

/// When a poller that looks every 250 ms would have noticed; it would still have to fetch the picture.
async fn poll(engine: &FakeInvoke, jobs_before: u64) -> Instant {
    let mut tick = tokio::time::interval(POLL);
    loop {
        tick.tick().await;
        let items = engine.items();
        let nth = usize::try_from(jobs_before).expect("few");
        if items.get(nth).is_some_and(|item| item.status == Status::Completed) {
            return Instant::now();
        }
    }
}

fn summary(times: &mut [Duration]) -> (Duration, Duration, Duration) {
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() * 9 / 10], times[times.len() - 1])
}
