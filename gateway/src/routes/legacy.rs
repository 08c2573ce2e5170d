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
    client::Client,
    forwarded::{drop_hop_by_hop, say_who_asked},
    nearest_route::nearest_route,
    request_id::{RequestId, X_REQUEST_ID},
    secret::drop_credentials,
};
use tokio::{task::yield_now, time::timeout};
use wire::openai::fields::FieldError;

use super::{PATHS, Visit};
use crate::{
    app::App,
    backend::{BackendFault, framed},
    config::{Access, Legacy},
    error::ApiError,
    middleware::access_log::{Account, Streamed},
    policy::legacy::is_theirs,
    request::demand::Malformed,
    tls::Tls,
};

/// The name in `X-Backend-Used`.
const LEGACY: &str = "legacy";
/// For the whole request to go out and the answer's head to come: the old gateway makes music, too.
const HEAD_TIME: Duration = Duration::from_mins(5);
/// Between two pieces of its answer.
const PIECE_TIME: Duration = Duration::from_mins(5);
/// Between two pieces of a caller's body.
const CALLER_TIME: Duration = Duration::from_secs(30);

/// Headers of the old gateway that do not pass: those that are ours to say, and those that act on all of the origin, which
/// is ours: what browsers keep for `/ui`, and how they reach this host.
const OURS: [&str; 7] = [
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
    visit: Result<Visit, ApiError>,
    request: Request,
) -> Response {
    let Some(legacy) = app.config.legacy.as_ref().filter(|_| is_theirs(request.uri().path())) else {
        return ApiError::UnknownPath(nearest_route(request.uri().path(), PATHS)).into_response();
    };
    let visit = match visit {
        Ok(visit) => visit,
        Err(refused) => return refused.into_response(),
    };
    visit.account.note(|known| known.backend = Some(LEGACY.to_owned()));
    let passed = pass(&app, legacy, &visit, request).await;
    passed.unwrap_or_else(|error| error.answer(None, Some(LEGACY)))
}

async fn pass(app: &App, legacy: &Legacy, visit: &Visit, request: Request) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let url = address(&legacy.origin, &parts.uri).map_err(ApiError::Malformed)?;
    let method = parts.method.clone();
    let limit = app.config.max_request;
    if limit > 0 && body.size_hint().lower() > limit as u64 {
        return Err(ApiError::Body(BodyError::TooLarge(limit)));
    }
    let mut outgoing =
        app.clients.fresh().request(method.clone(), url).headers(head(app, legacy, &visit.id, parts));
    let cut = Arc::new(OnceLock::new());
    if !body.is_end_stream() {
        outgoing = outgoing.body(reqwest::Body::wrap_stream(upload(body, limit, cut.clone())));
    }
    let fault = |fault| ApiError::Backend(LEGACY.to_owned(), fault);
    let answer = timeout(HEAD_TIME, outgoing.send()).await.map_err(|_| fault(BackendFault::TimedOut))?;
    let answer = answer.map_err(|error| match cut.get() {
        Some(cut) => ApiError::Body(*cut),
        None => fault(BackendFault::of(&error)),
    })?;
    let answer = framed(answer).map_err(fault)?;
    Ok(answered(&method, answer, &visit.account))
}

/// The address at the old gateway. The library would mend some paths on the way; then it would be another path.
fn address(origin: &Url, uri: &Uri) -> Result<Url, Malformed> {
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let origin = origin.as_str().trim_end_matches('/');
    let url = format!("{origin}{target}").parse::<Url>().ok();
    url.filter(|url| url.as_str().strip_prefix(origin) == Some(target)).ok_or_else(|| {
        let words = "The path or its query has letters that must be percent-encoded, or dots for segments.";
        Malformed::Field(FieldError { param: None, message: words.to_owned() })
    })
}

