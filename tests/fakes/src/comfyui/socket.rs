//! `/ws`: who gets which event. Sockets are in one table by client id, with its trap:
//! an old socket that closes takes its id out of the table even
//! if a newer socket has that id by then; the newer one stays open and silent.

use std::{collections::HashMap, sync::Arc, time::Instant};

use axum::{
    Extension,
    extract::{
        Query, State,
        ws::{Message, WebSocket, WebSocketUpgrade},
    },
    response::Response,
};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use super::{
    ConnectionHandle, Core, api,
    queue::{ComfyPrompt, ComfyState},
};

/// A client that receives the events of one id.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) frames: UnboundedSender<Frame>,
    /// Negotiated by the first message.
    pub(super) preview_metadata: bool,
}

/// A frame on its way to a socket.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    pub(super) payload: Payload,
    /// The prompt that it ends.
    pub(super) finishes: Option<String>,
}

#[derive(Debug, Clone)]
pub(super) enum Payload {
    Text(String),
    Binary(Bytes),
}

pub(super) async fn upgrade(
    State(core): State<Arc<Core>>,
    Extension(connection): Extension<ConnectionHandle>,
    Query(query): Query<HashMap<String, String>>,
    upgrade: WebSocketUpgrade,
) -> Response {
    upgrade.on_upgrade(async move |socket| {
        let client = query.get("clientId").filter(|id| !id.is_empty()).cloned();
        let mut cuts = core.sockets.subscribe();
        let (sid, frames) = core.change(|state| {
            let sid = client.unwrap_or_else(|| state.uuid().replace('-', ""));
            (sid.clone(), enter(state, sid))
        });
        tokio::select! {
            () = serve(&core, socket, &sid, frames) => {}
            () = connection.cut.cancelled() => {}
            _ = cuts.changed() => {}
        }
        core.change(|state| state.sockets.remove(&sid));
    })
}

/// Puts a socket into the table; the first frames wait for it.
fn enter(state: &mut ComfyState, sid: String) -> UnboundedReceiver<Frame> {
    let (sender, frames) = mpsc::unbounded_channel();
    let greet = |event: &str, data: Value| {
        let text = json!({"type": event, "data": data}).to_string();
        sender.send(Frame { payload: Payload::Text(text), finishes: None }).expect("the receiver is here");
    };
    greet("status", json!({"status": state.status(), "sid": sid}));
    if let Some(node) = &state.node
        && state.running().is_some_and(|running| running.client_id.as_ref() == Some(&sid))
    {
        greet("executing", json!({"node": node}));
    }
    state.sockets.insert(sid, Socket { frames: sender, preview_metadata: false });
    frames
}

async fn serve(core: &Core, mut socket: WebSocket, sid: &str, mut frames: UnboundedReceiver<Frame>) {
    let mut is_first = true;
    loop {
        tokio::select! {
            Some(frame) = frames.recv() => {
                if !deliver(core, &mut socket, frame).await {
                    return;
                }
            }
            message = socket.recv() => match message {
                Some(Ok(Message::Text(text))) => {
                    let flags = if is_first { flags_of(&text) } else { None };
                    is_first = false;
                    if let Some(flags) = flags {
                        negotiate(core, sid, &flags);
                    }
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {}
            },
        }
    }
}

async fn deliver(core: &Core, socket: &mut WebSocket, frame: Frame) -> bool {
    core.unless_hung().await;
    if let Some(prompt) = frame.finishes {
        core.change(|state| state.finished.entry(prompt).or_insert_with(Instant::now).to_owned());
    }
    let message = match frame.payload {
        Payload::Text(text) => Message::Text(text.into()),
        Payload::Binary(bytes) => Message::Binary(bytes),
    };
    socket.send(message).await.is_ok()
}

fn flags_of(text: &str) -> Option<Value> {
    let message: Value = serde_json::from_str(text).ok()?;
    (message["type"] == "feature_flags").then(|| message["data"].clone())
}

fn negotiate(core: &Core, sid: &str, flags: &Value) {
    core.change(|state| {
        let answer = json!({"type": "feature_flags", "data": api::features(state)}).to_string();
        if let Some(socket) = state.sockets.get_mut(sid) {
            socket.preview_metadata = flags["supports_preview_metadata"] == true;
            socket.frames.send(Frame { payload: Payload::Text(answer), finishes: None }).ok();
        }
    });
}

impl ComfyState {
    /// The queue's length, to all.
    pub(super) fn broadcast_status(&self) {
        for client in self.sockets.keys() {
            self.send_event(Some(client), "status", &json!({"status": self.status()}));
        }
    }

    fn status(&self) -> Value {
        json!({"exec_info": {"queue_remaining": self.queue_remaining()}})
    }

    /// To this client, unless the script swallows it.
    pub(super) fn send_event(&self, client: Option<&str>, event: &str, data: &Value) {
        let text = json!({"type": event, "data": data}).to_string();
        let ends = matches!(event, "execution_success" | "execution_error" | "execution_interrupted");
        let finishes = ends.then(|| data["prompt_id"].as_str().unwrap_or_default().to_owned());
        if !self.script.swallow.iter().any(|part| text.contains(part)) {
            self.send(client, Frame { payload: Payload::Text(text), finishes });
        }
    }

    fn send(&self, client: Option<&str>, frame: Frame) {
        if let Some(socket) = client.and_then(|client| self.sockets.get(client)) {
            // An error only means that the socket is closing.
            socket.frames.send(frame).ok();
        }
    }

    /// To all, as it is.
    pub(super) fn broadcast_raw(&self, frame: &Bytes) {
        for client in self.sockets.keys() {
            self.send(Some(client), Frame { payload: Payload::Binary(frame.clone()), finishes: None });
        }
    }

    /// Whether the client asked for previews that say whose they are.
    pub(super) fn has_preview_metadata(&self, client: Option<&str>) -> bool {
        client.and_then(|client| self.sockets.get(client)).is_some_and(|socket| socket.preview_metadata)
    }

    /// Whether the prompt asks for previews, which came after 0.4.0.
    pub(super) fn makes_previews(&self, prompt: &ComfyPrompt) -> bool {
        let method = prompt.extra_data["preview_method"].as_str().unwrap_or_default();
        self.is_after(0, 4, 0) && matches!(method, "auto" | "latent2rgb" | "taesd")
    }

    /// A JPEG in a binary frame: event 4 if negotiated, else event 1.
    pub(super) fn send_preview(&self, prompt: &ComfyPrompt, node: &str, jpeg: &[u8]) {
        let client = prompt.client_id.as_deref();
        let bytes = if self.has_preview_metadata(client) {
            let metadata = json!({"node_id": node, "prompt_id": prompt.prompt_id, "display_node_id": node,
                "parent_node_id": null, "real_node_id": node, "image_type": "image/jpeg"})
            .to_string();
            let length = u32::try_from(metadata.len()).expect("short");
            [&4u32.to_be_bytes()[..], &length.to_be_bytes(), metadata.as_bytes(), jpeg].concat()
        } else {
            [&1u32.to_be_bytes()[..], &1u32.to_be_bytes(), jpeg].concat()
        };
        self.send(client, Frame { payload: Payload::Binary(bytes.into()), finishes: None });
    }
}
