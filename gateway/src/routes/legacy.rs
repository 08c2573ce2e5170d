//! Paths that are not the gateway's own: 404, or forwarded to the legacy gateway if one is configured. Requests are passed on
//! unchanged and streamed both ways, on a connection of their own, once.

use std::{
    io,
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{
    body::{Body, HttpBody},
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header, request::Parts},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use reqwest::Url;
use service::{
    body::BodyError,
    client_info::ClientInfo,
    nearest_route::nearest_route,
    proxy_headers::{remove_hop_by_hop, set_forwarded_headers},
    request_id::{RequestId, X_REQUEST_ID},
    secret::strip_credentials,
};
use tokio::time::timeout;
use wire::openai::fields::FieldError;

use super::{
    AuthorizedRequest, ROUTE_PATHS,
    relay::{self, Failure, Upstream},
};
use crate::{
    app::App,
    backend::{BackendError, check_framing},
    config::{AccessConfig, LegacyUpstream},
    error::ApiError,
    middleware::access_log::RequestRecord,
    policy::legacy::is_legacy_path,
    request::image_request::Malformed,
    tls::Tls,
};

/// In `X-Backend-Used`.
const LEGACY_BACKEND: &str = "legacy";
/// For sending the whole request and receiving the response's head: the legacy gateway also generates music, which takes long.
const HEAD_TIMEOUT: Duration = Duration::from_mins(5);
/// Between two chunks of the response.
const CHUNK_TIMEOUT: Duration = Duration::from_mins(5);
/// Between two chunks of the client's body.
const UPLOAD_CHUNK_TIMEOUT: Duration = Duration::from_secs(30);

/// Response headers that are not forwarded: those that this gateway sets, and those that affect the whole origin, such as what
/// browsers store for `/ui` and how they reach this host.
const DROPPED_HEADERS: [&str; 7] = [
    "x-backend-used",
    "x-model-used",
    "x-router-reason",
    "clear-site-data",
    "service-worker-allowed",
    "strict-transport-security",
    "alt-svc",
];

/// Checks the path before the token: an unknown path is 404 for every client.
pub(crate) async fn forward(
    State(app): State<App>,
    authorized: Result<AuthorizedRequest, ApiError>,
    request: Request,
) -> Response {
    let Some(legacy) = app.config.legacy.as_ref().filter(|_| is_legacy_path(request.uri().path())) else {
        return ApiError::UnknownPath(nearest_route(request.uri().path(), ROUTE_PATHS)).into_response();
    };
    let authorized = match authorized {
        Ok(authorized) => authorized,
        Err(error) => return error.into_response(),
    };
    authorized.record.record(|fields| fields.backend = Some(LEGACY_BACKEND.to_owned()));
    let forwarded = proxy(&app, legacy, &authorized, request).await;
    forwarded.unwrap_or_else(|error| error.to_response(None, Some(LEGACY_BACKEND)))
}

async fn proxy(
    app: &App,
    legacy: &LegacyUpstream,
    authorized: &AuthorizedRequest,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let url = target_url(&legacy.origin, &parts.uri).map_err(ApiError::Malformed)?;
    let method = parts.method.clone();
    let limit = app.config.max_request_bytes;
    if limit > 0 && body.size_hint().lower() > limit as u64 {
        return Err(ApiError::Body(BodyError::TooLarge(limit)));
    }
    let mut outgoing = app.clients.unpooled().request(method.clone(), url).headers(request_headers(
        app,
        legacy,
        &authorized.id,
        parts,
    ));
    let body_error = Arc::new(OnceLock::new());
    if !body.is_end_stream() {
        if body.size_hint().exact().is_none() {
            // Without it the HTTP library sends no body with GET and HEAD.
            outgoing = outgoing.header(header::TRANSFER_ENCODING, "chunked");
        }
        outgoing = outgoing.body(reqwest::Body::wrap_stream(upload(body, limit, body_error.clone())));
    }
    let failed = |error| ApiError::Backend(LEGACY_BACKEND.to_owned(), error);
    let response =
        timeout(HEAD_TIMEOUT, outgoing.send()).await.map_err(|_| failed(BackendError::TimedOut))?;
    let response = response.map_err(|error| match body_error.get() {
        Some(error) => ApiError::Body(*error),
        None => failed(BackendError::from_reqwest(&error)),
    })?;
    let response = check_framing(response).map_err(failed)?;
    Ok(proxied_response(&method, response, &authorized.record))
}

/// The URL at the legacy gateway. Rejects targets that the URL library would normalize into another path.
fn target_url(origin: &Url, uri: &Uri) -> Result<Url, Malformed> {
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let origin = origin.as_str().trim_end_matches('/');
    let url = format!("{origin}{target}").parse::<Url>().ok();
    url.filter(|url| url.as_str().strip_prefix(origin) == Some(target)).ok_or_else(|| {
        let message = "The path or query contains characters that must be percent-encoded, or dot segments.";
        Malformed::Field(FieldError { param: None, message: message.to_owned() })
    })
}

/// The client's headers without those of its connection and the gateway's credentials.
fn request_headers(app: &App, legacy: &LegacyUpstream, id: &RequestId, parts: Parts) -> HeaderMap {
    let Parts { mut headers, extensions, .. } = parts;
    let AccessConfig { tokens, .. } = &app.config.access;
    remove_hop_by_hop(&mut headers);
    if let Some(client) = extensions.get::<ClientInfo>() {
        let proto = if matches!(app.config.tls, Tls::Off) { "http" } else { "https" };
        set_forwarded_headers(&mut headers, client, proto);
    }
    // reqwest sets `Host`, and hyper has answered `Expect`.
    for name in [header::HOST, header::EXPECT] {
        headers.remove(name);
    }
    strip_credentials(&mut headers, |credential| tokens.iter().any(|token| token.secret.matches(credential)));
    if let Some(secret) = &legacy.bearer
        && let Ok(mut value) = HeaderValue::from_str(&format!("Bearer {}", secret.expose()))
    {
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
    }
    headers.insert(X_REQUEST_ID, id.to_header_value());
    headers
}

/// The client's body as it arrives; if it ends early, `error` says why.
fn upload(
    body: Body,
    limit: usize,
    error: Arc<OnceLock<BodyError>>,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let chunks = (body.into_data_stream(), 0_usize);
    stream::unfold(Some(chunks), move |state| {
        let error = error.clone();
        async move {
            let (mut chunks, received) = state?;
            let body_error = match timeout(UPLOAD_CHUNK_TIMEOUT, chunks.next()).await {
                Ok(None) => return None,
                Ok(Some(Ok(chunk))) if limit == 0 || received + chunk.len() <= limit => {
                    let received = received + chunk.len();
                    return Some((Ok(chunk), Some((chunks, received))));
                }
                Ok(Some(Ok(_))) => BodyError::TooLarge(limit),
                Ok(Some(Err(_))) => BodyError::ReadFailed,
                Err(_) => BodyError::Stalled,
            };
            let _ = error.set(body_error);
            Some((Err(io::Error::other("the client's body ended early")), None))
        }
    })
}

fn proxied_response(method: &Method, response: reqwest::Response, record: &RequestRecord) -> Response {
    let (status, length) = (response.status(), response.content_length());
    let mut headers = response.headers().clone();
    remove_hop_by_hop(&mut headers);
    for name in DROPPED_HEADERS {
        headers.remove(HeaderName::from_static(name));
    }
    let has_no_body = *method == Method::HEAD
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || length == Some(0);
    if has_no_body {
        return (status, headers, Body::empty()).into_response();
    }
    relay::forward(status, headers, record, LegacyBody { response, remaining: length })
}

struct LegacyBody {
    response: reqwest::Response,
    /// Bytes to come, if `Content-Length` says how many.
    remaining: Option<u64>,
}

impl Upstream for LegacyBody {
    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        let failure = |status, why: &'static str| Failure { status, cause: why.to_owned(), abort: why };
        let chunk = timeout(CHUNK_TIMEOUT, self.response.chunk())
            .await
            .map_err(|_| failure(504, "the legacy gateway stopped sending"))?
            .map_err(|_| failure(502, "the legacy gateway closed the connection early"))?;
        if let (Some(chunk), Some(remaining)) = (&chunk, &mut self.remaining) {
            *remaining = remaining.saturating_sub(chunk.len() as u64);
        }
        Ok(chunk)
    }

    fn is_complete(&self) -> bool {
        self.remaining == Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_forwarded_byte_for_byte_or_not_at_all() {
        let origin: Url = "http://127.0.0.1:9000/".parse().unwrap();
        for target in
            ["/", "/a/b?c=d&e=%20", "/a//b", "//x/y", "/%2Fa?x=http://y/z", "/a;b=1?", "/a:b@c", "/%ff"]
        {
            let url = target_url(&origin, &target.parse().unwrap()).unwrap();
            assert_eq!(url.as_str(), format!("http://127.0.0.1:9000{target}"));
            assert_eq!(url.host_str(), Some("127.0.0.1"));
        }
        for normalized in ["/a/../b", "/a/%2e%2e/b", "/{a}", "/a\"b"] {
            assert!(target_url(&origin, &normalized.parse().unwrap()).is_err(), "{normalized}");
        }
    }
}