/// The caller's head without what is this connection's or ours.
fn head(app: &App, legacy: &Legacy, id: &RequestId, parts: Parts) -> HeaderMap {
    let Parts { mut headers, extensions, .. } = parts;
    let Access { tokens, .. } = &app.config.access;
    drop_hop_by_hop(&mut headers);
    if let Some(client) = extensions.get::<Client>() {
        let proto = if matches!(app.config.tls, Tls::Off) { "http" } else { "https" };
        say_who_asked(&mut headers, client, proto);
    }
    // The library names the host that it asks, and has answered `Expect`.
    for name in [header::HOST, header::EXPECT, header::TE, header::PROXY_AUTHORIZATION] {
        headers.remove(name);
    }
    drop_credentials(&mut headers, |shown| tokens.iter().any(|token| token.secret.matches(shown)));
    if let Some(secret) = &legacy.bearer
        && let Ok(mut value) = HeaderValue::from_str(&format!("Bearer {}", secret.expose()))
    {
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
    }
    headers.insert(X_REQUEST_ID, id.header());
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
            let fault = match timeout(CALLER_TIME, pieces.next()).await {
                Ok(None) => return None,
                Ok(Some(Ok(piece))) if limit == 0 || come + piece.len() <= limit => {
                    let come = come + piece.len();
                    return Some((Ok(piece), Some((pieces, come))));
                }
                Ok(Some(Ok(_))) => BodyError::TooLarge(limit),
                Ok(Some(Err(_))) => BodyError::Broken,
                Err(_) => BodyError::Stalled,
            };
            let _ = cut.set(fault);
            Some((Err(io::Error::other("the caller's body ended early")), None))
        }
    })
}

/// The old gateway's answer as it comes.
fn answered(method: &Method, answer: reqwest::Response, account: &Account) -> Response {
    let (status, left) = (answer.status(), answer.content_length());
    let mut headers = answer.headers().clone();
    drop_hop_by_hop(&mut headers);
    for name in OURS {
        headers.remove(HeaderName::from_static(name));
    }
    let bare = *method == Method::HEAD || matches!(status.as_u16(), 204 | 304) || left == Some(0);
    let mut response = Response::new(if bare {
        Body::empty()
    } else {
        let passing = Passing { pieces: answer, left, account: account.clone(), status: status.as_u16() };
        Body::from_stream(stream::unfold(Some(passing), async |passing| passing?.piece().await))
    });
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    if !bare {
        response.extensions_mut().insert(Streamed);
    }
    response
}

/// An answer's body on its way.
struct Passing {
    pieces: reqwest::Response,
    /// Bytes to come, if it said how many.
    left: Option<u64>,
    account: Account,
    status: u16,
}

impl Passing {
    async fn piece(mut self) -> Option<(io::Result<Bytes>, Option<Self>)> {
        match timeout(PIECE_TIME, self.pieces.chunk()).await {
            Ok(Ok(Some(piece))) => {
                self.left = self.left.map(|left| left.saturating_sub(piece.len() as u64));
                // With the last byte announced the HTTP library asks for no end.
                if self.left == Some(0) {
                    self.account.ended(self.status, None);
                }
                Some((Ok(piece), Some(self)))
            }
            Ok(Ok(None)) => {
                self.account.ended(self.status, None);
                None
            }
            Ok(Err(_)) => self.broken(502, "the old gateway broke off its answer").await,
            Err(_) => self.broken(504, "the old gateway's answer came to a stop").await,
        }
    }

    /// The caller's connection is cut: what came must not look whole.
    async fn broken(self, status: u16, words: &str) -> Option<(io::Result<Bytes>, Option<Self>)> {
        self.account.ended(status, Some(words.to_owned()));
        // What passed before goes out first.
        yield_now().await;
        Some((Err(io::Error::other(words.to_owned())), None))
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
            let url = address(&origin, &target.parse().unwrap()).unwrap();
            assert_eq!(url.as_str(), format!("http://127.0.0.1:9000{target}"));
            assert_eq!(url.host_str(), Some("127.0.0.1"));
        }
        for mended in ["/a/../b", "/a/%2e%2e/b", "/{a}", "/a\"b"] {
            assert!(address(&origin, &mended.parse().unwrap()).is_err(), "{mended}");
        }
    }
}
