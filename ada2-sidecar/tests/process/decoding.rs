//! What pictures cost, and that nobody's decoding outlives its job.

use std::time::{Duration, Instant};

use bytes::Bytes;
use fakes::{
    child::peak_mib,
    comfyui::{self, FakeComfy},
    invokeai::{FakeInvoke, ItemStatus},
    large_images::{FORTY_MEGAPIXELS, edit_of, png_of},
    raw_http::RawClient,
};
use serde_json::json;

use crate::running::Running;

/// Callers who leave.
const LEAVERS: usize = 12;
/// Two decoded pictures of 40 megapixels of four channels of 16 bits, what is made of them, and the program.
const MEMORY_MIB: u64 = 1200;
/// For a decoder to notice that nobody waits, and for the process to end.
const SOON: Duration = Duration::from_secs(5);

async fn slots(sidecar: &Running) -> Option<String> {
    let answer = fakes::http().get(format!("{}/readyz/slots", sidecar.url)).send().await.ok()?;
    answer.text().await.ok()
}

async fn until_taken(sidecar: &Running, taken: usize) {
    let wanted = format!("{taken} of 4");
    fakes::eventually(&wanted, async || slots(sidecar).await?.contains(&wanted).then_some(())).await;
}

#[tokio::test]
async fn leavers_cost_no_more_than_two_pictures_and_sigterm_ends_it_at_once() {
    let sidecar = Running::start(&fakes::fresh_folder("decoding"), &["--engine", "builtin"]);
    sidecar.ready().await;
    let edit = edit_of(&FORTY_MEGAPIXELS, &[("prompt", "a"), ("steps", "1")]);
    for _ in 0..LEAVERS {
        let mut caller = RawClient::to(&sidecar.url).await;
        caller.send(&edit).await;
        // Into the middle of the decoding.
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    let mut waiting = Vec::new();
    until_taken(&sidecar, 0).await;
    for taken in 1..=4 {
        let mut caller = RawClient::to(&sidecar.url).await;
        caller.send(&edit).await;
        until_taken(&sidecar, taken).await;
        waiting.push(caller);
    }
    let mut one_more = RawClient::to(&sidecar.url).await;
    one_more.send(&edit).await;
    assert_eq!(one_more.response().await.status(), 429, "refused before it is decoded");
    drop(waiting);
    let begun = Instant::now();
    sidecar.signal("-TERM");
    let peak = peak_mib(sidecar.child.id());
    let (code, log) = sidecar.end().await;
    let took = begun.elapsed();
    assert_eq!(code, Some(0), "{log}");
    assert!(took < SOON, "{took:?}: {log}");
    assert!(peak < MEMORY_MIB, "{peak} MiB");
}

/// Previews that an engine sends, and their bytes.
const PREVIEWS: usize = 120;
const PREVIEW: usize = 6 << 20;
/// A few previews on their way, and the program.
const FLOODED_MIB: u64 = 250;
/// While the engine does not let go of a cancelled job, nobody reads its events.
const FOREVER: Duration = Duration::from_hours(1);

fn order(steps: u32) -> Vec<u8> {
    let body = json!({"prompt": "a", "size": "64x64", "steps": steps, "stream": true, "partial_images": 3})
        .to_string();
    let head = "POST /v1/images/generations HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length:";
    format!("{head} {}\r\n\r\n{body}", body.len()).into_bytes()
}

async fn flooded(sidecar: &Running, say: impl Fn()) {
    for _ in 0..PREVIEWS {
        say();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Behind them, so that they have come.
    until_taken(sidecar, 1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let peak = peak_mib(sidecar.child.id());
    assert!(peak < FLOODED_MIB, "{peak} MiB");
}

#[tokio::test]
async fn a_flood_of_previews_from_invokeai_takes_the_memory_of_a_few() {
    let fake = FakeInvoke::start().await;
    fake.script(|script| (script.hold, script.cancel_tail) = (true, FOREVER));
    let sidecar = Running::start(&fakes::fresh_folder("flood"), &["--engine-url", &fake.url()]);
    sidecar.ready().await;
    fake.until_followed(1).await;
    let mut caller = RawClient::to(&sidecar.url).await;
    caller.send(order(8)).await;
    fake.until(|items| items.iter().any(|item| item.status == ItemStatus::InProgress)).await;
    let preview = base64_simd::STANDARD.encode_to_string(png_of(PREVIEW));
    let item = fake.items().remove(0);
    let data = json!({"item_id": item.id, "batch_id": item.batch_id, "percentage": 0.1,
        "image": {"dataURL": format!("data:image/png;base64,{preview}")}});
    let frame = format!("42[\"invocation_progress\",{data}]");
    // While the caller reads nothing, then with the caller gone.
    flooded(&sidecar, || fake.broadcast_raw(&frame)).await;
    drop(caller);
    fake.until(|items| items.iter().all(|item| item.status == ItemStatus::Canceled)).await;
    flooded(&sidecar, || fake.broadcast_raw(&frame)).await;
}

#[tokio::test]
async fn a_flood_of_previews_from_comfyui_takes_the_memory_of_a_few() {
    let fake = FakeComfy::start().await;
    fake.script(|script| (script.hold, script.cancel_tail) = (true, FOREVER));
    let sidecar =
        Running::start(&fakes::fresh_folder("flood"), &["--engine", "comfyui", "--engine-url", &fake.url()]);
    sidecar.ready().await;
    fake.until_followed(1).await;
    let mut caller = RawClient::to(&sidecar.url).await;
    caller.send(order(8)).await;
    fake.until(|items| items.iter().any(|item| item.status == comfyui::PromptStatus::Running)).await;
    let metadata = json!({"prompt_id": fake.items()[0].prompt_id, "image_type": "image/png"}).to_string();
    let length = u32::try_from(metadata.len()).expect("some words").to_be_bytes();
    let frame: Bytes =
        [&4_u32.to_be_bytes()[..], &length, metadata.as_bytes(), &png_of(PREVIEW)].concat().into();
    flooded(&sidecar, || fake.broadcast_raw(&frame)).await;
    drop(caller);
    fakes::eventually("the job is being cancelled", async || {
        fake.cancels().iter().any(|seen| seen.path.contains("interrupt")).then_some(())
    })
    .await;
    flooded(&sidecar, || fake.broadcast_raw(&frame)).await;
}
