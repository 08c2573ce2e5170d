//! `/ws`: one table of sockets by client id, and its trap. An old socket that goes takes its id out of the table even
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

use super::{ConnectionHandle, Core, api};

/// Who follows the events under one id.
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
    Extension(line): Extension<ConnectionHandle>,
    Query(query): Query<HashMap<String, String>>,
    upgrade: WebSocketUpgrade,
) -> Response {
    upgrade.on_upgrade(async move |socket| {
        let given = query.get("clientId").filter(|id| !id.is_empty()).cloned();
        let mut cuts = core.sockets.subscribe();
        let (sid, frames) = core.change(|state| {
            let sid = given.unwrap_or_else(|| state.uuid().replace('-', ""));
            (sid.clone(), enter(state, sid))
        });
        tokio::select! {
            () = serve(&core, socket, &sid, frames) => {}
            () = line.cut.cancelled() => {}
            _ = cuts.changed() => {}
        }
        core.change(|state| state.sockets.remove(&sid));
    })
}

/// Puts a socket into the table; the first frames wait for it.
fn enter(state: &mut super::queue::ComfyState, sid: String) -> UnboundedReceiver<Frame> {
    let (sender, frames) = mpsc::unbounded_channel();
    let greet = |event: &str, data: Value| {
        let text = json!({"type": event, "data": data}).to_string();
        sender.send(Frame { payload: Payload::Text(text), finishes: None }).expect("the receiver is here");
    };
    greet("status", json!({"status": state.status(), "sid": sid}));
    if let Some(node) = state.node.as_ref().filter(|_| state.client.as_ref() == Some(&sid)) {
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
