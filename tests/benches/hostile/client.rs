//! Requests over plain sockets that block, so that an attacker can stop at any byte.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use socket2::{Domain, Socket, Type};

/// The timeout of a response.
const TIMEOUT: Duration = Duration::from_mins(2);
/// For a connection and for the answer of `/healthz`.
const HEALTH: Duration = Duration::from_secs(10);

/// A connection from this loopback address.
pub(super) fn connect(from: Ipv4Addr, to: SocketAddr) -> Option<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).ok()?;
    socket.bind(&SocketAddr::new(IpAddr::V4(from), 0).into()).ok()?;
    socket.connect_timeout(&to.into(), HEALTH).ok()?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(TIMEOUT)).ok()?;
    stream.set_write_timeout(Some(TIMEOUT)).ok()?;
    Some(stream)
}

/// The status of a GET; none if the answer does not come.
pub(super) fn get(to: SocketAddr, path: &str) -> Option<u16> {
    let mut stream = connect(Ipv4Addr::LOCALHOST, to)?;
    stream.set_read_timeout(Some(HEALTH)).ok()?;
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).ok()?;
    status(&mut stream)
}

/// Sends a complete request and reads the status.
pub(super) fn send(from: Ipv4Addr, to: SocketAddr, head: &str, body: &[u8]) -> Option<u16> {
    let mut stream = connect(from, to)?;
    // A server that responds before the end of the body may stop reading.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    status(&mut stream)
}

/// The head of a POST.
pub(super) fn post(path: &str, content_type: &str, length: usize, more: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: {content_type}\r\n\
         Content-Length: {length}\r\n{more}\r\n"
    )
}

fn status(stream: &mut TcpStream) -> Option<u16> {
    let mut all = Vec::new();
    let _ = stream.take(1 << 20).read_to_end(&mut all);
    let text = String::from_utf8_lossy(&all);
    text.split(' ').nth(1)?.parse().ok()
}
