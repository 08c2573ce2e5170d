//! The engine of the bench: as quick as hyper is.

use std::{convert::Infallible, io::Write};

use axum::body::Body;
use bytes::Bytes;
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{io::copy, net::TcpListener};

use super::TWO_MB;

/// The first argument of its process.
pub(crate) const NAME: &str = "origin";

pub(crate) async fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    let _ = writeln!(std::io::stdout(), "http://{address}");
    let large = Bytes::from(vec![b'x'; TWO_MB]);
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let large = large.clone();
        #[expect(clippy::disallowed_methods, reason = "the process ends with the bench")]
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, large.clone()));
            let _ =
                http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
        });
    }
}

async fn answer(mut request: Request<Incoming>, large: Bytes) -> Result<Response<Body>, Infallible> {
    Ok(match request.uri().path() {
        "/large" => Response::new(Body::from(large)),
        "/ws" => echo(&mut request),
        "/upload" => {
            let mut body = Body::new(request.into_body()).into_data_stream();
            while futures_util::StreamExt::next(&mut body).await.is_some() {}
            Response::new(Body::from("ok"))
        }
        _ => Response::new(Body::from("ok")),
    })
}

/// Agrees to a WebSocket, and sends back what comes.
fn echo(request: &mut Request<Incoming>) -> Response<Body> {
    let upgrade = hyper::upgrade::on(request);
    #[expect(clippy::disallowed_methods, reason = "the process ends with the bench")]
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let (mut from, mut to) = tokio::io::split(TokioIo::new(upgraded));
        let _ = copy(&mut from, &mut to).await;
    });
    let agreed =
        Response::builder().status(101).header("connection", "upgrade").header("upgrade", "websocket");
    agreed.body(Body::empty()).expect("valid parts")
}
