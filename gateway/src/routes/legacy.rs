//! Every path that is not ours: nobody's, or the old gateway's, while there is one. Passed on unchanged and streamed both
//! ways, on a connection of its own, once.

use std::{
    io,
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{
    body::{Body, HttpBody},
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header, request::Parts},
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
use tokio::{task::yield_now, time::timeout};
use wire::openai::fields::FieldError;

use super::{AuthorizedRequest, ROUTE_PATHS};
use crate::{
    app::App,
    backend::{BackendError, check_framing},
    config::{AccessConfig, LegacyUpstream},
    error::ApiError,
    middleware::access_log::{RequestRecord, Streamed},
    policy::legacy::is_legacy_path,
    request::image_request::Malformed,
    tls::Tls,
};

/// The name in `X-Backend-Used`.
const LEGACY_BACKEND: &str = "legacy";
/// For the whole request to go out and the answer's head to come: the old gateway makes music, too.
const HEAD_TIMEOUT: Duration = Duration::from_mins(5);
/// Between two pieces of its answer.
const CHUNK_TIMEOUT: Duration = Duration::from_mins(5);
/// Between two pieces of a caller's body.
const UPLOAD_CHUNK_TIMEOUT: Duration = Duration::from_secs(30);

/// Headers of the old gateway that do not pass: those that are ours to say, and those that act on all of the origin, which
/// is ours: what browsers keep for `/ui`, and how they reach this host.
const DROPPED_HEADERS: [&str; 7] = [
    "x-backend-used",
    "x-model-used",
    "x-router-reason",
    "clear-site-data",
    "service-worker-allowed",
    "strict-transport-security",
    "alt-svc",
];

/// The handler. What is nobody's is not there, whoever asks.
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
        Err(refused) => return refused.into_response(),
    };
    authorized.record.record(|fields| fields.backend = Some(LEGACY_BACKEND.to_owned()));
    let passed = proxy(&app, legacy, &authorized, request).await;
    passed.unwrap_or_else(|error| error.to_response(None, Some(LEGACY_BACKEND)))
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
    let cut = Arc::new(OnceLock::new());
    if !body.is_end_stream() {
        outgoing = outgoing.body(reqwest::Body::wrap_stream(upload(body, limit, cut.clone())));
    }
    let fault = |fault| ApiError::Backend(LEGACY_BACKEND.to_owned(), fault);
    let answer = timeout(HEAD_TIMEOUT, outgoing.send()).await.map_err(|_| fault(BackendError::TimedOut))?;
    let answer = answer.map_err(|error| match cut.get() {
        Some(cut) => ApiError::Body(*cut),
        None => fault(BackendError::from_reqwest(&error)),
    })?;
    let answer = check_framing(answer).map_err(fault)?;
    Ok(proxied_response(&method, answer, &authorized.record))
}

/// The address at the old gateway. The library would mend some paths on the way; then it would be another path.
fn target_url(origin: &Url, uri: &Uri) -> Result<Url, Malformed> {
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let origin = origin.as_str().trim_end_matches('/');
    let url = format!("{origin}{target}").parse::<Url>().ok();
    url.filter(|url| url.as_str().strip_prefix(origin) == Some(target)).ok_or_else(|| {
        let words = "The path or its query has letters that must be percent-encoded, or dots for segments.";
        Malformed::Field(FieldError { param: None, message: words.to_owned() })
    })
}

