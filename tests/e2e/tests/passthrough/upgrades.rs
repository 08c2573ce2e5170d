use e2e::sidecar::Sidecar;
use fakes::{invokeai::FakeInvoke, raw_engine::RawEngine, raw_http::RawClient};
use futures_util::StreamExt;

use super::{ask, before};

const WEBSOCKET: &str = "GET /echo HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Key: k\r\nSec-WebSocket-Protocol: p\r\n\r\n";

async fn open(sidecar: &Sidecar) -> RawClient {
    let mut wire = RawClient::to(&sidecar.url).await;
    wire.send(WEBSOCKET).await;
    let agreed = wire.response().await;
    assert_eq!((agreed.status(), agreed.header("upgrade")), (101, "websocket"), "{agreed:?}");
    assert_eq!(agreed.header("sec-websocket-accept"), "x");
    wire
}

#[tokio::test]
async fn a_websocket_carries_bytes_both_ways_until_one_side_ends() {
    let engine = RawEngine::start().await;
    let sidecar = before(&engine, &[]).await;
    let mut wire = open(&sidecar).await;
    let request = &engine.requests("/echo")[0];
    assert_eq!(
        (request.header("upgrade"), request.header("sec-websocket-protocol")),
        (vec!["websocket"], vec!["p"])
    );
    for part in ["one", "two"] {
        wire.send(part).await;
        assert!(wire.until(part.as_bytes()).await.is_some());
    }
    engine.until_open(|open| open >= 1).await;
    wire.half_close().await;
    assert_eq!(wire.rest().await, "", "a WebSocket has no half");
}

#[tokio::test]
async fn data_sent_with_the_handshake_is_not_lost() {
    let engine = RawEngine::start().await;
    let sidecar = before(&engine, &[]).await;
    let mut wire = RawClient::to(&sidecar.url).await;
    wire.send(format!("{WEBSOCKET}early bytes")).await;
    assert!(wire.until(b"early bytes").await.is_some());
}

#[tokio::test]
async fn the_engines_socket_io_works_through_the_sidecar() {
    let engine = FakeInvoke::start().await;
    let sidecar = Sidecar::invokeai(&engine.url(), &[]).await;
    sidecar.until_ready().await;
    let url = format!("{}/ws/socket.io/?EIO=4&transport=websocket", sidecar.url.replace("http:", "ws:"));
    let (mut socket, _) =
        fakes::bounded("the handshake", tokio_tungstenite::connect_async(url)).await.unwrap();
    let first = fakes::bounded("the first frame", socket.next()).await.unwrap().unwrap();
    assert!(first.to_text().unwrap().starts_with("0{"), "Socket.IO's greeting: {first}");
}

#[tokio::test]
async fn no_other_protocol_is_upgraded() {
    let engine = RawEngine::start().await;
    let sidecar = before(&engine, &[]).await;
    for upgrade in ["h2c", "TLS/1.0", "websocket, h2c", "connect-udp"] {
        let head =
            format!("GET /plain HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n\r\n");
        assert_eq!(ask(&sidecar, &head).await.status(), 200, "{upgrade}");
    }
    for request in engine.requests("/plain") {
        assert!(
            request.header("upgrade").is_empty() && request.header("connection").is_empty(),
            "{request:?}"
        );
    }
    let unexpected = ask(&sidecar, "GET /switch HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(unexpected.status(), 502);
    let posted =
        WEBSOCKET.replace("GET /echo", "POST /echo").replace("\r\n\r\n", "\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(ask(&sidecar, &posted).await.status(), 200, "a WebSocket begins with a GET");
    let connect = ask(&sidecar, "CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\n\r\n").await;
    assert_eq!(connect.status(), 405, "{connect:?}");
}

#[tokio::test]
async fn an_open_websocket_does_not_block_shutdown() {
    let engine = RawEngine::start().await;
    let sidecar = before(&engine, &[]).await;
    let wire = open(&sidecar).await;
    let started = std::time::Instant::now();
    sidecar.stop().await;
    assert!(started.elapsed().as_secs() < 10, "it is not waited for");
    assert_eq!(wire.rest().await, "");
}
