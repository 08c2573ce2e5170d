//! An exchange whose response is passed on as it arrives: chat, completions, embeddings.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use bytes::Bytes;
use reqwest::Response;
use service::{body::BufferedBody, proxy_headers::remove_hop_by_hop, request_id::X_REQUEST_ID};
use tokio::time::{Instant, timeout};

use super::{BackendError, error, stream_body, truncation::Truncation};
use crate::{admission::Grant, client::HttpClients, request::UpstreamBody};

/// For a response head. One that is not streamed arrives when the last token is generated, and OpenAI's Python library waits
/// as long.
const HEAD_TIMEOUT: Duration = Duration::from_mins(10);
/// Between two chunks of a response. Some servers are silent while they process a long prompt; TCP detects a dead connection
/// much sooner.
const CHUNK_TIMEOUT: Duration = Duration::from_mins(5);

/// How long in total a client may delay a response by reading it more slowly than it arrives.
const MAX_READER_DELAY: Duration = Duration::from_mins(10);

/// Response headers that pass: those about the content. Others are about the backend's connection or origin, and would act on
/// ours in a browser (cookies, `Refresh`, `Clear-Site-Data`, service workers, reports).
const FORWARDED_HEADERS: [HeaderName; 7] = [
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CACHE_CONTROL,
    header::EXPIRES,
    HeaderName::from_static("server-timing"),
];
/// Prefixes of further headers that pass: limits, times and costs of model servers.
const FORWARDED_PREFIXES: [&str; 2] = ["openai-", "x-"];
/// Prefixes of those among them that do not: the gateway sets them, or they control browsers and proxies.
const BLOCKED_PREFIXES: [&str; 18] = [
    "x-accel-",
    "x-backend-used",
    "x-content-",
    "x-dns-prefetch-control",
    "x-download-options",
    "x-forwarded-",
    "x-frame-options",
    "x-model-used",
    "x-permitted-cross-domain-policies",
    "x-powered-by",
    "x-real-ip",
    "x-request-id",
    "x-robots-tag",
    "x-router-reason",
    "x-sendfile",
    "x-ua-compatible",
    "x-webkit-",
    "x-xss-protection",
];

/// What is sent.
#[derive(Debug)]
pub(crate) struct ProxiedRequest {
    /// The path behind `/v1`.
    pub(crate) path: &'static str,
    /// The request's body.
    pub(crate) body: UpstreamBody,
    /// What its bytes count against until they are sent.
    pub(crate) body_permit: BufferedBody,
    /// What the caller takes.
    pub(crate) accept: Option<HeaderValue>,
    /// The request's id, for both programs' logs.
    pub(crate) request_id: HeaderValue,
}

/// An answer, and the grant that it comes under. Dropping it closes the connection and frees the place.
#[derive(Debug)]
pub(crate) struct ProxiedResponse {
    grant: Grant,
    /// The answer's status.
    pub(crate) status: StatusCode,
    /// The headers that pass.
    pub(crate) headers: HeaderMap,
    source: Response,
    /// Bytes that are still to come, where their number was announced.
    remaining: Option<u64>,
    /// Tells whether it was whole, where nothing else does.
    truncation: Truncation,
}

/// Asks once. Dropping the future closes the connection.
pub(crate) async fn forward(
    clients: &HttpClients,
    grant: Grant,
    proxied_request: ProxiedRequest,
) -> Result<ProxiedResponse, BackendError> {
    let ProxiedRequest { path, body: sent, body_permit: counted, accept, request_id } = proxied_request;
    let backend = grant.routed().backend();
    let (length, body, sending) = stream_body(sent.chunks, counted);
    let request = clients
        .unpooled()
        .post(backend.api_url(path))
        .header(header::CONTENT_TYPE, sent.content_type)
        .header(header::CONTENT_LENGTH, length)
        .header(header::ACCEPT, accept.unwrap_or(HeaderValue::from_static("*/*")))
        .header(header::ACCEPT_ENCODING, "identity")
        .header(X_REQUEST_ID, request_id)
        .body(body);
    let answer = tokio::select! {
        answer = with_timeout(HEAD_TIMEOUT, backend.authorized(request).send()) => error::check_framing(answer?)?,
        () = sending.timed_out() => return Err(BackendError::TimedOut),
    };
    if !answer.status().is_success() {
        return with_timeout(CHUNK_TIMEOUT, async { Ok(error::read_error_response(answer).await) })
            .await
            .and_then(Err);
    }
    ProxiedResponse::from_response(grant, answer)
}

