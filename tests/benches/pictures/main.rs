//! What the gateway costs for pictures of 2 MiB: a backend that answers at once and the gateway, each in a process of its own;
//! requests a second, processor time and memory of the gateway alone, with one caller and with eight. Other gateways
//! that run already can be measured beside it, in front of a backend of their own (`pictures backend` serves one).
//!
//! `cargo bench -p e2e --bench pictures -- [pictures] [name=url=pid …]`
//!
//! Side by side with a `FastAPI` gateway and `LiteLLM`'s proxy: `tests/peers/run.sh`.

mod backend;
mod peers;

use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use e2e::{
    child::{self, Child},
    figures::percentile,
    gateway::{Gateway, TOKEN},
};
use reqwest::Client;
use serde_json::{Value, json};

/// Of each measurement.
const PICTURES: usize = 400;
const CALLERS: [usize; 2] = [1, 8];
/// Until pools and allocators are warm.
const WARM_UP: usize = 40;
/// A disk in memory, where there is one: what is left without the disk.
const IN_MEMORY: &str = "/dev/shm";

#[tokio::main]
async fn main() {
    let given: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let given: Vec<_> = given.iter().map(String::as_str).collect();
    match given[..] {
        ["backend"] => return backend::serve().await,
        ["gateway", folder, backend] => return gateway(folder, backend).await,
        ["peers", start, ref names @ ..] => return peers::compare(start, names).await,
        _ => {}
    }
    let pictures = given.first().and_then(|pictures| pictures.parse().ok()).unwrap_or(PICTURES);
    let backend = Child::start(&["backend"]);
    measure("backend alone, base64", &backend.url, backend.id(), "url", pictures).await;
    let folders = [std::env::temp_dir(), IN_MEMORY.into()];
    for folder in folders.iter().filter(|folder| folder.is_dir()) {
        for format in ["url", "b64_json"] {
            let own = tempfile::tempdir_in(folder).expect("a writable folder");
            let gateway = Child::start(&["gateway", &own.path().display().to_string(), &backend.url]);
            let name = format!("gateway, store in {}, {format}", folder.display());
            measure(&name, &gateway.url, gateway.id(), format, pictures).await;
        }
    }
    for contestant in given.iter().filter(|argument| argument.contains('=')) {
        let mut parts = contestant.splitn(3, '=');
        let (name, url) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let id = parts.next().and_then(|id| id.parse().ok()).unwrap_or_default();
        measure(name, url, id, "url", pictures).await;
    }
}

/// The gateway that is measured, with a log as it has one in use.
async fn gateway(folder: &str, backend: &str) {
    let log = Path::new(folder).join("gateway.log");
    shared::service::telemetry::start(shared::service::telemetry::Format::Text, "info", Some(&log))
        .expect("a writable log");
    let yaml = format!(
        "backends:\n  gpu_heavy:\n    base_url: {backend}\n    supported_capabilities: [images]\n    \
         concurrency_limits: {{images: 16}}\n"
    );
    let gateway = Gateway::start_in(folder.into(), &yaml, &[]).await;
    gateway.until_ready("gpu_heavy", true).await;
    child::listening(&gateway.url).await;
}

async fn measure(name: &str, url: &str, process: u32, format: &str, pictures: usize) {
    let client = client();
    let order = json!({"prompt": "p", "response_format": format});
    for callers in CALLERS {
        run(&client, url, &order, callers, WARM_UP).await;
        child::forget_peak(process);
        let (before, start) = (child::processor_time(process), Instant::now());
        let mut times = run(&client, url, &order, callers, pictures).await;
        let wall = start.elapsed();
        let processor = child::processor_time(process).saturating_sub(before);
        let count = u32::try_from(pictures).expect("few");
        say(&format!(
            "{name}: c={callers} {:.0} req/s, p50 {:.2?}, p99 {:.2?}, {:.2} ms of processor a picture, peak {} MiB",
            f64::from(count) / wall.as_secs_f64(),
            percentile(&mut times, 50),
            percentile(&mut times, 99),
            (processor / count).as_secs_f64() * 1e3,
            child::peak_mib(process),
        ));
    }
}

fn client() -> Client {
    let client = shared::service::outbound::builder(shared::service::outbound::Connections::Pooled);
    client.timeout(Duration::from_mins(1)).build().expect("a client")
}

async fn run(client: &Client, url: &str, order: &Value, callers: usize, pictures: usize) -> Vec<Duration> {
    let next = AtomicUsize::new(0);
    let caller = async || {
        let mut times = Vec::new();
        while next.fetch_add(1, Ordering::Relaxed) < pictures {
            let start = Instant::now();
            let request = client.post(format!("{url}/v1/images/generations")).bearer_auth(TOKEN);
            let request = request.header("content-type", "application/json").body(order.to_string());
            let answer = request.send().await.expect("an answer");
            assert_eq!(answer.status().as_u16(), 200, "{url}");
            let mut answer = answer;
            while answer.chunk().await.expect("a whole answer").is_some() {}
            times.push(start.elapsed());
        }
        times
    };
    futures_util::future::join_all((0..callers).map(|_| caller())).await.concat()
}

fn say(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{line}");
}
