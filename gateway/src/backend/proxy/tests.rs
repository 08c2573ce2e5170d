use futures_util::{StreamExt, stream};

use super::*;
use crate::{
    admission::Admission,
    config::{Capability, RoutingConfig},
    health::Ready,
    policy::routing::{
        tests::backends,
        text::{RoutingQuery, route_text},
    },
};

fn passage(headers: &[(&str, &str)], body: reqwest::Body) -> ProxiedResponse {
    let mut answer = axum::http::Response::builder();
    for (name, value) in headers {
        answer = answer.header(*name, *value);
    }
    let asked = RoutingQuery { capability: Capability::Chat, backend: None, model: None };
    let permitted = route_text(&backends(), &RoutingConfig::default(), &[], asked).unwrap();
    let grant = Admission::new(&backends(), &[]).admit(Ready::assume_ready(permitted), None).unwrap();
    ProxiedResponse::from_response(grant, answer.body(body).unwrap().into()).unwrap()
}

/// Headers that do not pass: about the backend's connection, its own origin, or ours to say.
const OWN: [&str; 20] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "date",
    "server",
    "set-cookie",
    "alt-svc",
    "strict-transport-security",
    "retry-after",
    "x-request-id",
    "x-backend-used",
    "x-model-used",
    "x-router-reason",
    "www-authenticate",
];
/// Those that tell a browser or a proxy what to do with our origin.
const ACTING: [&str; 16] = [
    "refresh",
    "clear-site-data",
    "service-worker-allowed",
    "location",
    "link",
    "nel",
    "report-to",
    "reporting-endpoints",
    "permissions-policy",
    "cross-origin-opener-policy",
    "sourcemap",
    "content-disposition",
    "x-accel-redirect",
    "x-sendfile",
    "x-frame-options",
    "x-xss-protection",
];

#[test]
fn each_header_that_is_not_ours_to_pass_is_dropped() {
    let kept = [
        ("content-type", "text/event-stream"),
        ("content-length", "7"),
        ("cache-control", "no-store"),
        ("openai-processing-ms", "9"),
        ("x-ratelimit-remaining-requests", "9"),
        ("x-should-retry", "false"),
    ];
    let mut all = kept.to_vec();
    all.extend(OWN.iter().chain(&ACTING).map(|name| (*name, "x-named, close")));
    all.extend([("access-control-allow-origin", "*"), ("x-named", "1")]);
    let headers = passage(&all, "".into()).headers;
    for (name, value) in kept {
        assert_eq!(headers[name], value);
    }
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert_eq!(headers["content-security-policy"], "sandbox; default-src 'none'");
    assert_eq!(headers.len(), kept.len() + 2, "{headers:?}");
}

#[test]
fn a_page_is_told_from_an_answer() {
    for (kind, page) in [
        ("text/html", true),
        ("Text/HTML; charset=utf-8", true),
        ("application/xhtml+xml", true),
        ("image/svg+xml", true),
        ("text/xml", true),
        ("application/json, text/html", true),
        ("application/json; note=text/html", false),
        ("application/json", false),
        ("text/event-stream; charset=utf-8", false),
        ("text/plain", false),
    ] {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, kind.parse().unwrap())]);
        assert_eq!(is_active_content(&headers), page, "{kind}");
    }
    let mut twice = HeaderMap::from_iter([(header::CONTENT_TYPE, "application/json".parse().unwrap())]);
    twice.append(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
    assert!(is_active_content(&twice) && !is_active_content(&HeaderMap::new()));
}

#[tokio::test]
async fn an_announced_length_tells_the_last_piece() {
    let mut known = passage(&[("content-length", "2")], "hi".into());
    assert!(!known.is_complete());
    assert_eq!(known.next().await.unwrap().unwrap(), "hi");
    assert!(known.is_complete());
    assert!(passage(&[("content-length", "0")], "".into()).is_complete());
    let mut unknown = passage(&[], "hi".into());
    while unknown.next().await.unwrap().is_some() {}
    assert!(!unknown.is_complete());
}

#[tokio::test(start_paused = true)]
async fn a_caller_may_hold_an_answer_up_for_ten_minutes_in_all() {
    let mut reader_delay = ReaderDelay::default();
    for _ in 0..60 {
        assert!(!reader_delay.is_exceeded());
        tokio::time::sleep(Duration::from_mins(4)).await; // the backend's own time
        reader_delay.chunk_sent();
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    assert!(!reader_delay.is_exceeded());
    reader_delay.chunk_sent();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(reader_delay.is_exceeded());
}

#[tokio::test(start_paused = true)]
async fn a_silent_backend_is_given_up() {
    let first = stream::iter([Ok::<_, std::io::Error>("hi")]);
    let mut silent = passage(&[], reqwest::Body::wrap_stream(first.chain(stream::pending())));
    assert_eq!(silent.next().await.unwrap().unwrap(), "hi");
    let before = tokio::time::Instant::now();
    assert!(matches!(silent.next().await, Err(BackendError::TimedOut)));
    assert_eq!(before.elapsed(), CHUNK_TIMEOUT);
    let head = with_timeout(HEAD_TIMEOUT, std::future::pending::<reqwest::Result<()>>()).await;
    assert!(matches!(head, Err(BackendError::TimedOut)));
}

#[tokio::test]
async fn a_stream_that_ends_with_its_connection_needs_an_end_mark() {
    let events = [("content-type", "text/event-stream")];
    let body = "data: {\"choices\":[{\"finish_reason\":null}]}\n\n";
    let mut cut = passage(&events, body.into());
    assert_eq!(cut.next().await.unwrap().unwrap(), body, "it passes unchanged");
    let Err(fault) = cut.next().await else { panic!("it ended in order") };
    assert!(fault.needs_probe() && matches!(&fault, BackendError::Broken(words) if words.contains("[DONE]")));
    let mut whole = passage(&events, "data: [DONE]\n\n".into());
    while whole.next().await.unwrap().is_some() {}
}
