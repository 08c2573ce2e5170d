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
    Bounds, Handler, Listener, Peer, RequestBody, Seat, TlsAcceptor,
    connection::{Visit, http},
    socket::ClientStream,
};
use wire::openai::error::{Code, Envelope};

use crate::{
    lifecycle::Lifecycle,
    request_id::{RequestId, X_REQUEST_ID},
};

/// How a connection begins.
enum Opened {
    Tls(Box<TlsStream<ClientStream>>),
    Plain(ClientStream),
}

/// Shakes hands within the time for a head. Every request of a client that speaks plain HTTP is refused.
pub(super) async fn speak<H: Handler>(
    stream: TcpStream,
    visit: Visit,
    (tls, listener): (TlsAcceptor, Listener<H>),
    life: Lifecycle,
) {
    let (peer, bounds) = (visit.peer, listener.bounds);
    let deadline = Instant::now() + bounds.head_time;
    let port = stream.local_addr().map(|address| address.port()).unwrap_or_default();
    let opened = tokio::select! {
        opened = timeout_at(deadline, open(stream, &visit.seat, bounds, &tls)) => opened,
        () = evicted(&visit.seat) => return debug!(%peer, "TLS handshake given up: too many connections"),
        () = life.draining().cancelled() => return,
    };
    match opened {
        Ok(Ok(Opened::Tls(stream))) => http(*stream, visit, listener, life).await,
        Ok(Ok(Opened::Plain(stream))) => {
            let head_time = deadline.saturating_duration_since(Instant::now());
            let bounds = Bounds { head_time, ..bounds };
            let refusing = Listener { bounds, ..Listener::plain(HttpsOnly { port }) };
            http(stream, visit, refusing, life).await;
        }
        Ok(Err(error)) => debug!(%peer, %error, "TLS handshake failed"),
        Err(_) => debug!(%peer, "TLS handshake took too long"),
    }
}

async fn open(stream: TcpStream, seat: &Seat, bounds: Bounds, tls: &TlsAcceptor) -> std::io::Result<Opened> {
    let mut first = [0];
    stream.peek(&mut first).await?;
    let stream = ClientStream::new(stream, bounds.stall, seat.state().clone());
    // A handshake begins with 22. Whatever begins with a letter can only be the method of a request.
    if first[0].is_ascii_alphabetic() {
        return Ok(Opened::Plain(stream));
    }
    Ok(Opened::Tls(Box::new(tls.0.accept(stream).await?)))
}

async fn evicted(seat: &Seat) {
    while !seat.state().is_evicted() {
        seat.state().notify.notified().await;
    }
}

/// Answers every request with where to go instead. No request that came in the clear gets any further.
#[derive(Debug, Clone, Copy)]
struct HttpsOnly {
    port: u16,
}

impl Handler for HttpsOnly {
    async fn handle(&self, request: Request<RequestBody>) -> Response {
        let id = RequestId::accept(request.headers().get(X_REQUEST_ID));
        let peer = request.extensions().get::<Peer>().map(|peer| tracing::field::display(peer.0));
        info!(
            request_id = id.as_str(),
            peer,
            status = 400,
            "request refused: plain HTTP on the port for HTTPS"
        );
        let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
        let envelope = Envelope::new(Code::HttpsRequired, explanation(host, self.port));
        let mut response = (StatusCode::BAD_REQUEST, axum::Json(envelope)).into_response();
        response.headers_mut().insert(X_REQUEST_ID, id.header());
        // The body of a request is read first: closed with bytes unread, the connection would be reset.
        if request.body().is_end_stream() {
            response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
        }
        response
    }
}

fn explanation(host: Option<&str>, port: u16) -> String {
    let sane = |host: &Authority| {
        !host.host().is_empty() && !host.as_str().contains('@') && host.as_str().len() <= 255
    };
    let asked = host.and_then(|host| host.parse().ok()).filter(sane);
    let place = asked.map_or_else(
        || format!("HOST:{port}"),
        |host| match host.port_u16() {
            Some(_) => host.to_string(),
            None if port == 443 => host.host().to_owned(),
            None => format!("{}:{port}", host.host()),
        },
    );
    format!("This port speaks HTTPS, and the request came in plain HTTP. Use https://{place} instead.")
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
            let words = explanation(host, port);
            assert!(words.contains(place), "{host:?}: {words}");
        }
        let long = "x".repeat(999);
        assert!(explanation(Some(&long), 8800).len() < 200);
    }
}
