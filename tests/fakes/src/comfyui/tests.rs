//! The fake against the recordings that it plays, and each way in which it misbehaves, through plain clients.

mod graphs;
mod refusals;

use std::sync::LazyLock;

use futures_util::{SinkExt, StreamExt};
use reqwest::Method;
use tokio::net::TcpStream;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

use super::*;
use crate::{TestResponse, bounded, http};

const CLIENT: &str = "c0ffee00-0000-4000-8000-000000000001";

static RUNS: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../../fixtures/comfyui/runs.json")).unwrap());

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A socket that sends nothing, so that previews come as event 1.
async fn follow(fake: &FakeComfy, client: &str) -> Socket {
    let url = format!("{}/ws?clientId={client}", fake.url().replace("http", "ws"));
    connect_async(url).await.unwrap().0
}

/// A socket that negotiates event 4.
async fn follow_with_flags(fake: &FakeComfy) -> Socket {
    let mut socket = follow(fake, CLIENT).await;
    let flags = json!({"type": "feature_flags", "data": {"supports_preview_metadata": true}});
    socket.send(Message::text(flags.to_string())).await.unwrap();
    socket
}

/// The next frame: text as it is, of a binary one the head. None when the socket has ended.
async fn frame(socket: &mut Socket) -> Option<Value> {
    match bounded("a frame", socket.next()).await?.ok()? {
        Message::Text(text) => Some(serde_json::from_str(&text).unwrap()),
        Message::Binary(bytes) => Some(json!({ "binary": head(&bytes) })),
        _ => None,
    }
}

fn head(bytes: &[u8]) -> Value {
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    if number(0) == 4 {
        let metadata: Value = serde_json::from_slice(&bytes[8..8 + number(4) as usize]).unwrap();
        return json!({"event_code": 4, "metadata": metadata});
    }
    json!({"event_code": number(0), "image_type_code": number(4)})
}

/// All frames up to the one that `ends` it.
async fn frames(socket: &mut Socket, ends: impl Fn(&Value) -> bool) -> Vec<Value> {
    let mut frames = Vec::new();
    while let Some(frame) = frame(socket).await {
        frames.push(frame);
        if ends(frames.last().unwrap()) {
            break;
        }
    }
    frames
}

fn is_last(frame: &Value) -> bool {
    frame["type"] == "executing" && frame["data"]["node"].is_null()
}

fn is_of(kind: &str) -> impl Fn(&Value) -> bool {
    move |frame| frame["type"] == kind
}

async fn ask(fake: &FakeComfy, method: Method, path: &str, body: Option<&Value>) -> TestResponse {
    let mut request = http().request(method, format!("{}{path}", fake.url()));
    if let Some(body) = body {
        request = request.body(body.to_string());
    }
    TestResponse::read(request.send().await.unwrap()).await
}

async fn get(fake: &FakeComfy, path: &str) -> Value {
    let answer = ask(fake, Method::GET, path, None).await;
    assert_eq!(answer.status, 200, "{path}");
    answer.json
}

async fn post(fake: &FakeComfy, path: &str, body: &Value) -> TestResponse {
    ask(fake, Method::POST, path, Some(body)).await
}

/// Enqueues a workflow for [`CLIENT`], with previews, and returns its id.
async fn enqueue(fake: &FakeComfy, graph: &Value) -> String {
    let extra = json!({"preview_method": "latent2rgb"});
    let body = json!({"prompt": graph, "client_id": CLIENT, "extra_data": extra});
    let answer = post(fake, "/prompt", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.json);
    answer.json["prompt_id"].as_str().unwrap().to_owned()
}

/// The recorded text-to-image workflow, 64x64 in two steps, with this seed.
fn txt2img(seed: u64) -> Value {
    let mut graph: Value =
        serde_json::from_str(include_str!("../../../fixtures/comfyui/txt2img.json")).unwrap();
    graph["3"]["inputs"]["seed"] = json!(seed);
    graph
}

