//! An exchange whose answer passes as it comes: words and numbers are the backend's, the gateway looks at none of them.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use bytes::Bytes;
use reqwest::Response;
use shared::service::{body::WholeBody, request_id::X_REQUEST_ID};
use tokio::time::timeout;

use super::{BackendFault, Backends, body_of, fault};
use crate::{payload::Sent, policy::admission::Grant};

/// Until an answer's head. One that is not streamed begins when its last word is found, and OpenAI's Python library waits
/// as long for it.
const HEAD: Duration = Duration::from_mins(10);
/// Between two pieces of an answer. A long prompt is read in silence by some servers; a dead connection is found by TCP
/// much sooner.
const PIECE: Duration = Duration::from_mins(5);

/// Headers of the backend that do not pass: they are about its connection, its own origin, or ours to say.
const OWN: [HeaderName; 20] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::DATE,
    header::SERVER,
    header::SET_COOKIE,
    header::ALT_SVC,
    header::STRICT_TRANSPORT_SECURITY,
    header::RETRY_AFTER,
    X_REQUEST_ID,
    HeaderName::from_static("x-backend-used"),
    HeaderName::from_static("x-model-used"),
    HeaderName::from_static("x-router-reason"),
    header::WWW_AUTHENTICATE,
];

/// What is sent.
#[derive(Debug)]
pub(crate) struct Passing {
    /// The path behind `/v1`.
    pub(crate) path: &'static str,
    /// The request's body.
    pub(crate) sent: Sent,
    /// What its bytes count against until they are sent.
    pub(crate) counted: WholeBody,
    /// What the caller takes.
    pub(crate) accept: Option<HeaderValue>,
    /// The request's id, for both programs' logs.
    pub(crate) request_id: HeaderValue,
}

/// An answer, and the grant that it comes under. Dropping it closes the connection and frees the place.
#[derive(Debug)]
pub(crate) struct Passage {
    grant: Grant,
    /// The answer's status.
    pub(crate) status: StatusCode,
    /// The headers that pass.
    pub(crate) headers: HeaderMap,
    source: Response,
    /// Bytes that are still to come, where their number was announced.
    left: Option<u64>,
}

impl Backends {
    /// Asks once. Dropping the future closes the connection.
    pub(crate) async fn pass(&self, grant: Grant, passing: Passing) -> Result<Passage, BackendFault> {
        let Passing { path, sent, counted, accept, request_id } = passing;
        let backend = grant.permitted().backend();
        let (length, body) = body_of(sent.pieces, counted);
        let request = self
            .fresh
            .post(backend.api(path))
            .header(header::CONTENT_TYPE, sent.content_type)
            .header(header::CONTENT_LENGTH, length)
            .header(header::ACCEPT, accept.unwrap_or(HeaderValue::from_static("*/*")))
            .header(header::ACCEPT_ENCODING, "identity")
            .header(X_REQUEST_ID, request_id)
            .body(body);
        let answer = in_time(HEAD, backend.authorized(request).send()).await?;
        if !answer.status().is_success() {
            return in_time(PIECE, async { Ok(fault::refusal(answer).await) }).await.and_then(Err);
        }
        Ok(Passage::of(grant, answer))
    }
}

impl Passage {
    fn of(grant: Grant, mut source: Response) -> Self {
        let headers = passing(std::mem::take(source.headers_mut()));
        let length = headers.get(header::CONTENT_LENGTH);
        let left = length.and_then(|length| length.to_str().ok()?.parse().ok());
        Self { grant, status: source.status(), headers, source, left }
    }

    /// The class that it comes from.
    pub(crate) fn class(&self) -> &str {
        &self.grant.permitted().backend().class
    }

    /// Whether all has come, as far as was announced. Nobody asks for more then.
    pub(crate) fn is_whole(&self) -> bool {
        self.left == Some(0)
    }

