//! One line per request, its count in the metrics, and the headers that say where it went. What is found out on the way is noted in the
//! request's [`Account`]; this layer alone tells it.

use std::{
    net::{IpAddr, Ipv6Addr},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Instant,
};

use axum::{
    body::{Body, BodyDataStream, HttpBody},
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, Method, header},
    middleware::Next,
    response::Response,
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use service::{body::Holder, request_id::RequestId};
use tracing::{error, info, warn};

use crate::{
    app::App,
    error::{Cause, Rejected},
    metrics::Metrics,
    policy::catalog::Permitted,
};

/// What is logged when the caller left before the answer.
const CALLER_GONE: u16 = 499;
/// Letters of foreign text in a header or a log line.
const LONGEST: usize = 128;

/// What is known of a request so far. Cheap to clone; all clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Account(Arc<Mutex<Known>>);

/// The facts.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// The name of the caller's token.
    pub(crate) caller: Option<String>,
    /// The caller's address.
    pub(crate) client: Option<IpAddr>,
    /// `images`, `chat` or `embeddings`, once the route is known to be one.
    pub(crate) route_kind: Option<&'static str>,
    /// The class, or `mock`.
    pub(crate) backend: Option<String>,
    /// The model sent.
    pub(crate) model: Option<String>,
    /// Why this backend.
    pub(crate) reason: Option<&'static str>,
    /// How a stream went, once that is known: its status was sent long before.
    outcome: Option<Outcome>,
}

/// How a stream went.
#[derive(Debug, Clone)]
struct Outcome {
    /// The status that would have told it.
    status: u16,
    /// Why.
    cause: Option<String>,
}

/// In the extensions of an answer that is not over with its head: the line waits for the body's end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Streamed;

impl Account {
    /// Notes something.
    pub(crate) fn note(&self, note: impl FnOnce(&mut Known)) {
        note(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Notes where the request goes; gives the class.
    pub(crate) fn goes(&self, permitted: &Permitted) -> String {
        self.note(|known| {
            known.backend = Some(permitted.used().to_owned());
            known.model = Some(permitted.model().unwrap_or("default").to_owned());
            known.reason = Some(permitted.reason());
        });
        permitted.backend().class.clone()
    }

    /// Notes how a stream went: the status that would have told it, and why.
    pub(crate) fn ended(&self, status: u16, cause: Option<String>) {
        self.note(|known| known.outcome = Some(Outcome { status, cause }));
    }

    /// Whose bodies the request's body counts among.
    pub(crate) fn holder(&self) -> Holder {
        self.read(|known| match &known.caller {
            Some(name) => Holder::Token(name.clone()),
            None => Holder::Address(known.client.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED))),
        })
    }

    fn read<T>(&self, read: impl FnOnce(&Known) -> T) -> T {
        read(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The caller's name.
    #[cfg(test)]
    pub(crate) fn caller(&self) -> Option<String> {
        self.read(|known| known.caller.clone())
    }

    /// Puts the headers of the contract on the answer.
    fn tell(&self, response: &mut Response) {
        let headers = response.headers_mut();
        self.read(|known| {
            let facts = [
                ("x-backend-used", known.backend.as_deref()),
                ("x-model-used", known.model.as_deref()),
                ("x-router-reason", known.reason),
            ];
            for (name, value) in facts {
                if let Some(value) = value.and_then(sane) {
                    headers.insert(name, value);
                }
            }
        });
    }
}

/// Foreign text as a header's value.
fn sane(text: &str) -> Option<HeaderValue> {
    let visible = |letter: char| if letter.is_ascii_graphic() || letter == ' ' { letter } else { '?' };
    HeaderValue::from_str(&text.chars().take(LONGEST).map(visible).collect::<String>()).ok()
}

/// The layer.
pub(crate) async fn layer(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let account = Account::default();
    request.extensions_mut().insert(account.clone());
    let id = request.extensions().get::<RequestId>().cloned();
    let mut line = Line {
        id: id.map_or_else(String::new, |id| id.as_str().to_owned()),
        method: request.method().clone(),
        path: request.uri().path().to_owned(),
        route: request.extensions().get::<MatchedPath>().cloned(),
        metrics: app.metrics.clone(),
        account: account.clone(),
        start: Instant::now(),
        status: CALLER_GONE,
        bytes: 0,
        cause: None,
    };
    let mut response = next.run(request).await;
    account.tell(&mut response);
    line.status = response.status().as_u16();
    if let Some(Rejected(code)) = response.extensions().get() {
        line.metrics.rejected(*code);
    }
    line.cause = response.extensions().get::<Cause>().map(|cause| cause.0.clone());
    if response.extensions().get::<Streamed>().is_none() {
        line.bytes = response.body().size_hint().exact().unwrap_or_else(|| announced(&response));
        return response;
    }
    line.status = CALLER_GONE; // unless the stream says otherwise before its end
    response.map(|body| Body::from_stream(Followed { body: body.into_data_stream(), line }))
}

/// A body, and the line that is written when it is over or given up.
struct Followed {
    body: BodyDataStream,
    line: Line,
}

impl Stream for Followed {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.body.poll_next_unpin(context);
        if let Poll::Ready(Some(Ok(piece))) = &polled {
            self.line.bytes += piece.len() as u64;
        }
        polled
    }
}

/// The line. It is written and counted when dropped, which a caller's leaving does, too.
struct Line {
    id: String,
    method: Method,
    path: String,
    /// The router's name of the path; none where it is none of ours.
    route: Option<MatchedPath>,
    metrics: Arc<Metrics>,
    account: Account,
    start: Instant,
    status: u16,
    /// Of the answer's body.
    bytes: u64,
    cause: Option<String>,
}

impl Drop for Line {
    fn drop(&mut self) {
        let took = self.start.elapsed();
        if let Some(Outcome { status, cause }) = self.account.read(|known| known.outcome.clone()) {
            (self.status, self.cause) = (status, cause);
        }
        macro_rules! line {
            ($level:ident, $known:expr, $cause:expr) => {
                $level!(
                    request_id = self.id,
                    caller = $known.caller.as_deref(),
                    client = $known.client.map(tracing::field::display),
                    method = %cut(self.method.as_str()),
                    path = cut(&self.path),
                    route_kind = $known.route_kind,
                    backend = $known.backend.as_deref(),
                    model = $known.model.as_deref().map(cut),
                    reason = $known.reason,
                    status = self.status,
                    bytes = self.bytes,
                    ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                    cause = $cause,
                    "request"
                )
            };
        }
        let cause = self.cause.as_deref().map(|cause| cause.chars().take(3 * LONGEST).collect::<String>());
        let route = self.route.as_ref().map(MatchedPath::as_str);
        self.account.read(|known| {
            self.metrics.answered(route, known.backend.as_deref(), self.status, took);
        });
        self.account.read(|known| match self.status {
            500.. => line!(error, known, cause),
            400.. => line!(warn, known, cause),
            _ => line!(info, known, None::<String>),
        });
    }
}

fn announced(response: &Response) -> u64 {
    let length = response.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    length.and_then(|length| length.parse().ok()).unwrap_or_default()
}

fn cut(text: &str) -> &str {
    text.char_indices().nth(LONGEST).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_in_a_header_is_visible_and_short() {
        assert_eq!(sane("sd xl\r\nx: y\u{e9}").unwrap(), "sd xl??x: y?");
        assert_eq!(sane(&"x".repeat(999)).unwrap().len(), LONGEST);
    }
}
