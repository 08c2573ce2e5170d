//! The TLS port has its limits also before the handshake; time is paused.

use rustls::{
    ServerConfig,
    crypto::ring::default_provider,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::*;

/// No handshake gets as far as a certificate.
#[derive(Debug)]
struct NoCertificate;

impl ResolvesServerCert for NoCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

async fn start_tls(bounds: ServerLimits) -> (SocketAddr, Lifecycle) {
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(NoCertificate));
    let tls = TlsAcceptor(tokio_rustls::TlsAcceptor::from(Arc::new(config)));
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let lifecycle = Lifecycle::new();
    let listener = HttpServer { limits: bounds, tls: Some(tls), ..HttpServer::plain(hello()) };
    lifecycle.spawn_worker("accept", accept(socket, listener, lifecycle.clone()));
    (address, lifecycle)
}

#[tokio::test(start_paused = true)]
async fn a_handshake_has_the_head_timeout() {
    let (address, _life) = start_tls(ServerLimits::default()).await;
    for opening in [&b""[..], b"\x16\x03\x01", b"G", b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow"] {
        let started = Instant::now();
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(opening).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let taken = started.elapsed();
        assert!(taken >= Duration::from_secs(9) && taken < Duration::from_secs(12), "{opening:?}: {taken:?}");
        assert!(answer.is_empty(), "{opening:?}: {answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn plain_http_on_the_tls_port_can_be_evicted() {
    let (address, _life) = start_tls(ServerLimits { max_per_address: 1, ..ServerLimits::default() }).await;
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow").await.unwrap();
    let mut next = TcpStream::connect(address).await.unwrap();
    next.write_all(b"GET / HTTP/1.1\r\nHost: ai2:8800\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    next.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("https://ai2:8800 "), "{answer}");
    let mut none = Vec::new();
    let _ = slow.read_to_end(&mut none).await;
    assert!(none.is_empty(), "it made room: {none:?}");
}
