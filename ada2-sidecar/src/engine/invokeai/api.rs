//! The part of InvokeAI's HTTP API that we use (6.14.2).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use reqwest::{Method, Url};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    graphs,
    item::QueueItem,
    models::{InstalledModels, ListedModel},
};
use crate::engine::{
    EngineError,
    http::{EngineClient, HttpDialect, RESPONSE_TIMEOUT, with_json},
    login::{EngineLogin, LoginDialect},
    sanitize_message,
    upload::png_form,
};

const DIALECT: HttpDialect = HttpDialect {
    name: "InvokeAI",
    // Only its version needs no login.
    login_hint: "its multi-user mode is on; name a file with user name and password, one line each, as engine_auth_file \
                 (--engine-auth-file), or write `multiuser: false` into its invokeai.yaml and restart it",
    login: Some(LoginDialect {
        path: "/api/v1/auth/login",
        // With `remember_me` a token lasts a week, and without a day.
        body: |user| json!({"email": user.user.expose(), "password": user.password.expose(), "remember_me": true}),
        token: "token",
        refreshed: "x-refreshed-token",
    }),
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

/// An enqueued batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Enqueued {
    pub(super) batch_id: String,
    /// Its items in the order in which they run (the server lists them in reverse).
    pub(super) items: Vec<u64>,
}

/// Counts of items, by status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Counts {
    pub(super) pending: u64,
    pub(super) in_progress: u64,
    /// For another item.
    #[serde(default)]
    pub(super) waiting: u64,
    #[serde(default)]
    pub(super) completed: u64,
    #[serde(default)]
    pub(super) failed: u64,
    #[serde(default)]
    pub(super) canceled: u64,
}

impl Counts {
    /// Not yet finished.
    pub(super) fn active(&self) -> u64 {
        self.pending + self.in_progress + self.waiting
    }
}

#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct QueueStatus {
    pub(super) queue: Counts,
    pub(super) processor: Processor,
}

#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Processor {
    /// False while paused.
    pub(super) is_started: bool,
    /// After a cancel it stays true until the running step ends: only then is the GPU free.
    pub(super) is_processing: bool,
}

impl InvokeAiApi {
    pub(super) fn new(base: Url) -> Self {
        Self(EngineClient::new(base, &DIALECT))
    }

    pub(super) fn events_url(&self) -> String {
        let mut url = self.0.base.clone();
        let _ = url.set_scheme("ws");
        url.set_path("/ws/socket.io/");
        url.set_query(Some("EIO=4&transport=websocket"));
        url.into()
    }

    /// Logs in with this from now on.
    pub(super) fn set_login(&self, login: Option<EngineLogin>) {
        self.0.session.set_login(login);
    }

    /// The server is gone, and may come back with other users.
    pub(super) fn forget_refusal(&self) {
        self.0.session.forget_refusal();
    }

    /// The token of our login, if the server has asked for one.
    pub(super) fn token(&self) -> Option<String> {
        let value = self.0.session.token()?;
        service::secret::bearer(value.to_str().ok()?).map(str::to_owned)
    }

    /// The version: proof that InvokeAI answers, and no other program.
    pub(super) async fn version(&self) -> Result<String, EngineError> {
        let response: Value = self.get("/api/v1/app/version").await?;
        let version = response.get("version").and_then(Value::as_str);
        // It appears in terminals and in systemd.
        let sanitize =
            |text: &str| text.chars().filter(|character| !character.is_control()).take(64).collect();
        version.map(sanitize).ok_or_else(|| {
            EngineError::UnexpectedResponse(
                "this server is not InvokeAI: /api/v1/app/version names no version".to_owned(),
            )
        })
    }

    /// All models, as the server lists them.
    pub(super) async fn models(&self) -> Result<InstalledModels, EngineError> {
        #[derive(Deserialize)]
        struct Models {
            models: Vec<ListedModel>,
        }
        let read = |list: Models| InstalledModels::read(&list.models, graphs::catalog());
        self.0.get_list(self.url("/api/v2/models/")?, read).await
    }

    pub(super) async fn queue_status(&self) -> Result<QueueStatus, EngineError> {
        self.get("/api/v1/queue/default/status").await
    }

