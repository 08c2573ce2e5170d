//! An exchange whose response is passed on as it arrives, for text and embeddings: the gateway does not interpret it.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use bytes::Bytes;
use reqwest::Response;
use service::{body::BufferedBody, proxy_headers::remove_hop_by_hop, request_id::X_REQUEST_ID};
use tokio::time::{Instant, timeout};

use super::{
    BackendError,
    error::{check_framing, read_error_response},
    stream_body,
    truncation::Truncation,
};
use crate::{admission::Grant, client::HttpClients, request::UpstreamBody};

/// Until the response's head. Without streaming it comes only when the last token is generated; OpenAI's Python library waits
/// as long.
const HEAD_TIMEOUT: Duration = Duration::from_mins(10);
/// Between two chunks of a response. Some servers send nothing while they read a long prompt; TCP finds a dead connection much
/// sooner.
const CHUNK_TIMEOUT: Duration = Duration::from_mins(5);
/// How long a client may delay a response in total by reading it more slowly than it arrives.
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

#[derive(Debug)]
pub(crate) struct ProxiedRequest {
    /// Below `/v1`.
    pub(crate) path: &'static str,
    pub(crate) body: UpstreamBody,
    /// The body's share of the budget, held until it is sent.
    pub(crate) body_permit: BufferedBody,
    pub(crate) accept: Option<HeaderValue>,
    /// For both programs' logs.
    pub(crate) request_id: HeaderValue,
}

/// A response and its grant. Dropping it closes the connection and frees the slot.
#[derive(Debug)]
pub(crate) struct ProxiedResponse {
    grant: Grant,
    pub(crate) status: StatusCode,
    /// Those that are passed on.
    pub(crate) headers: HeaderMap,
    response: Response,
    /// Bytes still to come, if `Content-Length` says how many.
    remaining: Option<u64>,
    truncation: Truncation,
}

/// Sends a request, once. Dropping the future closes the connection.
pub(crate) async fn send(
    clients: &HttpClients,
    grant: Grant,
    request: ProxiedRequest,
) -> Result<ProxiedResponse, BackendError> {
    let ProxiedRequest { path, body, body_permit, accept, request_id } = request;
    let backend = grant.routed().backend();
    let (length, chunks, upload) = stream_body(body.chunks, body_permit);
    let request = clients
        .unpooled()
        .post(backend.api_url(path))
        .header(header::CONTENT_TYPE, body.content_type)
        .header(header::CONTENT_LENGTH, length)
        .header(header::ACCEPT, accept.unwrap_or(HeaderValue::from_static("*/*")))
        .header(header::ACCEPT_ENCODING, "identity")
        .header(X_REQUEST_ID, request_id)
        .body(chunks);
    let response = tokio::select! {
        response = with_timeout(HEAD_TIMEOUT, backend.authorized(request).send()) => check_framing(response?)?,
        () = upload.timed_out() => return Err(BackendError::TimedOut),
    };
    if !response.status().is_success() {
        return with_timeout(CHUNK_TIMEOUT, async { Ok(read_error_response(response).await) })
            .await
            .and_then(Err);
    }
    ProxiedResponse::from_response(grant, response)
}

impl ProxiedResponse {
    /// Rejects a web page: it comes from something in between, and a browser would show it as the gateway's own.
    fn from_response(grant: Grant, mut response: Response) -> Result<Self, BackendError> {
        if is_active_content(response.headers()) {
            return Err(BackendError::Unusable("the response is a web page (HTML or XML)".to_owned()));
        }
        let status = response.status();
        let truncation = Truncation::for_response(status, response.headers());
        let headers = forwarded_headers(std::mem::take(response.headers_mut()));
        let length = headers.get(header::CONTENT_LENGTH);
        let remaining = length.and_then(|length| length.to_str().ok()?.parse().ok());
        Ok(Self { grant, status, headers, response, remaining, truncation })
    }

    pub(crate) fn class(&self) -> &str {
        &self.grant.routed().backend().class
    }

    /// Whether all announced bytes have arrived: hyper does not poll for more then.
    pub(crate) fn is_complete(&self) -> bool {
        self.remaining == Some(0)
    }

    /// The next chunk; `None` at the end of a complete response.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, BackendError> {
        let Some(chunk) = with_timeout(CHUNK_TIMEOUT, self.response.chunk()).await? else {
            let truncated = self.truncation.finish();
            return truncated.map_or(Ok(None), |message| Err(BackendError::Broken(message.to_owned())));
        };
        self.truncation.observe(&chunk);
        if let Some(remaining) = &mut self.remaining {
            *remaining = remaining.saturating_sub(chunk.len() as u64);
        }
        Ok(Some(chunk))
    }
}

/// How long a client has delayed a response by reading it slowly: meanwhile the backend waits, and its slot is taken.
#[derive(Debug, Default)]
pub(crate) struct ReaderDelay {
    chunk_sent_at: Option<Instant>,
    total: Duration,
}

impl ReaderDelay {
    pub(crate) fn chunk_sent(&mut self) {
        self.chunk_sent_at = Some(Instant::now());
    }

    /// Called when the client asks for the next chunk: whether its delays add up to too much.
    pub(crate) fn is_exceeded(&mut self) -> bool {
        self.total += self.chunk_sent_at.take().map_or(Duration::ZERO, |sent| sent.elapsed());
        self.total > MAX_READER_DELAY
    }
}

async fn with_timeout<T>(
    limit: Duration,
    request: impl Future<Output = reqwest::Result<T>>,
) -> Result<T, BackendError> {
    let result = timeout(limit, request).await.map_err(|_| BackendError::TimedOut)?;
    result.map_err(|error| BackendError::from_reqwest(&error))
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
