//! What the gateway costs for images of 2 MiB: a backend that answers at once and the gateway, each in a process of its own;
//! requests a second, processor time and memory of the gateway alone, with one client and with eight. Other gateways
//! that run already can be measured beside it, in front of a backend of their own (`images backend` serves one).
//!
//! `cargo bench -p benches --bench images -- [images] [name=url=pid …]`
//!
//! Side by side with a `FastAPI` gateway and `LiteLLM`'s proxy: `tests/peers/run.sh`.

mod backend;
mod peers;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use e2e::gateway::{Gateway, TOKEN};
use fakes::{
    child::{self, Child},
    plain_http::{self, LoadRequest},
    stats::percentile,
};
use serde_json::{Value, json};

/// Of each measurement.
const IMAGES: usize = 400;
const CALLERS: [usize; 2] = [1, 8];
/// Until pools and allocators are warm.
const WARM_UP: usize = 40;
/// A disk in memory, where there is one: what is left without the disk.
const IN_MEMORY: &str = "/dev/shm";

fn main() {
    let given: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let given: Vec<_> = given.iter().map(String::as_str).collect();
    let runtime = plain_http::runtime();
    match given[..] {
        ["backend"] => runtime.block_on(backend::serve()),
        ["gateway", dir, backend] => gateway(dir, backend),
        ["peers", start, ref names @ ..] => runtime.block_on(peers::compare(start, names)),
        _ => runtime.block_on(alone(&given)),
    }
}

async fn alone(given: &[&str]) {
    let images = given.first().and_then(|images| images.parse().ok()).unwrap_or(IMAGES);
    let backend = Child::start(&["backend"]);
    measure("backend alone, base64", &backend.url, backend.id(), "url", images).await;
    let dirs = [std::env::temp_dir(), IN_MEMORY.into()];
    for dir in dirs.iter().filter(|dir| dir.is_dir()) {
        for format in ["url", "b64_json"] {
            let data = tempfile::tempdir_in(dir).expect("a writable directory");
            let gateway = Child::start(&["gateway", &data.path().display().to_string(), &backend.url]);
            let name = format!("gateway, store in {}, {format}", dir.display());
            measure(&name, &gateway.url, gateway.id(), format, images).await;
        }
    }
    for contestant in given.iter().filter(|argument| argument.contains('=')) {
        let mut parts = contestant.splitn(3, '=');
        let (name, url) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let id = parts.next().and_then(|id| id.parse().ok()).unwrap_or_default();
        measure(name, url, id, "url", images).await;
    }
}

/// The gateway that is measured, with a log as it has one in use.
#[tokio::main]
async fn gateway(dir: &str, backend: &str) {
    let log = Path::new(dir).join("gateway.log");
    service::telemetry::start(service::telemetry::LogFormat::Text, "info", Some(&log))
        .expect("a writable log");
    let yaml = format!(
        "backends:\n  gpu_heavy:\n    base_url: {backend}\n    supported_capabilities: [images]\n    \
         concurrency_limits: {{images: 16}}\n"
    );
    let gateway = Gateway::start_in(dir.into(), &yaml, &[]).await;
    gateway.until_ready("gpu_heavy", true).await;
    child::listening(&gateway.url).await;
}

async fn measure(name: &str, url: &str, process: u32, format: &str, images: usize) {
    let ask = request(&json!({"prompt": "p", "response_format": format}));
    for clients in CALLERS {
        run(&ask, url, clients, WARM_UP).await;
        child::reset_peak(process);
        let (before, start) = (child::processor_time(process), Instant::now());
        let mut times = run(&ask, url, clients, images).await;
        let wall = start.elapsed();
        let processor = child::processor_time(process).saturating_sub(before);
        let count = u32::try_from(images).expect("few");
        say(&format!(
            "{name}: c={clients} {:.0} req/s, p50 {:.2?}, p99 {:.2?}, {:.2} ms of processor per image, peak {} MiB",
            f64::from(count) / wall.as_secs_f64(),
            percentile(&mut times, 50),
            percentile(&mut times, 99),
            (processor / count).as_secs_f64() * 1e3,
            child::peak_mib(process),
        ));
    }
}

/// For images.
fn request(body: &Value) -> Arc<LoadRequest> {
    let body = body.to_string();
    let head = format!(
        "POST /v1/images/generations HTTP/1.1\r\nHost: ai2\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    Arc::new(LoadRequest { opening: None, request: (head + &body).into() })
}

/// How long each took.
async fn run(ask: &Arc<LoadRequest>, url: &str, clients: usize, images: usize) -> Vec<Duration> {
    let next = AtomicUsize::new(0);
    ask.over(url, clients, move || next.fetch_add(1, Ordering::Relaxed) < images).await
}

fn say(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{line}");
}
