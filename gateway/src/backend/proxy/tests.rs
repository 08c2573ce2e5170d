use futures_util::{StreamExt, stream};

use super::*;
use crate::{
    admission::{Admission, Ready},
    config::{Capability, RoutingConfig},
    policy::{
        tests::backends,
        text::{RoutingQuery, route_text},
    },
};

fn proxied(headers: &[(&str, &str)], body: reqwest::Body) -> ProxiedResponse {
    let mut response = axum::http::Response::builder();
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    let query = RoutingQuery { capability: Capability::Chat, backend: None, model: None };
    let routed = route_text(&backends(), &RoutingConfig::default(), &[], query).unwrap();
    let grant = Admission::new(&backends(), &[]).admit(Ready::assume(routed), None).unwrap();
    ProxiedResponse::from_response(grant, response.body(body).unwrap().into()).unwrap()
}

/// Headers that are not forwarded: about the backend's connection or origin, or set by the gateway.
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
/// Headers that would make a browser or a proxy act on the gateway's origin.
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
fn headers_that_are_not_about_the_response_are_dropped() {
    let forwarded = [
        ("content-type", "text/event-stream"),
        ("content-length", "7"),
        ("cache-control", "no-store"),
        ("openai-processing-ms", "9"),
        ("x-ratelimit-remaining-requests", "9"),
        ("x-should-retry", "false"),
    ];
    let mut all = forwarded.to_vec();
    all.extend(OWN.iter().chain(&ACTING).map(|name| (*name, "x-named, close")));
    all.extend([("access-control-allow-origin", "*"), ("x-named", "1")]);
    let headers = proxied(&all, "".into()).headers;
    for (name, value) in forwarded {
        assert_eq!(headers[name], value);
    }
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert_eq!(headers["content-security-policy"], "sandbox; default-src 'none'");
    assert_eq!(headers.len(), forwarded.len() + 2, "{headers:?}");
}

#[test]
fn web_pages_are_recognized() {
    for (content_type, page) in [
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
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, content_type.parse().unwrap())]);
        assert_eq!(is_active_content(&headers), page, "{content_type}");
    }
    let mut twice = HeaderMap::from_iter([(header::CONTENT_TYPE, "application/json".parse().unwrap())]);
    twice.append(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
    assert!(is_active_content(&twice) && !is_active_content(&HeaderMap::new()));
}

#[tokio::test]
async fn a_known_length_marks_the_last_chunk() {
    let mut known = proxied(&[("content-length", "2")], "hi".into());
    assert!(!known.is_complete());
    assert_eq!(known.next().await.unwrap().unwrap(), "hi");
    assert!(known.is_complete());
    assert!(proxied(&[("content-length", "0")], "".into()).is_complete());
    let mut unknown = proxied(&[], "hi".into());
    while unknown.next().await.unwrap().is_some() {}
    assert!(!unknown.is_complete());
}

#[tokio::test(start_paused = true)]
async fn a_client_may_delay_a_response_for_ten_minutes_in_total() {
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
async fn a_silent_backend_times_out() {
    let first = stream::iter([Ok::<_, std::io::Error>("hi")]);
    let mut silent = proxied(&[], reqwest::Body::wrap_stream(first.chain(stream::pending())));
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
    let mut cut = proxied(&events, body.into());
    assert_eq!(cut.next().await.unwrap().unwrap(), body, "it passes unchanged");
    let Err(error) = cut.next().await else { panic!("the stream ended properly") };
    assert!(error.needs_probe() && matches!(&error, BackendError::Broken(why) if why.contains("[DONE]")));
    let mut complete = proxied(&events, "data: [DONE]\n\n".into());
    while complete.next().await.unwrap().is_some() {}
}
