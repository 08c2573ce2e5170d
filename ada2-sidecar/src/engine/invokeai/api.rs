//! InvokeAI's HTTP API (6.14.2), as far as it is used. Every answer is bounded in time and size.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use service::outbound::{ConnectionPolicy, plaintext_client_builder, read_limited};

use super::item::QueueItem;
use crate::engine::{
    EngineError,
    http::{body_error, transport_error},
    sanitize_message,
    upload::png_form,
};

/// For everything but a picture.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// For a picture over a slow disk.
const IMAGE_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_ANSWER: usize = 16 << 20;
const MAX_IMAGE_BYTES: usize = 64 << 20;

/// What to do about an InvokeAI that answers 401; alone its version is told without a login.
const LOGIN_HINT: &str =
    "its multi-user mode is on; write `multiuser: false` into its invokeai.yaml and restart it";

/// The API of one server.
#[derive(Debug, Clone)]
pub(super) struct InvokeAiApi {
    base: Url,
    /// For what may be sent twice.
    pooled: Client,
    /// For what spends GPU time: a request on a dead pooled connection would leave unknown whether it arrived.
    fresh: Client,
}

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
        let client = |connections| {
            plaintext_client_builder(connections).build().expect("the client has no settings that can fail")
        };
        Self { base, pooled: client(ConnectionPolicy::Pooled), fresh: client(ConnectionPolicy::PerRequest) }
    }

    /// The WebSocket's address.
    pub(super) fn events_url(&self) -> String {
        let mut url = self.base.clone();
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
        let answer: Answer =
            read(self.send(&self.fresh, Method::POST, path, Some(batch), RESPONSE_TIMEOUT).await?).await?;
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
        self.send(&self.pooled, Method::PUT, path, Some(&body), RESPONSE_TIMEOUT).await.map(drop)
    }

    /// Cancels everything that was sent to this destination.
    pub(super) async fn cancel_destination(&self, destination: &str) -> Result<(), EngineError> {
        let path = format!("/api/v1/queue/default/cancel_by_destination?destination={destination}");
        self.send(&self.pooled, Method::PUT, &path, None, RESPONSE_TIMEOUT).await.map(drop)
    }

    /// Asks the server to drop the models that it caches and does not use.
    pub(super) async fn empty_model_cache(&self) -> Result<(), EngineError> {
        self.send(&self.pooled, Method::POST, "/api/v2/models/empty_model_cache", None, RESPONSE_TIMEOUT)
            .await
            .map(drop)
    }

    /// Puts a PNG into the engine, out of sight of its gallery; gives its name.
    pub(super) async fn upload(&self, png: &[u8]) -> Result<String, EngineError> {
        #[derive(Deserialize)]
        struct Uploaded {
            image_name: String,
        }
        let form = png_form("file", "ada2-sidecar.png", png, &[]);
        let url = self.url("/api/v1/images/upload?image_category=user&is_intermediate=true")?;
        let request = self.fresh.post(url).timeout(IMAGE_TIMEOUT);
        let request = request.header("content-type", form.content_type).body(form.body);
        let answer: Uploaded = read(send_checked(request).await?).await?;
        Ok(answer.image_name)
    }

    /// Takes a picture of ours out of the engine again.
    pub(super) async fn delete_image(&self, name: &str) -> Result<(), EngineError> {
        let path = format!("/api/v1/images/i/{name}");
        self.send(&self.pooled, Method::DELETE, &path, None, RESPONSE_TIMEOUT).await.map(drop)
    }

    /// Every type of node, and the inputs that it takes.
    pub(super) async fn node_types(&self) -> Result<BTreeMap<String, BTreeSet<String>>, EngineError> {
        let description: Value = self.get("/openapi.json").await?;
        let schemas = description.pointer("/components/schemas").and_then(Value::as_object);
        let node = |schema: &Value| {
            let inputs = schema.get("properties")?.as_object()?;
            let kind = inputs.get("type")?.get("const")?.as_str()?.to_owned();
            Some((kind, inputs.keys().cloned().collect()))
        };
        let known: BTreeMap<_, _> =
            schemas.into_iter().flatten().filter_map(|(_, schema)| node(schema)).collect();
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
        let path = format!("/api/v1/images/i/{name}/full");
        // A fresh connection: the GPU time behind a picture must not be lost to a pooled one that just died.
        let answer = self.send(&self.fresh, Method::GET, &path, None, IMAGE_TIMEOUT).await?;
        read_limited(answer, MAX_IMAGE_BYTES).await.map_err(body_error)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, EngineError> {
        read(self.send(&self.pooled, Method::GET, path, None, RESPONSE_TIMEOUT).await?).await
    }

    /// Sends one request; any status but 2xx is an error with the server's own words.
    async fn send(
        &self,
        client: &Client,
        method: Method,
        path: &str,
        body: Option<&Value>,
        time: Duration,
    ) -> Result<Response, EngineError> {
        let mut request = client.request(method, self.url(path)?).timeout(time);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        send_checked(request).await
    }

    fn url(&self, path: &str) -> Result<Url, EngineError> {
        self.base.join(path).map_err(|error| EngineError::UnexpectedResponse(error.to_string()))
    }
}

/// Any status but 2xx is an error with the server's own words.
async fn send_checked(request: RequestBuilder) -> Result<Response, EngineError> {
    let answer = request.send().await.map_err(|error| transport_error(&error))?;
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    if status == StatusCode::UNAUTHORIZED {
        return Err(EngineError::LoginRequired(LOGIN_HINT.to_owned()));
    }
    let body = read_limited(answer, MAX_ANSWER).await.map_err(body_error)?;
    let detail: Option<Value> = serde_json::from_slice(&body).ok();
    let message = detail.as_ref().and_then(|body| body.get("detail")).map(detail_message).unwrap_or_default();
    Err(EngineError::Failed(sanitize_message(&format!("InvokeAI answered {}: {message}", status.as_u16()))))
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

async fn read<T: DeserializeOwned>(answer: Response) -> Result<T, EngineError> {
    let path = answer.url().path().to_owned();
    let body = read_limited(answer, MAX_ANSWER).await.map_err(body_error)?;
    // An unknown path is answered with the web page and 200: only JSON of the right shape counts.
    serde_json::from_slice(&body).map_err(|_| {
        EngineError::UnexpectedResponse(format!(
            "what answers is not InvokeAI as we know it: {path} gives other JSON, or none"
        ))
    })
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
