//! From the engine's event to the client's hands, images of 2 MB, against fake engines that note when they wrote it: the last
//! event to the whole answer, from the sidecar and through the gateway (which stores the image first), and a preview to
//! the streamed partial. Beside it, in the same run, what a poller of 250 ms would add.
//!
//! `cargo bench -p benches --bench latency`

use std::{
    io::Write,
    time::{Duration, Instant},
};

use e2e::{gateway::Gateway, sidecar::Sidecar};
use fakes::{
    comfyui::FakeComfy,
    invokeai::{FakeInvoke, ItemStatus},
    sse::SseReader,
};
use serde_json::{Value, json};

const IMAGES: u64 = 60;
const PARTIALS: u64 = 30;
/// The fakes' images compress well: so large they have 2 MB.
const SIZE: &str = "2304x2304";
const MAX_PIXELS: &str = "8000000";
const POLL: Duration = Duration::from_millis(250);

#[tokio::main]
async fn main() {
    invokeai_through_the_gateway().await;
    comfyui().await;
    first_partial().await;
}

fn request(seed: u64) -> Value {
    json!({"prompt": "a lighthouse", "size": SIZE, "model": "sd-xl-base-1.0", "seed": seed})
}

/// Spreads the ends over the poller's period, as real jobs' are.
fn duration(seed: u64) -> Duration {
    Duration::from_millis(500 + seed * 37 % 250)
}

async fn invokeai_through_the_gateway() {
    let engine = FakeInvoke::start().await;
    let sidecar = Sidecar::invokeai(&engine.url(), &["--max-pixels", MAX_PIXELS]).await;
    sidecar.until_ready().await;
    let backends = format!(
        "backends:\n  gpu_heavy:\n    base_url: {}\n    supported_capabilities: [images]\n",
        sidecar.url
    );
    let gateway = Gateway::with_backends(&backends, &["--images-max-pixels", MAX_PIXELS]).await;
    gateway.until_ready("gpu_heavy", true).await;
    engine.until_followed(1).await;
    let (mut ours, mut polled, mut bytes) = (Vec::new(), Vec::new(), 0);
    for seed in 0..IMAGES {
        engine.script(|script| script.item = duration(seed));
        let request = request(seed);
        let (answered, noticed) = tokio::join!(
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
        polled.push(noticed.saturating_duration_since(finished));
        bytes = gateway.image(&answered.1).await.len();
    }
    let (event, poll) =
        (print("InvokeAI's last event -> gateway's answer, stored", bytes, &mut ours), median(&mut polled));
    let ratio = poll.as_secs_f64() / event.as_secs_f64();
    say(&format!("  seen by a 250 ms poller: p50 {poll:.2?}, {ratio:.1} times as late"));
}

async fn comfyui() {
    let engine = FakeComfy::start().await;
    engine.script(|script| script.history_lag = Duration::ZERO);
    let sidecar = Sidecar::comfyui(&engine.url(), &["--max-pixels", MAX_PIXELS]).await;
    sidecar.until_ready().await;
    engine.until_followed(1).await;
    let (mut ours, mut bytes) = (Vec::new(), 0);
    for seed in 0..IMAGES {
        engine.script(|script| script.item = duration(seed));
        let mut request = request(seed);
        request.as_object_mut().expect("an object").remove("model");
        let answer = sidecar.generate(&request).await;
        let answered = Instant::now();
        assert_eq!(answer.status, 200, "{answer:?}");
        let id = engine.items().last().expect("a prompt").prompt_id.clone();
        ours.push(answered - engine.finished_event_at(&id).expect("the event was written"));
        bytes = answer.json["data"][0]["b64_json"].as_str().expect("base64").len() / 4 * 3;
    }
    print("ComfyUI's last event -> sidecar's answer", bytes, &mut ours);
}

/// With two steps and one partial the second preview is due: the one at half of the work.
async fn first_partial() {
    let engine = FakeInvoke::start().await;
    let sidecar = Sidecar::invokeai(&engine.url(), &[]).await;
    sidecar.until_ready().await;
    engine.until_followed(1).await;
    engine.script(|script| script.item = Duration::from_millis(300));
    let mut ours = Vec::new();
    for seed in 0..PARTIALS {
        let mut request = request(seed);
        request["steps"] = json!(2);
        request["stream"] = json!(true);
        request["partial_images"] = json!(1);
        request["size"] = json!("512x512");
        let post = fakes::http().post(format!("{}/v1/images/generations", sidecar.url));
        let post = post.header("content-type", "application/json").body(request.to_string());
        let mut events = SseReader::new(post.send().await.expect("an answer"));
        let partial = events.next().await.expect("a complete stream").expect("a partial");
        let arrived = Instant::now();
        assert_eq!(partial["partial_image_index"], 0);
        let item = engine.items().last().expect("an item").id;
        ours.push(arrived - engine.previews_at(item)[1]);
        events.rest().await;
    }
    print("a preview -> the streamed partial", 1024, &mut ours);
}

/// When a poller that looks every 250 ms would have noticed; it would still have to fetch the image.
async fn poll(engine: &FakeInvoke, jobs_before: u64) -> Instant {
    let mut tick = tokio::time::interval(POLL);
    loop {
        tick.tick().await;
        let items = engine.items();
        let nth = usize::try_from(jobs_before).expect("few");
        if items.get(nth).is_some_and(|item| item.status == ItemStatus::Completed) {
            return Instant::now();
        }
    }
}

fn print(what: &str, bytes: usize, times: &mut [Duration]) -> Duration {
    let p50 = median(times);
    let (p90, max) = (times[times.len() * 9 / 10], times[times.len() - 1]);
    say(&format!(
        "{what}, {} KiB, n = {}: p50 {p50:.2?}  p90 {p90:.2?}  max {max:.2?}",
        bytes >> 10,
        times.len()
    ));
    p50
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
