//! The fake against the recordings whose shapes it has, and each way in which it misbehaves, through plain clients.

mod files;
mod queue;
mod recorded;
mod refusals;
mod script;
mod sockets;
mod versions;

use futures_util::{SinkExt, StreamExt};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

use super::*;
use crate::{TestResponse, bounded, http};

/// Whose events are followed where it does not matter.
const CLIENT: &str = "c0ffee00-0000-4000-8000-000000000001";

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A socket that says nothing, so that previews come as event 1.
async fn follow(fake: &FakeComfy, client: &str) -> Socket {
    let url = format!("{}/ws?clientId={client}", fake.url().replace("http", "ws"));
    connect_async(url).await.unwrap().0
}

/// A socket that negotiates event 4.
async fn follow_with_flags(fake: &FakeComfy, client: &str) -> Socket {
    let mut socket = follow(fake, client).await;
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

fn types(frames: &[Value]) -> Vec<&str> {
    frames.iter().map(|frame| frame["type"].as_str().unwrap_or("binary")).collect()
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

/// Enqueues a workflow for [`CLIENT`] and gives its id.
async fn enqueue(fake: &FakeComfy, graph: &Value) -> String {
    let answer = post(fake, "/prompt", &json!({"prompt": graph, "client_id": CLIENT})).await;
    assert_eq!(answer.status, 200, "{}", answer.json);
    answer.json["prompt_id"].as_str().unwrap().to_owned()
}

/// Runs a workflow whose results are to be known afterwards.
async fn warm(fake: &FakeComfy, graph: &Value) {
    post(fake, "/prompt", &json!({ "prompt": graph })).await;
    fake.until_idle().await;
}

/// The recorded text-to-image workflow, 64x64 in two steps, with this seed.
fn txt2img(seed: u64) -> Value {
    let mut graph: Value =
        serde_json::from_str(include_str!("../../../fixtures/comfyui/txt2img.json")).unwrap();
    graph["3"]["inputs"]["seed"] = json!(seed);
    graph
}

/// The history entry of a prompt.
async fn entry(fake: &FakeComfy, prompt_id: &str) -> Value {
    get(fake, &format!("/history/{prompt_id}")).await[prompt_id].clone()
}