    /// The next piece; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, BackendFault> {
        let piece = in_time(PIECE, self.source.chunk()).await?;
        if let (Some(piece), Some(left)) = (&piece, &mut self.left) {
            *left = left.saturating_sub(piece.len() as u64);
        }
        Ok(piece)
    }
}

async fn in_time<T>(
    limit: Duration,
    step: impl Future<Output = reqwest::Result<T>>,
) -> Result<T, BackendFault> {
    let done = timeout(limit, step).await.map_err(|_| BackendFault::TimedOut)?;
    done.map_err(|error| BackendFault::of(&error))
}

/// The headers that pass. Those that `Connection` names are about the connection, too; what a browser's page may read is
/// not for a backend to say.
fn passing(mut headers: HeaderMap) -> HeaderMap {
    let lines = headers.get_all(header::CONNECTION).iter().filter_map(|line| line.to_str().ok());
    let named: Vec<HeaderName> =
        lines.flat_map(|line| line.split(',')).filter_map(|name| name.trim().parse().ok()).collect();
    let foreign = headers.keys().filter(|name| name.as_str().starts_with("access-control-")).cloned();
    let foreign: Vec<_> = foreign.collect();
    for name in OWN.iter().chain(&named).chain(&foreign) {
        headers.remove(name);
    }
    headers
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt, stream};

    use super::*;
    use crate::{
        config::{Capability, Routing},
        health::Live,
        policy::{
            admission::Admission,
            catalog::{
                tests::backends,
                text::{Asked, permit_text},
            },
        },
    };

    fn passage(headers: &[(&str, &str)], body: reqwest::Body) -> Passage {
        let mut answer = axum::http::Response::builder();
        for (name, value) in headers {
            answer = answer.header(*name, *value);
        }
        let asked = Asked { capability: Capability::Chat, backend: None, model: None };
        let permitted = permit_text(&backends(), &Routing::default(), &[], asked).unwrap();
        let grant = Admission::new(&backends()).enter(Live::untested(permitted)).unwrap();
        Passage::of(grant, answer.body(body).unwrap().into())
    }

    #[test]
    fn each_header_that_is_not_ours_to_pass_is_dropped() {
        let kept = [
            ("content-type", "text/event-stream"),
            ("content-length", "7"),
            ("cache-control", "no-store"),
            ("openai-processing-ms", "9"),
            ("x-should-retry", "false"),
        ];
        let mut all = kept.to_vec();
        let dropped: Vec<String> = OWN.iter().map(ToString::to_string).collect();
        all.extend(dropped.iter().map(|name| (name.as_str(), "x-named, close")));
        all.extend([("access-control-allow-origin", "*"), ("x-named", "1")]);
        let headers = passage(&all, "".into()).headers;
        for (name, value) in kept {
            assert_eq!(headers[name], value);
        }
        assert_eq!(headers.len(), kept.len(), "{headers:?}");
    }

    #[tokio::test]
    async fn an_announced_length_tells_the_last_piece() {
        let mut known = passage(&[("content-length", "2")], "hi".into());
        assert!(!known.is_whole());
        assert_eq!(known.next().await.unwrap().unwrap(), "hi");
        assert!(known.is_whole());
        assert!(passage(&[("content-length", "0")], "".into()).is_whole());
        let mut unknown = passage(&[], "hi".into());
        while unknown.next().await.unwrap().is_some() {}
        assert!(!unknown.is_whole());
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_backend_is_given_up() {
        let first = stream::iter([Ok::<_, std::io::Error>("hi")]);
        let mut silent = passage(&[], reqwest::Body::wrap_stream(first.chain(stream::pending())));
        assert_eq!(silent.next().await.unwrap().unwrap(), "hi");
        let before = tokio::time::Instant::now();
        assert!(matches!(silent.next().await, Err(BackendFault::TimedOut)));
        assert_eq!(before.elapsed(), PIECE);
        let head = in_time(HEAD, std::future::pending::<reqwest::Result<()>>()).await;
        assert!(matches!(head, Err(BackendFault::TimedOut)));
    }
}
