//! A refusal reaches a client that writes all of a large body before reading a byte, as `urllib` and Node's `fetch` do: closed
//! with bytes unread, a connection is reset, and the answer is lost.

use std::sync::Arc;

use e2e::{
    gateway::{Gateway, TOKEN, gpu_heavy},
    sidecar::Sidecar,
};
use fakes::upstream::Upstream;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

const LENGTH: usize = 10 << 20;

/// A request's line and its headers but for the length.
type RawRequest<'a> = (&'a str, &'a str);

/// Writes all of it, then reads the status.
async fn send_all_then_read(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    (line, headers): RawRequest<'_>,
) -> String {
    let head = format!("{line} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}Content-Length: {LENGTH}\r\n\r\n");
    let exchange = async {
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(&vec![b'x'; LENGTH]).await?;
        stream.flush().await?;
        let mut answer = vec![0; 12];
        stream.read_exact(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    match fakes::bounded("an answer", exchange).await {
        Ok(answer) => String::from_utf8_lossy(&answer[9..]).into_owned(),
        Err(error) => error.to_string(),
    }
}

/// Asserts that eight of eight clients get this status.
async fn arrives(url: &str, body: RawRequest<'_>, status: &str) {
    let address = url.strip_prefix("http://").unwrap();
    for _ in 0..8 {
        let stream = TcpStream::connect(address).await.unwrap();
        assert_eq!(send_all_then_read(stream, body).await, status, "{body:?}");
    }
}

/// A name and a port without a listener.
async fn nowhere() -> String {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", socket.local_addr().unwrap())
}

#[tokio::test]
async fn every_refusal_of_the_sidecar_arrives() {
    let flags = ["--token", "a-token-of-some-length", "--max-request-bytes", "1000000"];
    let upload_limit = ["--max-upload-bytes", "1000000"];
    let sidecar = Sidecar::invokeai(&nowhere().await, &[&flags[..], &upload_limit].concat()).await;
    let open = Sidecar::invokeai(&nowhere().await, &[]).await;
    let mine = "Authorization: Bearer a-token-of-some-length\r\n";
    let images = "POST /v1/images/generations";
    for (url, body, status) in [
        (&sidecar.url, (images, "Authorization: Bearer wrong\r\n"), "401"),
        (&sidecar.url, (images, mine), "413"),
        (&sidecar.url, ("PUT /v1/images/generations", mine), "405"),
        (&sidecar.url, ("POST /api/v1/images/upload", "Origin: http://evil.example\r\n"), "403"),
        (&sidecar.url, ("POST /api/v1/images/upload", ""), "413"),
        (&sidecar.url, ("POST /v1/nothing", mine), "404"),
        (&open.url, ("POST /api/v1/images/upload", ""), "503"),
        (&open.url, (images, "Content-Encoding: gzip\r\n"), "415"),
    ] {
        arrives(url, body, status).await;
    }
}

const WRONG: &str = "Authorization: Bearer wrong\r\n";

fn with_token(more: &str) -> String {
    format!("Authorization: Bearer {TOKEN}\r\n{more}")
}

#[tokio::test]
async fn every_refusal_of_the_gateway_arrives() {
    let upstream = Upstream::start().await;
    let legacy = nowhere().await;
    let flags = ["--max-request-bytes", "1000000", "--gateway-legacy-upstream", &legacy];
    let gateway = Gateway::start(&upstream, &flags).await;
    let wide = Gateway::start(&upstream, &["--gateway-legacy-upstream", &legacy]).await;
    let (mine, gzip) = (with_token(""), with_token("Content-Encoding: gzip\r\n"));
    for (url, body, status) in [
        (&gateway.url, ("POST /v1/chat/completions", WRONG), "401"),
        (&gateway.url, ("POST /v1/chat/completions", &mine[..]), "413"),
        (&gateway.url, ("PUT /v1/images/generations", &mine), "405"),
        (&gateway.url, ("POST /ui", "Origin: http://evil.example\r\n"), "403"),
        (&gateway.url, ("POST /v1/music", &mine), "413"),
        (&wide.url, ("POST /v1/images/edits", &gzip), "415"),
        (&wide.url, ("POST /v1/music", &mine), "503"),
    ] {
        arrives(url, body, status).await;
    }
}

/// A malformed head has no route; it is refused with the envelope as well.
async fn refuses_heads<S: AsyncRead + AsyncWrite + Unpin>(connect: impl AsyncFn() -> S) {
    let post = |headers: &str| format!("POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\n");
    for (request, status, code) in [
        (post(&format!("X-Long: {}\r\n", "x".repeat(300_000))), 431, "request_too_large"),
        (post(&"X-Many: y\r\n".repeat(200)), 431, "request_too_large"),
        ("nonsense\r\n\r\n".to_owned(), 400, "invalid_value"),
        (post("Content-Length: 1\r\nContent-Length: 2\r\n"), 400, "invalid_value"),
        (post("Transfer-Encoding: gzip\r\n"), 400, "invalid_value"),
    ] {
        let mut stream = connect().await;
        let exchange = async {
            stream.write_all(request.as_bytes()).await?;
            stream.flush().await?;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer).into_owned())
        };
        let answer = fakes::bounded("an answer", exchange).await.expect("no reset");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
        let head = head.to_ascii_lowercase();
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{answer}");
        let error: serde_json::Value = serde_json::from_str(body).expect(&answer);
        assert_eq!(error["error"]["code"], code, "{answer}");
        for line in ["content-type: application/json", "x-request-id: ", "connection: close"] {
            assert!(head.contains(&format!("\r\n{line}")), "{line}: {answer}");
        }
        assert!(head.contains(&format!("\r\ncontent-length: {}", body.len())), "{answer}");
        assert_eq!(head.matches("content-length").count(), 1, "{answer}");
    }
}

#[tokio::test]
async fn malformed_requests_get_the_error_envelope() {
    let sidecar = Sidecar::builtin(&[]).await;
    let address = sidecar.url.strip_prefix("http://").unwrap();
    refuses_heads(async || TcpStream::connect(address).await.unwrap()).await;
}

#[tokio::test]
async fn a_refusal_arrives_over_tls() {
    let upstream = Upstream::start().await;
    let dir = fakes::fresh_dir("refusals");
    let gateway = Gateway::start_in(dir.clone(), &gpu_heavy(&upstream), &["--gateway-tls", "on"]).await;
    let certificate = fakes::eventually("the certificate", async || {
        CertificateDer::from_pem_file(dir.join("gateway-ca.pem")).ok()
    });
    let mut roots = RootCertStore::empty();
    roots.add(certificate.await).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let address = gateway.url.strip_prefix("https://").unwrap();
    for (body, status) in [
        (("POST /v1/chat/completions", WRONG), "401"),
        (("PUT /v1/images/generations", &with_token("")[..]), "405"),
    ] {
        for _ in 0..8 {
            let stream = TcpStream::connect(address).await.unwrap();
            let name = ServerName::try_from("localhost").unwrap();
            let stream = connector.connect(name, stream).await.unwrap();
            assert_eq!(send_all_then_read(stream, body).await, status, "{body:?}");
        }
    }
    refuses_heads(async || {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        connector.connect(name, stream).await.unwrap()
    })
    .await;
}
