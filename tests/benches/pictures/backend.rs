//! A backend that has its picture ready: 2 MiB, in base64, each a little different from the one before. It speaks, too.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use e2e::child;
use futures_util::{StreamExt, stream};
use shared::service::{
    lifecycle::Lifecycle,
    serve::{Listener, accept},
};

/// Letters of base64 that are a picture's own: sixteen of them.
const OWN: usize = 16;
/// What is between the answer's braces, around a picture's letters.
pub(crate) const BEFORE: &str = "\"created\":1736697234,\"data\":[{\"b64_json\":\"";
pub(crate) const AFTER: &str = "\",\"seed\":7}],\"size\":\"1024x1024\"";
/// In an order: a picture that takes its time.
pub(crate) const SLOW: &str = "slow";
const SLOWNESS: Duration = Duration::from_secs(2);
/// What it says, so often.
pub(crate) const WORD: &str = "word";
const WORDS: usize = 8;
const BETWEEN_WORDS: Duration = Duration::from_millis(2);

/// The answer around the letters that change.
#[derive(Debug)]
struct Template {
    before: Bytes,
    after: Bytes,
    next: AtomicU64,
}

/// Serves until it is killed.
pub(crate) async fn serve() {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    let url = format!("http://{}", socket.local_addr().expect("a bound socket has an address"));
    let router = Router::new()
        .route("/healthz", get("ok"))
        .route("/readyz", get("ready"))
        .route("/v1/images/generations", post(answer))
        .route("/v1/chat/completions", post(speak))
        .with_state(Arc::new(Template::new()));
    let lifecycle = Lifecycle::new();
    lifecycle.worker("accept", accept(socket, Listener::plain(router), lifecycle.clone()));
    child::listening(&url).await;
}

impl Template {
    fn new() -> Self {
        let base64 = base64_simd::STANDARD.encode_to_string(noise(2 << 20));
        // Far behind the head of the one chunk of pixels.
        let (before, after) = base64.split_at(1 << 20);
        Self {
            before: format!("{{{BEFORE}{before}").into(),
            after: format!("{}{AFTER}}}", &after[OWN..]).into(),
            next: AtomicU64::new(1),
        }
    }
}

/// A PNG as far as its structure goes, of bytes that do not compress.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let pixels = (0..bytes / 8).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    let chunk = |kind: &[u8], data: Vec<u8>| {
        let length = u32::try_from(data.len()).expect("a few MiB").to_be_bytes();
        [&length[..], kind, &data, &[0; 4]].concat()
    };
    [
        b"\x89PNG\r\n\x1a\n".to_vec(),
        chunk(b"IHDR", vec![0; 13]),
        chunk(b"IDAT", pixels.collect()),
        chunk(b"IEND", Vec::new()),
    ]
    .concat()
}

async fn answer(State(template): State<Arc<Template>>, order: Bytes) -> Response {
    if order.windows(SLOW.len()).any(|letters| letters == SLOW.as_bytes()) {
        tokio::time::sleep(SLOWNESS).await;
    }
    let own = format!("{:0OWN$x}", template.next.fetch_add(1, Ordering::Relaxed));
    let length = template.before.len() + OWN + template.after.len();
    let parts = [template.before.clone(), own.into(), template.after.clone()];
    let body = Body::from_stream(stream::iter(parts.map(Ok::<_, Infallible>)));
    let headers =
        [(header::CONTENT_TYPE, "application/json".to_owned()), (header::CONTENT_LENGTH, length.to_string())];
    (headers, body).into_response()
}

/// The first word at once.
async fn speak(_order: Bytes) -> Response {
    let events = stream::iter(0..=WORDS).then(async |nth| {
        if nth > 0 {
            tokio::time::sleep(BETWEEN_WORDS).await;
        }
        let (delta, reason) = match nth {
            0 => (format!(r#"{{"role":"assistant","content":"{WORD} "}}"#), "null"),
            WORDS => ("{}".to_owned(), r#""stop""#),
            _ => (format!(r#"{{"content":"{WORD} "}}"#), "null"),
        };
        let end = if nth == WORDS { "data: [DONE]\n\n" } else { "" };
        Ok::<_, Infallible>(format!(
            r#"data: {{"id":"c","object":"chat.completion.chunk","created":1,"model":"speaker","choices":[{{"index":0,"delta":{delta},"finish_reason":{reason}}}]}}"#
        ) + "\n\n" + end)
    });
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(events)).into_response()
}
