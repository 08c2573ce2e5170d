//! The TLS port: the handshake, and an answer in plain HTTP for a client that does not know that it needs one.

use axum::{
    extract::Request,
    http::{StatusCode, header, uri::Authority},
    response::{IntoResponse, Response},
};
use http_body::Body;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::server::TlsStream;
use tracing::{debug, info};

use super::{
    ConnectionPermit, Handler, HttpServer, PeerAddr, RequestBody, ServerLimits, TlsAcceptor,
    connection::{Connection, serve_http},
    socket::ClientStream,
};
use wire::openai::error::ErrorCode;

use crate::{
    error_response::ErrorResponse,
    lifecycle::Lifecycle,
    request_id::{RequestId, X_REQUEST_ID},
};

/// How a connection begins.
enum ClientTransport {
    Tls(Box<TlsStream<ClientStream>>),
    Plain(ClientStream),
}

/// Shakes hands within the time for a head. Every request of a client that speaks plain HTTP is refused.
pub(super) async fn serve_tls<H: Handler>(
    stream: TcpStream,
    connection: Connection,
    (tls, listener): (TlsAcceptor, HttpServer<H>),
    life: Lifecycle,
) {
    let (peer, bounds) = (connection.peer, listener.limits);
    let deadline = Instant::now() + bounds.head_timeout;
    let port = stream.local_addr().map(|address| address.port()).unwrap_or_default();
    let opened = tokio::select! {
        opened = timeout_at(deadline, detect_transport(stream, &connection.permit, bounds, &tls)) => opened,
        () = until_evicted(&connection.permit) => return debug!(%peer, "TLS handshake given up: too many connections"),
        () = life.draining().cancelled() => return,
    };
    match opened {
        Ok(Ok(ClientTransport::Tls(stream))) => serve_http(*stream, connection, listener, life).await,
        Ok(Ok(ClientTransport::Plain(stream))) => {
            let head_time = deadline.saturating_duration_since(Instant::now());
            let bounds = ServerLimits { head_timeout: head_time, ..bounds };
            let refusing = HttpServer { limits: bounds, ..HttpServer::plain(HttpsOnly { port }) };
            serve_http(stream, connection, refusing, life).await;
        }
        Ok(Err(error)) => debug!(%peer, %error, "TLS handshake failed"),
        Err(_) => debug!(%peer, "TLS handshake took too long"),
    }
}

async fn detect_transport(
    stream: TcpStream,
    permit: &ConnectionPermit,
    limits: ServerLimits,
    tls: &TlsAcceptor,
) -> std::io::Result<ClientTransport> {
    let mut first = [0];
    stream.peek(&mut first).await?;
    let stream = ClientStream::new(stream, limits.stall_timeout, permit.state().clone());
    // A handshake begins with 22. Whatever begins with a letter can only be the method of a request.
    if first[0].is_ascii_alphabetic() {
        return Ok(ClientTransport::Plain(stream));
    }
    Ok(ClientTransport::Tls(Box::new(tls.0.accept(stream).await?)))
}

async fn until_evicted(permit: &ConnectionPermit) {
    while !permit.state().is_evicted() {
        permit.state().notify.notified().await;
    }
}

/// Answers every request with where to go instead. No request that came in the clear gets any further.
#[derive(Debug, Clone, Copy)]
struct HttpsOnly {
    port: u16,
}

impl Handler for HttpsOnly {
    async fn handle(&self, request: Request<RequestBody>) -> Response {
        let id = RequestId::from_header(request.headers().get(X_REQUEST_ID));
        let peer = request.extensions().get::<PeerAddr>().map(|peer| tracing::field::display(peer.0));
        info!(
            request_id = id.as_str(),
            peer,
            status = 400,
            "request refused: plain HTTP on the port for HTTPS"
        );
        let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
        let message = https_hint(host, self.port);
        let mut response =
            ErrorResponse::new(StatusCode::BAD_REQUEST, ErrorCode::HttpsRequired, message).into_response();
        response.headers_mut().insert(X_REQUEST_ID, id.to_header_value());
        // The body of a request is read first: closed with bytes unread, the connection would be reset.
        if request.body().is_end_stream() {
            response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
        }
        response
    }
}

fn https_hint(host: Option<&str>, port: u16) -> String {
    let is_valid = |host: &Authority| {
        !host.host().is_empty() && !host.as_str().contains('@') && host.as_str().len() <= 255
    };
    let asked = host.and_then(|host| host.parse().ok()).filter(is_valid);
    let authority = asked.map_or_else(
        || format!("HOST:{port}"),
        |host| match host.port_u16() {
            Some(_) => host.to_string(),
            None if port == 443 => host.host().to_owned(),
            None => format!("{}:{port}", host.host()),
        },
    );
    format!("This port speaks HTTPS, and the request came in plain HTTP. Use https://{authority} instead.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_to_use_is_the_one_that_was_asked_for() {
        for (host, port, place) in [
            (Some("ai2.local:8800"), 8800, "https://ai2.local:8800 "),
            (Some("ai2.local:9000"), 8800, "https://ai2.local:9000 "),
            (Some("ai2.local"), 8800, "https://ai2.local:8800 "),
            (Some("ai2.local"), 443, "https://ai2.local "),
            (Some("[::1]:8800"), 8800, "https://[::1]:8800 "),
            (Some("me:secret@ai2"), 8800, "https://HOST:8800 "),
            (Some("a b"), 8800, "https://HOST:8800 "),
            (Some(""), 8800, "https://HOST:8800 "),
            (None, 8800, "https://HOST:8800 "),
        ] {
            let message = https_hint(host, port);
            assert!(message.contains(place), "{host:?}: {message}");
        }
        let long = "x".repeat(999);
        assert!(https_hint(Some(&long), 8800).len() < 200);
    }
}
