//! What happens when the process may open no further file. Counts descriptors in `/proc`; skipped where there is none.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use picture::painter::ProceduralImage;
use wire::openai::images::ImageSize;

use crate::running::{Running, TOKEN, folder};

/// A backend that is ready, counts orders, and fills up the gateway's descriptors before it answers one.
struct Backend {
    url: String,
    orders: Arc<AtomicUsize>,
}

impl Backend {
    fn start() -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", socket.local_addr().unwrap());
        let orders = Arc::new(AtomicUsize::new(0));
        let counted = orders.clone();
        std::thread::spawn(move || {
            for stream in socket.incoming() {
                let orders = counted.clone();
                std::thread::spawn(move || while answer(stream.as_ref().unwrap(), &orders).is_some() {});
            }
        });
        Self { url, orders }
    }
}

/// Answers one request of a kept connection.
fn answer(stream: &TcpStream, orders: &AtomicUsize) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let (mut first, mut line, mut length) = (String::new(), String::new(), 0);
    reader.read_line(&mut first).ok().filter(|read| *read > 0)?;
    while {
        line.clear();
        reader.read_line(&mut line).ok()? > 2
    } {
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let mut idle = Vec::new();
    let said = if first.starts_with("POST") {
        orders.fetch_add(1, Ordering::SeqCst);
        let prompt: serde_json::Value = serde_json::from_slice(&body).ok()?;
        // The prompt is where the gateway listens.
        let gateway = prompt["prompt"].as_str()?;
        idle.extend((0..40).map_while(|_| TcpStream::connect(gateway).ok()));
        std::thread::sleep(Duration::from_millis(300));
        let picture =
            ProceduralImage { label: "fake", prompt: "x", seed: 1, size: ImageSize::new(64, 64) }.to_png();
        let count = prompt["n"].as_u64().unwrap_or(1);
        let one = format!("{{\"b64_json\":\"{}\"}}", base64_simd::STANDARD.encode_to_string(picture));
        format!("{{\"created\":1,\"data\":[{}]}}", vec![one; usize::try_from(count).ok()?].join(","))
    } else {
        "ok".to_owned()
    };
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{said}",
        said.len()
    )
    .ok()
}

fn start(folder: &Path, backend: &Backend, limit: &str) -> Running {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{limit} exec \"$0\" \"$@\"")]).arg(env!("CARGO_BIN_EXE_gateway"));
    command
        .env_clear()
        .arg("--env-file")
        .arg(folder.join(".env"))
        .arg("--ui-image-dir")
        .arg(folder.join("pictures"));
    command.arg("--gateway-data-dir").arg(folder).args(["--gateway-tls", "off", "--gateway-port", "0"]);
    command.args(["--images-http-base-url", &backend.url]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let running = Running::start(command);
    let deadline = Instant::now() + Duration::from_secs(20);
    let status = format!("GET /v1/gateway/status HTTP/1.1\r\nAuthorization: Bearer {TOKEN}");
    while !running.request(&status).contains("\"ready\":true") {
        assert!(Instant::now() < deadline, "the backend is not ready");
        std::thread::sleep(Duration::from_millis(10));
    }
    running
}

fn order(running: &Running, n: usize) -> String {
    let body = format!("{{\"prompt\":\"{}\",\"size\":\"64x64\",\"n\":{n}}}", running.address);
    running.request_with("POST /v1/images/generations HTTP/1.1", &body)
}

/// How many descriptors the process has open.
fn open(running: &Running) -> Option<usize> {
    Some(std::fs::read_dir(format!("/proc/{}/fd", running.child.id())).ok()?.count())
}

#[test]
fn what_storing_needs_is_had_before_the_backend_is_asked() {
    let backend = Backend::start();
    let free = start(&folder("descriptors-free"), &backend, "");
    let Some(base) = open(&free) else {
        println!("skipped: there is no /proc here");
        return;
    };
    let limit = base + 6;
    let tight = start(&folder("descriptors-tight"), &backend, &format!("ulimit -n {limit};"));
    let refused = order(&tight, 10);
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    for part in [
        "gateway_overloaded",
        &format!("all of its {limit} file descriptors"),
        "ulimit -n",
        "x-should-retry: false",
    ] {
        assert!(refused.contains(part), "{part} in {refused}");
    }
    assert_eq!(backend.orders.load(Ordering::SeqCst), 0, "no GPU time was spent");
    // All that is left is taken while the picture is made; it is stored all the same.
    let made = order(&tight, 1);
    assert!(made.starts_with("HTTP/1.1 200") && made.contains("/ui/images/"), "{made}");
    assert_eq!(backend.orders.load(Ordering::SeqCst), 1);
    let left = std::fs::read_dir(folder("descriptors-tight").join("pictures")).unwrap();
    let names =
        left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).filter(|name| name != ".lock");
    assert_eq!(names.filter(|name| name.contains("tmp")).count(), 0, "what was not used is removed");
}

#[test]
fn a_low_soft_limit_is_raised_at_the_start() {
    let backend = Backend::start();
    let running = start(&folder("descriptors-soft"), &backend, "ulimit -S -n 64;");
    let Ok(limits) = std::fs::read_to_string(format!("/proc/{}/limits", running.child.id())) else {
        println!("skipped: there is no /proc here");
        return;
    };
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let soft: u64 = line.split_whitespace().nth(3).unwrap().parse().unwrap();
    assert!(soft > 64, "{line}");
}
