//! InvokeAI's HTTP API (6.14.2), as far as it is used. Every answer is bounded in time and size.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use reqwest::{Method, Url};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::item::QueueItem;
use crate::engine::{
    EngineError,
    http::{EngineClient, HttpDialect, RESPONSE_TIMEOUT, with_json},
    sanitize_message,
    upload::png_form,
};

const DIALECT: HttpDialect = HttpDialect {
    name: "InvokeAI",
    // Only its version needs no login.
    login_hint: "its multi-user mode is on; write `multiuser: false` into its invokeai.yaml and restart it",
    error_message: |status, _, body| {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let message = detail_message(&body["detail"]);
        sanitize_message(&format!("InvokeAI answered {}: {message}", status.as_u16()))
    },
};

/// Types of nodes, with the inputs that each takes.
pub(super) type NodeTypes = BTreeMap<String, BTreeSet<String>>;

/// The API of one server.
#[derive(Debug, Clone)]
pub(super) struct InvokeAiApi(EngineClient);

/// What became of an enqueue request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Enqueued {
    /// The batch.
    pub(super) batch_id: String,
    /// Its items in the order in which they run (the server answers in the reverse order).
    pub(super) items: Vec<u64>,
}

/// Counts of a batch's or the queue's items.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Counts {
    /// Waiting for their turn.
    pub(super) pending: u64,
    /// Running.
    pub(super) in_progress: u64,
    /// Waiting for another item.
    #[serde(default)]
    pub(super) waiting: u64,
    /// Done.
    #[serde(default)]
    pub(super) completed: u64,
    /// Failed.
    #[serde(default)]
    pub(super) failed: u64,
    /// Cancelled.
    #[serde(default)]
    pub(super) canceled: u64,
}

impl Counts {
    /// Not yet ended.
    pub(super) fn active(&self) -> u64 {
        self.pending + self.in_progress + self.waiting
    }
}

/// The queue and its worker.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct QueueStatus {
    /// All items.
    pub(super) queue: Counts,
    /// The worker.
    pub(super) processor: Processor,
}

/// The queue's worker.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Processor {
    /// False when paused.
    pub(super) is_started: bool,
    /// Stays true after a cancel until the running step is over: only then is the GPU free.
    pub(super) is_processing: bool,
}

impl InvokeAiApi {
    /// The API at this address.
    pub(super) fn new(base: Url) -> Self {
        Self(EngineClient::new(base, &DIALECT))
    }

    /// The WebSocket's address.
    pub(super) fn events_url(&self) -> String {
        let mut url = self.0.base.clone();
        let _ = url.set_scheme("ws");
        url.set_path("/ws/socket.io/");
        url.set_query(Some("EIO=4&transport=websocket"));
        url.into()
    }

    /// The version; proof that this is InvokeAI and not whatever else listens there.
    pub(super) async fn version(&self) -> Result<String, EngineError> {
        let answer: Value = self.get("/api/v1/app/version").await?;
        let version = answer.get("version").and_then(Value::as_str);
        // It is shown in terminals and to the service manager.
        let clean = |text: &str| text.chars().filter(|character| !character.is_control()).take(64).collect();
        version.map(clean).ok_or_else(|| {
            EngineError::UnexpectedResponse(
                "what answers is not InvokeAI: /api/v1/app/version names no version".to_owned(),
            )
        })
    }

    /// The main models, as the server describes them.
    pub(super) async fn main_models(&self) -> Result<Vec<Value>, EngineError> {
        #[derive(Deserialize)]
        struct Models {
            models: Vec<Value>,
        }
        Ok(self.get::<Models>("/api/v2/models/?model_type=main").await?.models)
    }

    /// The queue and its worker.
    pub(super) async fn queue_status(&self) -> Result<QueueStatus, EngineError> {
        self.get("/api/v1/queue/default/status").await
    }

    /// The items that were sent to this destination, whenever.
    pub(super) async fn counts_of_destination(&self, destination: &str) -> Result<Counts, EngineError> {
        self.get(&format!("/api/v1/queue/default/counts_by_destination?destination={destination}")).await
    }

    /// The items of a batch; zeros for one that the server does not know.
    pub(super) async fn counts_of_batch(&self, batch: &str) -> Result<Counts, EngineError> {
        self.get(&format!("/api/v1/queue/default/b/{batch}/status")).await
    }

    /// One item with its results.
    pub(super) async fn item(&self, item: u64) -> Result<QueueItem, EngineError> {
        self.get(&format!("/api/v1/queue/default/i/{item}")).await
    }

