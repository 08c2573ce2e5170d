//! Slow clients do not hold slots, connections or memory that others need.

use std::time::Duration;

use e2e::gateway::{Gateway, TOKEN};
use fakes::{
    raw_http::RawClient,
    upstream::{Upstream, UpstreamReply, sse::SseStep},
};
use reqwest::Method;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::stream::{KEY, ask, until_counted};

#[tokio::test]
async fn a_stalled_stream_reader_frees_its_slot_at_the_request_timeout() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &["--images-http-timeout-sec", "2"]).await;
    let comment = [&b": "[..], &vec![b'x'; 1 << 20], b"\n\n"].concat();
    upstream.set_images(UpstreamReply::Events(vec![SseStep::Send(comment); 32]));
    let body = ask().to_string();
    let mut stream = TcpStream::connect(gateway.url.strip_prefix("http://").unwrap()).await.unwrap();
    let head = format!(
        "POST /v1/images/generations HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    gateway.until_inflight(KEY, 1).await;
    gateway.until_inflight(KEY, 0).await;
    let mut received = Vec::new();
    fakes::bounded("the end", async {
        while !received.ends_with(b"\r\n0\r\n\r\n") {
            assert!(
                stream.read_buf(&mut received).await.unwrap() > 0,
                "it gets an error event, and the stream ends cleanly"
            );
        }
    })
    .await;
    let last = String::from_utf8_lossy(&received[received.len() - 600..]).into_owned();
    assert!(last.contains("event: error") && last.contains("backend_timeout"), "{last}");
    until_counted(&gateway, 504).await;
}

#[tokio::test]
async fn the_unfinished_bodies_of_one_client_leave_half_of_the_budget_to_others() {
    const PIECE: usize = 31 << 20;
    let upstream = Upstream::start().await;
    let tokens = fakes::fresh_dir("slow-clients").join("tokens");
    std::fs::write(&tokens, "mine=mine-token-0123456789").unwrap();
    let file = tokens.display().to_string();
    let gateway = Gateway::start(&upstream, &["--gateway-bearer-tokens-file", &file]).await;
    let piece = vec![b'x'; PIECE];
    let mut uploads = Vec::new();
    for _ in 0..4 {
        let mut wire = RawClient::to(&gateway.url).await;
        let length = PIECE + 1;
        wire.send(format!(
            "POST /v1/images/edits HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer mine-token-0123456789\r\n\
             Content-Length: {length}\r\n\r\n"
        ))
        .await;
        wire.send(&piece).await;
        uploads.push(wire);
    }
    let large = |token: &str| {
        let request = gateway.anonymous(Method::POST, "/v1/images/edits").bearer_auth(token);
        request.header("content-type", "application/json").body(piece.clone())
    };
    let answer = fakes::eventually("half is held", async || {
        let answer = large("mine-token-0123456789").send().await.unwrap();
        (answer.status().as_u16() == 429).then_some(answer)
    })
    .await;
    assert_eq!(answer.headers()["retry-after"], "5");
    assert!(answer.text().await.unwrap().contains("Your other requests"));
    assert_eq!(large(TOKEN).send().await.unwrap().status().as_u16(), 400, "read, and no JSON");
    drop(uploads);
    tokio::time::timeout(Duration::from_secs(20), async {
        while large("mine-token-0123456789").send().await.unwrap().status().as_u16() != 400 {}
    })
    .await
    .expect("what is given up is given back");
}