async fn entry(fake: &FakeComfy, prompt_id: &str) -> Value {
    get(fake, &format!("/history/{prompt_id}")).await[prompt_id].clone()
}

/// The same JSON with everything that differs from run to run blanked.
fn shape(value: &Value) -> Value {
    const VARIABLE: [&str; 9] = [
        "prompt_id",
        "timestamp",
        "sid",
        "filename",
        "traceback",
        "current_inputs",
        "current_outputs",
        "exception_message",
        "exception_type",
    ];
    match value {
        Value::Object(members) => {
            let blank = |(key, value): (&String, &Value)| {
                let blanked = if VARIABLE.contains(&key.as_str()) { json!("*") } else { shape(value) };
                (key.clone(), blanked)
            };
            Value::Object(members.iter().map(blank).collect())
        }
        Value::Array(elements) => elements.iter().map(shape).collect(),
        // The recorded sampler counts in whole numbers, and the other nodes do not.
        other => other.as_f64().map_or(other.clone(), |number| json!(number)),
    }
}

fn shapes(frames: &[Value]) -> Vec<Value> {
    frames.iter().map(shape).collect()
}

#[tokio::test]
async fn a_run_sends_the_recorded_frames_and_leaves_the_recorded_entry() {
    let fake = FakeComfy::start().await;
    let mut socket = follow_with_flags(&fake).await;
    let mut sent = frames(&mut socket, is_of("feature_flags")).await;
    let run = &RUNS["txt2img_flags"];
    let id = enqueue(&fake, &run["prompt"]).await;
    sent.extend(frames(&mut socket, is_last).await);
    assert_eq!(shapes(&sent), shapes(run["frames"].as_array().unwrap()));
    let left = entry(&fake, &id).await;
    for key in ["outputs", "status", "meta"] {
        assert_eq!(shape(&left[key]), shape(&run["history"][key]), "{key}");
    }

    let run = &RUNS["repeated"];
    enqueue(&fake, &RUNS["txt2img_flags"]["prompt"]).await;
    let sent = frames(&mut socket, is_last).await;
    assert_eq!(shapes(&sent), shapes(run["frames"].as_array().unwrap()));
    assert_eq!(fake.items()[0].images, fake.items()[1].images, "an equal graph names the old file");
    post(&fake, "/free", &json!({"free_memory": true})).await;
    enqueue(&fake, &RUNS["txt2img_flags"]["prompt"]).await;
    fake.until_idle().await;
    assert_ne!(fake.items()[0].images, fake.items()[2].images);
}

