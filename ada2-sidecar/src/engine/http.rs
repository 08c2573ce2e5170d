//! The HTTP client of an engine's API. Every response is bounded in time and size.

use std::{
    io::ErrorKind,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use reqwest::{
    Client, RequestBuilder, Response, StatusCode, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use service::outbound::{
    ConnectionPolicy, ReadBodyError, io_error_kind, plaintext_client_builder, read_limited, resolve_error,
};

use super::{
    EngineError,
    login::{EngineLogin, LoginDialect, Renewal, Session, bearer_value},
    upload::UploadForm,
};

/// For everything but images.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// For an image over a slow disk.
const IMAGE_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_RESPONSE: usize = 16 << 20;
/// Of models: each takes 1 to 3 KiB, and some people have ten thousand.
const MAX_LIST: usize = 64 << 20;
const MAX_IMAGE_BYTES: usize = 64 << 20;
/// What to do about a refused login.
const LOGIN_FIX: &str = "correct the file or the user in the engine, then run `sudo ada2-sidecar reload` (without it, the next login \
                         follows within 5 minutes)";
/// It accepts user name and password, and refuses the token that it gave for them.
const REFUSED_TOKEN: &str = "it accepts the login of engine_auth_file and refuses the token that it gave for it; check the host's clock and \
                             restart the engine";

/// The HTTP client of one engine.
#[derive(Debug, Clone)]
pub(super) struct EngineClient {
    pub(super) base: Url,
    /// For what may be sent twice.
    pub(super) pooled: Client,
    /// For what spends GPU time, and the images that it made: on a dead pooled connection it would stay unknown whether
    /// the request arrived.
    pub(super) fresh: Client,
    /// Clones share it.
    pub(super) session: Arc<Session>,
    dialect: &'static HttpDialect,
}

/// What differs between engines.
#[derive(Debug)]
pub(super) struct HttpDialect {
    /// The engine's name in messages.
    pub(super) name: &'static str,
    /// What to do about a 401.
    pub(super) login_hint: &'static str,
    /// How to log in; none for an engine without users.
    pub(super) login: Option<LoginDialect>,
    /// The message for any other status but 2xx, from path and body.
    pub(super) error_message: fn(StatusCode, &str, &[u8]) -> String,
}

impl EngineClient {
    pub(super) fn new(base: Url, dialect: &'static HttpDialect) -> Self {
        let client = |connections| {
            plaintext_client_builder(connections).build().expect("the client has no settings that can fail")
        };
        let (pooled, fresh) = (client(ConnectionPolicy::Pooled), client(ConnectionPolicy::PerRequest));
        Self { base, pooled, fresh, session: Arc::default(), dialect }
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, url: Url) -> Result<T, EngineError> {
        self.read(self.send(self.pooled.get(url).timeout(RESPONSE_TIMEOUT)).await?).await
    }

    /// A list that grows with what is installed: it may be long, and is read on another thread.
    pub(super) async fn get_list<T: DeserializeOwned, R: Send + 'static>(
        &self,
        url: Url,
        read: impl FnOnce(T) -> R + Send + 'static,
    ) -> Result<R, EngineError> {
        let response = self.send(self.pooled.get(url).timeout(RESPONSE_TIMEOUT)).await?;
        let path = response.url().path().to_owned();
        let body = read_limited(response, MAX_LIST).await.map_err(body_error)?;
        let reading = tokio::task::spawn_blocking(move || serde_json::from_slice(&body).map(read));
        reading.await.ok().and_then(Result::ok).ok_or_else(|| self.unexpected_response(&path))
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

    /// Sends a request; any status but 2xx is an error. If the engine asks for a login and we have one, the request is
    /// repeated once: what it answered with 401 it has not begun.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Response, EngineError> {
        let repeat = if self.session.has_login() { request.try_clone() } else { None };
        let mut token = self.session.token();
        let mut response = send_with(request, token.as_ref()).await?;
        if response.status() == StatusCode::UNAUTHORIZED
            && let Some((repeat, login)) = repeat.zip(self.dialect.login.as_ref())
        {
            let fresh = self.renew(token.as_ref(), login).await?;
            response = send_with(repeat, Some(&fresh)).await?;
            if response.status() == StatusCode::UNAUTHORIZED {
                let refusal = EngineError::LoginRequired(REFUSED_TOKEN.to_owned());
                self.session.refuse(&fresh, refusal.clone(), Instant::now());
                return Err(refusal);
            }
            if response.status().is_success() {
                self.session.accept(&fresh);
            }
            token = Some(fresh);
        }
        let status = response.status();
        if let Some((used, login)) = token.zip(self.dialect.login.as_ref())
            && let Some(fresh) = response.headers().get(login.refreshed)
            && let Some(fresh) = fresh.to_str().ok().and_then(bearer_value)
        {
            self.session.refresh(&used, fresh);
        }
        if status.is_success() {
            return Ok(response);
        }
        Err(self.failure(response).await)
    }

    /// The error for a response whose status is not 2xx.
    pub(super) async fn failure(&self, response: Response) -> EngineError {
        let status = response.status();
        if status == StatusCode::UNAUTHORIZED {
            return EngineError::LoginRequired(self.dialect.login_hint.to_owned());
        }
        let path = response.url().path().to_owned();
        match read_limited(response, MAX_RESPONSE).await {
            Ok(body) => EngineError::Failed((self.dialect.error_message)(status, &path, &body)),
            Err(error) => body_error(error),
        }
    }

    /// The token after a 401 to a request with the token `used`.
    async fn renew(
        &self,
        used: Option<&HeaderValue>,
        login: &'static LoginDialect,
    ) -> Result<HeaderValue, EngineError> {
        match self.session.renew(used, Instant::now(), |user| self.log_in(user, login)) {
            Renewal::NoLogin => Err(EngineError::LoginRequired(self.dialect.login_hint.to_owned())),
            Renewal::Token(token) => Ok(token),
            Renewal::Refused(refusal) => Err(refusal),
            Renewal::Attempt(attempt) => {
                let result = attempt.clone().await;
                self.session.finish(&attempt, &result, Instant::now());
                result
            }
        }
    }

    fn log_in(
        &self,
        user: &EngineLogin,
        login: &'static LoginDialect,
    ) -> BoxFuture<'static, Result<HeaderValue, EngineError>> {
        let mut url = self.base.clone();
        url.set_path(login.path);
        let request = with_json(self.fresh.post(url).timeout(RESPONSE_TIMEOUT), &(login.body)(user));
        async move {
            let response = request.send().await.map_err(|error| transport_error(&error))?;
            let status = response.status();
            if !status.is_success() {
                return Err(EngineError::LoginRequired(refused_login(status)));
            }
            let body = read_limited(response, MAX_RESPONSE).await.map_err(body_error)?;
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            let token = body.get(login.token).and_then(Value::as_str).and_then(bearer_value);
            token.ok_or_else(|| {
                EngineError::LoginRequired(format!("{} names no token: an unsupported version", login.path))
            })
        }
        .boxed()
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

async fn send_with(
    mut request: RequestBuilder,
    token: Option<&HeaderValue>,
) -> Result<Response, EngineError> {
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, token);
    }
    request.send().await.map_err(|error| transport_error(&error))
}

/// Why a login failed. The engine's own words could quote user name or password.
fn refused_login(status: StatusCode) -> String {
    let cause = match status.as_u16() {
        401 => "it refuses the user name and password of engine_auth_file".to_owned(),
        403 => "it refuses the user of engine_auth_file, who may be disabled".to_owned(),
        422 => {
            "it does not take the user name of engine_auth_file, which must be an e-mail address".to_owned()
        }
        other => format!("it answers {other} to the login with engine_auth_file"),
    };
    format!("{cause}; {LOGIN_FIX}")
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
