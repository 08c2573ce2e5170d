//! A store of ten thousand images beside an empty one: the time to start, to store an image, to fetch one, and to list a
//! page. Each gateway is a process of its own; their measurements take turns.
//!
//! `cargo bench -p benches --bench full_store -- [images]`

use std::{
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use e2e::gateway::{Gateway, TOKEN};
use fakes::{
    TestResponse,
    child::{self, Child},
    stats::percentile,
    upstream::fake_image,
};
use reqwest::{Method, RequestBuilder};
use serde_json::json;
use wire::openai::images::ImageSize;

const IMAGES: u64 = 10_000;
const STARTS: usize = 20;
const REQUESTS: u64 = 300;
const YAML: &str =
    "backends:\n  gpu_heavy:\n    base_url: http://127.0.0.1:9\n    supported_capabilities: [images]\n";

#[tokio::main]
async fn main() {
    let given: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [first, dir] = &given[..]
        && first == "gateway"
    {
        let flags = ["--images-backend", "mock", "--ui-image-store-max-bytes", "1024GiB"];
        let gateway = Gateway::start_in(dir.into(), YAML, &flags).await;
        return child::listening(&gateway.url).await;
    }
    let images = given.first().and_then(|images| images.parse().ok()).unwrap_or(IMAGES);
    let mut stores = [Store::new("empty", 0), Store::new("full", images)];
    for _ in 0..STARTS {
        stores.iter_mut().for_each(Store::start);
    }
    for nth in 0..REQUESTS {
        for store in &mut stores {
            store.measure_round(nth).await;
        }
    }
    for store in &mut stores {
        store.print();
    }
}

struct Store {
    name: String,
    dir: tempfile::TempDir,
    gateway: Option<Child>,
    starts: Vec<Duration>,
    stored: Vec<Duration>,
    served: Vec<Duration>,
    listed: Vec<Duration>,
}

impl Store {
    fn new(name: &str, images: u64) -> Self {
        let dir = tempfile::tempdir().expect("a writable directory");
        fill(&dir.path().join("pictures"), images);
        let name = format!("{name} ({images} images)");
        let (starts, stored, served, listed) = Default::default();
        Self { name, dir, gateway: None, starts, stored, served, listed }
    }

    /// Once more, until it listens.
    fn start(&mut self) {
        self.gateway = None;
        let start = Instant::now();
        self.gateway = Some(Child::start(&["gateway", &self.dir.path().display().to_string()]));
        self.starts.push(start.elapsed());
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = &self.gateway.as_ref().expect("it was started").url;
        fakes::http().request(method, format!("{url}{path}")).bearer_auth(TOKEN)
    }

    /// Has an image made, fetches it, and lists a page.
    async fn measure_round(&mut self, nth: u64) {
        let request = json!({"prompt": "p", "size": "64x64", "seed": nth}).to_string();
        let request = self.request(Method::POST, "/v1/images/generations").body(request);
        let request = request.header("content-type", "application/json");
        let (made, stored) = timed(request).await;
        let (_, served) =
            timed(self.request(Method::GET, made.json["data"][0]["url"].as_str().expect("a url"))).await;
        let (page, listed) = timed(self.request(Method::GET, "/v1/gateway/images")).await;
        assert!(page.json["total"]["pictures"].as_u64() > Some(nth), "{page:?}");
        self.stored.push(stored);
        self.served.push(served);
        self.listed.push(listed);
    }

    fn print(&mut self) {
        let id = self.gateway.as_ref().expect("it was started").id();
        let memory = child::peak_mib(id);
        let mut p50 = |times: fn(&mut Self) -> &mut Vec<Duration>| percentile(times(self), 50);
        let (start, stored) = (p50(|store| &mut store.starts), p50(|store| &mut store.stored));
        let (served, listed) = (p50(|store| &mut store.served), p50(|store| &mut store.listed));
        let _ = writeln!(
            std::io::stdout(),
            "{}: p50 of start {start:.2?}, store {stored:.2?}, serve {served:.2?}, list 50 {listed:.2?}; peak {memory} MiB",
            self.name
        );
    }
}

async fn timed(request: RequestBuilder) -> (TestResponse, Duration) {
    let start = Instant::now();
    let answer = TestResponse::read(request.send().await.expect("an answer")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    (answer, start.elapsed())
}

fn fill(store: &Path, images: u64) {
    std::fs::create_dir_all(store).expect("a writable directory");
    let bytes = fake_image("full", 1, ImageSize::new(16, 16));
    for nth in 0..images {
        let path: PathBuf = store.join(format!("{}_{nth:016x}.png", 1_736_697_234 + nth));
        std::fs::write(path, &bytes).expect("a writable directory");
    }
}