    /// All items that were ever sent to this destination.
    pub(super) async fn counts_of_destination(&self, destination: &str) -> Result<Counts, EngineError> {
        self.get(&format!("/api/v1/queue/default/counts_by_destination?destination={destination}")).await
    }

    /// The items of a batch; zeros if the server does not know it.
    pub(super) async fn counts_of_batch(&self, batch: &str) -> Result<Counts, EngineError> {
        self.get(&format!("/api/v1/queue/default/b/{batch}/status")).await
    }

    /// One item with its results.
    pub(super) async fn item(&self, item: u64) -> Result<QueueItem, EngineError> {
        self.get(&format!("/api/v1/queue/default/i/{item}")).await
    }

    /// Enqueues a batch. A full queue takes fewer items, and responds with 200.
    pub(super) async fn enqueue(&self, batch: &Value) -> Result<Enqueued, EngineError> {
        #[derive(Deserialize)]
        struct Response {
            batch: Batch,
            item_ids: Vec<u64>,
        }
        #[derive(Deserialize)]
        struct Batch {
            batch_id: String,
        }
        let path = "/api/v1/queue/default/enqueue_batch";
        let request = with_json(self.0.fresh.post(self.url(path)?).timeout(RESPONSE_TIMEOUT), batch);
        let response: Response = self.0.read(self.0.send(request).await?).await?;
        let (mut items, batch) = (response.item_ids, response.batch.batch_id);
        items.sort_unstable();
        // It becomes part of paths.
        let is_valid = |character: char| character.is_ascii_alphanumeric() || character == '-';
        if batch.is_empty() || batch.len() > 64 || !batch.chars().all(is_valid) {
            return Err(EngineError::UnexpectedResponse(
                "the engine returned an invalid batch id".to_owned(),
            ));
        }
        Ok(Enqueued { batch_id: batch, items })
    }

    /// Cancels the items of one batch, waiting or running.
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

    /// Makes the server drop cached models that are not in use.
    pub(super) async fn empty_model_cache(&self) -> Result<(), EngineError> {
        self.command(Method::POST, "/api/v2/models/empty_model_cache", None).await
    }

    /// Uploads a PNG, hidden from the gallery; returns its name.
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

    /// Deletes an image that we uploaded.
    pub(super) async fn delete_image(&self, name: &str) -> Result<(), EngineError> {
        let path = format!("/api/v1/images/i/{name}");
        self.command(Method::DELETE, &path, None).await
    }

    /// All types of nodes.
    pub(super) async fn node_types(&self) -> Result<NodeTypes, EngineError> {
        let description: Value = self.get("/openapi.json").await?;
        let schemas = description.pointer("/components/schemas").and_then(Value::as_object);
        let node = |schema: &Value| {
            let inputs = schema.get("properties")?.as_object()?;
            let kind = inputs.get("type")?.get("const")?.as_str()?.to_owned();
            Some((kind, inputs.keys().cloned().collect()))
        };
        let node_types: NodeTypes =
            schemas.into_iter().flatten().filter_map(|(_, schema)| node(schema)).collect();
        if node_types.is_empty() {
            return Err(EngineError::UnexpectedResponse(
                "the engine describes no nodes in /openapi.json".to_owned(),
            ));
        }
        Ok(node_types)
    }

    /// An image's bytes.
    pub(super) async fn image(&self, name: &str) -> Result<Bytes, EngineError> {
        let is_valid =
            |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.');
        if name.is_empty() || !name.chars().all(is_valid) {
            return Err(EngineError::UnexpectedResponse(
                "the engine returned an invalid image name".to_owned(),
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

/// A string, or the validator's first message; never its `input`, which echoes the whole graph.
fn detail_message(detail: &Value) -> String {
    let message = |message: &Value| message.get("msg").and_then(Value::as_str).map(str::to_owned);
    detail
        .as_str()
        .map(str::to_owned)
        .or_else(|| detail.as_array()?.first().and_then(message))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validation_messages_never_echo_the_graph() {
        let detail = json!([{"type": "x", "loc": ["body"], "msg": "Node ids must match", "input": {"graph": "secret"}}]);
        assert_eq!(detail_message(&detail), "Node ids must match");
        assert_eq!(detail_message(&json!("model not found")), "model not found");
        assert_eq!(detail_message(&json!({"a": 1})), "");
    }
}