#[tokio::test]
async fn an_interrupt_and_a_failure_are_reported_as_recorded() {
    let fake = FakeComfy::start().await;
    let end = |run: &str| {
        let frames = RUNS[run]["frames"].as_array().unwrap();
        let keys = |frame: &Value| frame["data"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        let at = frames.iter().position(|frame| frame["type"].as_str().is_some_and(is_failure)).unwrap();
        (frames[at]["type"].clone(), keys(&frames[at]))
    };
    fake.script(|script| script.hold = true);
    let mut socket = follow(&fake, CLIENT).await;
    let id = enqueue(&fake, &txt2img(1)).await;
    let sent = frames(&mut socket, |frame| frame.get("binary").is_some()).await;
    assert_eq!(sent.last().unwrap()["binary"], json!({"event_code": 1, "image_type_code": 1}));
    post(&fake, "/interrupt", &json!({"prompt_id": "00000000-0000-0000-0000-000000000000"})).await;
    assert_eq!(fake.items()[0].status, PromptStatus::Running, "it names another");
    post(&fake, "/interrupt", &json!({"prompt_id": id})).await;
    let sent = frames(&mut socket, is_last).await;
    let failed = &sent[0];
    assert_eq!((&failed["data"]["node_id"], &failed["data"]["node_type"]), (&json!("3"), &json!("KSampler")));
    let keys = failed["data"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!((failed["type"].clone(), keys), end("interrupted"));
    assert_eq!(entry(&fake, &id).await["status"]["status_str"], "error");

    fake.script(|script| (script.hold, script.fail) = (false, Some(ComfyState::out_of_memory())));
    let id = enqueue(&fake, &txt2img(2)).await;
    let sent = frames(&mut socket, is_last).await;
    let failed = sent.iter().find(|frame| frame["type"].as_str().is_some_and(is_failure)).unwrap();
    let keys = failed["data"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!((failed["type"].clone(), keys), end("out_of_memory"));
    let messages = entry(&fake, &id).await["status"]["messages"].clone();
    assert_eq!(messages[2][1]["exception_message"], ComfyState::out_of_memory().message);
}

fn is_failure(kind: &str) -> bool {
    matches!(kind, "execution_interrupted" | "execution_error")
}

#[tokio::test]
async fn waiting_prompts_are_listed_deleted_and_leave_nothing() {
    let fake = FakeComfy::start().await;
    fake.script(|script| script.hold = true);
    let mut ids = Vec::new();
    for seed in 1..=3 {
        ids.push(enqueue(&fake, &txt2img(seed)).await);
    }
    fake.until(|items| items[0].status == PromptStatus::Running).await;
    let queue = get(&fake, "/queue").await;
    assert_eq!(
        (&queue["queue_running"][0][1], &queue["queue_running"][0][4]),
        (&json!(ids[0]), &json!(["9"]))
    );
    assert_eq!(queue["queue_pending"].as_array().unwrap().len(), 2);
    assert_eq!(queue["queue_pending"][0][3]["client_id"], CLIENT);
    post(&fake, "/queue", &json!({"delete": [ids[0], ids[1]]})).await;
    let statuses: Vec<_> = fake.items().iter().map(|item| item.status).collect();
    assert_eq!(statuses, [PromptStatus::Running, PromptStatus::Deleted, PromptStatus::Pending]);
    post(&fake, "/queue", &json!({"clear": true})).await;
    post(&fake, "/interrupt", &json!({})).await;
    fake.until_idle().await;
    assert!(entry(&fake, &ids[1]).await.is_null());
    assert_eq!(fake.cancels().len(), 3);
}

#[tokio::test]
async fn a_lost_answer_leaves_the_prompt_running_once() {
    let fake = FakeComfy::start().await;
    fake.script(|script| script.lose_prompt_answer = true);
    let body = json!({"prompt": txt2img(1), "prompt_id": "8a78ad0b-6603-483f-83fb-0d1e5425ac53"});
    let lost = http().post(format!("{}/prompt", fake.url())).body(body.to_string()).send().await;
    lost.unwrap_err();
    fake.until(|items| items.iter().any(|item| item.status == PromptStatus::Completed)).await;
    enqueue(&fake, &txt2img(2)).await;
}

#[tokio::test]
async fn a_killed_server_refuses_connections_and_restarts_empty() {
    let fake = FakeComfy::start().await;
    fake.script(|script| script.hold = true);
    let mut socket = follow(&fake, CLIENT).await;
    let id = enqueue(&fake, &txt2img(1)).await;
    enqueue(&fake, &txt2img(2)).await;
    frames(&mut socket, is_of("progress")).await;
    fake.stop().await;
    let last = loop {
        match bounded("the end", socket.next()).await {
            Some(Ok(Message::Close(_))) => panic!("a killed process sends no close frame"),
            Some(Ok(_)) => {}
            other => break other,
        }
    };
    assert!(last.is_none_or(|last| last.is_err()));
    let refused = http().get(format!("{}/queue", fake.url())).send().await.unwrap_err();
    assert!(refused.is_connect());

    fake.script(|script| script.hold = false);
    fake.restart();
    assert_eq!(get(&fake, "/queue").await, json!({"queue_running": [], "queue_pending": []}));
    assert!(entry(&fake, &id).await.is_null());
    enqueue(&fake, &txt2img(1)).await;
    fake.until_idle().await;
    let ends: Vec<PromptStatus> = fake.items().iter().map(|item| item.status).collect();
    assert_eq!(ends, [PromptStatus::Lost, PromptStatus::Lost, PromptStatus::Completed]);
    assert_eq!(fake.items()[2].number, 0);
}

#[tokio::test]
async fn a_hung_server_accepts_connections_and_sends_nothing_until_it_resumes() {
    let fake = FakeComfy::start().await;
    fake.script(|script| script.hang = true);
    let answer = ask(&fake, Method::GET, "/queue", None);
    tokio::pin!(answer);
    tokio::select! {
        _ = &mut answer => panic!("a hung server answered"),
        () = crate::eventually("it arrives", async || (!fake.requests().is_empty()).then_some(())) => {}
    }
    fake.script(|script| script.hang = false);
    assert_eq!(answer.await.status, 200);
}

#[tokio::test]
async fn a_socket_opened_in_mid_run_gets_only_the_current_node() {
    let fake = FakeComfy::start().await;
    fake.script(|script| script.hold = true);
    let mut first = follow(&fake, CLIENT).await;
    enqueue(&fake, &txt2img(1)).await;
    frames(&mut first, is_of("progress")).await;
    first.close(None).await.unwrap();
    fake.until_followed(0).await;
    let mut second = follow(&fake, CLIENT).await;
    let greeting = [frame(&mut second).await.unwrap(), frame(&mut second).await.unwrap()];
    assert_eq!(greeting[0]["data"]["status"]["exec_info"]["queue_remaining"], 1);
    assert_eq!(greeting[1], json!({"type": "executing", "data": {"node": "3"}}));
    fake.script(|script| script.hold = false);
    let sent = frames(&mut second, is_last).await;
    assert!(!sent.iter().any(is_of("execution_start")) && sent.iter().any(is_of("execution_success")));
}

#[tokio::test]
async fn closing_an_old_socket_silences_a_new_one_with_the_same_id() {
    let fake = FakeComfy::start().await;
    let mut old = follow(&fake, CLIENT).await;
    frame(&mut old).await.unwrap();
    let mut new = follow(&fake, CLIENT).await;
    let first = enqueue(&fake, &txt2img(1)).await;
    frames(&mut new, is_last).await;
    old.close(None).await.unwrap();
    assert_eq!(frame(&mut old).await, None, "the old one got nothing since");
    fake.until_followed(0).await;
    let second = enqueue(&fake, &txt2img(2)).await;
    fake.until_idle().await;
    fake.drop_sockets();
    assert_eq!(frame(&mut new).await, None, "the new one stayed open and silent");
    assert!(entry(&fake, &second).await.is_object());
    assert!(fake.finished_event_at(&first).is_some() && fake.finished_event_at(&second).is_none());
}

#[tokio::test]
async fn older_versions_interrupt_whatever_runs_and_make_no_previews_on_request() {
    for (version, end) in
        [(ComfyVersion::V0_3_56, PromptStatus::Interrupted), (ComfyVersion::V0_3_64, PromptStatus::Completed)]
    {
        let fake = FakeComfy::start().await;
        fake.script(|script| (script.hold, script.version) = (true, version));
        let stats = get(&fake, "/system_stats").await;
        assert_eq!(stats["system"]["comfyui_version"], json!(version.to_string()));
        let mut socket = follow(&fake, CLIENT).await;
        enqueue(&fake, &txt2img(1)).await;
        frames(&mut socket, is_of("progress")).await;
        let other = json!({"prompt_id": "00000000-0000-0000-0000-000000000000"});
        assert_eq!(post(&fake, "/interrupt", &other).await.status, 200);
        fake.script(|script| script.hold = false);
        let sent = frames(&mut socket, is_last).await;
        assert!(sent.iter().all(|frame| frame.get("binary").is_none()));
        assert_eq!(fake.items()[0].status, end, "{version}");
    }
}
