//! The fake against the recordings that it plays, and each way in which it misbehaves, through plain clients.

mod graphs;
mod refusals;

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use picture::Format;
use reqwest::Method;
use serde_json::{Value, json};
use service::outbound;
use tokio::net::TcpStream;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

use super::*;

const SD_1: &str = include_str!("../../../fixtures/invokeai/txt2img-sd-1.json");
const SDXL: &str = include_str!("../../../fixtures/invokeai/txt2img-sdxl.json");
const FAILURE: &str = include_str!("../../../fixtures/invokeai/fail-unknown-model.json");

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn follow(fake: &FakeInvoke) -> Socket {
    let url = format!("{}/ws/socket.io/?EIO=4&transport=websocket", fake.url().replace("http", "ws"));
    let (mut socket, _) = connect_async(url).await.unwrap();
    assert!(frame(&mut socket).await.unwrap().starts_with("0{"));
    socket.send(Message::text("40")).await.unwrap();
    assert!(frame(&mut socket).await.unwrap().starts_with("40{"));
    socket.send(Message::text(r#"42["subscribe_queue",{"queue_id":"default"}]"#)).await.unwrap();
    socket
}

async fn frame(socket: &mut Socket) -> Option<String> {
    match socket.next().await?.ok()? {
        Message::Text(text) => Some(text.to_string()),
        _ => None,
    }
}

/// All events up to the one that `ends` it.
async fn events(socket: &mut Socket, ends: impl Fn(&str) -> bool) -> Vec<String> {
    let mut events = Vec::new();
    while let Some(text) = frame(socket).await {
        events.push(text);
        if ends(events.last().unwrap()) {
            break;
        }
    }
    events
}

fn client() -> reqwest::Client {
    outbound::client_builder(outbound::ConnectionPolicy::PerRequest).build().unwrap()
}

/// The bytes of an answer, and their kind.
async fn load(fake: &FakeInvoke, path: &str) -> (String, Bytes) {
    let answer = client().get(format!("{}{path}", fake.url())).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    (answer.headers()["content-type"].to_str().unwrap().to_owned(), answer.bytes().await.unwrap())
}

async fn ask(
    fake: &FakeInvoke,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> reqwest::Result<(u16, Value)> {
    let mut request = client().request(method, format!("{}{path}", fake.url()));
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body.to_string());
    }
    let answer = request.send().await?;
    let status = answer.status().as_u16();
    let body = answer.bytes().await?;
    Ok((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
}

/// A text-to-image batch of SD 1.5 with these seeds; without any the graph's own seed counts.
fn batch(seeds: &[u64]) -> Value {
    let mut batch: Value =
        serde_json::from_str(include_str!("../../../fixtures/invokeai/foreign.json")).unwrap();
    batch["batch"]["destination"] = json!("ours");
    if !seeds.is_empty() {
        batch["batch"]["data"] = json!([[{"node_path": "noise", "field_name": "seed", "items": seeds}]]);
    }
    batch
}

async fn enqueue(fake: &FakeInvoke, batch: &Value) -> (u16, Value) {
    ask(fake, Method::POST, "/api/v1/queue/default/enqueue_batch", Some(batch)).await.unwrap()
}

/// The same JSON with every value but names and progress blanked, keys in the order in which they came.
fn shape(frame: &str) -> String {
    let data = frame.trim_start_matches("42");
    let (event, value): (String, Value) = serde_json::from_str(data).unwrap();
    let mut keys: Vec<(usize, &String)> = value
        .as_object()
        .unwrap()
        .keys()
        .map(|key| (data.find(&format!("\"{key}\":")).unwrap(), key))
        .collect();
    keys.sort_unstable();
    let keys: Vec<&String> = keys.into_iter().map(|(_, key)| key).collect();
    format!("{event} {} {} {} {keys:?}", value["invocation_source_id"], value["status"], value["percentage"])
}

fn shapes(fixture: &str) -> Vec<String> {
    let frames: Vec<Box<serde_json::value::RawValue>> = serde_json::from_str(fixture).unwrap();
    frames.iter().map(|frame| shape(frame.get())).collect()
}

#[tokio::test]
async fn items_of_both_kinds_of_models_are_reported_as_recorded() {
    let mut sdxl = batch(&[]);
    let nodes = &mut sdxl["batch"]["graph"]["nodes"];
    nodes["loader"]["type"] = json!("sdxl_model_loader");
    nodes["loader"]["model"]["key"] = json!("fd529a50-c929-4319-b2f4-d7fe2c78b751");
    for prompt in ["pos", "neg"] {
        nodes[prompt]["type"] = json!("sdxl_compel_prompt");
    }
    let edges = sdxl["batch"]["graph"]["edges"].as_array_mut().unwrap();
    for prompt in ["pos", "neg"] {
        let source = json!({"node_id": "loader", "field": "clip2"});
        edges.push(json!({"source": source, "destination": {"node_id": prompt, "field": "clip2"}}));
    }
    for (batch, recording) in [(batch(&[]), SD_1), (sdxl, SDXL)] {
        let fake = FakeInvoke::start().await;
        let mut socket = follow(&fake).await;
        let (_, answer) = enqueue(&fake, &batch).await;
        let events = events(&mut socket, |event| event.contains("\"status\":\"completed\"")).await;
        assert_eq!(events.iter().map(|event| shape(event)).collect::<Vec<_>>(), shapes(recording));

        let item = &fake.items()[0];
        let finished = events.iter().rfind(|event| event.contains("image_name")).unwrap();
        for value in [&item.batch_id, &item.session_id, item.image.as_ref().unwrap()] {
            assert!(finished.contains(value.as_str()), "{value} in {finished}");
        }
        assert!(finished.contains("\"origin\":\"webui\",\"destination\":\"ours\""));
        assert_eq!(answer["batch"]["batch_id"], json!(item.batch_id));
        assert!(fake.finished_event_at(item.id).is_some());

        let (_, sent) = ask(&fake, Method::GET, "/api/v1/queue/default/i/1", None).await.unwrap();
        assert_eq!(sent["status"], "completed");
        assert!(sent.get("error_type").is_none() && sent.to_string().contains(item.image.as_ref().unwrap()));
    }
}

#[tokio::test]
async fn a_batch_is_answered_newest_first_and_runs_oldest_first_with_its_seeds() {
    let fake = FakeInvoke::start().await;
    let mut socket = follow(&fake).await;
    let (_, answer) = enqueue(&fake, &batch(&[11, 12, 13])).await;
    assert_eq!(answer["item_ids"], json!([3, 2, 1]));
    let done = |event: &str| event.contains("\"item_id\":3,") && event.contains("\"status\":\"completed\"");
    let names: Vec<String> = events(&mut socket, done)
        .await
        .iter()
        .filter_map(|event| {
            let (name, data): (String, Value) = serde_json::from_str(&event[2..]).unwrap();
            (name == "queue_item_status_changed").then(|| format!("{} {}", data["item_id"], data["status"]))
        })
        .collect();
    let expected: Vec<String> =
        (1..=3).flat_map(|id| [format!("{id} \"in_progress\""), format!("{id} \"completed\"")]).collect();
    assert_eq!(names, expected);
    assert_eq!(fake.items().iter().map(|item| item.number("seed")).collect::<Vec<_>>(), [11, 12, 13]);
    assert_eq!(fake.gallery().len(), 3);

    let path = format!("/api/v1/queue/default/b/{}/status", fake.items()[0].batch_id);
    let (_, counts) = ask(&fake, Method::GET, &path, None).await.unwrap();
    assert_eq!((&counts["completed"], &counts["total"]), (&json!(3), &json!(3)));
}

#[tokio::test]
async fn equal_requests_give_equal_bytes_and_the_stored_image() {
    let fake = FakeInvoke::start().await;
    for seeds in [&[7][..], &[7], &[8]] {
        enqueue(&fake, &batch(seeds)).await;
        fake.until_idle().await;
    }
    let names: Vec<_> = fake.items().iter().map(|item| item.image.clone().unwrap()).collect();
    assert_eq!(names[0], names[1]);
    assert_ne!(names[1], names[2]);
    let first = load(&fake, &format!("/api/v1/images/i/{}/full", names[0])).await;
    assert_eq!((first.0.as_str(), Format::detect(&first.1)), ("image/png", Ok(Format::Png)));

    let mut again = batch(&[7]);
    again["batch"]["graph"]["nodes"]["l2i"]["use_cache"] = json!(false);
    enqueue(&fake, &again).await;
    fake.until_idle().await;
    let mut socket = follow(&fake).await;
    enqueue(&fake, &again).await;
    let sent = events(&mut socket, |event| event.contains("\"status\":\"completed\"")).await;
    assert!(!sent.iter().any(|event| event.contains("Denoising")), "the latents are in the cache");
    assert!(sent.iter().any(|event| event.contains("Saving image")));
    let fresh: Vec<_> = fake.items().iter().skip(3).map(|item| item.image.clone().unwrap()).collect();
    assert_ne!(fresh[0], fresh[1]);
    assert_eq!(load(&fake, &format!("/api/v1/images/i/{}/full", fresh[1])).await, first);
}

#[tokio::test]
async fn failures_are_reported_in_the_recorded_order() {
    let fake = FakeInvoke::start().await;
    let mut socket = follow(&fake).await;
    let mut unknown = batch(&[]);
    unknown["batch"]["graph"]["nodes"]["loader"]["model"]["key"] = json!("nobody");
    enqueue(&fake, &unknown).await;
    let sent = events(&mut socket, |event| event.contains("invocation_error")).await;
    assert_eq!(sent.iter().map(|event| shape(event)).collect::<Vec<_>>(), shapes(FAILURE));
    assert!(sent.last().unwrap().contains("\"error_message\":\"Unknown model nobody\""));

    fake.script(|script| script.fail = Some(InvokeState::out_of_memory()));
    enqueue(&fake, &batch(&[])).await;
    let sent = events(&mut socket, |event| event.contains("invocation_error")).await;
    assert!(sent.iter().any(|event| event.contains("Denoising")), "it fails in mid-denoising");
    let (_, item) = ask(&fake, Method::GET, "/api/v1/queue/default/i/2", None).await.unwrap();
    assert_eq!((&item["status"], &item["error_type"]), (&json!("failed"), &json!("OutOfMemoryError")));
}

#[tokio::test]
async fn cancelling_a_batch_reports_the_waiting_ones_once_and_the_step_goes_on() {
    let fake = FakeInvoke::start().await;
    fake.script(|script| (script.hold, script.cancel_tail) = (true, Duration::from_hours(1)));
    let mut socket = follow(&fake).await;
    enqueue(&fake, &batch(&[1, 2, 3])).await;
    events(&mut socket, |event| event.contains("Denoising")).await;
    let foreign = fake.foreign_job();

    let body = json!({"batch_ids": [fake.items()[0].batch_id]});
    let path = "/api/v1/queue/default/cancel_by_batch_ids";
    assert_eq!(ask(&fake, Method::PUT, path, Some(&body)).await.unwrap().1, json!({"canceled": 3}));
    assert_eq!(ask(&fake, Method::PUT, path, Some(&body)).await.unwrap().1, json!({"canceled": 0}));
    let sent = events(&mut socket, |event| event.contains("queue_items_canceled")).await;
    let last: Vec<String> = sent.iter().skip(1).map(|event| shape(event)).collect();
    assert_eq!(last, shapes(include_str!("../../../fixtures/invokeai/cancel-batch.json"))[2..]);
    assert!(sent.last().unwrap().contains("\"canceled_item_ids\":[2,3]"));

    let (_, status) = ask(&fake, Method::GET, "/api/v1/queue/default/status", None).await.unwrap();
    assert_eq!(status["queue"]["in_progress"], 0);
    assert_eq!(status["processor"]["is_processing"], true);
    fake.script(|script| (script.hold, script.cancel_tail) = (false, Duration::ZERO));
    fake.until_idle().await;
    assert_eq!(fake.items()[foreign as usize - 1].status, ItemStatus::Completed);
    assert_eq!(fake.cancels().len(), 2);
}

#[tokio::test]
async fn a_cancelled_item_or_destination_is_over_and_others_are_not() {
    let fake = FakeInvoke::start().await;
    fake.pause(true);
    let foreign = fake.foreign_job();
    enqueue(&fake, &batch(&[1, 2])).await;
    let (status, item) = ask(&fake, Method::PUT, "/api/v1/queue/default/i/2/cancel", None).await.unwrap();
    assert_eq!((status, &item["status"]), (200, &json!("canceled")));
    let path = "/api/v1/queue/default/cancel_by_destination?destination=ours";
    assert_eq!(ask(&fake, Method::PUT, path, None).await.unwrap().1, json!({"canceled": 1}));
    let path = "/api/v1/queue/default/counts_by_destination?destination=ours";
    assert_eq!(ask(&fake, Method::GET, path, None).await.unwrap().1["canceled"], 2);
    assert_eq!(ask(&fake, Method::PUT, "/api/v1/queue/default/i/99/cancel", None).await.unwrap().0, 404);
    assert_eq!(fake.items()[foreign as usize - 1].status, ItemStatus::Pending);
    let (_, processor) =
        ask(&fake, Method::PUT, "/api/v1/queue/default/processor/resume", None).await.unwrap();
    assert_eq!(processor["is_started"], true);
    fake.until_idle().await;
    assert_eq!(fake.items()[foreign as usize - 1].status, ItemStatus::Completed);
}

#[tokio::test]
async fn enqueueing_refuses_what_the_real_server_refuses_and_a_full_queue_takes_less() {
    let fake = FakeInvoke::start().await;
    let mut wrong_id = batch(&[]);
    wrong_id["batch"]["graph"]["nodes"]["noise"]["id"] = json!("other");
    let mut odd = batch(&[]);
    odd["batch"]["graph"]["nodes"]["noise"]["width"] = json!(63);
    let mut uneven = batch(&[1, 2]);
    let zipped = uneven["batch"]["data"][0].as_array_mut().unwrap();
    zipped.push(json!({"node_path": "pos", "field_name": "prompt", "items": ["x"]}));
    for (body, text) in [
        (json!({}), "Field required"),
        (wrong_id, "Node ids must match"),
        (odd, "multiple of 8"),
        (uneven, "same length"),
    ] {
        let (status, answer) = enqueue(&fake, &body).await;
        assert_eq!(status, 422);
        assert!(answer["detail"][0]["msg"].as_str().unwrap().contains(text), "{answer}");
    }
    fake.pause(true);
    fake.script(|script| script.max_queue = 2);
    let (status, answer) = enqueue(&fake, &batch(&[1, 2, 3])).await;
    assert_eq!((status, &answer["enqueued"], &answer["requested"]), (200, &json!(2), &json!(3)));
}

#[tokio::test]
async fn a_lost_answer_leaves_the_batch_running() {
    let fake = FakeInvoke::start().await;
    fake.script(|script| script.lose_enqueue_answer = true);
    ask(&fake, Method::POST, "/api/v1/queue/default/enqueue_batch", Some(&batch(&[]))).await.unwrap_err();
    fake.until(|items| items.iter().any(|item| item.status == ItemStatus::Completed)).await;
}

#[tokio::test]
async fn a_killed_server_refuses_connections_and_restarts_on_its_port_with_its_queue() {
    let fake = FakeInvoke::start().await;
    fake.script(|script| script.hold = true);
    let mut socket = follow(&fake).await;
    enqueue(&fake, &batch(&[1, 2])).await;
    events(&mut socket, |event| event.contains("Denoising")).await;
    fake.stop().await;
    assert!(events(&mut socket, |_| false).await.iter().all(|event| !event.contains("completed")));
    assert!(ask(&fake, Method::GET, "/api/v1/app/version", None).await.unwrap_err().is_connect());

    fake.script(|script| script.hold = false);
    fake.restart();
    assert_eq!(ask(&fake, Method::GET, "/api/v1/app/version", None).await.unwrap().1["version"], "6.14.2");
    fake.until_idle().await;
    let ends: Vec<ItemStatus> = fake.items().iter().map(|item| item.status).collect();
    assert_eq!(ends, [ItemStatus::Canceled, ItemStatus::Completed]);
}

#[tokio::test]
async fn a_hung_server_accepts_connections_and_sends_nothing_until_it_resumes() {
    let fake = FakeInvoke::start().await;
    fake.script(|script| script.hang = true);
    let answer = ask(&fake, Method::GET, "/api/v1/app/version", None);
    tokio::pin!(answer);
    tokio::select! {
        _ = &mut answer => panic!("a hung server answered"),
        () = crate::eventually("it arrives", async || (!fake.requests().is_empty()).then_some(())) => {}
    }
    fake.script(|script| script.hang = false);
    assert_eq!(answer.await.unwrap().0, 200);
}

#[tokio::test]
async fn events_can_be_swallowed_and_sockets_dropped() {
    let fake = FakeInvoke::start().await;
    fake.script(|script| script.swallow = vec!["\"status\":\"completed\"".to_owned()]);
    let mut socket = follow(&fake).await;
    enqueue(&fake, &batch(&[])).await;
    events(&mut socket, |event| event.contains("image_name")).await;
    fake.until_idle().await;
    fake.drop_sockets();
    assert!(events(&mut socket, |_| false).await.is_empty());
    fake.until_followed(0).await;
    assert_eq!(fake.finished_event_at(1), None);
}

#[tokio::test]
async fn pings_come_and_silence_is_closed() {
    let fake = FakeInvoke::start().await;
    fake.script(|script| script.ping = Duration::from_millis(5));
    let mut socket = follow(&fake).await;
    assert_eq!(frame(&mut socket).await.as_deref(), Some("2"));
    socket.send(Message::text("3")).await.unwrap();
    assert_eq!(events(&mut socket, |_| false).await, ["2"]);
}

#[tokio::test]
async fn unknown_paths_and_scripted_responses_are_served_as_scripted() {
    let fake = FakeInvoke::start().await;
    assert!(load(&fake, "/api/v1/nothing").await.0.starts_with("text/html"));
    assert_eq!(ask(&fake, Method::POST, "/api/v1/nothing", None).await.unwrap().0, 405);
    fake.script(|script| script.version = Identity::Version("3"));
    let (_, answer) = ask(&fake, Method::GET, "/api/v1/app/version", None).await.unwrap();
    assert_eq!(answer, json!({"version": "3"}));
    let (_, answer) = ask(&fake, Method::GET, "/api/v2/models/?model_type=main", None).await.unwrap();
    assert_eq!(answer["models"].as_array().unwrap().len(), 2);

    enqueue(&fake, &batch(&[])).await;
    fake.until_idle().await;
    let name = fake.gallery().remove(0);
    fake.script(|script| script.image_bytes = InvokeImageBytes::Plain(ImageBytes::CutOff));
    let (_, half) = load(&fake, &format!("/api/v1/images/i/{name}/full")).await;
    assert!(Format::detect(&half).is_err());
    let path = format!("/api/v1/images/i/{name}");
    assert_eq!(ask(&fake, Method::GET, &path, None).await.unwrap().1["image_name"], json!(name));
    assert_eq!(ask(&fake, Method::DELETE, &path, None).await.unwrap().0, 200);
    assert_eq!(ask(&fake, Method::GET, &path, None).await.unwrap().0, 404);
    assert!(fake.requests().iter().any(|request| request.method == "DELETE" && request.path == path));
}
