//! The TLS port: the handshake, and an error response for clients that send plain HTTP.

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

enum ClientTransport {
    Tls(Box<TlsStream<ClientStream>>),
    Plain(ClientStream),
}

/// Does the handshake within the head timeout. Requests in plain HTTP are refused.
pub(super) async fn serve_tls<H: Handler>(
    stream: TcpStream,
    connection: Connection,
    (tls, listener): (TlsAcceptor, HttpServer<H>),
    life: Lifecycle,
) {
    let (peer, limits) = (connection.peer, listener.limits);
    let deadline = Instant::now() + limits.head_timeout;
    let port = stream.local_addr().map(|address| address.port()).unwrap_or_default();
    let opened = tokio::select! {
        opened = timeout_at(deadline, detect_transport(stream, &connection.permit, limits, &tls)) => opened,
        () = until_evicted(&connection.permit) => return debug!(%peer, "TLS handshake aborted: too many connections"),
        () = life.draining().cancelled() => return,
    };
    match opened {
        Ok(Ok(ClientTransport::Tls(stream))) => serve_http(*stream, connection, listener, life).await,
        Ok(Ok(ClientTransport::Plain(stream))) => {
            let head_timeout = deadline.saturating_duration_since(Instant::now());
            let limits = ServerLimits { head_timeout, ..limits };
            let refusing = HttpServer { limits, ..HttpServer::plain(HttpsOnly { port }) };
            serve_http(stream, connection, refusing, life).await;
        }
        Ok(Err(error)) => debug!(%peer, %error, "TLS handshake failed"),
        Err(_) => debug!(%peer, "TLS handshake timed out"),
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
    // A handshake begins with byte 22, the method of a request with a letter.
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

/// Answers every request with the https URL to use.
#[derive(Debug, Clone, Copy)]
struct HttpsOnly {
    port: u16,
}

impl Handler for HttpsOnly {
    async fn handle(&self, request: Request<RequestBody>) -> Response {
        let id = RequestId::from_header(request.headers().get(X_REQUEST_ID));
        let peer = request.extensions().get::<PeerAddr>().map(|peer| tracing::field::display(peer.0));
        info!(request_id = id.as_str(), peer, status = 400, "request refused: plain HTTP on the HTTPS port");
        let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
        let message = https_hint(host, self.port);
        let mut response =
            ErrorResponse::new(StatusCode::BAD_REQUEST, ErrorCode::HttpsRequired, message).into_response();
        response.headers_mut().insert(X_REQUEST_ID, id.to_header_value());
        // If there is a body, it is discarded first: closed with bytes unread, the connection would be reset.
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
    let requested = host.and_then(|host| host.parse().ok()).filter(is_valid);
    let authority = requested.map_or_else(
        || format!("HOST:{port}"),
        |host| match host.port_u16() {
            Some(_) => host.to_string(),
            None if port == 443 => host.host().to_owned(),
            None => format!("{}:{port}", host.host()),
        },
    );
    format!("This port speaks HTTPS, but the request was plain HTTP. Use https://{authority} instead.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_is_the_requested_address() {
        for (host, port, url) in [
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
            assert!(message.contains(url), "{host:?}: {message}");
        }
        let long = "x".repeat(999);
        assert!(https_hint(Some(&long), 8800).len() < 200);
    }
}
