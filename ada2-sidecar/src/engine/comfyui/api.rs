//! The part of ComfyUI's HTTP API that we use (recorded from 0.33.0, 0.12.1 and 0.3.64).

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use reqwest::{Client, Response, StatusCode, Url};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use service::outbound::{ReadBodyError, read_limited};

use super::{
    checkpoint_file::{FileStamp, RawMetadata},
    history::{HistoryEntry, OutputFile},
    queue::Queue,
    rejection,
    version::{InterruptsById, Version},
};
use crate::engine::{
    EngineError,
    http::{EngineClient, HttpDialect, RESPONSE_TIMEOUT, body_error, transport_error, with_json},
    upload::png_form,
};

/// For one file's metadata, which the server reads from disk.
const METADATA_TIMEOUT: Duration = Duration::from_secs(2);
/// The server reads headers up to 1 MiB, with images in them, and writes them up to three times as long.
const MAX_METADATA: usize = 4 << 20;
const DIALECT: HttpDialect = HttpDialect {
    name: "ComfyUI",
    // ComfyUI itself has no login.
    login_hint: "a custom node or a proxy in front requires one; remove it, or use ComfyUI's own address",
    login: None,
    error_message: |status, path, body| {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        match body.get("error") {
            Some(Value::Object(_)) => rejection::rejection_message(&body),
            _ => format!("ComfyUI answered {} to {path}", status.as_u16()),
        }
    },
};
/// Where images to edit are uploaded: the engine empties this directory when it starts. Its API cannot delete a file.
const UPLOADS: [(&str, &str); 3] = [("type", "temp"), ("subfolder", "ada2-sidecar"), ("overwrite", "true")];

/// The API of one server.
#[derive(Debug, Clone)]
pub(super) struct ComfyUiApi(EngineClient);

impl ComfyUiApi {
    pub(super) fn new(base: Url) -> Self {
        Self(EngineClient::new(base, &DIALECT))
    }

    /// The WebSocket's address for this client id.
    pub(super) fn events_url(&self, client: &str) -> String {
        let mut url = self.url(&["ws"]);
        let _ = url.set_scheme("ws");
        url.query_pairs_mut().append_pair("clientId", client);
        url.into()
    }

    /// The version: proof that ComfyUI answers, and no other program.
    pub(super) async fn version(&self) -> Result<Version, EngineError> {
        let response: Value = self.get(&["system_stats"]).await?;
        let version =
            response.pointer("/system/comfyui_version").and_then(Value::as_str).ok_or_else(|| {
                EngineError::UnexpectedResponse(
                    "this server is not ComfyUI: /system_stats names no version".to_owned(),
                )
            })?;
        Ok(Version::read(version))
    }

    /// The checkpoint files.
    pub(super) async fn checkpoints(&self) -> Result<Vec<String>, EngineError> {
        self.get(&["models", "checkpoints"]).await
    }

    /// The diffusion model files.
    pub(super) async fn diffusion_models(&self) -> Result<Vec<String>, EngineError> {
        self.optional_files("diffusion_models").await
    }

    /// The LoRA files.
    pub(super) async fn loras(&self) -> Result<Vec<String>, EngineError> {
        self.optional_files("loras").await
    }

    /// Servers without this list have none for us.
    async fn optional_files(&self, directory: &str) -> Result<Vec<String>, EngineError> {
        match self.get(&["models", directory]).await {
            Err(EngineError::Failed(_) | EngineError::UnexpectedResponse(_)) => Ok(Vec::new()),
            response => response,
        }
    }

    /// Each checkpoint file's size and modification time, if the server lists them.
    pub(super) async fn checkpoint_stamps(&self) -> Result<HashMap<String, FileStamp>, EngineError> {
        #[derive(Deserialize)]
        struct ListedFile {
            name: String,
            modified: f64,
            size: u64,
        }
        let listed: Vec<ListedFile> = self.get(&["experiment", "models", "checkpoints"]).await?;
        // Of files with the same name in two directories, the loaders take the first.
        let stamp = |ListedFile { name, modified, size }| (name, FileStamp { modified, size });
        Ok(listed.into_iter().rev().map(stamp).collect())
    }

    /// A file's metadata; None if it has none or the server cannot read it.
    pub(super) async fn metadata(&self, file: &str) -> Result<Option<RawMetadata>, EngineError> {
        let mut url = self.url(&["view_metadata", "checkpoints"]);
        url.query_pairs_mut().append_pair("filename", file);
        let response = self.0.pooled.get(url).timeout(METADATA_TIMEOUT).send().await;
        let response = response.map_err(|error| transport_error(&error))?;
        if !response.status().is_success() {
            return Ok(None);
        }
        match read_limited(response, MAX_METADATA).await {
            Ok(body) => Ok(serde_json::from_slice(&body).ok()),
            Err(ReadBodyError::TooLarge) => Ok(None),
            Err(error) => Err(body_error(error)),
        }
    }

    pub(super) async fn queue(&self) -> Result<Queue, EngineError> {
        self.get(&["queue"]).await
    }