/// The caller's head without what is this connection's or ours.
fn request_headers(app: &App, legacy: &LegacyUpstream, id: &RequestId, parts: Parts) -> HeaderMap {
    let Parts { mut headers, extensions, .. } = parts;
    let AccessConfig { tokens, .. } = &app.config.access;
    remove_hop_by_hop(&mut headers);
    if let Some(client) = extensions.get::<ClientInfo>() {
        let proto = if matches!(app.config.tls, Tls::Off) { "http" } else { "https" };
        set_forwarded_headers(&mut headers, client, proto);
    }
    // The library names the host that it asks, and has answered `Expect`.
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

/// The caller's body as it comes; where it is cut off, `cut` says why.
fn upload(
    body: Body,
    limit: usize,
    cut: Arc<OnceLock<BodyError>>,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let pieces = (body.into_data_stream(), 0_usize);
    stream::unfold(Some(pieces), move |state| {
        let cut = cut.clone();
        async move {
            let (mut pieces, come) = state?;
            let fault = match timeout(UPLOAD_CHUNK_TIMEOUT, pieces.next()).await {
                Ok(None) => return None,
                Ok(Some(Ok(piece))) if limit == 0 || come + piece.len() <= limit => {
                    let come = come + piece.len();
                    return Some((Ok(piece), Some((pieces, come))));
                }
                Ok(Some(Ok(_))) => BodyError::TooLarge(limit),
                Ok(Some(Err(_))) => BodyError::ReadFailed,
                Err(_) => BodyError::Stalled,
            };
            let _ = cut.set(fault);
            Some((Err(io::Error::other("the caller's body ended early")), None))
        }
    })
}

/// The old gateway's answer as it comes.
fn proxied_response(method: &Method, answer: reqwest::Response, account: &RequestRecord) -> Response {
    let (status, left) = (answer.status(), answer.content_length());
    let mut headers = answer.headers().clone();
    remove_hop_by_hop(&mut headers);
    for name in DROPPED_HEADERS {
        headers.remove(HeaderName::from_static(name));
    }
    let bare = *method == Method::HEAD || matches!(status.as_u16(), 204 | 304) || left == Some(0);
    let mut response = Response::new(if bare {
        Body::empty()
    } else {
        let body = LegacyBody {
            response: answer,
            remaining: left,
            record: account.clone(),
            status: status.as_u16(),
        };
        Body::from_stream(stream::unfold(Some(body), async |passing| passing?.next_chunk().await))
    });
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    if !bare {
        response.extensions_mut().insert(Streamed);
    }
    response
}

/// An answer's body on its way.
struct LegacyBody {
    response: reqwest::Response,
    /// Bytes to come, if it said how many.
    remaining: Option<u64>,
    record: RequestRecord,
    status: u16,
}

impl LegacyBody {
    async fn next_chunk(mut self) -> Option<(io::Result<Bytes>, Option<Self>)> {
        match timeout(CHUNK_TIMEOUT, self.response.chunk()).await {
            Ok(Ok(Some(piece))) => {
                self.remaining = self.remaining.map(|left| left.saturating_sub(piece.len() as u64));
                // With the last byte announced the HTTP library asks for no end.
                if self.remaining == Some(0) {
                    self.record.record_outcome(self.status, None);
                }
                Some((Ok(piece), Some(self)))
            }
            Ok(Ok(None)) => {
                self.record.record_outcome(self.status, None);
                None
            }
            Ok(Err(_)) => self.fail(502, "the old gateway broke off its answer").await,
            Err(_) => self.fail(504, "the old gateway's answer came to a stop").await,
        }
    }

    /// The caller's connection is cut: what came must not look whole.
    async fn fail(self, status: u16, message: &str) -> Option<(io::Result<Bytes>, Option<Self>)> {
        self.record.record_outcome(status, Some(message.to_owned()));
        // What passed before goes out first.
        yield_now().await;
        Some((Err(io::Error::other(message.to_owned())), None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_goes_on_byte_for_byte_or_not_at_all() {
        let origin: Url = "http://127.0.0.1:9000/".parse().unwrap();
        for target in
            ["/", "/a/b?c=d&e=%20", "/a//b", "//x/y", "/%2Fa?x=http://y/z", "/a;b=1?", "/a:b@c", "/%ff"]
        {
            let url = target_url(&origin, &target.parse().unwrap()).unwrap();
            assert_eq!(url.as_str(), format!("http://127.0.0.1:9000{target}"));
            assert_eq!(url.host_str(), Some("127.0.0.1"));
        }
        for mended in ["/a/../b", "/a/%2e%2e/b", "/{a}", "/a\"b"] {
            assert!(target_url(&origin, &mended.parse().unwrap()).is_err(), "{mended}");
        }
    }
}
