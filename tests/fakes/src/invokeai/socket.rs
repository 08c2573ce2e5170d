//! Socket.IO over one raw WebSocket: the five kinds of frame that are used, and events to everybody.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{
        State,
        ws::{Message, WebSocket, WebSocketUpgrade},
    },
    response::Response,
};
use serde_json::{Value, json};
use tokio::{sync::broadcast::error::RecvError, time::Instant};

use super::{ConnectionHandle, Core, queue::SocketIoFrame, script::Users};

pub(super) async fn upgrade(
    State(core): State<Arc<Core>>,
    Extension(line): Extension<ConnectionHandle>,
    upgrade: WebSocketUpgrade,
) -> Response {
    upgrade.on_upgrade(async move |socket| {
        let mut cuts = core.sockets.subscribe();
        tokio::select! {
            () = serve(&core, socket) => {}
            () = line.cut.cancelled() => {}
            _ = cuts.changed() => {}
        }
        // Whoever waits for sockets to go learns of it.
        core.change(|_| ());
    })
}

/// Returns to close without a close frame, as the real server does with a client that it does not understand.
async fn serve(core: &Core, mut socket: WebSocket) {
    let session = core.change(super::queue::InvokeState::uuid);
    let open = json!({"sid": session, "upgrades": [], "pingTimeout": 20000, "pingInterval": 25000, "maxPayload": 1_000_000});
    if socket.send(text(format!("0{open}"))).await.is_err() {
        return;
    }
    let Some(auth) = next(&mut socket).await.and_then(|frame| frame.strip_prefix("40").map(str::to_owned))
    else {
        return;
    };
    let auth: Value = serde_json::from_str(&auth).unwrap_or_default();
    let is_let_in = core.look(|state| {
        state.script.users == Users::Single
            || auth["token"].as_str().is_some_and(|token| state.is_valid(token))
    });
    if !is_let_in {
        let refusal = json!({"message": "Connection rejected by server"});
        socket.send(text(format!("44{refusal}"))).await.ok();
        return;
    }
    let mut events = core.change(|state| state.frames.subscribe());
    if socket.send(text(format!("40{}", json!({ "sid": session })))).await.is_err() {
        return;
    }
    let mut pinged_at = Instant::now();
    let mut answered = true;
    loop {
        let ping = core.look(|state| state.script.ping);
        tokio::select! {
            event = events.recv() => match event {
                Ok(frame) => {
                    if !deliver(core, &mut socket, frame).await {
                        return;
                    }
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
            message = next(&mut socket) => match message.as_deref() {
                Some("3") => answered = true,
                Some(message) if message.starts_with("42") => {}
                _ => return,
            },
            () = tokio::time::sleep_until(pinged_at + ping) => {
                if !answered || socket.send(text("2".to_owned())).await.is_err() {
                    return;
                }
                (pinged_at, answered) = (Instant::now(), false);
            }
        }
    }
}

async fn deliver(core: &Core, socket: &mut WebSocket, frame: SocketIoFrame) -> bool {
    core.unless_hung().await;
    if let Some(id) = frame.finishes {
        core.change(|state| *state.finished.entry(id).or_insert_with(std::time::Instant::now));
    }
    socket.send(text(frame.text)).await.is_ok()
}

async fn next(socket: &mut WebSocket) -> Option<String> {
    loop {
        match socket.recv().await? {
            Ok(Message::Text(message)) => return Some(message.to_string()),
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            _ => return None,
        }
    }
}

fn text(frame: String) -> Message {
    Message::Text(frame.into())
}
