//! What large bodies and images cost, and that no decoding outlives its job.

use std::time::{Duration, Instant};

use bytes::Bytes;
use fakes::{
    child::peak_mib,
    comfyui::{self, FakeComfy},
    hostile_bodies::{Cost, LARGE, all},
    invokeai::{FakeInvoke, ItemStatus},
    large_images::{FORTY_MEGAPIXELS, edit_of, png_of},
    raw_http::RawClient,
};
use serde_json::json;

use crate::running::Running;

/// Clients that disconnect.
const DISCONNECTS: usize = 12;
/// Two decoded images of 40 megapixels of four channels of 16 bits, what is made of them, and the program.
const MEMORY_MIB: u64 = 1200;
/// For a decoder to notice the disconnect, and for the process to end.
const END_TIMEOUT: Duration = Duration::from_secs(5);

async fn until_taken(sidecar: &Running, taken: usize) {
    let expected = format!("{taken} of 4");
    fakes::eventually(&expected, async || sidecar.slots().await?.contains(&expected).then_some(())).await;
}

#[tokio::test]
async fn disconnected_edits_cost_at_most_two_images_and_sigterm_ends_the_process_at_once() {
    let sidecar = Running::start(&fakes::fresh_dir("decoding"), &["--engine", "builtin"]);
    sidecar.ready().await;
    let edit = edit_of(&FORTY_MEGAPIXELS, &[("prompt", "a"), ("steps", "1")]);
    for _ in 0..DISCONNECTS {
        let mut client = RawClient::to(&sidecar.url).await;
        client.send(&edit).await;
        // Into the middle of the decoding.
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    let mut waiting = Vec::new();
    until_taken(&sidecar, 0).await;
    for taken in 1..=4 {
        let mut client = RawClient::to(&sidecar.url).await;
        client.send(&edit).await;
        until_taken(&sidecar, taken).await;
        waiting.push(client);
    }
    let mut one_more = RawClient::to(&sidecar.url).await;
    one_more.send(&edit).await;
    assert_eq!(one_more.response().await.status(), 429, "refused before it is decoded");
    drop(waiting);
    let started = Instant::now();
    sidecar.signal("-TERM");
    let peak = peak_mib(sidecar.child.id());
    let (code, log) = sidecar.end().await;
    let took = started.elapsed();
    assert_eq!(code, Some(0), "{log}");
    assert!(took < END_TIMEOUT, "{took:?}: {log}");
    assert!(peak < MEMORY_MIB, "{peak} MiB");
}

/// Previews that an engine sends, and their bytes.
const PREVIEWS: usize = 120;
const PREVIEW: usize = 6 << 20;
/// A few previews in flight, and the program.
const FLOOD_MIB: u64 = 250;
/// While the engine has not confirmed a cancel, its events are not read.
const FOREVER: Duration = Duration::from_hours(1);

fn streamed_generation(steps: u32) -> Vec<u8> {
    let body = json!({"prompt": "a", "size": "64x64", "steps": steps, "stream": true, "partial_images": 3})
        .to_string();
    let head = "POST /v1/images/generations HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length:";
    format!("{head} {}\r\n\r\n{body}", body.len()).into_bytes()
}

async fn check_flood(sidecar: &Running, send_preview: impl Fn()) {
    for _ in 0..PREVIEWS {
        send_preview();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The answer proves that the previews have arrived.
    until_taken(sidecar, 1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let peak = peak_mib(sidecar.child.id());
    assert!(peak < FLOOD_MIB, "{peak} MiB");
}

#[tokio::test]
async fn a_flood_of_previews_from_invokeai_takes_the_memory_of_a_few() {
    let fake = FakeInvoke::start().await;
    fake.script(|script| (script.hold, script.cancel_tail) = (true, FOREVER));
    let sidecar = Running::start(&fakes::fresh_dir("flood"), &["--engine-url", &fake.url()]);
    sidecar.ready().await;
    fake.until_followed(1).await;
    let mut client = RawClient::to(&sidecar.url).await;
    client.send(streamed_generation(8)).await;
    fake.until(|items| items.iter().any(|item| item.status == ItemStatus::InProgress)).await;
    let preview = base64_simd::STANDARD.encode_to_string(png_of(PREVIEW));
    let item = fake.items().remove(0);
    let data = json!({"item_id": item.id, "batch_id": item.batch_id, "percentage": 0.1,
        "image": {"dataURL": format!("data:image/png;base64,{preview}")}});
    let frame = format!("42[\"invocation_progress\",{data}]");
    // While the client reads nothing, then after it disconnected.
    check_flood(&sidecar, || fake.broadcast_raw(&frame)).await;
    drop(client);
    fake.until(|items| items.iter().all(|item| item.status == ItemStatus::Canceled)).await;
    check_flood(&sidecar, || fake.broadcast_raw(&frame)).await;
}

#[tokio::test]
async fn a_flood_of_previews_from_comfyui_takes_the_memory_of_a_few() {
    let fake = FakeComfy::start().await;
    fake.script(|script| (script.hold, script.cancel_tail) = (true, FOREVER));
    let sidecar =
        Running::start(&fakes::fresh_dir("flood"), &["--engine", "comfyui", "--engine-url", &fake.url()]);
    sidecar.ready().await;
    fake.until_followed(1).await;
    let mut client = RawClient::to(&sidecar.url).await;
    client.send(streamed_generation(8)).await;
    fake.until(|items| items.iter().any(|item| item.status == comfyui::PromptStatus::Running)).await;
    let metadata = json!({"prompt_id": fake.items()[0].prompt_id, "image_type": "image/png"}).to_string();
    let length = u32::try_from(metadata.len()).expect("short").to_be_bytes();
    let frame: Bytes =
        [&4_u32.to_be_bytes()[..], &length, metadata.as_bytes(), &png_of(PREVIEW)].concat().into();
    check_flood(&sidecar, || fake.broadcast_raw(&frame)).await;
    drop(client);
    fakes::eventually("the job is being cancelled", async || {
        fake.cancels().iter().any(|request| request.path.ends_with("/cancel")).then_some(())
    })
    .await;
    check_flood(&sidecar, || fake.broadcast_raw(&frame)).await;
}

/// For the image itself and what any request needs.
const BODY_MARGIN_MIB: u64 = 16;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_costs_at_most_four_times_its_length_and_delays_nobody() {
    for hostile in all() {
        let (name, expected) = (hostile.name, hostile.sidecar);
        let sidecar = Running::start(&fakes::fresh_dir("bodies"), &["--engine", "builtin"]);
        sidecar.ready().await;
        let Cost { status, body, peak_mib, max_health_latency } =
            hostile.send(&sidecar.url, sidecar.child.id(), "").await;
        assert_eq!(status, expected, "{name}: {body:.500}");
        assert!(status == 200 || body.len() < 4_000, "{name}: an answer of {} bytes", body.len());
        assert!(peak_mib <= 4 * (LARGE as u64 >> 20) + BODY_MARGIN_MIB, "{name}: {peak_mib} MiB");
        assert!(max_health_latency < Duration::from_secs(2), "{name}: health took {max_health_latency:?}");
    }
}