    /// Hands over a batch. A full queue takes fewer items than asked for, and says 200.
    pub(super) async fn enqueue(&self, batch: &Value) -> Result<Enqueued, EngineError> {
        #[derive(Deserialize)]
        struct Answer {
            batch: Batch,
            item_ids: Vec<u64>,
        }
        #[derive(Deserialize)]
        struct Batch {
            batch_id: String,
        }
        let path = "/api/v1/queue/default/enqueue_batch";
        let request = with_json(self.0.fresh.post(self.url(path)?).timeout(RESPONSE_TIMEOUT), batch);
        let answer: Answer = self.0.read(self.0.send(request).await?).await?;
        let (mut items, batch) = (answer.item_ids, answer.batch.batch_id);
        items.sort_unstable();
        // It becomes a part of paths.
        let sane = |character: char| character.is_ascii_alphanumeric() || character == '-';
        if batch.is_empty() || batch.len() > 64 || !batch.chars().all(sane) {
            return Err(EngineError::UnexpectedResponse(
                "the engine's batch has an id that is none".to_owned(),
            ));
        }
        Ok(Enqueued { batch_id: batch, items })
    }

    /// Cancels everything of one batch, waiting or running.
    pub(super) async fn cancel_batch(&self, batch: &str) -> Result<(), EngineError> {
        let body = json!({"batch_ids": [batch]});
        let path = "/api/v1/queue/default/cancel_by_batch_ids";
        self.command(Method::PUT, path, Some(&body)).await
    }

    /// Cancels everything that was sent to this destination.
    pub(super) async fn cancel_destination(&self, destination: &str) -> Result<(), EngineError> {
        let path = format!("/api/v1/queue/default/cancel_by_destination?destination={destination}");
        self.command(Method::PUT, &path, None).await
    }

    /// Asks the server to drop the models that it caches and does not use.
    pub(super) async fn empty_model_cache(&self) -> Result<(), EngineError> {
        self.command(Method::POST, "/api/v2/models/empty_model_cache", None).await
    }

    /// Puts a PNG into the engine, out of sight of its gallery; gives its name.
    pub(super) async fn upload(&self, png: &[u8]) -> Result<String, EngineError> {
        #[derive(Deserialize)]
        struct Uploaded {
            image_name: String,
        }
        let form = png_form("file", "ada2-sidecar.png", png, &[]);
        let url = self.url("/api/v1/images/upload?image_category=user&is_intermediate=true")?;
        let Uploaded { image_name } = self.0.upload(url, form).await?;
        Ok(image_name)
    }

    /// Takes a picture of ours out of the engine again.
    pub(super) async fn delete_image(&self, name: &str) -> Result<(), EngineError> {
        let path = format!("/api/v1/images/i/{name}");
        self.command(Method::DELETE, &path, None).await
    }

    /// Every type of node, and the inputs that it takes.
    pub(super) async fn node_types(&self) -> Result<NodeTypes, EngineError> {
        let description: Value = self.get("/openapi.json").await?;
        let schemas = description.pointer("/components/schemas").and_then(Value::as_object);
        let node = |schema: &Value| {
            let inputs = schema.get("properties")?.as_object()?;
            let kind = inputs.get("type")?.get("const")?.as_str()?.to_owned();
            Some((kind, inputs.keys().cloned().collect()))
        };
        let known: NodeTypes = schemas.into_iter().flatten().filter_map(|(_, schema)| node(schema)).collect();
        if known.is_empty() {
            return Err(EngineError::UnexpectedResponse(
                "the engine describes no nodes in /openapi.json".to_owned(),
            ));
        }
        Ok(known)
    }

    /// A picture's bytes.
    pub(super) async fn image(&self, name: &str) -> Result<Bytes, EngineError> {
        let sane =
            |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.');
        if name.is_empty() || !name.chars().all(sane) {
            return Err(EngineError::UnexpectedResponse(
                "the engine named a picture that is no file name".to_owned(),
            ));
        }
        self.0.image(self.url(&format!("/api/v1/images/i/{name}/full"))?).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, EngineError> {
        self.0.get(self.url(path)?).await
    }

    /// Sends what may be sent twice and has no response of interest.
    async fn command(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(), EngineError> {
        let mut request = self.0.pooled.request(method, self.url(path)?).timeout(RESPONSE_TIMEOUT);
        if let Some(body) = body {
            request = with_json(request, body);
        }
        self.0.send(request).await.map(drop)
    }

    fn url(&self, path: &str) -> Result<Url, EngineError> {
        self.0.base.join(path).map_err(|error| EngineError::UnexpectedResponse(error.to_string()))
    }
}

/// A text, or the first of the validator's findings; never its `input`, which echoes the whole graph.
fn detail_message(detail: &Value) -> String {
    let finding = |finding: &Value| finding.get("msg").and_then(Value::as_str).map(str::to_owned);
    detail
        .as_str()
        .map(str::to_owned)
        .or_else(|| detail.as_array()?.first().and_then(finding))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_validators_finding_never_echoes_the_graph() {
        let detail = json!([{"type": "x", "loc": ["body"], "msg": "Node ids must match", "input": {"graph": "secret"}}]);
        assert_eq!(detail_message(&detail), "Node ids must match");
        assert_eq!(detail_message(&json!("model not found")), "model not found");
        assert_eq!(detail_message(&json!({"a": 1})), "");
    }
}
