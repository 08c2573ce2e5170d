//! Limited resources: file descriptors, and memory for large bodies. Reads `/proc`; skipped on systems without it.

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

use crate::running::{Running, TOKEN, temp_dir};

/// A ready backend that counts image requests, and exhausts the gateway's descriptors before it answers one.
struct Backend {
    url: String,
    requests: Arc<AtomicUsize>,
}

impl Backend {
    fn start() -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", socket.local_addr().unwrap());
        let requests = Arc::new(AtomicUsize::new(0));
        let counter = requests.clone();
        std::thread::spawn(move || {
            for stream in socket.incoming() {
                let counter = counter.clone();
                std::thread::spawn(move || while answer(stream.as_ref().unwrap(), &counter).is_some() {});
            }
        });
        Self { url, requests }
    }
}

/// Answers one request of a keep-alive connection.
fn answer(stream: &TcpStream, requests: &AtomicUsize) -> Option<()> {
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
    let response = if first.starts_with("POST") {
        requests.fetch_add(1, Ordering::SeqCst);
        let request: serde_json::Value = serde_json::from_slice(&body).ok()?;
        // The test sends the gateway's address as the prompt.
        let gateway = request["prompt"].as_str()?;
        idle.extend((0..40).map_while(|_| TcpStream::connect(gateway).ok()));
        std::thread::sleep(Duration::from_millis(300));
        let png =
            ProceduralImage { label: "fake", prompt: "x", seed: 1, size: ImageSize::new(64, 64) }.to_png();
        let count = request["n"].as_u64().unwrap_or(1);
        let one = format!("{{\"b64_json\":\"{}\"}}", base64_simd::STANDARD.encode_to_string(png));
        format!("{{\"created\":1,\"data\":[{}]}}", vec![one; usize::try_from(count).ok()?].join(","))
    } else {
        "ok".to_owned()
    };
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{response}",
        response.len()
    )
    .ok()
}

fn start(dir: &Path, backend: &Backend, limit: &str) -> Running {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{limit} exec \"$0\" \"$@\"")]).arg(env!("CARGO_BIN_EXE_gateway"));
    command.env_clear().arg("--env-file").arg(dir.join(".env")).arg("--ui-image-dir").arg(dir.join("images"));
    command.arg("--gateway-data-dir").arg(dir).args(["--gateway-tls", "off", "--gateway-port", "0"]);
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

fn generate(running: &Running, n: usize) -> String {
    let body = format!("{{\"prompt\":\"{}\",\"size\":\"64x64\",\"n\":{n}}}", running.address);
    running.request_with("POST /v1/images/generations HTTP/1.1", &body)
}

/// How many descriptors the process has open; none without `/proc`.
fn open_descriptors(running: &Running) -> Option<usize> {
    Some(std::fs::read_dir(format!("/proc/{}/fd", running.child.id())).ok()?.count())
}

#[test]
fn files_are_reserved_before_the_backend_gets_the_request() {
    let backend = Backend::start();
    let free = start(&temp_dir("descriptors-free"), &backend, "");
    let Some(base) = open_descriptors(&free) else {
        println!("skipped: no /proc");
        return;
    };
    let limit = base + 6;
    let tight = start(&temp_dir("descriptors-tight"), &backend, &format!("ulimit -n {limit};"));
    let refused = generate(&tight, 10);
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    for part in [
        "gateway_overloaded",
        &format!("all of its {limit} file descriptors"),
        "ulimit -n",
        "x-should-retry: false",
    ] {
        assert!(refused.contains(part), "{part} in {refused}");
    }
    assert_eq!(backend.requests.load(Ordering::SeqCst), 0, "no GPU time was spent");
    // All other descriptors are taken while the image is made; it is stored all the same.
    let made = generate(&tight, 1);
    assert!(made.starts_with("HTTP/1.1 200") && made.contains("/ui/images/"), "{made}");
    assert_eq!(backend.requests.load(Ordering::SeqCst), 1);
    let left = std::fs::read_dir(temp_dir("descriptors-tight").join("images")).unwrap();
    let names =
        left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).filter(|name| name != ".lock");
    assert_eq!(names.filter(|name| name.contains("tmp")).count(), 0, "unused files are removed");
}

#[test]
fn a_low_soft_limit_is_raised_at_start() {
    let backend = Backend::start();
    let running = start(&temp_dir("descriptors-soft"), &backend, "ulimit -S -n 64;");
    let Ok(limits) = std::fs::read_to_string(format!("/proc/{}/limits", running.child.id())) else {
        println!("skipped: no /proc");
        return;
    };
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let soft: u64 = line.split_whitespace().nth(3).unwrap().parse().unwrap();
    assert!(soft > 64, "{line}");
}

/// For the image itself and other allocations of a request, in MiB.
#[cfg(target_os = "linux")]
const MARGIN_MIB: u64 = 16;

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_costs_at_most_four_times_its_length_and_delays_no_health_check() {
    use fakes::hostile_bodies::{Cost, LARGE, all};
    for hostile in all() {
        let (name, expected) = (hostile.name, hostile.gateway);
        let running = Running::start(crate::running::gateway(&temp_dir("bodies"), &[]));
        let url = format!("http://{}", running.address);
        let Cost { status, body, peak_mib, max_health_latency } =
            hostile.send(&url, running.child.id(), TOKEN).await;
        assert_eq!(status, expected, "{name}: {body:.500}");
        assert!(status == 200 || body.len() < 4_000, "{name}: an answer of {} bytes", body.len());
        assert!(peak_mib <= 4 * (LARGE as u64 >> 20) + MARGIN_MIB, "{name}: {peak_mib} MiB");
        assert!(max_health_latency < Duration::from_secs(2), "{name}: no answer for {max_health_latency:?}");
    }
}