    /// The result of a prompt; None while it waits or runs, and for unknown prompts.
    pub(super) async fn history_entry(&self, prompt: &str) -> Result<Option<HistoryEntry>, EngineError> {
        let mut response: serde_json::Map<String, Value> = self.get(&["history", prompt]).await?;
        let entry: Option<HistoryEntry> = response
            .remove(prompt)
            .map(serde_json::from_value)
            .transpose()
            .map_err(|_| self.0.unexpected_response("/history"))?;
        if entry.as_ref().is_some_and(|entry| !entry.belongs_to(prompt)) {
            return Err(self.0.unexpected_response("/history"));
        }
        Ok(entry)
    }

    /// The description of a class of nodes; None if the server does not know it.
    pub(super) async fn node_class(&self, name: &str) -> Result<Option<Value>, EngineError> {
        let mut response: serde_json::Map<String, Value> = self.get(&["object_info", name]).await?;
        Ok(response.remove(name))
    }

    /// Submits a prompt. If only a part of the graph is invalid, the server responds with 200 and runs the rest.
    pub(super) async fn submit(&self, payload: &Value) -> Result<(), EngineError> {
        let response: Value = self.0.read(self.post(&self.0.fresh, &["prompt"], payload).await?).await?;
        match response.get("node_errors").and_then(Value::as_object) {
            // With another id it could be neither followed nor cancelled.
            Some(errors) if errors.is_empty() && response["prompt_id"] != payload["prompt_id"] => {
                Err(self.0.unexpected_response("/prompt"))
            }
            Some(errors) if errors.is_empty() => Ok(()),
            Some(_) => Err(EngineError::Failed(rejection::rejection_message(&response))),
            None => Err(self.0.unexpected_response("/prompt")),
        }
    }

    /// Cancels this prompt, whether it waits or runs, and no other; one that has ended stays as it is. False if the server
    /// has no such route: versions up to 0.25.0.
    pub(super) async fn cancel_job(&self, prompt: &str) -> Result<bool, EngineError> {
        let request = self.0.pooled.post(self.url(&["api", "jobs", prompt, "cancel"]));
        let response = request.timeout(RESPONSE_TIMEOUT).send().await;
        let response = response.map_err(|error| transport_error(&error))?;
        match response.status() {
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => return Ok(false),
            status if !status.is_success() => return Err(self.0.failure(response).await),
            _ => {}
        }
        match self.0.read::<Value>(response).await {
            Ok(answer) => Ok(answer["cancelled"].is_boolean()),
            Err(EngineError::UnexpectedResponse(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes those of these prompts that wait.
    pub(super) async fn delete_from_queue(&self, prompts: &[String]) -> Result<(), EngineError> {
        self.post(&self.0.pooled, &["queue"], &json!({"delete": prompts})).await.map(drop)
    }

    /// Interrupts this prompt if it runs, and no other.
    pub(super) async fn interrupt(&self, prompt: &str, _: InterruptsById) -> Result<(), EngineError> {
        self.post(&self.0.pooled, &["interrupt"], &json!({"prompt_id": prompt})).await.map(drop)
    }

    /// Makes the server free memory as soon as nothing runs.
    pub(super) async fn free_memory(&self) -> Result<(), EngineError> {
        let body = json!({"unload_models": true, "free_memory": true});
        self.post(&self.0.pooled, &["free"], &body).await.map(drop)
    }

    /// Uploads a PNG; returns the name by which nodes load it.
    pub(super) async fn upload(&self, png: &[u8]) -> Result<String, EngineError> {
        #[derive(Deserialize)]
        struct Uploaded {
            name: String,
            #[serde(default)]
            subfolder: String,
            #[serde(rename = "type")]
            directory: String,
        }
        let name = format!("{}.png", uuid::Uuid::new_v4().simple());
        let form = png_form("image", &name, png, &UPLOADS);
        let Uploaded { name, subfolder, directory } =
            self.0.upload(self.url(&["upload", "image"]), form).await?;
        let path = if subfolder.is_empty() { name } else { format!("{subfolder}/{name}") };
        Ok(if directory == "input" { path } else { format!("{path} [{directory}]") })
    }

    /// An image's bytes.
    pub(super) async fn image(&self, file: &OutputFile) -> Result<Bytes, EngineError> {
        let mut url = self.url(&["view"]);
        url.query_pairs_mut()
            .append_pair("filename", &file.filename)
            .append_pair("subfolder", &file.subfolder)
            .append_pair("type", &file.directory);
        self.0.image(url).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, EngineError> {
        self.0.get(self.url(path)).await
    }

    async fn post(&self, client: &Client, path: &[&str], body: &Value) -> Result<Response, EngineError> {
        self.0.send(with_json(client.post(self.url(path)).timeout(RESPONSE_TIMEOUT), body)).await
    }

    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.0.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.clear().extend(path);
        }
        url
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_in_addresses() {
        let api = ComfyUiApi::new("http://127.0.0.1:8188".parse().unwrap());
        assert_eq!(
            api.url(&["object_info", "a/../b?c"]).as_str(),
            "http://127.0.0.1:8188/object_info/a%2F..%2Fb%3Fc"
        );
        assert_eq!(api.events_url("tag.1"), "ws://127.0.0.1:8188/ws?clientId=tag.1");
    }
}
