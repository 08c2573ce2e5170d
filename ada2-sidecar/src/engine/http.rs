//! The HTTP client of an engine's API. Every response is bounded in time and size.

use std::{io::ErrorKind, time::Duration};

use bytes::Bytes;
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url, header::CONTENT_TYPE};
use serde::de::DeserializeOwned;
use serde_json::Value;
use service::outbound::{
    ConnectionPolicy, ReadBodyError, io_error_kind, plaintext_client_builder, read_limited, resolve_error,
};

use super::{EngineError, upload::UploadForm};

/// For everything but images.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// For an image over a slow disk.
const IMAGE_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_RESPONSE: usize = 16 << 20;
const MAX_IMAGE_BYTES: usize = 64 << 20;

/// The HTTP client of one engine.
#[derive(Debug, Clone)]
pub(super) struct EngineClient {
    pub(super) base: Url,
    /// For what may be sent twice.
    pub(super) pooled: Client,
    /// For what spends GPU time, and the images that it made: on a dead pooled connection it would stay unknown whether
    /// the request arrived.
    pub(super) fresh: Client,
    dialect: &'static HttpDialect,
}

/// What differs between engines.
#[derive(Debug)]
pub(super) struct HttpDialect {
    /// The engine's name in messages.
    pub(super) name: &'static str,
    /// What to do about a 401.
    pub(super) login_hint: &'static str,
    /// The message for any other status but 2xx, from path and body.
    pub(super) error_message: fn(StatusCode, &str, &[u8]) -> String,
}

impl EngineClient {
    pub(super) fn new(base: Url, dialect: &'static HttpDialect) -> Self {
        let client = |connections| {
            plaintext_client_builder(connections).build().expect("the client has no settings that can fail")
        };
        let (pooled, fresh) = (client(ConnectionPolicy::Pooled), client(ConnectionPolicy::PerRequest));
        Self { base, pooled, fresh, dialect }
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, url: Url) -> Result<T, EngineError> {
        self.read(self.send(self.pooled.get(url).timeout(RESPONSE_TIMEOUT)).await?).await
    }

    /// Uploads a PNG; the response names it.
    pub(super) async fn upload<T: DeserializeOwned>(
        &self,
        url: Url,
        form: UploadForm,
    ) -> Result<T, EngineError> {
        let request = self.fresh.post(url).timeout(IMAGE_TIMEOUT);
        let request = request.header(CONTENT_TYPE, form.content_type).body(form.body);
        self.read(self.send(request).await?).await
    }

    /// An image's bytes.
    pub(super) async fn image(&self, url: Url) -> Result<Bytes, EngineError> {
        let response = self.send(self.fresh.get(url).timeout(IMAGE_TIMEOUT)).await?;
        read_limited(response, MAX_IMAGE_BYTES).await.map_err(body_error)
    }

    /// Sends a request; any status but 2xx is an error.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Response, EngineError> {
        let response = request.send().await.map_err(|error| transport_error(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        if status == StatusCode::UNAUTHORIZED {
            return Err(EngineError::LoginRequired(self.dialect.login_hint.to_owned()));
        }
        let path = response.url().path().to_owned();
        let body = read_limited(response, MAX_RESPONSE).await.map_err(body_error)?;
        Err(EngineError::Failed((self.dialect.error_message)(status, &path, &body)))
    }

    /// Reads a response as JSON. Servers answer unknown paths with their web page and 200.
    pub(super) async fn read<T: DeserializeOwned>(&self, response: Response) -> Result<T, EngineError> {
        let path = response.url().path().to_owned();
        let body = read_limited(response, MAX_RESPONSE).await.map_err(body_error)?;
        serde_json::from_slice(&body).map_err(|_| self.unexpected_response(&path))
    }

    /// The error for JSON of another shape than this engine's.
    pub(super) fn unexpected_response(&self, path: &str) -> EngineError {
        let name = self.dialect.name;
        EngineError::UnexpectedResponse(format!(
            "unexpected response from {path}: not {name}, or an unsupported version"
        ))
    }
}

/// Adds a JSON body.
pub(super) fn with_json(request: RequestBuilder, body: &Value) -> RequestBuilder {
    request.header(CONTENT_TYPE, "application/json").body(body.to_string())
}

/// Tells "nothing listens" from "something listens and does not answer": only the first means that the GPU is free.
pub(super) fn transport_error(error: &reqwest::Error) -> EngineError {
    if io_error_kind(error) == Some(ErrorKind::ConnectionRefused) {
        return EngineError::ConnectionRefused("connection refused".to_owned());
    }
    if let Some(unresolved) = resolve_error(error) {
        return EngineError::HostUnresolved(format!("the name {:?} cannot be resolved", unresolved.host));
    }
    let message = if error.is_timeout() { "timed out" } else { "the connection was lost" };
    EngineError::Unresponsive(message.to_owned())
}

pub(super) fn body_error(error: ReadBodyError) -> EngineError {
    match error {
        ReadBodyError::TooLarge => {
            EngineError::UnexpectedResponse("the engine's response exceeds the size limit".to_owned())
        }
        ReadBodyError::Transport(error) => transport_error(&error),
    }
}

#[cfg(test)]
mod tests {
    use service::outbound::client_builder;

    use super::*;

    #[tokio::test]
    async fn an_unresolvable_host_is_named() {
        let client = client_builder(ConnectionPolicy::PerRequest).build().unwrap();
        let error = client.get("http://engine.invalid:9090/").send().await.unwrap_err();
        let message = "the name \"engine.invalid\" cannot be resolved".to_owned();
        assert_eq!(transport_error(&error), EngineError::HostUnresolved(message));
    }
}
