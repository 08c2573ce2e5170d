//! The engine of the bench: as quick as a socket is.

use fakes::plain_http::{Connection, Message, serve as answer_with};

use super::TWO_MB;

/// The first argument of its process.
pub(crate) const NAME: &str = "origin";

/// Serves until it is killed.
pub(crate) async fn serve() {
    let large = format!("HTTP/1.1 200 OK\r\nContent-Length: {TWO_MB}\r\n\r\n").into_bytes();
    let large: &[u8] = [large, vec![b'x'; TWO_MB]].concat().leak();
    answer_with(move |request, connection| answer(request, connection, large)).await;
}

async fn answer(request: Message, mut connection: Connection, large: &[u8]) -> Connection {
    match request.head.split(' ').nth(1).unwrap_or_default() {
        "/large" => connection.send(large).await,
        "/ws" => {
            let agreed =
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
            connection.send(agreed).await;
            connection.echo().await;
        }
        _ => connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await,
    }
    connection
}