impl ProxiedResponse {
    /// A page is no answer to a program: it comes from something in between, and a browser would show it as ours.
    fn from_response(grant: Grant, mut source: Response) -> Result<Self, BackendError> {
        if is_active_content(source.headers()) {
            return Err(BackendError::Unusable("it sent a page for a browser (HTML or XML)".to_owned()));
        }
        let status = source.status();
        let truncation = Truncation::for_response(status, source.headers());
        let headers = forwarded_headers(std::mem::take(source.headers_mut()));
        let length = headers.get(header::CONTENT_LENGTH);
        let left = length.and_then(|length| length.to_str().ok()?.parse().ok());
        Ok(Self { grant, status, headers, source, remaining: left, truncation })
    }

    /// The class that it comes from.
    pub(crate) fn class(&self) -> &str {
        &self.grant.routed().backend().class
    }

    /// Whether all has come, as far as was announced. Nobody asks for more then.
    pub(crate) fn is_complete(&self) -> bool {
        self.remaining == Some(0)
    }

    /// The next piece; none at the end, if all came before it.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, BackendError> {
        let Some(piece) = with_timeout(CHUNK_TIMEOUT, self.source.chunk()).await? else {
            let missing = self.truncation.finish();
            return missing.map_or(Ok(None), |message| Err(BackendError::Broken(message.to_owned())));
        };
        self.truncation.observe(&piece);
        if let Some(left) = &mut self.remaining {
            *left = left.saturating_sub(piece.len() as u64);
        }
        Ok(Some(piece))
    }
}

/// What a caller costs who takes an answer more slowly than it comes: the backend waits, and so does everybody who waits for
/// its place.
#[derive(Debug, Default)]
pub(crate) struct ReaderDelay {
    chunk_sent_at: Option<Instant>,
    total: Duration,
}

impl ReaderDelay {
    /// The caller has got a piece.
    pub(crate) fn chunk_sent(&mut self) {
        self.chunk_sent_at = Some(Instant::now());
    }

    /// The caller asks for the next; whether that took too long, all in all.
    pub(crate) fn is_exceeded(&mut self) -> bool {
        self.total += self.chunk_sent_at.take().map_or(Duration::ZERO, |given| given.elapsed());
        self.total > MAX_READER_DELAY
    }
}

async fn with_timeout<T>(
    limit: Duration,
    step: impl Future<Output = reqwest::Result<T>>,
) -> Result<T, BackendError> {
    let done = timeout(limit, step).await.map_err(|_| BackendError::TimedOut)?;
    done.map_err(|error| BackendError::from_reqwest(&error))
}

/// Whether it is of a type that a browser runs scripts in.
fn is_active_content(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::CONTENT_TYPE).iter();
    let lines: Vec<_> =
        lines.map(|line| String::from_utf8_lossy(line.as_bytes()).to_ascii_lowercase()).collect();
    let kinds = lines.iter().flat_map(|line| line.split(',')).filter_map(|kind| kind.split(';').next());
    let page = |kind: &str| {
        kind == "text/html"
            || kind == "multipart/x-mixed-replace"
            || kind.ends_with("/xml")
            || kind.ends_with("+xml")
    };
    kinds.map(str::trim).any(page)
}

/// The headers that pass, and those that keep a browser from taking the response for a page of ours.
fn forwarded_headers(mut headers: HeaderMap) -> HeaderMap {
    remove_hop_by_hop(&mut headers);
    let blocked: Vec<HeaderName> = headers.keys().filter(|name| !is_forwarded(name)).cloned().collect();
    for name in blocked {
        headers.remove(name);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'"));
    headers
}

fn is_forwarded(name: &HeaderName) -> bool {
    let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.as_str().starts_with(prefix));
    FORWARDED_HEADERS.contains(name) || begins(&FORWARDED_PREFIXES) && !begins(&BLOCKED_PREFIXES)
}

#[cfg(test)]
mod tests;
