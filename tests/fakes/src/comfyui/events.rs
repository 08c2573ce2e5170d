//! What the sockets are told: who gets which event, in which of the two binary forms previews travel.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    queue::ComfyState,
    socket::{Frame, Payload},
};

/// The two kinds of picture that travel in binary frames.
#[derive(Debug, Clone, Copy)]
pub(super) enum PreviewFormat {
    Jpeg,
    Png,
}

impl ComfyState {
    /// The queue's length, to all.
    pub(super) fn broadcast_status(&self) {
        self.broadcast("status", &json!({"status": self.status()}));
    }

    pub(super) fn status(&self) -> Value {
        json!({"exec_info": {"queue_remaining": self.queue_remaining()}})
    }

    /// To the running prompt's client; a prompt without one is silent here.
    pub(super) fn send_event(&self, event: &str, data: &Value) {
        if let Some(client) = &self.client {
            self.send(client, self.frame(event, data).as_ref());
        }
    }

    /// To the running prompt's client; for a prompt without one, to all.
    pub(super) fn send_or_broadcast(&self, event: &str, data: &Value) {
        match &self.client {
            Some(client) => self.send(client, self.frame(event, data).as_ref()),
            None => self.broadcast(event, data),
        }
    }

    fn broadcast(&self, event: &str, data: &Value) {
        let frame = self.frame(event, data);
        for client in self.sockets.keys() {
            self.send(client, frame.as_ref());
        }
    }

    /// None if the script swallows it.
    fn frame(&self, event: &str, data: &Value) -> Option<Frame> {
        let text = json!({"type": event, "data": data}).to_string();
        let ends = matches!(event, "execution_success" | "execution_error" | "execution_interrupted");
        let finishes = ends.then(|| data["prompt_id"].as_str().unwrap_or_default().to_owned());
        let swallowed = self.script.swallow.iter().any(|part| text.contains(part));
        (!swallowed).then_some(Frame { payload: Payload::Text(text), finishes })
    }

    fn send(&self, client: &str, frame: Option<&Frame>) {
        if let (Some(socket), Some(frame)) = (self.sockets.get(client), frame) {
            // An error says only that the socket is going away.
            socket.frames.send(frame.clone()).ok();
        }
    }

    /// To all, as it is.
    pub(super) fn broadcast_raw(&self, frame: &Bytes) {
        let frame = Frame { payload: Payload::Binary(frame.clone()), finishes: None };
        self.sockets.keys().for_each(|client| self.send(client, Some(&frame)));
    }

    /// Whether the client asked for previews that say whose they are.
    pub(super) fn knows_metadata(&self) -> bool {
        let socket = self.client.as_ref().and_then(|client| self.sockets.get(client));
        socket.is_some_and(|socket| socket.preview_metadata)
    }

    /// A picture in a binary frame: event 4 if negotiated, else event 1. A prompt without a client sends event 1
    /// to all, even to those that negotiated event 4.
    pub(super) fn send_preview(&self, node: &str, kind: PreviewFormat, image: &[u8]) {
        let (code, mime) = match kind {
            PreviewFormat::Jpeg => (1u32, "image/jpeg"),
            PreviewFormat::Png => (2, "image/png"),
        };
        let bytes = if self.knows_metadata() {
            let prompt_id = self.running().map(|item| &item.prompt_id);
            let metadata = json!({"node_id": node, "prompt_id": prompt_id, "display_node_id": node,
                "parent_node_id": null, "real_node_id": node, "image_type": mime})
            .to_string();
            let length = u32::try_from(metadata.len()).expect("a few words");
            [&4u32.to_be_bytes()[..], &length.to_be_bytes(), metadata.as_bytes(), image].concat()
        } else {
            [&1u32.to_be_bytes()[..], &code.to_be_bytes(), image].concat()
        };
        let frame = Frame { payload: Payload::Binary(Bytes::from(bytes)), finishes: None };
        match &self.client {
            Some(client) => self.send(client, Some(&frame)),
            None => self.sockets.keys().for_each(|client| self.send(client, Some(&frame))),
        }
    }
}
