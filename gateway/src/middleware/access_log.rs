//! One log line per request, its count in the metrics, and the headers that say where it went. Handlers collect the facts in
//! the request's [`RequestRecord`].

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
use service::{body::BudgetOwner, request_id::RequestId, text::prefix};
use tracing::{error, info, warn};

use crate::{
    app::App,
    error::{ErrorCause, Rejected},
    metrics::Metrics,
    policy::Routed,
};

/// nginx's status for a client that disconnected.
const CLIENT_CLOSED_REQUEST: u16 = 499;
/// Characters of foreign text in a header or a log line.
const MAX_FOREIGN_CHARS: usize = 128;

/// The facts about a request. Cheap to clone; all clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct RequestRecord(Arc<Mutex<RequestFields>>);

#[derive(Debug, Default)]
pub(crate) struct RequestFields {
    /// The name of the client's token.
    pub(crate) caller: Option<String>,
    /// The client's address.
    pub(crate) client: Option<IpAddr>,
    /// `images`, `chat` or `embeddings`, once the route is known to be one.
    pub(crate) route_kind: Option<&'static str>,
    /// The class, or `mock`.
    pub(crate) backend: Option<String>,
    /// The model in the request to the backend.
    pub(crate) model: Option<String>,
    /// Why this backend.
    pub(crate) reason: Option<&'static str>,
    /// How a stream ended; its status was sent long before.
    outcome: Option<StreamOutcome>,
}

/// How a stream ended.
#[derive(Debug, Clone)]
struct StreamOutcome {
    /// The status that the response would have had.
    status: u16,
    cause: Option<String>,
}

/// In the extensions of a streamed response: the log line waits for the end of the body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Streamed;

impl RequestRecord {
    pub(crate) fn record(&self, update: impl FnOnce(&mut RequestFields)) {
        update(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Records where the request goes; returns the class.
    pub(crate) fn record_route(&self, routed: &Routed) -> String {
        self.record(|fields| {
            fields.backend = Some(routed.backend_used().to_owned());
            fields.model = Some(routed.model().unwrap_or("default").to_owned());
            fields.reason = Some(routed.reason());
        });
        routed.backend().class.clone()
    }

    /// Records how a stream ended.
    pub(crate) fn record_outcome(&self, status: u16, cause: Option<String>) {
        self.record(|fields| fields.outcome = Some(StreamOutcome { status, cause }));
    }

    /// Whose budget the request's body counts against.
    pub(crate) fn body_owner(&self) -> BudgetOwner {
        self.read(|fields| match &fields.caller {
            Some(name) => BudgetOwner::Token(name.clone()),
            None => BudgetOwner::Address(fields.client.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED))),
        })
    }

    fn read<T>(&self, read: impl FnOnce(&RequestFields) -> T) -> T {
        read(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    #[cfg(test)]
    pub(crate) fn caller(&self) -> Option<String> {
        self.read(|fields| fields.caller.clone())
    }

    /// Sets the headers that say where the request went.
    fn insert_headers(&self, response: &mut Response) {
        let headers = response.headers_mut();
        self.read(|fields| {
            let values = [
                ("x-backend-used", fields.backend.as_deref()),
                ("x-model-used", fields.model.as_deref()),
                ("x-router-reason", fields.reason),
            ];
            for (name, value) in values {
                if let Some(value) = value.and_then(header_value) {
                    headers.insert(name, value);
                }
            }
        });
    }
}

/// Foreign text as a header value.
fn header_value(text: &str) -> Option<HeaderValue> {
    let visible = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    HeaderValue::from_str(&prefix(text, MAX_FOREIGN_CHARS).chars().map(visible).collect::<String>()).ok()
}

pub(crate) async fn layer(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let record = RequestRecord::default();
    request.extensions_mut().insert(record.clone());
    let id = request.extensions().get::<RequestId>().cloned();
    let mut line = LogLine {
        id: id.map_or_else(String::new, |id| id.as_str().to_owned()),
        method: request.method().clone(),
        path: request.uri().path().to_owned(),
        route: request.extensions().get::<MatchedPath>().cloned(),
        metrics: app.metrics.clone(),
        record: record.clone(),
        start: Instant::now(),
        status: CLIENT_CLOSED_REQUEST,
        bytes: 0,
        cause: None,
    };
    let mut response = next.run(request).await;
    record.insert_headers(&mut response);
    line.status = response.status().as_u16();
    if let Some(Rejected(code)) = response.extensions().get() {
        line.metrics.record_rejection(*code);
    }
    line.cause = response.extensions().get::<ErrorCause>().map(|cause| cause.0.clone());
    if response.extensions().get::<Streamed>().is_none() {
        line.bytes = response.body().size_hint().exact().unwrap_or_else(|| content_length(&response));
        return response;
    }
    line.status = CLIENT_CLOSED_REQUEST; // unless the stream records its outcome
    response.map(|body| Body::from_stream(LoggedBody { body: body.into_data_stream(), line }))
}

/// A body, and the log line that is written when it ends or is dropped.
struct LoggedBody {
    body: BodyDataStream,
    line: LogLine,
}

impl Stream for LoggedBody {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.body.poll_next_unpin(context);
        if let Poll::Ready(Some(Ok(chunk))) = &polled {
            self.line.bytes += chunk.len() as u64;
        }
        polled
    }
}

/// The log line, written and counted on drop: also if the client disconnects.
struct LogLine {
    id: String,
    method: Method,
    path: String,
    /// The route, if the path is one of ours.
    route: Option<MatchedPath>,
    metrics: Arc<Metrics>,
    record: RequestRecord,
    start: Instant,
    status: u16,
    /// Bytes of the response body.
    bytes: u64,
    cause: Option<String>,
}

impl Drop for LogLine {
    fn drop(&mut self) {
        let elapsed = self.start.elapsed();
        if let Some(StreamOutcome { status, cause }) = self.record.read(|fields| fields.outcome.clone()) {
            (self.status, self.cause) = (status, cause);
        }
        macro_rules! line {
            ($level:ident, $fields:expr, $cause:expr) => {
                $level!(
                    request_id = self.id,
                    caller = $fields.caller.as_deref(),
                    client = $fields.client.map(tracing::field::display),
                    method = %prefix(self.method.as_str(), MAX_FOREIGN_CHARS),
                    path = prefix(&self.path, MAX_FOREIGN_CHARS),
                    route_kind = $fields.route_kind,
                    backend = $fields.backend.as_deref(),
                    model = $fields.model.as_deref().map(|model| prefix(model, MAX_FOREIGN_CHARS)),
                    reason = $fields.reason,
                    status = self.status,
                    bytes = self.bytes,
                    ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
                    cause = $cause,
                    "request"
                )
            };
        }
        let cause = self.cause.as_deref().map(|cause| prefix(cause, 3 * MAX_FOREIGN_CHARS));
        let route = self.route.as_ref().map(MatchedPath::as_str);
        self.record.read(|fields| {
            self.metrics.record_request(route, fields.backend.as_deref(), self.status, elapsed);
        });
        self.record.read(|fields| match self.status {
            500.. => line!(error, fields, cause),
            400.. => line!(warn, fields, cause),
            _ => line!(info, fields, None::<&str>),
        });
    }
}

fn content_length(response: &Response) -> u64 {
    let length = response.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    length.and_then(|length| length.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_in_a_header_is_visible_and_bounded() {
        assert_eq!(header_value("sd xl\r\nx: y\u{e9}").unwrap(), "sd xl??x: y?");
        assert_eq!(header_value(&"x".repeat(999)).unwrap().len(), MAX_FOREIGN_CHARS);
    }
}
