//! A backend that has its image ready: 2 MiB, in base64, each a little different from the one before. It speaks, too.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use fakes::plain_http::{Connection, Message, serve as answer_with};
use tokio::time::sleep;

/// Sixteen base64 digits that differ from image to image.
const OWN: usize = 16;
/// The JSON around an image's base64.
pub(crate) const BEFORE: &str = "\"created\":1736697234,\"data\":[{\"b64_json\":\"";
pub(crate) const AFTER: &str = "\",\"seed\":7}],\"size\":\"1024x1024\"";
/// In a request: an image that takes long.
pub(crate) const SLOW: &str = "slow";
const SLOWNESS: Duration = Duration::from_secs(2);
/// The text of a chat's token, and how often it is sent.
pub(crate) const CHAT_TOKEN: &str = "token";
const TOKENS: usize = 8;
const TOKEN_INTERVAL: Duration = Duration::from_millis(2);

/// The JSON around the base64, which changes.
#[derive(Debug)]
struct Template {
    before: Vec<u8>,
    after: Vec<u8>,
    next: AtomicU64,
}

/// Serves until it is killed.
pub(crate) async fn serve() {
    let template = Arc::new(Template::new());
    answer_with(move |request, connection| answer(request, connection, template.clone())).await;
}

impl Template {
    fn new() -> Self {
        let base64 = base64_simd::STANDARD.encode_to_string(noise(2 << 20));
        // Far behind the head of the one chunk of pixels.
        let (before, after) = base64.split_at(1 << 20);
        let before = format!("{{{BEFORE}{before}");
        let after = format!("{}{AFTER}}}", &after[OWN..]);
        let length = before.len() + OWN + after.len();
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
        Self { before: (head + &before).into(), after: after.into(), next: AtomicU64::new(1) }
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
        // A pixel; what follows is more than enough for it.
        chunk(b"IHDR", vec![0, 0, 0, 1, 0, 0, 0, 1, 8, 2, 0, 0, 0]),
        chunk(b"IDAT", b"x\x9c".iter().copied().chain(pixels).collect()),
        chunk(b"IEND", Vec::new()),
    ]
    .concat()
}

async fn answer(request: Message, mut connection: Connection, template: Arc<Template>) -> Connection {
    match request.head.split(' ').nth(1).unwrap_or_default() {
        "/v1/images/generations" => {
            if request.body_start.windows(SLOW.len()).any(|window| window == SLOW.as_bytes()) {
                sleep(SLOWNESS).await;
            }
            let own = format!("{:0OWN$x}", template.next.fetch_add(1, Ordering::Relaxed));
            connection.send(&template.before).await;
            connection.send(&[own.as_bytes(), &template.after].concat()).await;
        }
        "/v1/chat/completions" => stream_tokens(&mut connection).await,
        _ => connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await,
    }
    connection
}

/// The first token at once.
async fn stream_tokens(connection: &mut Connection) {
    let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    connection.send(head).await;
    for nth in 0..=TOKENS {
        if nth > 0 {
            sleep(TOKEN_INTERVAL).await;
        }
        let (delta, reason) = match nth {
            0 => (format!(r#"{{"role":"assistant","content":"{CHAT_TOKEN} "}}"#), "null"),
            TOKENS => ("{}".to_owned(), r#""stop""#),
            _ => (format!(r#"{{"content":"{CHAT_TOKEN} "}}"#), "null"),
        };
        let end = if nth == TOKENS { "data: [DONE]\n\n" } else { "" };
        let event = format!(
            r#"data: {{"id":"c","object":"chat.completion.chunk","created":1,"model":"speaker","choices":[{{"index":0,"delta":{delta},"finish_reason":{reason}}}]}}"#
        ) + "\n\n"
            + end;
        connection.send(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).await;
    }
    connection.send(b"0\r\n\r\n").await;
}
